"""No isolation: programs run as the user, for code that is trusted."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from ..errors import SandboxUnavailable
from .environment import without_secrets
from .folders import OwnedFolder
from .isolation import Isolation, Launch
from .keeper import keeper, MARK
from .limits import Limits
from .proc import all_pids, descendants
from .process import Process

__all__ = ["UnsafeLocal"]


class UnsafeLocal(Isolation):
    """No isolation: programs run as the user and can do what the user can; only for code that you trust.

    They get the environment variables of this process, without those whose names speak of keys, tokens, secrets or
    passwords. Of the limits, only those on time and output hold. What they start is found and killed with them as far
    as it can be found.
    """

    name: ClassVar[str] = "unsafe_local"
    isolated: ClassVar[bool] = False

    def hand_over(self, path: Path) -> None:
        """Code runs as this user, whose it is."""

    def _check(self, launch: Launch) -> None:
        """Nothing can be missing."""

    def environment(self, workspace: Path | None = None) -> dict[str, str]:
        kept = without_secrets()
        kept.pop("PYTEST_CURRENT_TEST", None)  # with it, ipykernel does not show what other programs write
        return kept

    def _start(self, launch: Launch) -> Process:
        folder = launch.workspace
        ours = None
        if folder is None:
            ours = OwnedFolder("scratch")
            folder = ours.path
        mark = keeper.mark()
        stdin, stdout, stderr = launch.streams
        try:
            popen = subprocess.Popen(
                launch.argv,
                cwd=launch.cwd or folder,
                env={**self.environment(), **launch.env, MARK: mark},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxUnavailable(f"{launch.argv[0]} cannot be started: {error}") from error
        return _LocalProcess(popen, str(folder), launch.limits, mark, ours)


_STARTING_SECONDS = 5.0


class _LocalProcess(Process):
    def __init__(
        self, popen: subprocess.Popen[bytes], workspace: str, limits: Limits, mark: str, scratch: OwnedFolder | None
    ) -> None:
        super().__init__(popen, workspace, limits)
        self._mark = mark
        self._scratch = scratch
        _live.add(self)

    def interrupt(self) -> None:
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        if self._owner == os.getpid():
            below = descendants(self.pid) if self.popen.poll() is None else []
            self._signal(signal.SIGKILL)
            for pid in below:
                _kill(pid)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # all of it has ended
            os.killpg(self.pid, number)

    def _release(self) -> None:
        self._signal(signal.SIGKILL)
        _kill_marked(self._mark)
        if self._scratch is not None:
            with suppress(OSError):  # the next process tries again
                self._scratch.remove()
        _live.discard(self)


_live: WeakSet[_LocalProcess] = WeakSet()


@atexit.register
def _end_all() -> None:
    for process in list(_live):
        process.close()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it ended by itself, or is somebody else's by now
        os.kill(pid, signal.SIGKILL)


def _kill_marked(mark: str) -> None:
    """Kill all that was started with a mark in its environment, also what left its group; on Linux only."""
    wanted = f"{MARK}={mark}".encode()
    for _ in range(100):  # what is started while this looks is found the next time
        environs = {pid: _environ_of(pid) for pid in all_pids()}
        found = [pid for pid, environ in environs.items() if environ and wanted in environ.split(b"\0")]
        if not found and not any(_is_starting(pid) for pid, environ in environs.items() if environ == b""):
            return
        for pid in found:
            _kill(pid)
        time.sleep(0.01)


def _environ_of(pid: int) -> bytes | None:
    """A process's environment; None if it is gone or not ours, b"" while it goes from one program to another."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None


def _is_starting(pid: int) -> bool:
    """Whether a process without an environment may yet get one: it is young, and neither dead nor the kernel's."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return False
    age = uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] not in "ZX" and fields[1] not in ("0", "2") and age < _STARTING_SECONDS
