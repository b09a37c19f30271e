"""How much of the machine a sandbox may use."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import InvalidArgument

__all__ = ["MIB", "Limits"]

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How much of the machine a sandbox may use; `sandbox.report()` says which of them hold here.

    Attributes:
        memory: bytes that all its processes may have together, with what they write to memory-backed folders.
        processes: most processes and threads at a time.
        cpus: processor time each second, in seconds; 1 is one core.
        seconds: how long a command that is waited for may take.
        output: bytes of each output that are kept: half of them its head, half its tail.
        disk: bytes that the workspace may grow by.
        tmp: bytes of `/tmp`, and as many of `/dev/shm`.
        network: whether it may use the network.

    Raises:
        InvalidArgument: a limit is not a positive number.
    """

    memory: int = 1024 * MIB
    processes: int = 64
    cpus: float = 1.0
    seconds: float = 60.0
    output: int = MIB
    disk: int = 1024 * MIB
    tmp: int = 256 * MIB
    network: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "network":
                if not isinstance(value, bool):
                    raise InvalidArgument("network", value, "give True or False")
                continue
            kinds = int | float if field.name in ("cpus", "seconds") else int
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < float("inf"):
                raise InvalidArgument(field.name, value, "give a positive number")
