"""The program inside a slot that runs its tools: one JSON object a line in, one out, in order.

It needs the standard library only, and is started hundreds of times: so it is imported without anything else.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import os
import re
import select
import shlex
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .output import Output

__all__ = ["main"]

MAX_ENTRIES = 10_000
"""Most files that are listed or put into an archive."""

FLOOD = 64 * 1024 * 1024
"""Bytes that a command may write before it is stopped."""

MAX_FILE = 16 * 1024 * 1024
"""Most bytes of a text file that are read."""

MAX_COMMAND = 128 * 1024 - 1
"""Most bytes of a command that Linux passes to bash."""

MAX_UNPACKED = 256 * 1024 * 1024
"""Most bytes of the files in an archive, however small it gets."""

MAX_ANSWER = 24 * 1024 * 1024
"""Most bytes of an answer; who reads it takes no more than a third above that."""


def main() -> None:
    """Answer requests `{"tool", "arguments", "timeout_s"}` on stdin on stdout; the first line is the settings."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    os.environ["HISTFILE"] = os.devnull  # no shell leaves a history in the workspace
    settings = json.loads(requests.readline())
    worker = Worker(Path(settings["workspace"]), Path(settings["state"]), int(settings["max_output_bytes"]))
    _answer(answers, {"ready": True})
    while line := requests.readline():
        request = json.loads(line)
        _answer(answers, worker.run(request["tool"], request["arguments"], float(request["timeout_s"])))
    worker.close()


def _answer(answers: BinaryIO, reply: dict[str, Any]) -> None:
    line = json.dumps(reply, ensure_ascii=False).encode("utf-8", "replace")
    if len(line) > MAX_ANSWER:
        line = json.dumps(_failure(f"the answer is larger than {MAX_ANSWER} bytes: ask for less")).encode()
    answers.write(line + b"\n")
    answers.flush()


class Refused(Exception):
    """A request that cannot be done; the message says why."""


class Worker:
    """The tools of one slot.

    Args:
        workspace: the directory of the trajectory.
        state: a directory for what the tools need themselves.
        max_output: bytes of output that are kept.
    """

    def __init__(self, workspace: Path, state: Path, max_output: int) -> None:
        self.workspace = workspace
        self.state = state
        self.max_output = max_output
        self.tmux = Tmux(state, workspace, max_output)
        self._shell = Shell(self.tmux)
        self._tools: dict[str, Callable[..., dict[str, Any]]] = {
            "bash": self._bash,
            "terminal_stateful": self._shell.run,
            "tmux": self.tmux.run,
            "read_file": self._read_file,
            "write_file": self._write_file,
            "artifacts/read": self._read_artifact,
            "artifacts/list": self._list_artifacts,
            "artifacts/archive": self._archive_artifacts,
        }

    def run(self, tool: str, arguments: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """What a tool gives; whatever goes wrong is told in the reply."""
        if tool not in self._tools:
            return _failure(f"there is no tool {tool!r} here")
        try:
            self.state.mkdir(parents=True, exist_ok=True)  # a command may have removed it
            return self._tools[tool](timeout_s=timeout_s, **arguments)
        except Refused as error:
            return _failure(str(error))
        except OSError as error:
            return _failure(f"{error.filename or tool}: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001  # the slot goes on
            return _failure(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """End the terminals."""
        self.tmux.close()

    def _bash(self, command: str, timeout_s: float) -> dict[str, Any]:
        """Run a command in a process group of its own, which ends with it."""
        if "\0" in command:
            raise Refused("a command holds no NUL")
        if len(command.encode("utf-8", "replace")) > MAX_COMMAND:
            raise Refused(f"the command is longer than {MAX_COMMAND} bytes: give long texts to write_file")
        process = subprocess.Popen(
            ["bash", "-c", command],
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.workspace,
            start_new_session=True,
        )
        assert process.stdout is not None
        reader, ended = process.stdout.fileno(), os.pidfd_open(process.pid)
        os.set_blocking(reader, False)
        output = Output(self.max_output)
        try:
            why = _follow(reader, ended, output, time.monotonic() + timeout_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and with it what it left in the background
            process.wait()
            _drain(reader, output)
            process.stdout.close()
            os.close(ended)
        return _ended(output.text(), process.returncode, why, timeout_s)

    def _read_file(self, path: str, timeout_s: float, offset: int = 1, limit: int = 2000) -> dict[str, Any]:
        with self._opened(path) as source:
            content = source.read(MAX_FILE)
        if b"\0" in content:
            raise Refused(f"{path} is no text: it holds NUL bytes")
        lines = content.count(b"\n") + (content[-1:] not in (b"\n", b""))
        if offset > max(lines, 1):
            raise Refused(f"{path} has {lines} lines: offset={offset} is behind its end")
        output = Output(self.max_output)
        output.add(b"".join(itertools.islice(io.BytesIO(content), offset - 1, offset - 1 + limit)))
        return {"success": True, "output": output.text(), "metadata": {"lines": lines}}

    def _write_file(self, path: str, content: str, timeout_s: float, append: bool = False) -> dict[str, Any]:
        target = self._inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_APPEND if append else os.O_TRUNC)
        with _regular(target, path, flags) as file:
            written = file.write(content.encode("utf-8", "replace"))
        return {"success": True, "output": f"wrote {written} bytes to {path}"}

    def _read_artifact(self, path: str, max_bytes: int, timeout_s: float) -> dict[str, Any]:
        with self._opened(path) as source:
            content = source.read(max_bytes)
            size = max(os.fstat(source.fileno()).st_size, len(content))
        return {"success": True, "content": base64.b64encode(content).decode(), "size": size}

    def _list_artifacts(self, path: str, recursive: bool, timeout_s: float) -> dict[str, Any]:
        root = self.workspace.resolve()
        entries = []
        for entry, status in _below(self._inside(path), recursive):
            name = os.fsencode(entry.relative_to(root)).decode("utf-8", "replace")
            entries.append([name, _kind(status.st_mode), status.st_size, status.st_mtime])
        return {"success": True, "entries": entries}

    def _archive_artifacts(self, path: str, max_bytes: int, timeout_s: float) -> dict[str, Any]:
        root = self._inside(path)
        held, room = _Bounded(max_bytes), MAX_UNPACKED
        with tarfile.open(fileobj=held, mode="w:gz", compresslevel=1) as archive:
            for member, status in [(root, root.lstat())] if root.is_file() else _below(root, recursive=True):
                name = str(member.relative_to(root)) if member != root else root.name
                room -= _archived(archive, member, name, _kind(status.st_mode), room)
        return {"success": True, "content": base64.b64encode(held.getvalue()).decode()}

    def _inside(self, path: str) -> Path:
        """A path of the workspace, links resolved."""
        if "\0" in path:
            raise Refused("a path holds no NUL")
        root = self.workspace.resolve()
        found = (root / path).resolve()
        if found != root and root not in found.parents:
            raise Refused(f"{path} is outside the workspace")
        return found

    def _opened(self, path: str) -> BinaryIO:
        """A file of the workspace, open for reading."""
        return _regular(self._inside(path), path)


class Tmux:
    """Terminals in one tmux server, which ends with the slot.

    Args:
        state: where its socket and its logs are.
        workspace: where terminals begin.
        max_output: bytes of output that are kept.
    """

    def __init__(self, state: Path, workspace: Path, max_output: int) -> None:
        self.state = state
        self.workspace = workspace
        self.max_output = max_output
        self._socket = state / "tmux"
        self._read: dict[str, int] = {}  # how much of each log was given out

    def run(self, action: str, timeout_s: float, **options: Any) -> dict[str, Any]:
        """One action of the tool `tmux`."""
        session = options.pop("session", "main")
        actions = {
            "start": self._start,
            "send_keys": self._send_keys,
            "capture": self._capture,
            "stream": self._stream,
            "stop": self._stop,
        }
        if action not in actions:
            raise Refused(f"the actions of tmux are {', '.join(actions)}")
        wait = min(float(options.pop("wait_s", 0)), timeout_s)
        return {"success": True, "output": actions[action](session, wait, options)}

    def tell(self, *arguments: str) -> str:
        """What a tmux command says.

        Raises:
            Refused: it failed.
        """
        try:
            done = subprocess.run(
                ["tmux", "-u", "-f", "/dev/null", "-S", str(self._socket), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=self.workspace,
                timeout=10,
                check=False,
            )
        except FileNotFoundError:
            raise Refused("tmux is not installed in the sandbox") from None
        except subprocess.TimeoutExpired:
            raise Refused("tmux does not answer") from None
        if done.returncode:
            raise Refused(f"tmux: {done.stderr.decode('utf-8', 'replace').strip()[:500]}")
        return done.stdout.decode("utf-8", "replace")

    def begin(self, session: str, *command: str) -> int:
        """Start a terminal; the id of the process in it."""
        arguments = ("new-session", "-d", "-P", "-F", "#{pane_pid}", "-s", session, "-x", "200", "-y", "50", *command)
        return int(self.tell(*arguments))

    def close(self) -> None:
        """End all terminals."""
        if self._socket.exists():
            with contextlib.suppress(Refused):
                self.tell("kill-server")

    def _start(self, session: str, wait: float, options: dict[str, Any]) -> str:
        command = options.get("command")
        self.begin(session, *(["bash", "-c", command] if command else ["bash", "--noprofile", "--norc"]))
        log = self._log(session)
        log.unlink(missing_ok=True)
        self._read[session] = 0
        self.tell("pipe-pane", "-t", f"={session}:", f"cat >> {shlex.quote(str(log))}")
        return f"started {session}"

    def _send_keys(self, session: str, wait: float, options: dict[str, Any]) -> str:
        keys, literal = options.get("keys"), options.get("literal", True)
        if keys:
            words = ["-l", "--", keys] if literal else ["--", *keys.split()]
            self.tell("send-keys", "-t", f"={session}:", *words)
        if options.get("enter", True):
            self.tell("send-keys", "-t", f"={session}:", "Enter")
        time.sleep(wait)
        return self._capture(session, 0, {})

    def _capture(self, session: str, wait: float, options: dict[str, Any]) -> str:
        above = f"-{options.get('lines', 0)}"
        output = Output(self.max_output)
        output.add(self.tell("capture-pane", "-p", "-J", "-t", f"={session}:", "-S", above).rstrip("\n").encode())
        return output.text()

    def _stream(self, session: str, wait: float, options: dict[str, Any]) -> str:
        time.sleep(wait)
        log = self._log(session)
        if not log.exists():
            raise Refused(f"there is no session {session!r}: start it")
        output = Output(self.max_output)
        with log.open("rb") as source:
            source.seek(self._read.get(session, 0))
            while data := source.read(65536):
                output.add(data)
            self._read[session] = source.tell()
        return _ANSI.sub("", output.text()).replace("\r\n", "\n")

    def _stop(self, session: str, wait: float, options: dict[str, Any]) -> str:
        self.tell("kill-session", "-t", f"={session}")
        self._log(session).unlink(missing_ok=True)
        return f"stopped {session}"

    def _log(self, session: str) -> Path:
        return self.state / f"{session}.log"


_ANSI = re.compile(r"\x1b(?:\[[0-9;?]{0,32}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,1024}(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>])")


class Shell:
    """One bash in a terminal, to which commands are given one by one.

    A command is written to a file that the shell sources with its output sent to another file, and its exit code comes
    through a named pipe: so nothing that it prints can be taken for the end of it.
    """

    NAME = "terminal_stateful"

    def __init__(self, tmux: Tmux) -> None:
        self._tmux = tmux
        self._pid = 0
        self._ended = self._done = -1
        self._count = 0

    def run(self, command: str, timeout_s: float) -> dict[str, Any]:
        """Run a command in the shell, which is started if there is none."""
        deadline = time.monotonic() + timeout_s
        before = self._pid
        if before and _is_readable(self._ended):  # it was ended since the last call
            self._stop()
        if self._pid == 0:
            self._start()
        state = self._tmux.state
        self._count += 1
        written, told = state / f"output-{self._count}", state / "command"
        told.write_text(command, encoding="utf-8", errors="replace")
        (state / "run").write_text(
            f"{{ . {_quoted(told)}; }} </dev/null >{_quoted(written)} 2>&1; {self._tell('$?')}\n"
        )
        _emptied(self._done)
        source = f" . {_quoted(state / 'run')}"
        try:
            self._type(source, "Enter")
        except Refused:  # it is just ending, and has not been given the command
            self._stop()
            self._start()
            self._type(source, "Enter")
        began = self._pid != before
        code, why = self._wait(written, deadline)
        output = _kept(written, self._tmux.max_output)
        written.unlink(missing_ok=True)
        if self._pid == 0:
            why = f"{why or 'the shell ended'}: variables and the directory are lost, the next call has a new shell"
        reply = _ended(output, code, why, timeout_s)
        if began and self._count > 1:
            reply["metadata"] = {"new_shell": True}
        return reply

    def _start(self) -> None:
        pid = self._tmux.begin(self.NAME, "bash", "--noprofile", "--norc")
        self._ended = os.pidfd_open(pid)
        done = self._tmux.state / "done"
        done.unlink(missing_ok=True)
        os.mkfifo(done, 0o600)
        self._done = os.open(done, os.O_RDWR | os.O_NONBLOCK)
        self._pid = pid

    def _tell(self, code: str) -> str:
        """What the shell is given to tell an exit code, whatever `echo` has become there."""
        return f'\\builtin echo "{code}" >{_quoted(self._tmux.state / "done")}'

    def _type(self, *keys: str) -> None:
        self._tmux.tell("send-keys", "-t", f"={self.NAME}:", *keys)

    def _wait(self, written: Path, deadline: float) -> tuple[int | None, str]:
        """The exit code of the command, and why it was stopped if it was."""
        why = self._watch(written, deadline)
        if why:
            with contextlib.suppress(Refused):
                self._type("C-c")
                self._type(f" {self._tell('130')}", "Enter")
            self._watch(written, time.monotonic() + INTERRUPT_SECONDS)
        code = _emptied(self._done)
        if not code:
            self._stop()
        return (int(code) if code.strip().isdigit() else None), why

    def _watch(self, written: Path, deadline: float) -> str:
        """Wait until the command or the shell ends; why that is not waited for any longer."""
        poll = select.poll()
        poll.register(self._done, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(min(left, 0.25) * 1000):
                return ""
            if written.exists() and written.stat().st_size > FLOOD:
                return _FLOODED
        return TIMED_OUT

    def _stop(self) -> None:
        """End the shell and what it started in its terminal."""
        for pid in _session_of(self._pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(Refused):
            self._tmux.tell("kill-session", "-t", f"={self.NAME}")
        os.close(self._ended)
        os.close(self._done)
        self._pid = 0


TIMED_OUT = "timed out"
_FLOODED = f"it wrote more than {FLOOD >> 20} MiB and was stopped"

INTERRUPT_SECONDS = 0.5
"""How long a shell has after Ctrl-C to be ready again, before it is ended."""


def _drain(reader: int, output: Output) -> None:
    """Take what is in a pipe that does not block; of what still writes there, no more than a pipe holds."""
    with contextlib.suppress(BlockingIOError):
        output.add(os.read(reader, 1 << 20))


def _follow(reader: int, ended: int, output: Output, deadline: float) -> str:
    """Read a command's output until it ends; why it must be stopped, if it must."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(min(left, 60.0) * 1000):
            if descriptor == ended:
                return ""
            data = os.read(reader, 65536)
            if not data:
                poll.unregister(reader)  # it has closed its output and goes on
            output.add(data)
            if output.size > FLOOD:
                return _FLOODED
    return TIMED_OUT


def _ended(output: str, code: int | None, why: str, timeout_s: float) -> dict[str, Any]:
    """The reply about a command."""
    if why.startswith(TIMED_OUT):
        error = f"it took longer than {timeout_s:g} seconds and was stopped{why.removeprefix(TIMED_OUT)}"
        return {"success": False, "output": output, "error": error, "timed_out": True}
    if why:
        return {"success": False, "output": output, "error": why, "exit_code": code}
    error = "" if code == 0 else f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return {"success": code == 0, "output": output, "error": error, "exit_code": code}


def _failure(error: str) -> dict[str, Any]:
    return {"success": False, "error": error}


def _kept(written: Path, limit: int) -> str:
    """The head and the tail of a file."""
    output = Output(limit)
    if written.exists():
        with written.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            output.add(source.read(limit))
            if size > 2 * limit:
                output.size += size - 2 * limit
                source.seek(size - limit)
            output.add(source.read(limit))
    return output.text()


def _is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def _emptied(fifo: int) -> bytes:
    """All that is in a named pipe."""
    try:
        return os.read(fifo, 65536)
    except BlockingIOError:
        return b""


def _session_of(pid: int) -> list[int]:
    """The processes of a session, by the id of its leader."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                after_name = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(after_name[3]) == pid:
                    found.append(int(entry.name))
    return found


def _regular(file: Path, path: str, flags: int = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) -> BinaryIO:
    """A file, open; refused by the name `path` if it is a directory, a pipe or the like."""
    descriptor = os.open(file, flags, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(f"{path} is no file")
    return os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "rb")


def _below(folder: Path, recursive: bool) -> Iterator[tuple[Path, os.stat_result]]:
    """What a directory holds, in order, links not followed; what goes while this looks is left out."""
    if not folder.is_dir():
        raise Refused(f"{folder.name} is no directory")
    count = 0
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop()):
            count += 1
            if count > MAX_ENTRIES:
                raise Refused(f"there are more than {MAX_ENTRIES} files")
            try:
                status = entry.lstat()
            except FileNotFoundError:
                continue
            yield entry, status
            if recursive and stat.S_ISDIR(status.st_mode):
                waiting.append(entry)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # it has just gone
        return []


def _archived(archive: tarfile.TarFile, member: Path, name: str, kind: str, room: int) -> int:
    """Put a file, a directory or a link into an archive, if it is still there; how many bytes it holds."""
    if kind == "other":
        return 0
    try:
        file = _regular(member, name) if kind == "file" else None
        told = archive.gettarinfo(member, name, file)
    except (FileNotFoundError, Refused):  # it has just gone, or something else has come
        return 0
    with file or contextlib.nullcontext():
        if told.size > room:
            raise Refused(f"the files are larger than {MAX_UNPACKED} bytes")
        archive.addfile(told, None if file is None else _Padded(file))  # type: ignore[arg-type]  # it reads: that is all
    return told.size


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


class _Padded:
    """A file that goes on with zeros where it has become shorter than it was, as tar writes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size).ljust(size, b"\0")


class _Bounded(io.BytesIO):
    """A file in memory that holds no more than so many bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._limit:
            raise Refused(f"the archive is larger than {self._limit} bytes")
        return super().write(data)


if __name__ == "__main__":
    main()
