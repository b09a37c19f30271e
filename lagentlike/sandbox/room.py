"""A sandbox that stays open: programs are started in it one after another, and see each other."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, IO

from ..errors import SandboxError, SandboxUnavailable
from .frames import BrokenFrame, frame, FrameReader
from .isolation import Isolation
from .limits import Limits

__all__ = ["Room", "RoomProcess"]

START_SECONDS = 60.0
"""How long the room may take to open."""

ANSWER_SECONDS = 20.0
"""How long the start of a program may take."""


class Room:
    """A sandbox that stays open, in which programs are started.

    They share its network, its `/tmp` and its limits. When it is closed, or its first program ends for whatever reason,
    all of them end.

    Args:
        isolation: how it is held back from this machine.
        workspace: the directory that programs may write to.
        limits: how much of the machine all of them may use.

    Raises:
        SandboxUnavailable: it cannot be isolated here.
    """

    def __init__(self, isolation: Isolation, workspace: Path, limits: Limits) -> None:
        near, far = socket.socketpair()
        try:
            self._process = isolation.start(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("room_program.py"))],
                workspace=workspace,
                limits=limits,
                stdin=far.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
        self._inside = _Inside(near)
        self._send_guard = threading.Lock()
        self._numbers = itertools.count()
        threading.Thread(target=self._inside.read, name="lagentlike-room", daemon=True).start()
        if not self._inside.ready.wait(START_SECONDS) or self._inside.is_gone:
            assert self._process.stderr is not None
            self._process.kill()
            said = self._process.stderr.read(4096).decode("utf-8", "replace").strip()
            self.close()
            raise SandboxUnavailable(f"the sandbox could not be made: {said}")

    @property
    def is_open(self) -> bool:
        return not self._inside.is_gone and self._process.poll() is None

    @property
    def is_full(self) -> bool:
        """Whether there are so many processes that hardly another one can be started."""
        return self._process.is_full

    @property
    def end(self) -> str:
        """What is said of its end, in words for a model."""
        return f"the sandbox of this session has ended ({self._process.epitaph()}), and all that ran in it"

    def news(self) -> str:
        """What it lacked since this was asked last; see `Process.news`."""
        return self._process.news()

    def start(
        self, argv: Sequence[str], cwd: str, env: Mapping[str, str], *, stdin: bool = False, extra: int | None = None
    ) -> RoomProcess:
        """Start a program.

        Args:
            argv: it and its arguments.
            cwd: where it begins.
            env: all of its environment variables.
            stdin: whether it has an input that can be written to.
            extra: a descriptor that it gets; its number there becomes the last argument.

        Raises:
            OSError: it cannot be started: it is not there, the directory is not, or there are too many processes.
            SandboxError: the room is no longer open.
        """
        output, output_sink = os.pipe()
        source, sink = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), None)
        given = [source, output_sink, *([] if extra is None else [extra])]
        number = next(self._numbers)
        program = _Program()
        self._inside.programs[number] = program
        try:
            request = {"id": number, "argv": list(argv), "cwd": cwd, "env": dict(env), "descriptors": len(given)}
            self._send(request, given)
            if not program.started.wait(ANSWER_SECONDS) or program.is_lost:
                raise SandboxError(self.end)
            if program.error is not None:
                raise OSError(program.errno, program.error)
        except BaseException:
            self._inside.programs.pop(number, None)
            os.close(output)
            if sink is not None:
                os.close(sink)
            raise
        finally:
            os.close(source)
            os.close(output_sink)
        streams = (None if sink is None else os.fdopen(sink, "wb"), os.fdopen(output, "rb", 0))
        return RoomProcess(program, *streams, partial(self._signal, number))

    def close(self) -> None:
        """End all that runs in it."""
        self._process.close()
        self._inside.close()

    def _signal(self, number: int, signal_number: int) -> None:
        if self.is_open:
            self._send({"id": number, "signal": signal_number}, [])

    def _send(self, request: Mapping[str, Any], descriptors: list[int]) -> None:
        content = frame(dict(request))
        try:
            with self._send_guard:
                sent = socket.send_fds(self._inside.channel, [content], descriptors) if descriptors else 0
                self._inside.channel.sendall(content[sent:])
        except OSError as error:
            raise SandboxError(self.end) from error


class RoomProcess:
    """A program that runs in a room; like a `subprocess.Popen`, as far as it goes."""

    def __init__(
        self, program: _Program, stdin: IO[bytes] | None, stdout: IO[bytes], send_signal: Callable[[int], None]
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self._program = program
        self._send_signal = send_signal

    @property
    def returncode(self) -> int | None:
        return self._program.code

    @property
    def is_lost(self) -> bool:
        """Whether it ended with its room."""
        return self._program.is_lost

    def poll(self) -> int | None:
        """Its exit code, -N where signal N killed it; None while it runs."""
        return self._program.code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it takes longer than that.
        """
        if not self._program.ended.wait(timeout):
            raise subprocess.TimeoutExpired("program", timeout or 0)
        assert self._program.code is not None
        return self._program.code

    def kill(self) -> None:
        """Kill it with its process group."""
        self._send_signal(signal.SIGKILL)


@dataclass
class _Program:
    """What is known of a program in a room."""

    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    code: int | None = None
    error: str | None = None
    errno: int = errno.EIO
    is_lost: bool = False


class _Inside:
    """What comes from a room; what runs there may have written it."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.programs: dict[int, _Program] = {}
        self.ready = threading.Event()
        self.is_gone = False
        self._reader = FrameReader()

    def read(self) -> None:
        """Take note of all that comes, to the end."""
        try:
            while piece := self.channel.recv(65536):
                for answer in self._reader.feed(piece):
                    self._take(answer)
        except (OSError, BrokenFrame):
            self.channel.close()  # it ended, or cannot be understood any more
        finally:
            self.is_gone = True
            self.ready.set()
            for program in list(self.programs.values()):
                program.is_lost = True
                program.code = -signal.SIGKILL if program.code is None else program.code
                program.started.set()
                program.ended.set()

    def close(self) -> None:
        try:
            self.channel.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.is_gone = True  # it is closed already
        self.channel.close()

    def _take(self, answer: Mapping[str, Any]) -> None:
        if "ready" in answer:
            self.ready.set()
        number = answer.get("id")
        program = self.programs.get(number) if isinstance(number, int) else None
        if program is None:
            return
        if "error" in answer:
            program.error = str(answer["error"])[:1000]
            program.errno = answer["errno"] if isinstance(answer.get("errno"), int) else errno.EIO
            program.started.set()
        elif "code" in answer:
            program.code = answer["code"] if isinstance(answer["code"], int) else -signal.SIGKILL
            del self.programs[number]  # type: ignore[arg-type]  # it is an int if there is a program
            program.started.set()
            program.ended.set()
        else:
            program.started.set()
