"""Processes as a test sees them from outside, also those in sandboxes."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_death(pid: int, seconds: float = 10) -> bool:
    """Whether a process is gone by then."""
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


def outside(first: int | None, inner: list[int]) -> list[int]:
    """The numbers here of processes that have others in a sandbox.

    Args:
        first: number here of the sandbox's first process.
        inner: numbers of processes there.
    """
    namespace = Path(f"/proc/{first}/ns/pid").readlink()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "ns/pid").readlink() == namespace:
                (line,) = re.findall(r"NSpid:.*", (process / "status").read_text())
                found[int(line.split()[-1])] = int(process.name)
    return [found[number] for number in inner]
