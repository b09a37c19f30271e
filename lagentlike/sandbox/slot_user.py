"""Isolation inside a container: a user of its own for each slot."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import ClassVar

from ..errors import SandboxUnavailable
from .isolation import Isolation, Launch
from .limits import Limits
from .process import Process

__all__ = ["SlotUser"]

_FIRST, _COUNT = 20_000, 40_000
_SHARED = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # places that every user may write to


class SlotUser(Isolation):
    """A user of its own for each slot, for containers in which bubblewrap cannot work.

    Slots cannot read each other's files nor touch each other's processes; what holds them back from the machine, and
    bounds their memory, is the container. They share its network. The number of processes of each is bounded.

    It needs root in the container.
    """

    name: ClassVar[str] = "user"

    def _check(self, launch: Launch) -> None:
        if os.geteuid() != 0:
            raise SandboxUnavailable("slots can only have users of their own where the sandbox server is root")
        if not _can_run(sys.executable):
            raise SandboxUnavailable(
                f"users of slots cannot run {sys.executable}: put Python where all users can read it"
            )

    def hand_over(self, path: Path) -> None:
        """Give a path to the user of its slot: what is in one directory is of one slot."""
        owners = (other.lstat().st_uid for other in path.parent.iterdir())
        uid = next((uid for uid in owners if _FIRST <= uid < _FIRST + _COUNT), 0) or next(_uids)
        os.chown(path, uid, uid)

    def environment(self, workspace: Path | None = None) -> dict[str, str]:
        home = "/" if workspace is None else str(workspace)
        path = os.environ.get("PATH", os.defpath)
        return {"HOME": home, "LANG": "C.UTF-8", "PATH": path, "TERM": "dumb", "USER": "slot", "LOGNAME": "slot"}

    def _start(self, launch: Launch) -> Process:
        uid = 0 if launch.workspace is None else launch.workspace.stat().st_uid
        if uid == 0:
            raise SandboxUnavailable("the workspace belongs to root: make it with scratch_folder()")
        prlimit = shutil.which("prlimit")
        limits = [] if prlimit is None else [prlimit, f"--nproc={launch.limits.processes}", "--core=0"]
        stdin, stdout, stderr = launch.streams
        try:
            popen = subprocess.Popen(
                [*limits, *launch.argv],
                cwd=launch.cwd or launch.workspace,
                env={**self.environment(launch.workspace), **launch.env},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                user=uid,
                group=uid,
                extra_groups=[],
                umask=0o077,
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxUnavailable(f"{launch.argv[0]} cannot be started as user {uid}: {error}") from error
        return _UsersProcess(popen, str(launch.workspace), launch.limits, uid)


class _UsersProcess(Process):
    def __init__(self, popen: subprocess.Popen[bytes], workspace: str, limits: Limits, uid: int) -> None:
        super().__init__(popen, workspace, limits)
        self._uid = uid

    def interrupt(self) -> None:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """Kill everything of the user, whatever group and session it is in."""
        subprocess.run(
            ["bash", "-c", "kill -9 -1"], user=self._uid, group=self._uid, extra_groups=[], check=False, timeout=10
        )

    def _release(self) -> None:
        self.kill()
        for folder in _SHARED:
            for entry in Path(folder).iterdir() if Path(folder).is_dir() else ():
                with suppress(FileNotFoundError):
                    if entry.lstat().st_uid == self._uid:
                        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


@cache
def _can_run(program: str) -> bool:
    """Whether any user can run a program; one in root's home, say, is run by root alone."""
    command = [program, "-I", "-S", "-c", ""]
    try:
        return not subprocess.run(
            command, user=_FIRST, group=_FIRST, extra_groups=[], cwd="/", capture_output=True, check=False, timeout=60
        ).returncode
    except OSError:
        return False


class _Uids:
    """Numbers of users, each given once before any is given again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._numbers = itertools.count()

    def __next__(self) -> int:
        with self._guard:
            return _FIRST + next(self._numbers) % _COUNT


_uids = _Uids()
