"""How code that nobody trusts is started: the one seam behind which it is isolated."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InvalidArgument, SandboxUnavailable
from ..registry import import_object
from .limits import Limits
from .process import Completed, Process, run_to_end, run_to_end_async
from .spawner import spawner

__all__ = [
    "ISOLATIONS",
    "Isolation",
    "Launch",
    "Mount",
    "default_isolation",
    "isolation_of",
    "sandbox_unavailable",
    "set_default_isolation",
]

SCRATCH = "/workspace"
"""Where the workspace is in a sandbox that was given none: in memory, and gone with the sandbox."""


@dataclass(frozen=True)
class Mount:
    """A file or directory of this machine that a sandbox sees at the same place.

    Attributes:
        source: its absolute path.
        writable: whether it can be changed there.
    """

    source: Path
    writable: bool = False


class Isolation(ABC):
    """A way of running programs that nobody trusts.

    `start` gives a running process with pipes; `run` waits for its end, with limits on time and output. Both exist
    awaited, as `start_async` and `run_async`. No process outlives this one, however this one ends.

    Args:
        limits: how much of the machine each sandbox may use.
    """

    name: ClassVar[str]
    isolated: ClassVar[bool] = True
    """Whether what runs is held back from the machine."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = Limits() if limits is None else limits

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limits!r})"

    def check(self) -> None:
        """See whether it works here; it is looked at once.

        Raises:
            SandboxUnavailable: something is missing, or a control does not hold; says which, and the cure.
        """
        spawner.call(self._check, self._launch(["true"])).result()

    @abstractmethod
    def _check(self, launch: Launch) -> None:
        """The same for what a program would be started in; in the spawner's thread."""

    @abstractmethod
    def environment(self, workspace: Path | None = None) -> dict[str, str]:
        """The environment variables that a program is given without being asked for."""

    @abstractmethod
    def _start(self, launch: Launch) -> Process:
        """Start a program, in the spawner's thread."""

    def _start_checked(self, launch: Launch) -> Process:
        self._check(launch)
        return self._start(launch)

    @abstractmethod
    def hand_over(self, path: Path) -> None:
        """Let code read and write a file or directory of ours, whoever it runs as."""

    def scratch_folder(self, folder: Path) -> Path:
        """Make a directory of ours that is fit to be a workspace or a writable mount."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.hand_over(folder)
        return folder

    def start(
        self,
        argv: Sequence[str],
        *,
        workspace: str | os.PathLike[str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] = (),
        limits: Limits | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.STDOUT,
    ) -> Process:
        """Start a program in a sandbox of its own.

        Args:
            argv: the program, found on the sandbox's PATH, and its arguments; `sys.executable` is there too.
            workspace: the directory it may write to, seen at its own path; without one, `/workspace`, in memory.
            cwd: where it begins, below the workspace; the workspace by default.
            env: environment variables in addition to those of `environment`.
            mounts: what else it sees.
            limits: in place of those of this isolation.
            stdin, stdout, stderr: as for `subprocess.Popen`, or a file descriptor.

        Raises:
            SandboxUnavailable: it cannot be isolated here; nothing was run.
            InvalidArgument: an argument cannot be passed on.
        """
        launch = self._launch(argv, workspace, cwd, env, mounts, limits, stdin, stdout, stderr)
        return spawner.call(self._start_checked, launch).result()

    async def start_async(self, argv: Sequence[str], **options: Any) -> Process:
        """The same, awaited; when it is cancelled, nothing is left running."""
        starting = spawner.call(self._start_checked, self._launch(argv, **options))
        try:
            return await asyncio.wrap_future(starting)
        except asyncio.CancelledError:
            if not starting.cancelled():  # it has begun, with descriptors that its caller is about to close
                await asyncio.wait([asyncio.create_task(_end(starting))])  # which goes on if this is cancelled again
            raise

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002  # as `subprocess.run` calls it
        stop: threading.Event | None = None,
        **options: Any,
    ) -> Completed:
        """Run a program to its end, or until it takes too long or writes too much.

        Args:
            argv: the program and its arguments.
            input: what it reads; none by default.
            stop: kills it when set.
            **options: as for `start`.

        Raises:
            SandboxUnavailable: it cannot be isolated here; nothing was run.
        """
        limits = options.get("limits") or self.limits
        process = self.start(argv, **{"stdin": subprocess.PIPE if input else subprocess.DEVNULL, **options})
        return run_to_end(process, input, limits, stop)

    async def run_async(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002  # as `subprocess.run` calls it
        **options: Any,
    ) -> Completed:
        """The same, awaited; when it is cancelled, the program is killed."""
        limits = options.get("limits") or self.limits
        stdin = subprocess.PIPE if input else subprocess.DEVNULL
        process = await self.start_async(argv, **{"stdin": stdin, **options})
        return await run_to_end_async(process, input, limits)

    def _launch(
        self,
        argv: Sequence[str],
        workspace: str | os.PathLike[str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] = (),
        limits: Limits | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.STDOUT,
    ) -> Launch:
        if isinstance(argv, str) or not argv:
            raise InvalidArgument("argv", argv, "give the program and its arguments, as a list")
        env = dict(env or {})
        for text in (*argv, *env, *env.values()):
            if not isinstance(text, str) or "\0" in text:
                raise InvalidArgument("argv, env", text, "give texts without NUL characters")
        for name in env:
            if not name or "=" in name:
                raise InvalidArgument("env", name, "give names without '='")
        folder = None if workspace is None else Path(workspace).resolve()
        if folder is not None and not folder.is_dir():
            raise InvalidArgument("workspace", workspace, "give a directory that exists")
        return Launch(
            tuple(argv),
            folder,
            None if cwd is None else os.fspath(cwd),
            env,
            tuple(mounts),
            self.limits if limits is None else limits,
            (stdin, stdout, stderr),
        )


@dataclass(frozen=True)
class Launch:
    """A program that is to be started; what its fields mean is said at `Isolation.start`."""

    argv: tuple[str, ...]
    workspace: Path | None
    cwd: str | None
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    limits: Limits
    streams: tuple[int, int, int]


async def _end(starting: Future[Process]) -> None:
    """End a program that is being started, if it does start."""
    begun = asyncio.wrap_future(starting)
    await asyncio.wait([begun])
    if begun.exception() is None:
        await begun.result().close_async()


def default_isolation() -> Isolation:
    """How code is run where nothing else is said: in bubblewrap, unless `set_default_isolation` said otherwise."""
    return _default[0] if _default else isolation_of("bwrap")


def set_default_isolation(isolation: Isolation | str | None) -> None:
    """Say how code is run from now on, in this process, where nothing else is said; None for bubblewrap again."""
    _default[:] = [] if isolation is None else [isolation_of(isolation)]


def isolation_of(given: Isolation | str | None) -> Isolation:
    """The isolation that an argument stands for.

    Args:
        given: an `Isolation`; `"bwrap"`; `"unsafe_local"`, which runs code as the user, with no boundary at all; or
            None for the default.

    Raises:
        InvalidArgument: it is none of these.
    """
    if given is None:
        return default_isolation()
    if isinstance(given, Isolation):
        return given
    if isinstance(given, str) and given in ISOLATIONS:
        made: Isolation = import_object(ISOLATIONS[given])()
        return made
    raise InvalidArgument("isolation", given, f"give {' or '.join(map(repr, ISOLATIONS))}, or an Isolation")


def sandbox_unavailable() -> str | None:
    """Why code cannot be run here as it would be where nothing else is said; None if it can."""
    try:
        default_isolation().check()
    except SandboxUnavailable as error:
        return str(error)
    return None


_default: list[Isolation] = []
ISOLATIONS = {
    "bwrap": "lagentlike.sandbox.bubblewrap.Bwrap",
    "unsafe_local": "lagentlike.sandbox.unsafe_local.UnsafeLocal",
}
"""The isolations by name."""
