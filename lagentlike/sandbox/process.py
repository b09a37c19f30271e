"""A process that runs isolated, and how it is followed to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, IO, Protocol, Self

from ..errors import SandboxUnavailable
from .limits import Limits, MIB
from .output import Output
from .proc import descendants
from .spawner import closer

__all__ = [
    "Completed",
    "Followed",
    "Process",
    "close_quietly",
    "follow",
    "follow_async",
    "full_disk",
    "killed_for_memory",
    "problem_of",
    "run_to_end",
    "run_to_end_async",
]

FLOOD = 64 * MIB
"""Bytes that a program may write before it is killed."""

DRAIN_SECONDS = 0.3
"""How long output is waited for that a program left behind may still write."""

END_SECONDS = 10.0
"""How long a process may take to be gone after it was killed."""

_PIECE = 256 * 1024
_STOP_SECONDS = 0.05


class Process(ABC):
    """A program that was started isolated.

    Args:
        popen: the process of this machine that stands for it.
        workspace: its workspace, as it sees it.
        limits: how much of the machine it may use.
    """

    def __init__(self, popen: subprocess.Popen[bytes], workspace: str, limits: Limits) -> None:
        self.popen = popen
        self.workspace = workspace
        self.limits = limits
        self._owner = os.getpid()
        self._closed = False
        self._guard = threading.Lock()
        self._ended = ""
        self._disk_full = self._disk_was_full = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def stdin(self) -> IO[bytes] | None:
        return self.popen.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        return self.popen.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        return self.popen.stderr

    @property
    def returncode(self) -> int | None:
        """Its exit code, -N where signal N killed it; None while it runs."""
        code = self.popen.returncode
        return code if code is None or code <= 128 or not self.shifts_signals else 128 - code

    shifts_signals = False
    """Whether signal N is told as exit code 128 + N."""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        self.popen.poll()
        return self.returncode

    def has_ended(self) -> bool:
        """Whether it has ended; unlike `poll`, this leaves its number to it, so that others can wait for its end."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it takes longer than that.
        """
        self.popen.wait(timeout)
        assert self.returncode is not None
        return self.returncode

    @abstractmethod
    def interrupt(self) -> None:
        """Send SIGINT to the program and what it started, as Ctrl-C does."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it and all that it started, without waiting."""

    def close(self) -> None:
        """Kill it and all that it started, wait until it is gone, and give back what it held; again does nothing.

        Raises:
            subprocess.TimeoutExpired: it is not gone after some seconds.
        """
        if self._owner != os.getpid():
            return  # in a forked child: it is the parent's
        with self._guard:
            if self._closed:
                return
            self._closed = True
        try:
            if self.popen.poll() is None:
                self.kill()
                self.popen.wait(END_SECONDS)
        finally:
            for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
                if pipe is not None:
                    close_quietly(pipe)
            self._release()

    async def close_async(self) -> None:
        """The same, awaited."""
        await asyncio.shield(asyncio.wrap_future(closer.call(self.close)))

    @property
    def ended(self) -> str:
        """Which limit it was killed for: "memory" or "disk"; else empty."""
        return self._ended

    def end(self, limit: str) -> None:
        """Kill it for a limit that it passed."""
        self._ended = limit
        self.kill()

    def epitaph(self) -> str:
        """How it ended, in words for a model: such as "exit code 3", or which limit it passed."""
        code = self.poll()
        if code is None:
            return "it runs"
        return problem_of(self.ended or "ended", code, self.limits) or "exit code 0"

    def memory_kills(self) -> int:
        """How many of its processes were killed since the last time this was asked, for all used too much memory."""
        return 0

    @property
    def disk_full(self) -> bool:
        """Whether its workspace has grown by as much as it may: it can write to no file until something is removed."""
        return self._disk_full

    @disk_full.setter
    def disk_full(self, full: bool) -> None:
        self._disk_full = full
        self._disk_was_full |= full

    def disk_was_full(self) -> bool:
        """Whether it could write to no file at some time since this was asked last."""
        was_full, self._disk_was_full = self._disk_was_full, self._disk_full
        return was_full

    def news(self) -> str:
        """What it lacked since this was asked last, memory or disk, in words for a model; mostly nothing."""
        memory = killed_for_memory(self.limits) if self.memory_kills() else ""
        disk = full_disk(self.limits) if self.disk_was_full() else ""
        return "; ".join(filter(None, (memory, disk)))

    def members(self) -> list[int]:
        """All its processes, by their numbers here."""
        return [self.pid, *descendants(self.pid)]

    @property
    def never_ran(self) -> bool:
        """Whether it ended before the program was started; then what it wrote says why."""
        return False

    @property
    def is_full(self) -> bool:
        """Whether it has so many processes that hardly another one can be started; False where that is not known."""
        return False

    @abstractmethod
    def _release(self) -> None:
        """Give back what it held, after its end."""


@dataclass(frozen=True)
class Completed:
    """What a program did.

    Attributes:
        returncode: its exit code, -N where signal N killed it.
        stdout, stderr: what it wrote; with `stderr=STDOUT`, the default, both are in `stdout`, as they came.
        ending: `ended` by itself; killed since it took too long (`timeout`), wrote too much (`flood`), used more memory
            (`memory`) or disk (`disk`) than it may; or `stopped`, as the caller wished.
        seconds: how long it took.
        memory_kills: how many of its processes were killed for all together used more memory than they may.
        disk_full: whether it was refused to write to files, for its workspace had grown by as much as it may.
    """

    returncode: int
    stdout: Output
    stderr: Output
    ending: str
    seconds: float
    memory_kills: int = 0
    disk_full: bool = False

    @property
    def ok(self) -> bool:
        return self.ending == "ended" and self.returncode == 0

    def problem(self, limits: Limits) -> str:
        """What went wrong, in words for a model; empty if nothing did."""
        problem = problem_of(self.ending, self.returncode, limits)
        if self.ending == "ended" and problem:
            problem += f"; {killed_for_memory(limits)}" if self.memory_kills else ""
            problem += f"; {full_disk(limits)}" if self.disk_full else ""
        return problem


def problem_of(ending: str, returncode: int, limits: Limits) -> str:
    """How a program ended (see `Completed`), in words for a model; empty if nothing went wrong."""
    if ending == "ended":
        if returncode < 0:
            return f"killed by signal {-returncode}"
        return f"exit code {returncode}" if returncode else ""
    return {
        "timeout": f"it took longer than {limits.seconds:g} seconds and was killed",
        "flood": f"it wrote more than {FLOOD // MIB} MiB and was killed",
        "memory": f"it used more than {limits.memory // MIB} MiB of memory and was killed",
        "disk": f"it wrote more than {limits.disk // MIB} MiB to disk, or too many files, and was killed",
        "stopped": "it was cancelled and killed",
    }[ending]


def killed_for_memory(limits: Limits) -> str:
    """What is said where some process was killed for want of memory, in words for a model."""
    return f"more than {limits.memory // MIB} MiB of memory were used, and what used most of it was killed"


def full_disk(limits: Limits) -> str:
    """What is said where files could not be written, in words for a model."""
    return f"the disk was full, since no more than {limits.disk // MIB} MiB may be written to it: remove something"


def run_to_end(process: Process, given: bytes, limits: Limits, stop: threading.Event | None = None) -> Completed:
    """Follow a process to its end, in this thread."""
    following = _Following(process, given, limits)
    try:
        follow(following, stop)
    finally:
        following.close()
    return following.completed()


async def run_to_end_async(process: Process, given: bytes, limits: Limits) -> Completed:
    """Follow a process to its end, awaited."""
    following = _Following(process, given, limits)
    try:
        await follow_async(following)
    finally:
        await asyncio.shield(asyncio.wrap_future(closer.call(following.close)))
    return following.completed()


class Followed(Protocol):
    """What is followed to its end, by whoever waits: an exchange with a process over several descriptors."""

    is_done: bool

    def waits_for(self) -> tuple[list[int], list[int]]:
        """The descriptors that news come from: to be read, and to be written."""

    def patience(self) -> float:
        """Seconds after which it has to be looked at, whatever comes."""

    def advance(self) -> None:
        """Take and give what can be taken and given at once, and look at the clock."""

    def stop(self) -> None:
        """Come to an end soon."""


def follow(followed: Followed, stop: threading.Event | None = None) -> None:
    """Wait in this thread until it is done; `stop` ends it earlier when set."""
    with selectors.DefaultSelector() as selector:
        while not followed.is_done:
            if stop is not None and stop.is_set():
                followed.stop()
            reads, writes = followed.waits_for()
            wanted = dict.fromkeys(reads, selectors.EVENT_READ) | dict.fromkeys(writes, selectors.EVENT_WRITE)
            known = {int(key.fd): key.events for key in selector.get_map().values()}
            for fd in known.keys() - wanted.keys():
                selector.unregister(fd)
            for fd in wanted.keys() - known.keys():
                selector.register(fd, wanted[fd])
            patience = followed.patience()
            selector.select(patience if stop is None else min(patience, _STOP_SECONDS))
            followed.advance()


async def follow_async(followed: Followed) -> None:
    """Await that it is done."""
    loop = asyncio.get_running_loop()
    while not followed.is_done:
        reads, writes = followed.waits_for()
        ready = asyncio.Event()
        for fd in reads:
            loop.add_reader(fd, ready.set)
        for fd in writes:
            loop.add_writer(fd, ready.set)
        try:
            with contextlib.suppress(TimeoutError):  # whether it took too long is seen below
                await asyncio.wait_for(ready.wait(), followed.patience())
        finally:
            for fd in reads:
                loop.remove_reader(fd)
            for fd in writes:
                loop.remove_writer(fd)
        followed.advance()


class _Following:
    """A process on its way to its end: what it reads and writes, and when it has to be killed."""

    def __init__(self, process: Process, given: bytes, limits: Limits) -> None:
        self._process = process
        self._given = memoryview(given)
        self._limits = limits
        self._began = time.monotonic()
        self._deadline = self._began + limits.seconds
        self._ending = ""
        self._gone_at: float | None = None
        self._written = 0
        self.stdout, self.stderr = Output(limits.output), Output(limits.output)
        self._sources: dict[int, Output] = {}
        for pipe, output in ((process.stdout, self.stdout), (process.stderr, self.stderr)):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._sources[pipe.fileno()] = output
        self._sink: int | None = None
        if process.stdin is not None:
            self._sink = process.stdin.fileno()
            os.set_blocking(self._sink, False)
        self._pidfd = os.pidfd_open(process.pid)
        self.is_done = False

    def waits_for(self) -> tuple[list[int], list[int]]:
        reads = [*self._sources, *([] if self._gone_at is not None else [self._pidfd])]
        return reads, [] if self._sink is None else [self._sink]

    def patience(self) -> float:
        if self._gone_at is not None:
            return max(self._gone_at + DRAIN_SECONDS - time.monotonic(), 0)
        return max(self._deadline - time.monotonic(), 0)

    def end(self, ending: str) -> None:
        """Kill it, for a reason."""
        if not self._ending and self._gone_at is None:
            self._ending = ending
            self._deadline = time.monotonic() + END_SECONDS
            self._process.kill()

    def stop(self) -> None:
        self.end("stopped")

    def advance(self) -> None:
        self._write()
        for fd in list(self._sources):
            if fd in self._sources:
                self._read(fd)
        if self._gone_at is None and self._process.poll() is not None:
            self._gone_at = time.monotonic()
            self._close_sink()
        self._look_at_clock()
        self.is_done = self._gone_at is not None and (
            not self._sources or time.monotonic() >= self._gone_at + DRAIN_SECONDS
        )

    def _look_at_clock(self) -> None:
        if self._gone_at is None and time.monotonic() >= self._deadline:
            if self._ending:  # it was killed, and does not go: nothing more can be done
                self._gone_at = time.monotonic() - DRAIN_SECONDS
            else:
                self.end("timeout")

    def close(self) -> None:
        os.close(self._pidfd)
        self._process.close()

    def completed(self) -> Completed:
        if self._process.never_ran:
            said = (self.stderr if self.stderr.size else self.stdout).text().strip()
            raise SandboxUnavailable(f"the sandbox could not be made: {said}")
        code = self._process.returncode
        ending = self._ending or self._process.ended or "ended"
        seconds = time.monotonic() - self._began
        code = -9 if code is None else code
        news = (self._process.memory_kills(), self._process.disk_was_full())
        return Completed(code, self.stdout, self.stderr, ending, seconds, *news)

    def _read(self, fd: int) -> None:
        for _ in range(16):
            try:
                piece = os.read(fd, _PIECE)
            except BlockingIOError:
                return
            except OSError:
                piece = b""
            if not piece:
                del self._sources[fd]
                return
            self._sources[fd].add(piece)
            self._written += len(piece)
            if self._written > FLOOD:
                self.end("flood")
                self._sources.clear()  # what it still writes is not wanted
                return

    def _write(self) -> None:
        if self._sink is None:
            return
        try:
            while self._given:
                self._given = self._given[os.write(self._sink, self._given[:_PIECE]) :]
        except BlockingIOError:
            return
        except OSError:  # it reads no more
            self._given = self._given[:0]
        self._close_sink()

    def _close_sink(self) -> None:
        if self._sink is not None:
            self._sink = None
            assert self._process.stdin is not None
            close_quietly(self._process.stdin)


def close_quietly(pipe: Any) -> None:
    """Close a pipe whose other end may be gone."""
    with contextlib.suppress(OSError):  # what was not written yet has no reader
        pipe.close()
