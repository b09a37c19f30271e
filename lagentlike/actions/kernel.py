"""One Jupyter kernel: an isolated process, and the messages to and from it."""

from __future__ import annotations

import atexit
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
from typing import Any, IO

from ..errors import KernelDied, SandboxUnavailable
from ..sandbox import Isolation, Mount, Process
from ..sandbox.folders import OwnedFolder
from .result import as_seen, shortened
from .workers import submit_from_loop

__all__ = ["Cell", "Kernel"]

START_SECONDS = 60.0
"""How long a kernel may take to come up."""

GRACE_SECONDS = 2.0
"""How long code may take to end after an interrupt, before the kernel is killed."""

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes of the largest message that is taken from a kernel."""

MAX_IMAGES = 32
"""Most images that are taken from one cell."""

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
        self.process.memory_kills()  # of programs that the code ran: what it dies of later is something else
        if aborted:  # as a kernel may do with code that comes right behind code that failed
            cell, _ = await self._run(code, timeout, stop, max_length)
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
        """The next message that answers a request, if one comes soon."""
        receive = self._client.get_iopub_msg if channel == "iopub" else self._client.get_shell_msg
        try:
            message: dict[str, Any] = await receive(timeout=_POLL_SECONDS)
        except Empty:
            return None
        parent = message.get("parent_header") or {}
        return message if parent.get("msg_id") == request else {"msg_type": "", "content": {}}

    async def _come_up(self, stderr: IO[bytes]) -> None:
        """Wait until it answers on both channels, and prepare it."""
        deadline = time.monotonic() + START_SECONDS
        request = ""
        while time.monotonic() < deadline:
            if not self.is_alive:
                break
            if not request or (message := await self._next(request, "shell")) is None:
                request = request or self._client.execute(_PREPARATION, silent=True, store_history=False)
                continue
            if message["msg_type"] != "execute_reply":
                continue
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

# Run in the kernel first.
# On Linux, orphans of its children become its own, so that they can be found where there is no sandbox.
# Messages cannot hold lone surrogates: they become U+FFFD.
# What programs write to the kernel's own descriptors comes through a pipe: a cell ends when that is empty. A copy of it
# would go to the file that is read when a kernel does not start.
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
    def pack_cleaned(value):
        try:
            return pack(value)
        except (TypeError, ValueError):
            return pack(clean(value))
    session.pack = pack_cleaned
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
del _prepare
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
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
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
        return bool(content["execution_state"] == "idle")
    if kind == "stream":
        output.add_text(str(content["text"]))
    elif kind in ("display_data", "execute_result"):
        output.add_shown(content["data"])
    elif kind == "clear_output":
        output.clear()
    elif kind == "error":
        cell.error = _traceback(content)
    return False


def _traceback(content: Mapping[str, Any]) -> str:
    """The traceback without colours, rulers and the kernel's own frames."""
    frames = [as_seen(str(frame)).strip() for frame in content["traceback"]]
    kept = [frame for frame in frames if frame.strip("-") and not _OWN_FRAME.match(frame)]
    return "\n".join(kept) or f"{content['ename']}: {content['evalue']}"


_OWN_FRAME = re.compile(r"File \S*[/\\](?:ipykernel|IPython)[/\\]")


class _Output:
    """What a cell writes and shows, in order and bounded."""

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._parts: list[tuple[str, Any]] = []
        self._pending: list[str] = []
        self._pending_length = 0
        self._images = 0

    def add_text(self, text: str) -> None:
        self._pending.append(text)
        self._pending_length += len(text)
        if self._pending_length > 4 * self._max_length:
            self._pending = [shortened("".join(self._pending), 2 * self._max_length)]
            self._pending_length = len(self._pending[0])

    def add_shown(self, bundle: Mapping[str, Any]) -> None:
        """What was displayed: an image if it has one, else its text."""
        for kind, mime in _IMAGES.items():
            if mime in bundle and self._images < MAX_IMAGES:
                self._flush()
                self._images += 1
                self._parts.append((kind, bundle[mime]))
                return
        text = str(bundle.get("text/plain", ""))
        self.add_text(text if text.endswith("\n") else text + "\n")

    def clear(self) -> None:
        self._parts, self._pending, self._pending_length = [], [], 0

    def parts(self) -> list[tuple[str, Any]]:
        self._flush()
        return self._parts

    def _flush(self) -> None:
        text = as_seen("".join(self._pending))
        self._pending, self._pending_length = [], 0
        if text:
            self._parts.append(("text", text))


_IMAGES = {"png": "image/png", "jpeg": "image/jpeg", "svg": "image/svg+xml"}


# The end of processes

_live: set[Kernel] = set()


@atexit.register
def _end_all() -> None:
    for kernel in list(_live):
        kernel.kill()
        _remove(kernel._folder)


def _remove(folder: OwnedFolder) -> None:
    with suppress(OSError):  # the next process tries again
        folder.remove()
