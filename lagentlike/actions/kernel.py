"""One Jupyter kernel: an isolated process, and the messages to and from it."""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any, cast, IO

from ..errors import KernelDied, SandboxUnavailable
from ..sandbox import Isolation, Mount, Process
from ..sandbox.folders import OwnedFolder
from .deep_traceback import show_ends
from .result import as_seen, shortened
from .workers import submit_from_loop

__all__ = ["Cell", "Kernel", "end_all"]

START_SECONDS = 60.0
"""How long a kernel may take to come up."""

GRACE_SECONDS = 2.0
"""How long code may take to end after an interrupt, before the kernel is killed."""

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes of the largest message that is taken from a kernel."""

MAX_IMAGES = 32
"""Most images that are taken from one cell, and most displays that it may change later."""

_POLL_SECONDS = 0.05


@dataclass
class Cell:
    """What a piece of code gave.

    Attributes:
        outputs: texts (streams, values) and images, in order: `("text", "…")`, `("png", b"…")`.
        error: the traceback, without colours, or "".
        ending: `done`; `interrupted` (it took too long, the kernel lives on); `killed` (it did not even heed the
            interrupt); `died` (the kernel's process ended by itself).
        returncode: of the kernel's process, when it is gone.
        reason: how the process ended, in words, when it did so by itself.
    """

    outputs: list[tuple[str, Any]] = field(default_factory=list)
    error: str = ""
    ending: str = "done"
    returncode: int | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        """All texts together."""
        return "".join(content for kind, content in self.outputs if kind == "text")


class Kernel:
    """A Python kernel in a process of its own, used from one event loop.

    It ends with `close()`, at the end of this process, and when this process is killed; so do the processes it started.

    Args:
        process: the kernel's process.
        folder: private folder of its sockets.
        client: the client that is connected to it.
    """

    def __init__(self, process: Process, folder: OwnedFolder, client: Any) -> None:
        self.process = process
        self._folder = folder
        self._client = client
        self._owner = os.getpid()
        _live.add(self)

    @classmethod
    async def start(
        cls, isolation: Isolation, cwd: Path, environment: Mapping[str, str], mounts: Sequence[Mount] = ()
    ) -> Kernel:
        """Start a kernel and wait until it answers.

        Args:
            isolation: how it is held back from this machine.
            cwd: its workspace and working directory.
            environment: more environment variables.
            mounts: what else it sees.

        Raises:
            KernelDied: it did not come up; the message has the end of what it wrote.
            SandboxUnavailable: there is no such isolation here.
        """
        from jupyter_client.asynchronous.client import AsyncKernelClient
        from jupyter_client.connect import write_connection_file

        owned = OwnedFolder("kernel", _short_temporary_folder())
        folder = owned.path
        isolation.hand_over(folder)
        ipc: dict[str, Any] = {} if sys.platform == "win32" else {"transport": "ipc", "ip": str(folder / "s")}
        connection, _ = write_connection_file(str(folder / "connection.json"), key=uuid.uuid4().hex.encode(), **ipc)
        isolation.hand_over(Path(connection))
        own = {"HOME": str(cwd)} if isolation.isolated else {}
        with tempfile.TemporaryFile() as stderr:  # where code has no way to put another file in its place
            try:
                process = await isolation.start_async(
                    [sys.executable, "-m", "ipykernel_launcher", "-f", connection, *_OPTIONS],
                    workspace=cwd,
                    env={**own, **_environment(isolation, folder), **environment},
                    mounts=[Mount(folder, writable=True), *mounts],
                    stdout=subprocess.DEVNULL,
                    stderr=stderr.fileno(),
                )
            except BaseException:
                _remove(owned)
                raise
            client = AsyncKernelClient(context=_context())
            client.load_connection_file(connection)
            kernel = cls(process, owned, client)
            try:
                client.start_channels(stdin=False, hb=False, control=False)
                await kernel._come_up(stderr)
            except BaseException:
                await kernel.close()
                raise
        return kernel

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    async def run(self, code: str, timeout: float, stop: threading.Event, max_length: int) -> Cell:
        """Run code, one piece at a time.

        Args:
            code: Python code, with IPython's magics.
            timeout: seconds it may take; then it is interrupted, and killed if that does not help.
            stop: interrupts it earlier.
            max_length: most characters of text that are kept.

        Returns:
            What it gave; the kernel is gone if `ending` is `killed` or `died`.
        """
        cell, aborted = await self._run(code, timeout, stop, max_length)
        if aborted:  # as a kernel may do with code that comes right behind code that failed
            cell, _ = await self._run(code, timeout, stop, max_length)
        news = self.process.news()  # of programs that the code ran, too
        if cell.error and news:
            cell.error += f"\n({news})"
        return cell

    async def close(self) -> None:
        """End it and all that it started."""
        await submit_from_loop(self.kill)
        self._client.stop_channels()
        _remove(self._folder)
        _live.discard(self)

    def kill(self) -> None:
        """End its process and all that it started, from whatever thread."""
        if self._owner != os.getpid():
            return  # in a forked child: the kernel is the parent's
        self.process.close()

    async def _run(self, code: str, timeout: float, stop: threading.Event, max_length: int) -> tuple[Cell, bool]:
        """Run code once; what it gave, and whether the kernel refused to run it."""
        cell, output = Cell(), _Output(max_length)
        try:
            return cell, await self._follow(code, timeout, stop, cell, output)
        finally:
            cell.outputs = output.parts()

    async def _follow(self, code: str, timeout: float, stop: threading.Event, cell: Cell, output: _Output) -> bool:
        """Send code, and take what comes back until it has ended; whether the kernel refused to run it."""
        request = self._client.execute(code, allow_stdin=False, stop_on_error=False)
        deadline = time.monotonic() + timeout
        while True:
            message = await self._next(request, "iopub")
            if message is not None:
                if _take(message, cell, output):
                    return await self._was_aborted(request)
            elif not self.is_alive:
                cell.ending, cell.returncode, cell.reason = "died", self.process.returncode, self.process.epitaph()
                return False
            if time.monotonic() < deadline and not stop.is_set():
                continue
            if cell.ending == "done":
                cell.ending = "interrupted"
                deadline = time.monotonic() + GRACE_SECONDS
                stop = threading.Event()
                self.process.interrupt()
            else:
                cell.ending = "killed"
                await submit_from_loop(self.kill)
                return False

    async def _was_aborted(self, request: str) -> bool:
        for _ in range(int(GRACE_SECONDS / _POLL_SECONDS)):
            reply = await self._next(request, "shell")
            if reply is not None:
                return bool(reply["content"].get("status") == "aborted")
            if not self.is_alive:
                break
        return False

    async def _next(self, request: str, channel: str) -> dict[str, Any] | None:
        """The next message that answers a request, if one comes soon; code may send anything there."""
        receive = self._client.get_iopub_msg if channel == "iopub" else self._client.get_shell_msg
        try:
            message: dict[str, Any] = await receive(timeout=_POLL_SECONDS)
        except Empty:
            return None
        except asyncio.CancelledError:
            if cast(asyncio.Task[Any], asyncio.current_task()).cancelling():
                raise
            return None  # the channel was closed meanwhile
        except Exception:  # noqa: BLE001  # it is no message
            await asyncio.sleep(0)
            return None
        parent, content = message.get("parent_header"), message.get("content")
        if isinstance(parent, dict) and parent.get("msg_id") == request and isinstance(content, dict):
            return message
        return {"msg_type": "", "content": {}}

    async def _come_up(self, stderr: IO[bytes]) -> None:
        """Wait until it answers on both channels, and prepare it."""
        deadline = time.monotonic() + START_SECONDS
        request = ""
        while time.monotonic() < deadline:
            if not self.is_alive:
                break
            if not request or (message := await self._next(request, "shell")) is None:
                request = request or self._client.execute(_preparation(), silent=True, store_history=False)
                continue
            if message["msg_type"] != "execute_reply":
                continue
            if message["content"].get("status") != "ok":
                raise KernelDied(f"the kernel could not be prepared: {_traceback(message['content'])}")
            for _ in range(int(0.5 / _POLL_SECONDS)):
                status = await self._next(request, "iopub")
                if status is not None and status["content"].get("execution_state") == "idle":
                    return
            request = ""  # it was not heard on iopub yet: ask again
        written = os.pread(stderr.fileno(), 65536, 0).decode("utf-8", "replace")[-2000:]
        if self.process.never_ran:
            raise SandboxUnavailable(f"the sandbox could not be made: {written}")
        why = written or ("no answer" if self.is_alive else self.process.epitaph())
        raise KernelDied(f"the kernel did not start: {why}", returncode=self.process.poll())


_OPTIONS = (
    "--HistoryManager.enabled=False",
    "--InteractiveShell.colors=NoColor",
    "--InteractiveShell.xmode=Context",
    "--IPKernelApp.log_level=ERROR",
)


@functools.cache
def _preparation() -> str:
    """The code that is run in the kernel first."""
    return f"from typing import Any\n{inspect.getsource(show_ends)}{_PREPARATION}"


# On Linux, orphans of its children become its own, so that they can be found where there is no sandbox.
# Messages cannot hold lone surrogates: they become U+FFFD. Of those that are larger than is taken, long texts are cut.
# What code writes is sent before there is much of it: the kernel would keep it, four bytes for each character.
# What programs write to the kernel's own descriptors comes through a pipe: a cell ends when that is empty. A copy of it
# would go to the file that is read when a kernel does not start.
# A child that the code forked ends with its cell: it is no kernel.
_PREPARATION = """
def _prepare():
    import ctypes, os, sys, time
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    copy = getattr(sys.stderr, "_original_stdstream_copy", None)
    if copy is not None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, copy)
        os.close(nothing)
    shell = get_ipython()
    session = shell.kernel.session
    pack = session.pack
    def clean(value):
        if isinstance(value, str):
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if isinstance(value, dict):
            return {clean(key): clean(item) for key, item in value.items()}
        return [clean(item) for item in value] if isinstance(value, (list, tuple)) else value
    def cut(value):
        if isinstance(value, str) and len(value) > 1_000_000:
            left_out = f"{len(value) - 1_000_000:,} characters are left out here"
            return f"{value[:500_000]}\\n… {left_out} …\\n{value[-500_000:]}"
        if isinstance(value, dict):
            return {key: cut(item) for key, item in value.items() if not str(key).startswith("image/")}
        return [cut(item) for item in value] if isinstance(value, (list, tuple)) else value
    def pack_what_is_taken(value):
        try:
            packed = pack(value)
        except (TypeError, ValueError):
            value = clean(value)
            packed = pack(value)
        return packed if len(packed) < 48 << 20 else pack(cut(value))
    session.pack = pack_what_is_taken
    def send_often(stream):
        write = stream.write
        pending = 0
        def write_piece(text):
            nonlocal pending
            pending += len(text)
            write(text)
            if pending >= 1 << 20:
                stream.flush()
                pending = 0
        def write_all(text):
            for at in range(0, len(text), 1 << 20):
                write_piece(text[at : at + (1 << 20)])
            return len(text)
        stream.write = lambda text: write_all(text) if isinstance(text, str) else write(text)
    send_often(sys.stdout)
    send_often(sys.stderr)
    shell.set_custom_exc((RecursionError,), show_ends)
    kernel = os.getpid()
    def end_child(*_):
        if os.getpid() != kernel:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    shell.events.register("post_run_cell", end_child)
    try:
        import fcntl, termios
    except ImportError:
        return
    def settle(*_):
        time.sleep(0.0005)
        for descriptor in (1, 2):
            for _ in range(100):
                try:
                    if fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)) == bytes(4):
                        break
                except OSError:
                    break
                time.sleep(0.001)
    shell.events.register("post_run_cell", settle)
_prepare()
del Any, _prepare, show_ends
"""


def _environment(isolation: Isolation, folder: Path) -> dict[str, str]:
    own = {"MPLCONFIGDIR": str(_matplotlib_folder(isolation, folder))} if isolation.isolated else {}
    return {
        **own,
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _matplotlib_folder(isolation: Isolation, folder: Path) -> Path:
    """A folder for matplotlib, with the list of fonts that this user has: to make one takes seconds."""
    place = isolation.scratch_folder(folder / "matplotlib")
    usual = os.path.expanduser("~/.cache")  # noqa: PTH111  # Path raises an error for a user without a home
    caches = Path(os.environ.get("XDG_CACHE_HOME") or usual)
    for fonts in caches.glob("matplotlib/fontlist-*.json"):
        isolation.hand_over(Path(shutil.copy(fonts, place)))
    return place


def _short_temporary_folder() -> str | None:
    """Where sockets can be: their paths have at most 107 bytes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 60 or sys.platform == "win32" else "/tmp"  # noqa: S108  # mkdtemp makes a private folder


_contexts: dict[int, Any] = {}


def _context() -> Any:
    """The ZeroMQ context of this process: one, so that a hundred kernels need one thread."""
    import zmq.asyncio

    if os.getpid() not in _contexts:
        _contexts[os.getpid()] = context = zmq.asyncio.Context()
        context.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
    return _contexts[os.getpid()]


# Messages


def _take(message: Mapping[str, Any], cell: Cell, output: _Output) -> bool:
    """Take what a message says; whether it says that the code has ended."""
    kind, content = message["msg_type"], message["content"]
    if kind == "status":
        return bool(content.get("execution_state") == "idle")
    if kind == "stream":
        output.add_text(str(content.get("text", "")))
    elif kind in ("display_data", "execute_result"):
        output.add_shown(_object(content, "data"), _object(content, "transient").get("display_id"))
    elif kind == "update_display_data":
        output.change(_object(content, "transient").get("display_id"), _object(content, "data"))
    elif kind == "clear_output":
        output.clear(wait=bool(content.get("wait")))
    elif kind == "error":
        cell.error = _traceback(content)
    return False


def _object(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _traceback(content: Mapping[str, Any]) -> str:
    """The traceback without colours, rulers and the kernel's own frames."""
    given = content.get("traceback")
    frames = [as_seen(str(frame)).strip() for frame in given] if isinstance(given, list) else []
    kept = [frame for frame in frames if frame.strip("-") and not _OWN_FRAME.match(frame)]
    return "\n".join(kept) or f"{content.get('ename')}: {content.get('evalue')}"


_OWN_FRAME = re.compile(r"File \S*[/\\](?:ipykernel|IPython)[/\\]")


class _Output:
    """What a cell writes and shows, in order and bounded."""

    _parts: list[tuple[str, Any]]
    _places: dict[str, int]  # of the parts that may change, by the ids of their displays
    _images: int
    _pending: list[str]
    _pending_length: int
    _clears: bool  # before what comes next

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._forget()

    def add_text(self, text: str) -> None:
        if self._clears:
            self._forget()
        self._pending.append(text)
        self._pending_length += len(text)
        if self._pending_length > 4 * self._max_length:
            self._pending = [shortened("".join(self._pending), 2 * self._max_length)]
            self._pending_length = len(self._pending[0])

    def add_shown(self, bundle: Mapping[str, Any], display_id: object = None) -> None:
        """What was displayed: an image if it has one, else its text; with an id, it may change later."""
        if self._clears:
            self._forget()
        changes = isinstance(display_id, str) and len(self._places) < MAX_IMAGES
        kind, content = self._shown(bundle)
        if kind == "text" and not changes:
            self.add_text(content)
            return
        self._flush()
        if changes:
            self._places[str(display_id)] = len(self._parts)
        self._images += kind != "text"
        self._parts.append((kind, content))

    def change(self, display_id: object, bundle: Mapping[str, Any]) -> None:
        """Show something else in the place of what was displayed with that id."""
        place = self._places.get(str(display_id))
        if place is not None and not self._clears:
            self._images -= self._parts[place][0] != "text"
            self._parts[place] = kind, _ = self._shown(bundle)
            self._images += kind != "text"

    def clear(self, wait: bool) -> None:
        """Forget it all; with `wait`, when something else comes."""
        self._clears = True
        if not wait:
            self._forget()

    def parts(self) -> list[tuple[str, Any]]:
        self._flush()
        return self._parts

    def _forget(self) -> None:
        self._parts, self._places, self._images = [], {}, 0
        self._pending, self._pending_length = [], 0
        self._clears = False

    def _shown(self, bundle: Mapping[str, Any]) -> tuple[str, Any]:
        for kind, mime in _IMAGES.items():
            if mime in bundle and self._images < MAX_IMAGES:
                return kind, bundle[mime]
        text = shortened(_text(bundle), 2 * self._max_length)
        return "text", text if text.endswith("\n") else text + "\n"

    def _flush(self) -> None:
        text = as_seen("".join(self._pending))
        self._pending, self._pending_length = [], 0
        if text:
            self._parts.append(("text", text))


def _text(bundle: Mapping[str, Any]) -> str:
    """What was displayed as text: the plain one, unless that tells only its class."""
    plain = str(bundle.get("text/plain", ""))
    said = next((bundle[mime] for mime in _MARKUP if mime in bundle), None) if _NAMELESS.fullmatch(plain) else None
    if said is None:
        return plain
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


_NAMELESS = re.compile(r"<IPython\.\w+\.display\.\w+ object>")
_MARKUP = ("text/markdown", "text/latex", "text/html", "application/json")
_IMAGES = {"png": "image/png", "jpeg": "image/jpeg", "svg": "image/svg+xml"}


# The end of processes

_live: set[Kernel] = set()


@atexit.register
def end_all() -> None:
    """End all kernels of this process."""
    for kernel in list(_live):
        kernel.kill()
        _remove(kernel._folder)


def _remove(folder: OwnedFolder) -> None:
    with suppress(OSError):  # the next process tries again
        folder.remove()
