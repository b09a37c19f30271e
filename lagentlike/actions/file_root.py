"""The directory that file tools work in, and the sandboxed processes that do the work."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, ToolError
from ..sandbox import Isolation, isolation_of
from .result import clean_text

__all__ = ["Root"]

MAX_WORKERS = 8
"""Most processes that work for one root at a time; who comes later waits."""

MAX_IDLE = 2
"""Processes that are kept for the next call."""

MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of the longest answer that is read: an image of 20 MiB in base 64."""

SECONDS = 60.0
"""How long one piece of work may take."""


class Root:
    """The directory that the file tools work in.

    What they do is done by processes in sandboxes of which the directory is the workspace: nothing that is put into it,
    a link above all, leads them to other files of this machine. A process does one piece of work at a time, in less
    than a millisecond, and is used again; its first start takes about a tenth of a second.

    Args:
        path: the directory; this process's working directory by default.
        confined: False lets paths lead out of it, to whatever the user may read and write; there is no sandbox then,
            which `isolation="unsafe_local"` has to say.
        isolation: how the processes are held back from this machine: `"bwrap"`, an `Isolation`, or `"unsafe_local"`.
            `lagentlike.sandbox.set_default_isolation` changes the default.

    Raises:
        InvalidArgument: there is no such directory, or paths shall lead out of a sandbox.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        confined: bool = True,
        isolation: Isolation | str | None = None,
    ) -> None:
        self.path = (Path.cwd() if path is None else Path(path)).resolve()
        if not self.path.is_dir():
            raise InvalidArgument("root", path, "give a directory that exists")
        self.confined = confined
        self.isolation = isolation_of(isolation)
        if not confined and self.isolation.isolated:
            cure = "in a sandbox there are no other files: give isolation='unsafe_local' too"
            raise InvalidArgument("confined", confined, cure)
        self._idle: list[_Process] = []
        self._places = threading.Semaphore(MAX_WORKERS)
        self._owner = os.getpid()
        weakref.finalize(self, _close_all, self._idle)

    def __reduce__(self) -> Any:
        return Root, (self.path, self.confined, self.isolation)

    def ask(self, action: str, seconds: float = SECONDS, **arguments: Any) -> str:
        """Have a piece of work done; see `file_worker.FileWorker` for what there is.

        Args:
            action: which.
            seconds: how long it may take before it is ended.
            **arguments: of the action, JSON data.

        Raises:
            ToolError: it cannot be done; the message is for the model.
            SandboxUnavailable: there is no sandbox here.
        """
        if self._owner != os.getpid():  # forked: the processes are the parent's
            self.__init__(self.path, self.confined, self.isolation)  # type: ignore[misc]
        with self._places:
            process = self._process()
            try:
                answer = process.ask({"action": action, **arguments}, seconds)
            except BaseException:
                process.close()
                raise
            if len(self._idle) < MAX_IDLE:
                self._idle.append(process)
            else:
                process.close()
        if "error" in answer:
            raise ToolError(str(answer["error"]))
        return str(answer["text"])

    def leaves(self, path: str) -> bool:
        """Whether a path leads out of it."""
        try:
            return not (self.path / Path(path).expanduser()).resolve().is_relative_to(self.path)
        except (OSError, RuntimeError, ValueError):
            return False

    def close(self) -> None:
        """End the processes; the next piece of work starts one again."""
        _close_all(self._idle)

    def _process(self) -> _Process:
        """A process that runs and does nothing."""
        while True:
            try:
                process = self._idle.pop()
            except IndexError:
                return _Process(self)
            if process.is_alive:
                return process
            process.close()  # it was killed meanwhile, for want of memory, say


class _Process:
    """A `file_worker`, for one piece of work at a time."""

    def __init__(self, root: Root) -> None:
        self._channel, far = socket.socketpair()
        code = f"{_BOOT} main({str(root.path)!r}, {root.confined})"
        try:
            self._process = root.isolation.start(
                [sys.executable, "-I", "-S", "-c", code],
                workspace=root.path,
                stdin=far.fileno(),
                stdout=far.fileno(),
                stderr=subprocess.PIPE,
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            far.close()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """What it answers.

        Raises:
            ToolError: it takes longer than that, ends, or answers with what is no answer.
        """
        cleaned = {name: clean_text(value) if isinstance(value, str) else value for name, value in request.items()}
        until = time.monotonic() + seconds
        try:
            self._channel.settimeout(seconds)
            self._channel.sendall(json.dumps(cleaned).encode() + b"\n")
            answer = json.loads(self._line(until))
        except TimeoutError:
            raise ToolError(f"it took longer than {seconds:g} seconds: ask for less, or more simply") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ToolError(f"the sandbox of the file tools ended or failed, and is started again: {error}") from None
        if not isinstance(answer, dict) or not answer.keys() & {"text", "error"}:
            raise ToolError("the sandbox of the file tools gave no answer, and is started again")
        if "error" in answer and (news := self._process.news()):
            answer["error"] = f"{answer['error']} ({news})"
        return answer

    def close(self) -> None:
        self._channel.close()
        self._process.close()

    def _line(self, until: float) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            self._channel.settimeout(max(until - time.monotonic(), 0.001))
            piece = self._channel.recv(1 << 18)
            if not piece:
                raise ConnectionError(self._why())
            line += piece
            if len(line) > MAX_ANSWER:
                raise ValueError(f"it answered with more than {MAX_ANSWER:,} bytes")
        return bytes(line)

    def _why(self) -> str:
        self._process.kill()
        assert self._process.stderr is not None
        return self._process.stderr.read(4096).decode("utf-8", "replace").strip() or self._process.ended


def _close_all(processes: list[_Process]) -> None:
    while processes:
        processes.pop().close()


_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = f"import sys; sys.path.insert(0, {_ROOT!r}); from lagentlike.actions.file_worker import main;"
