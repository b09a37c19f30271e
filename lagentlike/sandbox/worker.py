"""A light Python session in a sandbox: it starts in a tenth of a second and answers in less than a millisecond."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import InvalidArgument, KernelDied, SandboxUnavailable
from .frames import BrokenFrame, frame, FrameReader
from .isolation import Isolation, isolation_of, Mount
from .limits import Limits, MIB
from .output import Output
from .process import FLOOD, follow, follow_async, Process

__all__ = ["CellResult", "Worker"]

START_SECONDS = 60.0
"""How long a worker may take to start."""

GRACE_SECONDS = 2.0
"""How long code may take to end after an interrupt, before the worker is killed."""

_PIECE = 256 * 1024


@dataclass(frozen=True)
class CellResult:
    """What a piece of code gave.

    Attributes:
        ok: whether it came to its end without an error.
        value: the last line's value as text, if that line is an expression; else None.
        output: what it wrote: head and tail where it is long.
        error: the traceback, or what else went wrong; empty if nothing did.
        ending: `done`; `interrupted` (it took too long, variables are kept); `killed` (it did not heed the interrupt,
            wrote too much, or broke the protocol); `died` (the process ended by itself). After the last two, the next
            piece of code starts with no variables.
        returncode: of the process, where it is gone.
        seconds: how long it took.
    """

    ok: bool
    value: str | None
    output: str
    error: str
    ending: str
    returncode: int | None
    seconds: float


class Worker:
    """A Python process in a sandbox that keeps its variables from one piece of code to the next.

    It has no IPython and no images: `IPythonInterpreter` is for notebooks, this for thousands of rollouts. One that
    died is started again by the next call. Calls from several threads take turns; awaited calls must.

    Args:
        isolation: how it is held back from this machine; in bubblewrap by default.
        workspace: the directory it may write to; in memory by default, and lost with the process.
        env: more environment variables.
        mounts: what else it sees.
        limits: how much of the machine it may use; `seconds` for each piece of code.

    >>> with Worker() as worker:
    ...     worker.run("x = 20").ok, worker.run("x + 1").value
    (True, '21')
    """

    def __init__(
        self,
        isolation: Isolation | str | None = None,
        *,
        workspace: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] = (),
        limits: Limits | None = None,
    ) -> None:
        self.isolation = isolation_of(isolation)
        self.limits = self.isolation.limits if limits is None else limits
        self._options = {"workspace": workspace, "env": env, "mounts": mounts, "limits": self.limits}
        self._line: _Line | None = None
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close_async()

    @property
    def is_alive(self) -> bool:
        return self._line is not None and self._line.process.poll() is None

    def start(self) -> None:
        """Start its process, if it does not run; `run` does so too.

        Raises:
            SandboxUnavailable: it cannot be isolated here.
            KernelDied: it did not come up.
        """
        if not self.is_alive:
            self.close()
            with _Ends() as ends:
                line = _Line(self.isolation.start(_ARGV, **self._start_options(ends)), ends.take())
            try:
                follow(exchange := _Exchange(line, None, START_SECONDS, self.limits.output))
            except BaseException:
                line.close()
                raise
            self._line = self._came_up(line, exchange)

    async def start_async(self) -> None:
        """The same, awaited."""
        if not self.is_alive:
            await self.close_async()
            with _Ends() as ends:
                line = _Line(await self.isolation.start_async(_ARGV, **self._start_options(ends)), ends.take())
            try:
                await follow_async(exchange := _Exchange(line, None, START_SECONDS, self.limits.output))
            except BaseException:
                line.close()
                raise
            self._line = self._came_up(line, exchange)

    def run(self, code: str, timeout: float | None = None, *, show: str = "repr") -> CellResult:
        """Run a piece of code.

        Args:
            code: Python code.
            timeout: seconds it may take; those of the limits by default.
            show: how the last line's value becomes text: by `repr` or `str`.

        Raises:
            InvalidArgument: the code is no text, or the time none that code can take.
            SandboxUnavailable: it cannot be isolated here.
            KernelDied: it did not come up.
        """
        seconds = self._checked(code, timeout)
        with self._turn:
            self.start()
            assert self._line is not None
            exchange = self._exchange(code, seconds, show)
            try:
                follow(exchange)
            except BaseException:  # such as the user's Ctrl-C: the next answer would be that of this code
                self.close()
                raise
            if exchange.is_lost:
                self.close()
            return exchange.result()

    async def run_async(self, code: str, timeout: float | None = None, *, show: str = "repr") -> CellResult:
        """The same, awaited; when it is cancelled, the process is killed."""
        seconds = self._checked(code, timeout)
        await self.start_async()
        exchange = self._exchange(code, seconds, show)
        try:
            await follow_async(exchange)
        except BaseException:
            await self.close_async()
            raise
        if exchange.is_lost:
            await self.close_async()
        return exchange.result()

    def interrupt(self) -> None:
        """Have the code that runs raise KeyboardInterrupt, from whatever thread."""
        line = self._line
        if line is not None:
            line.process.interrupt()

    def kill(self) -> None:
        """End the process at once, from whatever thread; what runs in it ends as `died`."""
        line = self._line
        if line is not None:
            line.process.kill()

    def restart(self) -> None:
        """Begin again with no variables."""
        self.close()
        self.start()

    def close(self) -> None:
        """End the process."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    async def close_async(self) -> None:
        """The same, awaited."""
        line, self._line = self._line, None
        if line is not None:
            await line.close_async()

    def _start_options(self, ends: _Ends) -> dict[str, Any]:
        return {**self._options, "stdin": ends.far.fileno(), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    def _checked(self, code: str, timeout: float | None) -> float:
        """The seconds that a piece of code may take."""
        if not isinstance(code, str):
            raise InvalidArgument("code", code, "give Python code as a text")
        seconds = self.limits.seconds if timeout is None else timeout
        if not 0 <= seconds < math.inf:
            raise InvalidArgument("timeout", timeout, "give a number of seconds, or None for those of the limits")
        return seconds

    def _exchange(self, code: str, seconds: float, show: str) -> _Exchange:
        assert self._line is not None
        request = {"id": self._line.next_id(), "code": code, "show": show}
        return _Exchange(self._line, request, seconds, self.limits.output)

    def _came_up(self, line: _Line, exchange: _Exchange) -> _Line:
        if exchange.ending == "done":
            return line
        line.close()
        result = exchange.result()
        if line.process.never_ran:
            raise SandboxUnavailable(f"the sandbox could not be made: {result.output}")
        raise KernelDied(f"the worker did not start: {result.output or result.error}", returncode=result.returncode)


_ARGV = (sys.executable, "-I", str(Path(__file__).with_name("worker_program.py")))


class _Ends:
    """Both ends of the socket to a worker; what is not taken is closed."""

    def __enter__(self) -> Self:
        self.near, self.far = socket.socketpair()
        self._taken = False
        return self

    def take(self) -> socket.socket:
        self._taken = True
        return self.near

    def __exit__(self, *_: object) -> None:
        self.far.close()
        if not self._taken:
            self.near.close()


class _Line:
    """A running worker: its process, and the socket to it."""

    def __init__(self, process: Process, channel: socket.socket) -> None:
        output = process.stdout
        assert output is not None
        self.process = process
        self.channel = channel
        self.reader = FrameReader()
        self.pidfd = os.pidfd_open(process.pid)
        self.output = output.fileno()
        self._id = 0
        channel.setblocking(False)
        os.set_blocking(self.output, False)

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def close(self) -> None:
        self.process.close()
        self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    async def close_async(self) -> None:
        await self.process.close_async()
        self.close()


class _Exchange:
    """A request to a worker and all that comes until it is answered; None for the sign that it is ready."""

    def __init__(self, line: _Line, request: Mapping[str, Any] | None, seconds: float, room: int) -> None:
        self._line = line
        self._id = None if request is None else request["id"]
        self._out = memoryview(b"" if request is None else frame(dict(request)))
        self._seconds = seconds
        self._began = time.monotonic()
        self._deadline = self._began + seconds
        self._answer: Mapping[str, Any] = {}
        self._output = Output(room)
        self._problem = ""
        self._is_open = True
        self.ending = ""
        self.is_done = False

    @property
    def is_lost(self) -> bool:
        """Whether the process is gone or must go."""
        return self.ending in ("died", "killed")

    def waits_for(self) -> tuple[list[int], list[int]]:
        channel = [self._line.channel.fileno()]
        reads = [self._line.output, self._line.pidfd]
        return [*reads, *channel] if self._is_open else reads, channel if self._out else []

    def patience(self) -> float:
        return max(self._deadline - time.monotonic(), 0)

    def stop(self) -> None:
        self._deadline = min(self._deadline, time.monotonic())

    def advance(self) -> None:
        self._write()
        self._read_output()
        self._read_answer()
        if self._answer or self.ending in ("died", "killed"):
            self._read_output()  # what was written before the answer is in the pipe by now
            self.ending = self.ending or "done"
            self.is_done = True
        elif self._line.process.poll() is not None:
            self._read_output()
            self.ending = "died"
            self.is_done = True
        elif time.monotonic() >= self._deadline:
            self._overran()
            self.is_done = self.ending == "killed"

    def result(self) -> CellResult:
        answer = self._answer
        value, error = answer.get("value"), answer.get("error")
        return CellResult(
            ok=self.ending == "done" and answer.get("ok") is True,
            value=_clean(value) if isinstance(value, str) and self.ending == "done" else None,
            output=_clean(self._output.text()),
            error=self._problem_text() or (_clean(error) if isinstance(error, str) else ""),
            ending=self.ending,
            returncode=self._line.process.poll(),
            seconds=time.monotonic() - self._began,
        )

    def _problem_text(self) -> str:
        if self._problem:
            return self._problem
        late = f"the code took longer than {self._seconds:g} seconds"
        return {
            "interrupted": f"{late} and was interrupted; variables are kept",
            "killed": f"{late}, did not heed the interrupt, and was killed: all variables are gone",
            "died": f"the process died ({self._line.process.epitaph()}): all variables are gone",
        }.get(self.ending, "")

    def _overran(self) -> None:
        if not self._is_open:
            self._kill("the process closed its connection and was killed: all variables are gone")
        elif self.ending:
            self._kill("")
        else:
            self.ending = "interrupted"
            self._deadline = time.monotonic() + GRACE_SECONDS
            self._line.process.interrupt()

    def _kill(self, problem: str) -> None:
        self.ending, self._problem = "killed", problem
        self._line.process.kill()

    def _write(self) -> None:
        try:
            while self._out:
                self._out = self._out[os.write(self._line.channel.fileno(), self._out[:_PIECE]) :]
        except BlockingIOError:
            return
        except OSError:  # it reads no more: that it died is seen in a moment
            self._out = self._out[:0]

    def _read_output(self) -> None:
        for _ in range(16):
            try:
                piece = os.read(self._line.output, _PIECE)
            except OSError:  # nothing more for now
                return
            if not piece:
                return
            self._output.add(piece)
            if self._output.size > FLOOD:
                self._kill(f"it wrote more than {FLOOD // MIB} MiB and was killed: all variables are gone")
                return

    def _read_answer(self) -> None:
        if not self._is_open:
            return
        try:
            piece = os.read(self._line.channel.fileno(), _PIECE)
            answers = self._line.reader.feed(piece)
        except BlockingIOError:
            return
        except BrokenFrame as error:
            self._kill(f"the process broke the protocol and was killed: {error}")
            return
        except OSError:
            piece, answers = b"", []
        if not piece:  # no answer can come any more: it is about to be gone
            self._is_open = False
            self._out = self._out[:0]
            self._deadline = min(self._deadline, time.monotonic() + GRACE_SECONDS)
        elif answers:
            number = answers[0].get("id")
            if len(answers) > 1 or number != self._id or isinstance(number, bool):
                self._kill("the process broke the protocol and was killed: it gave an answer to nothing")
            else:
                self._answer = answers[0]


def _clean(text: str) -> str:
    """Valid Unicode: lone surrogates become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
