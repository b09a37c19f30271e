"""The program that waits for the end of another process, and ends what that one left behind.

It needs nothing but Python: `python -I -S keeper_program.py MARK GROUP...` waits until nobody can write to its stdin
any more; then it kills all processes that have in their environment what begins with the mark, and all in control
groups whose paths begin with those that are given, and removes these groups.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from glob import glob

__all__ = ["main"]

SECONDS = 5.0
"""How long it tries."""

_QUIET_SECONDS = 0.2
"""How long nothing must be found: a process that is just being started has no environment to be found by."""


def main() -> None:
    """Wait, and end what was left behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        continue
    mark, groups = sys.argv[1].encode(), sys.argv[2:]
    quiet = time.monotonic()
    until = quiet + SECONDS
    while (now := time.monotonic()) < until and now < quiet + _QUIET_SECONDS:
        found = {*_marked(mark), *_members(groups)} - {os.getpid()}
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for folder in _folders(groups):
            with suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106  # pathlib takes longer to import than this program to run
        if found:
            quiet = time.monotonic()
        time.sleep(0.01)


def _marked(mark: bytes) -> Iterator[int]:
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and any(
            variable.startswith(mark) for variable in _read(f"/proc/{name}/environ").split(b"\0")
        ):
            yield int(name)


def _members(groups: list[str]) -> Iterator[int]:
    for folder in _folders(groups):
        yield from (int(pid) for pid in _read(f"{folder}/cgroup.procs").split())


def _folders(groups: list[str]) -> list[str]:
    return [folder for group in groups for folder in glob(f"{group}*")]  # noqa: PTH207


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""


if __name__ == "__main__":
    main()
