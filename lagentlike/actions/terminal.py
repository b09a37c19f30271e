"""Shell commands, and programs that go on in the background."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from ..errors import InvalidArgument, ToolError
from ..memory import SessionId
from ..memory.state import SessionValue
from ..sandbox import Isolation, isolation_of, sandbox_unavailable
from ..sandbox.environment import is_secret_name
from ..sandbox.keeper import MARK
from ..sandbox.output import Output
from ..sandbox.room import Room
from ..schema import ActionReturn, ActionStatusCode
from .base import BaseAction, tool_api
from .danger import danger_of
from .function import checked_max_length, checked_timeout
from .result import as_seen, clean_text, shortened
from .session import Unsaved
from .workers import submit_from_loop

__all__ = ["Process", "Terminal", "terminal_tools", "terminal_unavailable"]

MAX_OUTPUT = 64 * 1024 * 1024
"""Bytes that a command may write before it is killed."""

MAX_TIMEOUT = 600.0
MAX_PROCESSES = 16
"""Most programs in the background of one session."""

MAX_STATE = 1024 * 1024
"""Bytes of a working directory and variables that are read."""

_KILL_SECONDS = 5.0
_DRAIN_SECONDS = 0.3
"""How long output is waited for that a program left behind may still write."""


class Terminal(BaseAction):
    """Run shell commands; each session has a working directory and environment variables of its own.

    Each session has a sandbox, in which each command is a process of its own, in a process group of its own. All that
    it can change is the directory where it begins, with all below it, and a `/tmp` of its own; it has no network, other
    than the one between its own programs. `cd` and exported variables last from one command to the next, and are saved
    and forked with the session.

    A command that takes too long is killed with its process group, and one that writes more than 64 MiB too. What it
    started and left behind is killed when the session is reset, with `close()`, and when this object is no longer used.

    Args:
        cwd: where sessions begin, and what they can change; this process's working directory by default.
        timeout: seconds that a command may take where the call does not say, at most 600.
        max_out_len: most characters of output; longer ones keep their head and their tail.
        env: more environment variables.
        network: whether commands reach the network, and with it the servers of this machine.
        isolation: how commands are held back from this machine: `"bwrap"`, an `Isolation`, or `"unsafe_local"`, with
            which they run as the user and with the user's environment variables, but for those whose names speak of
            keys, tokens, secrets or passwords. `lagentlike.sandbox.set_default_isolation` changes the default.
        description: what models are told, in place of the docstring of `run`.
        name: its name.
    """

    def __init__(
        self,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float = 60,
        max_out_len: int = 16_384,
        env: Mapping[str, str] | None = None,
        network: bool = False,
        isolation: Isolation | str | None = None,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = "terminal",
    ) -> None:
        super().__init__(description, name)
        self.seconds = _bounded_timeout(timeout)
        self.max_length = checked_max_length(max_out_len)
        self.needs_approval = _danger_of_call
        workspace = Path.cwd() if cwd is None else Path(cwd).resolve()
        chosen = isolation_of(isolation)
        limits = replace(chosen.limits, network=network or chosen.limits.network)
        self.places = _Places(workspace)
        self.processes = _Processes(lambda: Room(chosen, workspace, limits))
        self._env = {**chosen.environment(workspace), **(env or {})}
        weakref.finalize(self, _Processes.kill_all, self.processes)

    @tool_api
    async def run(
        self, command: str, timeout: float | None = None, background: bool = False, session_id: SessionId = 0
    ) -> ActionReturn:
        """Run a shell command (bash where there is one). The working directory and exported variables are kept.

        There is no input: a command that asks for some fails. Start servers and other programs that do not end with
        background, and look after them with the tool `process`.

        Args:
            command: The command.
            timeout: Seconds it may take, at most 600.
            background: Whether to go on without waiting for its end.
        """
        if background:
            return _text(f"started as {await submit_from_loop(self._start, session_id, command)}")
        seconds = self.seconds if timeout is None else _bounded_timeout(timeout)
        stop = threading.Event()
        try:
            return await submit_from_loop(self._run, session_id, command, seconds, stop)
        except asyncio.CancelledError:
            stop.set()
            raise

    def close(self, session_id: SessionId | None = None) -> None:
        """Kill what a session, or any, has running."""
        for one in self.processes.session_ids() if session_id is None else [session_id]:
            self.processes.reset(one)

    def _start(self, session_id: SessionId, command: str) -> str:
        place = self.places[session_id]
        program = self.processes.start(session_id, command, place["cwd"], self._environment(place), stdin=True)
        return self.processes.add(session_id, program)

    def _run(self, session_id: SessionId, command: str, seconds: float, stop: threading.Event) -> ActionReturn:
        with self.processes.turn(session_id):
            place = self.places[session_id]
            with _State() as state:
                environment = self._environment(place)
                program = self.processes.start(session_id, command, place["cwd"], environment, state=state.sink)
                ending = program.wait(seconds, stop, state.take)
                written = state.written()
            if written:
                self.places[session_id] = _place(written, place, self._environment(None))
        return self._returned(program, ending, seconds)

    def _returned(self, program: _Program, ending: str, seconds: float) -> ActionReturn:
        output = shortened(_shown(program.output.content()), self.max_length)
        news = program.bad_news()
        if ending == "ended" and program.returncode == 0:
            return _text(output or "(no output)")
        problem = {
            "ended": f"exit code {program.returncode}",
            "timeout": f"it took longer than {seconds:g} seconds and was killed",
            "flood": f"it wrote more than {MAX_OUTPUT // 2**20} MiB and was killed",
            "stopped": "it was cancelled and killed",
        }[ending]
        if ending == "ended" and program.returncode < 0:
            problem = f"killed by signal {-program.returncode}"
        problem = "; ".join(filter(None, (problem, news)))
        message = f"{output}\n({problem})" if output else f"({problem})"
        items = [{"type": "text", "content": output}]
        return ActionReturn(type=self.name, result=items, errmsg=message, state=ActionStatusCode.API_ERROR)

    def _environment(self, place: Mapping[str, Any] | None) -> dict[str, str]:
        """What a command of a session is given; None for a session that has changed nothing."""
        kept = dict(self._env)
        if place is not None:
            kept.update(place["set"])
            for name in place["unset"]:
                kept.pop(name, None)
        return kept


class Process(BaseAction):
    """Look after the programs that a `Terminal` runs in the background.

    Args:
        terminal: whose programs.
        name: its name.
    """

    def __init__(self, terminal: Terminal, name: str | None = "process") -> None:
        super().__init__(None, name)
        self.processes = terminal.processes

    @tool_api
    async def run(
        self,
        action: Literal["list", "poll", "wait", "write", "kill"],
        process_id: str = "",
        text: str = "",
        timeout: float = 30,
        session_id: SessionId = 0,
    ) -> str:
        """Look after programs in the background.

        Args:
            action: list them all; poll one for its state and new output; wait for its end; write a line to its input;
                or kill it.
            process_id: Which one, such as p1.
            text: The line to write.
            timeout: Seconds to wait, at most 600.
        """
        if action == "list":
            return self.processes.listed(session_id)
        program = self.processes.find(session_id, process_id)
        if action == "write":
            await submit_from_loop(program.write, text + "\n")
        elif action == "kill":
            await submit_from_loop(program.kill)
        elif action == "wait":
            await submit_from_loop(program.settle, _bounded_timeout(timeout))
        return program.news()


def terminal_tools(cwd: str | os.PathLike[str] | None = None, **options: Any) -> list[BaseAction]:
    """A `Terminal` and the tool that looks after its programs in the background.

    Args:
        cwd: where sessions begin.
        **options: as for `Terminal`.
    """
    terminal = Terminal(cwd, **options)
    return [terminal, Process(terminal)]


def terminal_unavailable() -> str | None:
    """Why there is no terminal here; None if there is one."""
    return sandbox_unavailable() if os.name == "posix" and _shell() else "it needs a POSIX system with bash or sh"


class _Program:
    """A shell command that runs in a process group of its own.

    Args:
        room: the sandbox it runs in.
        command: the command.
        cwd: where.
        env: its environment.
        stdin: whether it has an input that can be written to.
        state: descriptor of a pipe that gets its last working directory and variables.

    Raises:
        ToolError: it cannot be started.
    """

    def __init__(
        self, room: Room, command: str, cwd: str, env: Mapping[str, str], stdin: bool = False, state: int | None = None
    ) -> None:
        shell = _shell()
        if shell is None or "\0" in command:
            raise ToolError("there is no shell here" if shell is None else "a command cannot hold a NUL character")
        if room.is_full:
            room.close()  # what fills it has to go, or nothing will ever run again
            raise ToolError("there were too many processes: all programs of this session were ended")
        self.command = command
        self._room = room
        self.output = Output(2 * MAX_KEPT)
        script = 'eval "$1"' if state is None else _SCRIPT
        try:
            self._process = room.start(
                [shell, "-c", script, "shell", clean_text(command)], cwd, env, stdin=stdin, extra=state
            )
        except FileNotFoundError:
            raise ToolError(f"the working directory {cwd} is gone: go elsewhere") from None
        except (OSError, ValueError) as error:
            raise ToolError(f"the command cannot be started: {error}") from None
        self.began = time.monotonic()
        self._total = 0
        self._ended = threading.Event()  # its shell has, or it writes no more
        self._reader = threading.Thread(target=self._read, name="lagentlike-output", daemon=True)
        self._reader.start()

    @property
    def returncode(self) -> int:
        code = self._process.returncode
        return 0 if code is None else code

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float, stop: threading.Event, meanwhile: Callable[[], None]) -> str:
        """Wait for its end, and kill it when that takes too long: "ended", "timeout", "flood" or "stopped"."""
        ending, until = "", time.monotonic() + seconds
        while not ending:
            meanwhile()
            try:
                self._process.wait(min(max(until - time.monotonic(), 0), 0.05))
                ending = "ended"
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    ending = "stopped"
                elif time.monotonic() >= until:
                    ending = "timeout"
        if ending != "ended":
            self.kill()
        self._reader.join(_DRAIN_SECONDS)
        return "flood" if self._total > MAX_OUTPUT else ending

    def settle(self, seconds: float) -> None:
        """Wait for its end, but not longer than that."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # the caller is told that it still runs
            self._process.wait(seconds)
            self._reader.join(_DRAIN_SECONDS)

    def write(self, text: str) -> None:
        """Write to its input.

        Raises:
            ToolError: it has none any more.
        """
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(clean_text(text).encode())
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise ToolError(f"its input is closed: {error}") from None

    def kill(self) -> None:
        """Kill it with its process group."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel lets it go in its own time
            self._process.wait(_KILL_SECONDS)
        self._reader.join(_DRAIN_SECONDS)

    def bad_news(self) -> str:
        """What else is to be said if it went wrong: of the end of its sandbox, or of want of memory or disk there."""
        return self._room.end if self._process.is_lost else self._room.news()

    def news(self) -> str:
        """Its state and what it wrote since the last time."""
        state = "running" if self.is_running else f"ended with exit code {self.returncode}"
        written = _shown(self.output.take())
        return f"({state})\n{written}" if written else f"({state}; nothing new was written)"

    def _read(self) -> None:
        """Take what it writes, to the end, so that it never waits for a reader."""
        source = self._process.stdout
        assert source is not None
        with source:
            while piece := os.read(source.fileno(), 65536):
                self.output.add(piece)
                self._total += len(piece)
                if self._total > MAX_OUTPUT:
                    self._process.kill()
        if self._process.stdin is not None:
            self._process.wait()
            self._process.stdin.close()


MAX_KEPT = 65_536
"""Bytes of a program's output that are kept at its head, and as many at its tail."""


class _Places(SessionValue[dict[str, Any]]):
    """Where each session is, and which environment variables it has changed; secret ones are not saved."""

    def __init__(self, cwd: Path) -> None:
        super().__init__(lambda: {"cwd": str(cwd), "set": {}, "unset": []})

    def dump(self, session_id: SessionId) -> Any:
        place = super().dump(session_id)
        place["set"] = {name: value for name, value in place["set"].items() if not is_secret_name(name)}
        return place


class _Processes(Unsaved):
    """The sandboxes of sessions, and the programs that run in their background.

    Args:
        open_room: opens a sandbox.
    """

    def __init__(self, open_room: Callable[[], Room]) -> None:
        self._open_room = open_room
        self._programs: dict[SessionId, dict[str, _Program]] = {}
        self._rooms: dict[SessionId, Room] = {}
        self._opening: dict[SessionId, threading.Lock] = {}
        self._started: dict[SessionId, int] = {}
        self._turns: dict[SessionId, threading.Lock] = {}
        self._owner = os.getpid()

    def session_ids(self) -> list[SessionId]:
        return list(self._rooms) if self._owner == os.getpid() else []

    def start(self, session_id: SessionId, command: str, cwd: str, env: Mapping[str, str], **options: Any) -> _Program:
        """Start a command in the session's sandbox.

        Raises:
            ToolError: it cannot be started.
            SandboxUnavailable: there is no sandbox here.
        """
        if self._owner != os.getpid():  # forked: the programs are the parent's
            self.__init__(self._open_room)  # type: ignore[misc]
        with self._opening.setdefault(session_id, threading.Lock()):
            room = self._rooms.get(session_id)
            if room is None or not room.is_open:
                if room is not None:
                    room.close()
                room = self._rooms[session_id] = self._open_room()
        return _Program(room, command, cwd, env, **options)

    def turn(self, session_id: SessionId) -> threading.Lock:
        """Held while a command of the session runs, so that the next one finds what it left."""
        return self._turns.setdefault(session_id, threading.Lock())

    def add(self, session_id: SessionId, program: _Program) -> str:
        programs = self._programs.setdefault(session_id, {})
        if sum(one.is_running for one in programs.values()) >= MAX_PROCESSES:
            program.kill()
            raise ToolError(f"{MAX_PROCESSES} programs run already: kill one first")
        self._started[session_id] = number = self._started.get(session_id, 0) + 1
        programs[f"p{number}"] = program
        return f"p{number}"

    def find(self, session_id: SessionId, process_id: str) -> _Program:
        programs = self._programs.get(session_id, {})
        if process_id not in programs:
            raise ToolError(
                f"there is no {process_id!r}: {'there are ' + ', '.join(programs) if programs else 'none runs'}"
            )
        return programs[process_id]

    def listed(self, session_id: SessionId) -> str:
        lines = [
            f"{name}: {'running' if one.is_running else f'ended with exit code {one.returncode}'}, "
            f"{time.monotonic() - one.began:.0f} s: {shortened(one.command, 200)}"
            for name, one in self._programs.get(session_id, {}).items()
        ]
        return "\n".join(lines) or "nothing runs in the background"

    def reset(self, session_id: SessionId) -> None:
        room = self._rooms.pop(session_id, None)
        self._programs.pop(session_id, None)
        self._started.pop(session_id, None)
        self._turns.pop(session_id, None)
        self._opening.pop(session_id, None)
        if room is not None and self._owner == os.getpid():
            room.close()

    def kill_all(self) -> None:
        for session_id in self.session_ids():
            self.reset(session_id)


_SCRIPT = """lagentlike_state=$2
trap 'r=$?; { pwd; printf "\\0"; /usr/bin/env -0; } >"/dev/fd/$lagentlike_state" 2>/dev/null; exit $r' EXIT
eval "$1"
"""
_SHELLS_OWN = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "lagentlike_state", MARK})


def _place(written: bytes, before: Mapping[str, Any], base: Mapping[str, str]) -> dict[str, Any]:
    """A session's place after a command, from what the shell wrote at its end."""
    cwd, _, variables = written.partition(b"\n\0")
    if not variables.endswith(b"\0"):
        return dict(before)  # it is too long, or the shell was killed as it wrote
    now: dict[str, str] = {}
    for line in variables.split(b"\0"):
        name, separator, value = line.partition(b"=")
        try:
            if separator:
                now[name.decode()] = value.decode()
        except UnicodeDecodeError:
            continue  # no state can hold it
    return {
        "cwd": os.fsdecode(cwd),
        "set": {name: value for name, value in now.items() if name not in _SHELLS_OWN and base.get(name) != value},
        "unset": sorted(name for name in base if name not in now and name not in _SHELLS_OWN),
    }


class _State:
    """What a shell writes at its end of where it is: to a pipe, since it may be unable to write to files."""

    def __init__(self) -> None:
        self._source, self.sink = os.pipe()
        os.set_blocking(self._source, False)
        with contextlib.suppress(OSError):  # where pipes have no mode
            os.fchmod(self.sink, 0o622)  # whoever the shell is, it opens its end by name
        self._written = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._source)
        os.close(self.sink)

    def take(self) -> None:
        """Take what is there, so that nobody waits for it to be taken."""
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._source, 65536)
            if len(self._written) < MAX_STATE:
                self._written += piece

    def written(self) -> bytes:
        """All that was written, though others may still be able to write."""
        for _ in range(MAX_STATE // 65536):
            self.take()
        return bytes(self._written)


def _shown(written: bytes) -> str:
    """What a program wrote, as text."""
    return as_seen(clean_text(written.decode("utf-8", "replace"))).strip("\n")


def _shell() -> str | None:
    return shutil.which("bash") or shutil.which("sh")


def _bounded_timeout(timeout: float) -> float:
    seconds = checked_timeout(timeout)
    if seconds is None or seconds > MAX_TIMEOUT:
        raise InvalidArgument("timeout", timeout, f"give seconds, at most {MAX_TIMEOUT:g}")
    return seconds


def _danger_of_call(arguments: dict[str, Any]) -> str | bool:
    return danger_of(str(arguments.get("command", ""))) or False


def _text(content: str) -> ActionReturn:
    return ActionReturn(result=[{"type": "text", "content": content}])
