"""IPython shells in several worker processes."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InvalidArgument, KernelDied, ToolTimeout
from ..memory import SessionId
from ..memory.state import check_session_id
from ..sandbox import Isolation, isolation_of
from ..schema import ActionReturn
from .base import BaseAction, tool_api
from .code import extract_code
from .function import checked_max_length, checked_timeout
from .result import clean_text, failed
from .running import PreparedCall, run_calls
from .session import Unsaved
from .unsafe_ipython import ShellResult
from .workers import when_given_up

__all__ = ["IPythonInteractiveManager", "ShellAction", "ShellWorkers"]


class ShellAction(BaseAction):
    """What tools whose shells are in `ShellWorkers` have in common."""

    aliases: ClassVar[Mapping[str, str]] = {"code": "command"}
    interruptible = True
    workers: ShellWorkers

    @tool_api
    def run(self, command: str, session_id: SessionId = 0) -> ActionReturn:
        """Run Python code in a live session that keeps its variables; print what you want to see.

        Args:
            command: The Python code.
        """
        try:
            return self.workers.run(session_id, extract_code(command)).as_return(self.name)
        except (KernelDied, ToolTimeout) as error:
            return failed(str(error), self.name)

    def close(self) -> None:
        """End the processes."""
        self.workers.close()


class IPythonInteractiveManager(ShellAction):
    """Run Python code in IPython shells that keep their variables, spread over several processes.

    Each session has a shell of its own, in one of the processes; code of sessions in different processes runs at once.
    Each process is in a sandbox, without a network and with a workspace in memory; sessions that share one are not held
    back from each other, as those of `IPythonInteractive` are. A process whose code takes too long is killed, and the
    variables of its sessions are gone.

    Args:
        max_workers: most processes; they are started when they are needed.
        timeout: seconds that a call may take.
        max_out_len: most characters of output.
        isolation: how the processes are held back from this machine: `"bwrap"`, an `Isolation`, or `"unsafe_local"`,
            with which they run as the user.
        description: what models are told, in place of the docstring of `run`.
        name: its name.

    Called from Python it takes one piece of code, or a list of them with a list of sessions, and runs those at once:

    >>> manager = IPythonInteractiveManager(max_workers=2)
    >>> [one.format_result() for one in manager(["1 + 1", "2 + 2"], [0, 1])]
    ['2', '4']
    >>> manager.close()
    """

    def __init__(
        self,
        max_workers: int = 4,
        timeout: float = 20,
        max_out_len: int = 8192,
        isolation: Isolation | str | None = None,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(description, name)
        if isinstance(max_workers, bool) or not isinstance(max_workers, int) or max_workers < 1:
            raise InvalidArgument("max_workers", max_workers, "give a whole number of at least 1")
        seconds = checked_timeout(timeout)
        if seconds is None:
            raise InvalidArgument("timeout", timeout, "give seconds")
        self.max_length = checked_max_length(max_out_len)
        self.workers = ShellWorkers(max_workers, seconds, self.max_length, isolation_of(isolation))
        weakref.finalize(self, ShellWorkers.close, self.workers)

    def __call__(  # type: ignore[override]  # also a list of calls
        self,
        commands: Mapping[str, Any] | str | Sequence[str],
        indexes: SessionId | Sequence[SessionId] | None = None,
        name: str = "run",
        session_id: SessionId = 0,
    ) -> Any:
        """Run code, or several pieces of code at once.

        Args:
            commands: the code, or a list of codes.
            indexes: the session of it, or of each; a list without sessions runs in 0, 1, 2 ….
            name: as for every action.
            session_id: the session, where `indexes` is not given.

        Returns:
            An `ActionReturn`, or a list of them in order.
        """
        if isinstance(commands, str | Mapping):
            return super().__call__(commands, name, session_id if indexes is None else indexes)
        sessions = list(range(len(commands))) if indexes is None else indexes
        if not isinstance(sessions, Sequence) or isinstance(sessions, str) or len(sessions) != len(commands):
            raise InvalidArgument("indexes", indexes, f"give a session for each of the {len(commands)} commands")
        api = self.apis()["run"]
        calls: list[PreparedCall] = [
            api.prepare({"command": command}, session) for command, session in zip(commands, sessions, strict=True)
        ]
        return run_calls(calls, len(calls) if self.workers.most is None else self.workers.most)


class ShellWorkers(Unsaved):
    """Processes with shells, and which sessions are in which.

    Args:
        most: most processes; None for one for each session.
        timeout: seconds that a piece of code may take; None for no limit.
        max_length: most characters of output.
        isolation: how the processes are held back from this machine.
    """

    def __init__(self, most: int | None, timeout: float | None, max_length: int, isolation: Isolation) -> None:
        self.most = most
        self._timeout = threading.TIMEOUT_MAX if timeout is None else timeout
        self._max_length = max_length
        self._isolation = isolation
        self._begin()

    def _begin(self) -> None:
        self._guard = threading.Lock()
        self._workers: list[_Worker] = []
        self._homes: dict[SessionId, _Worker] = {}
        self._owner = os.getpid()

    def _check_owner(self) -> None:
        """In a forked child, begin anew: the processes are the parent's."""
        if self._owner != os.getpid():
            self._begin()

    def session_ids(self) -> list[SessionId]:
        self._check_owner()
        return list(self._homes)

    def reset(self, session_id: SessionId) -> None:
        self._check_owner()
        with self._guard:
            worker = self._homes.pop(session_id, None)
        if worker is None:
            return
        if self.most is None:
            self._drop(worker)
        else:
            worker.forget(session_id)

    def run(self, session_id: SessionId, code: str) -> ShellResult:
        self._check_owner()
        worker = self._home(check_session_id(session_id))
        stop = threading.Event()
        try:
            with when_given_up(stop.set):
                return worker.run(session_id, code, self._timeout, self._max_length, stop)
        except (KernelDied, ToolTimeout):
            self._drop(worker)
            raise

    def close(self) -> None:
        self._check_owner()
        with self._guard:
            workers, self._workers, self._homes = self._workers, [], {}
        for worker in workers:
            worker.close()

    def _drop(self, worker: _Worker) -> None:
        with self._guard:
            self._homes = {one: home for one, home in self._homes.items() if home is not worker}
            if worker in self._workers:
                self._workers.remove(worker)
        worker.close()

    def _home(self, session_id: SessionId) -> _Worker:
        """The session's worker; for a new session, the one with the fewest."""
        with self._guard:
            if session_id not in self._homes:
                homes = list(self._homes.values())
                if self.most is None or len(self._workers) < self.most:
                    self._workers.append(_Worker(self._isolation))
                    self._homes[session_id] = self._workers[-1]
                else:
                    self._homes[session_id] = min(self._workers, key=homes.count)
            return self._homes[session_id]


class _Worker:
    """A process with shells, which is sent code as a line of JSON and answers with one."""

    def __init__(self, isolation: Isolation) -> None:
        self._lock = threading.Lock()
        self._forgotten: list[str] = []
        self._started = False
        self._lost = ""  # why nobody can use it any more
        self._pending = b""
        self._process = isolation.start(
            [sys.executable, "-m", f"{__package__}.shell_worker"],
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def run(
        self, session_id: SessionId, code: str, timeout: float, max_length: int, stop: threading.Event
    ) -> ShellResult:
        with self._lock:
            if self._lost:
                raise KernelDied(f"{self._lost}: all variables are gone; the next call starts a new one")
            if not self._started:
                self._started = self._answer(START_SECONDS) is not None
            if stop.is_set():
                return ShellResult("nobody waits for it any more", failed=True)
            forgotten, self._forgotten = self._forgotten, []
            self._send({"session": repr(session_id), "code": code, "forget": forgotten, "max_length": max_length})
            answer = self._answer(timeout, stop)
            if answer is not None:
                return answer
            self._process.interrupt()
            if self._answer(GRACE_SECONDS) is not None:
                return ShellResult(
                    f"the code took longer than {timeout:g} seconds and was interrupted; variables are kept",
                    failed=True,
                )
            self._lost = "the process was killed with code that did not end"
        raise ToolTimeout(f"the code took longer than {timeout:g} seconds and was killed: all variables are gone")

    def forget(self, session_id: SessionId) -> None:
        """Drop the session's shell with the next request."""
        self._forgotten.append(repr(session_id))

    def close(self) -> None:
        self._process.close()

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._died() from error

    def _answer(self, seconds: float, stop: threading.Event | None = None) -> ShellResult | None:
        """The next answer, if it comes in time and before the stop; code may have written it: it is read with care."""
        pipe = self._process.stdout
        assert pipe is not None
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                left = max(until - time.monotonic(), 0)
                if not selector.select(left if stop is None else min(left, STOP_SECONDS)):
                    if left == 0 or (stop is not None and stop.is_set()):
                        return None
                    continue
                piece = os.read(pipe.fileno(), 65536)
                self._pending += piece
                if not piece or len(self._pending) > MAX_ANSWER:
                    raise self._died()
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            answer = json.loads(line)
            return ShellResult(clean_text(str(answer["text"])), bool(answer["failed"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._died() from error

    def _died(self) -> KernelDied:
        self._process.close()
        self._lost = f"the process died ({self._process.epitaph()})"
        return KernelDied(
            f"{self._lost}: all variables are gone; the next call starts a new one",
            returncode=self._process.returncode,
        )


START_SECONDS = 60.0
GRACE_SECONDS = 2.0
STOP_SECONDS = 0.05
"""How soon it is seen that nobody waits any more."""
MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of the largest answer that is read."""
