"""Python code in a live Jupyter kernel, one for each session."""

from __future__ import annotations

import asyncio
import atexit
import base64
import hashlib
import importlib
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from ..concurrency import background, run_in_background
from ..errors import InvalidArgument, KernelDied
from ..memory import SessionId
from ..sandbox import Isolation, isolation_of, Mount
from ..sandbox.folders import OwnedFolder
from ..schema import ActionReturn, ActionStatusCode
from .base import BaseAction, tool_api
from .code import extract_code
from .function import checked_max_length, checked_timeout
from .kernel import Cell, end_all, Kernel
from .running import on_background
from .session import Unsaved
from .workers import when_given_up

__all__ = ["AsyncIPythonInterpreter", "IPythonInterpreter"]


class IPythonInterpreter(BaseAction):
    """Run Python code in a Jupyter kernel that keeps its variables; each session has a kernel of its own.

    Kernels run in a sandbox: without a network, with the session's folder as the only one that they can change, and
    within its limits on memory, processes and processor time. Where there is no sandbox, nothing is run.

    A kernel is started when a session first runs code. Code that takes too long is interrupted, and the kernel is
    killed if that does not help; the next call then starts a new one, and the result says that the variables are gone.
    Resetting a session closes its kernel; all are closed with `close()`, when this object is no longer used, and with
    the process.

    Args:
        timeout: seconds that a call may take.
        user_data_dir: folder that code can read, and finds as `data` in its working directory; `"ENV"` for the
            environment variable `USER_DATA_DIR`.
        work_dir: folder with a folder for each session, where its code runs and its images are kept; by default a
            temporary one, which is removed when this process ends, also if it is killed (by the next one, then). Give
            one to keep what code writes.
        max_out_len: most characters of output.
        max_kernels: most kernels at a time. When one more is needed, the idle kernel that was used longest ago is
            closed; if all are at work, the call waits.
        idle_timeout: seconds after which an unused kernel is closed.
        env: more environment variables for the kernels.
        isolation: how kernels are held back from this machine: `"bwrap"`, an `Isolation`, or `"unsafe_local"`, with
            which they run as the user and can do what the user can. `lagentlike.sandbox.set_default_isolation` changes
            the default.
        description: what models are told, in place of the docstring of `run`.
        name: its name.

    >>> interpreter = IPythonInterpreter()
    >>> interpreter("x = 20").state.name, interpreter("x + 1").format_result()
    ('SUCCESS', '21')
    """

    aliases: ClassVar[Mapping[str, str]] = {"code": "command"}
    interruptible = True

    def __init__(
        self,
        timeout: float = 20,
        user_data_dir: str | os.PathLike[str] | None = "ENV",
        work_dir: str | os.PathLike[str] | None = None,
        max_out_len: int = 8192,
        max_kernels: int | None = None,
        idle_timeout: float = 1800,
        env: Mapping[str, str] | None = None,
        isolation: Isolation | str | None = None,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(description, name)
        seconds = checked_timeout(timeout)
        idle_seconds = checked_timeout(idle_timeout)
        if seconds is None or idle_seconds is None:
            raise InvalidArgument("timeout, idle_timeout", (timeout, idle_timeout), "give seconds")
        if max_kernels is not None and (not isinstance(max_kernels, int) or max_kernels < 1):
            raise InvalidArgument("max_kernels", max_kernels, "give a whole number of at least 1, or None for no limit")
        self.max_length = checked_max_length(max_out_len)
        if user_data_dir == "ENV":
            user_data_dir = os.environ.get("USER_DATA_DIR") or None
        self.kernels = _Kernels(
            seconds, work_dir, user_data_dir, self.max_length, max_kernels, idle_seconds, env, isolation_of(isolation)
        )
        weakref.finalize(self, _Kernels.kill_all, self.kernels)

    @tool_api
    def run(self, command: str, session_id: SessionId = 0) -> ActionReturn:
        """Run Python code in a live session that keeps its variables; print what you want to see.

        Args:
            command: The Python code.
        """
        stop = threading.Event()
        with when_given_up(stop.set):
            return self._returned(run_in_background(self.kernels.run(session_id, extract_code(command), stop)))

    @property
    def work_dir(self) -> Path:
        """The folder with the sessions' folders."""
        return self.kernels.work_dir

    def session_dir(self, session_id: SessionId = 0) -> Path:
        """The folder where a session's code runs and its images are kept."""
        return self.kernels.session_dir(session_id)

    def close(self, session_id: SessionId | None = None) -> None:
        """Close a session's kernel, or all of them."""
        run_in_background(self.kernels.close(session_id))

    async def aclose(self, session_id: SessionId | None = None) -> None:
        """Close a session's kernel, or all of them."""
        await on_background(self.kernels.close(session_id))

    def _returned(self, done: _Done) -> ActionReturn:
        """What a call gives back; images are shown if this is a notebook."""
        for item in done.items:
            if item["type"] == "image":
                _show_in_notebook(item["content"])
        if not done.error:
            return ActionReturn(type=self.name, result=done.items)
        texts = [ActionReturn(result=done.items).format_result()] if done.items != _NOTHING else []
        state = ActionStatusCode.API_ERROR
        return ActionReturn(type=self.name, result=done.items, errmsg="\n".join([*texts, done.error]), state=state)


class AsyncIPythonInterpreter(IPythonInterpreter):
    """Run Python code in a Jupyter kernel that keeps its variables, awaited; see `IPythonInterpreter`.

    Args:
        max_kernels: most kernels at a time.
        **options: as for `IPythonInterpreter`.
    """

    def __init__(self, max_kernels: int | None = None, **options: Any) -> None:
        super().__init__(max_kernels=max_kernels, **options)

    @tool_api
    async def run(self, command: str, session_id: SessionId = 0) -> ActionReturn:  # type: ignore[override]  # awaited
        """Run Python code in a live session that keeps its variables; print what you want to see.

        Args:
            command: The Python code.
        """
        return self._returned(await on_background(self.kernels.run(session_id, extract_code(command))))


class _Done:
    """A call's result: the items of an `ActionReturn`, and the error if there was one."""

    __slots__ = ("error", "items")

    def __init__(self, items: list[dict[str, Any]], error: str) -> None:
        self.items = items
        self.error = error


_NOTHING: list[dict[str, Any]] = [{"type": "text", "content": "(no output)"}]


class _Slot:
    """A session's place: its kernel, if it has one, and who is next."""

    __slots__ = ("images", "kernel", "lock", "lost", "timer", "used")

    def __init__(self) -> None:
        self.kernel: Kernel | None = None
        self.lock = asyncio.Lock()
        self.lost = ""  # why a kernel is gone that had variables
        self.used = 0.0
        self.images = 0
        self.timer: asyncio.TimerHandle | None = None


class _Kernels(Unsaved):
    """The kernels by session. All coroutines run on the background loop, whatever colour the caller has."""

    def __init__(
        self,
        timeout: float,
        work_dir: str | os.PathLike[str] | None,
        user_data_dir: str | os.PathLike[str] | None,
        max_length: int,
        max_kernels: int | None,
        idle_timeout: float,
        env: Mapping[str, str] | None,
        isolation: Isolation,
    ) -> None:
        self.timeout = timeout
        self.user_data_dir = None if user_data_dir is None else Path(user_data_dir).resolve()
        self.max_length = max_length
        self.max_kernels = max_kernels
        self.idle_timeout = idle_timeout
        self.env = dict(env or {})
        self.isolation = isolation
        self._work_dir = None if work_dir is None else Path(work_dir)
        self._slots: dict[SessionId, _Slot] = {}
        self._owner = os.getpid()
        self._room: asyncio.Condition | None = None
        self._starting = 0
        self._guard = threading.Lock()

    # As state by session

    def session_ids(self) -> list[SessionId]:
        return list(self._slots) if self._owner == os.getpid() else []

    def reset(self, session_id: SessionId) -> None:
        slot = self._slots.pop(session_id, None)
        if slot is not None and slot.kernel is not None and self._owner == os.getpid():
            _later(self._dispose(slot))

    # Running

    async def run(self, session_id: SessionId, code: str, stop: threading.Event | None = None) -> _Done:
        """Run code in the session's kernel; to cancel this, or to set `stop`, interrupts it."""
        if self._owner != os.getpid():  # forked: the kernels are the parent's
            self._slots, self._owner, self._room, self._starting = {}, os.getpid(), None, 0
        slot = self._slots.get(session_id)
        if slot is None:
            slot = self._slots[session_id] = _Slot()
        stop = threading.Event() if stop is None else stop
        work = asyncio.ensure_future(self._run(slot, session_id, code, stop))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()  # the code is interrupted; the kernel is ready for the next call when that is done
            work.add_done_callback(_look_at)
            raise

    async def _run(self, slot: _Slot, session_id: SessionId, code: str, stop: threading.Event) -> _Done:
        """Run code when it is the session's turn."""
        try:
            async with slot.lock:
                if stop.is_set():
                    return _Done(_NOTHING, "cancelled")
                try:
                    return await self._run_now(slot, session_id, code, stop)
                except KernelDied as error:
                    return _Done(_NOTHING, str(error))
                finally:
                    await self._put_back(slot, session_id)
        finally:
            await self._make_known()

    async def _run_now(self, slot: _Slot, session_id: SessionId, code: str, stop: threading.Event) -> _Done:
        if slot.timer is not None:
            slot.timer.cancel()
        if slot.kernel is not None and not slot.kernel.is_alive:
            await self._dispose(slot, f"the kernel died ({slot.kernel.process.epitaph()})")
        if slot.kernel is None:
            slot.kernel = await self._start(session_id)
        news, slot.lost = slot.lost, ""
        cell = await slot.kernel.run(code, self.timeout, stop, self.max_length)
        if cell.ending in ("killed", "died"):
            await self._dispose(slot)
        return self._done(slot, session_id, cell, news)

    async def _put_back(self, slot: _Slot, session_id: SessionId) -> None:
        """Let a kernel that is idle again end when nobody uses it for long, or now if its session is gone."""
        slot.used = time.monotonic()
        if self._slots.get(session_id) is not slot:  # reset meanwhile
            await self._dispose(slot)
        elif slot.kernel is not None:
            slot.timer = asyncio.get_running_loop().call_later(self.idle_timeout, _reap, weakref.ref(self), session_id)

    def _done(self, slot: _Slot, session_id: SessionId, cell: Cell, news: str) -> _Done:
        """A cell's outputs as items, its images as files."""
        items: list[dict[str, Any]] = []
        if news:
            items.append({"type": "text", "content": f"({news}: this is a new session, earlier variables are gone)"})
        for kind, content in cell.outputs:
            if kind == "text":
                if content.strip():
                    items.append({"type": "text", "content": content.strip("\n")})
                continue
            path = self._write_image(slot, session_id, kind, str(content))
            items.append({"type": "image", "content": str(path)})
        return _Done(items or _NOTHING, _problem(cell, self.timeout))

    def _write_image(self, slot: _Slot, session_id: SessionId, kind: str, content: str) -> Path:
        """Write the session's next image; code may have put links in its place, which are not followed."""
        image = content.encode("utf-8", "replace") if kind == "svg" else _decoded(content)
        while True:
            slot.images += 1
            path = self.session_dir(session_id) / f"figure_{slot.images}.{kind}"
            try:
                with path.open("xb") as file:
                    file.write(image)
            except FileExistsError:
                continue
            return path

    async def _start(self, session_id: SessionId) -> Kernel:
        """Start a kernel when there is room for it."""
        if self._room is None:
            self._room = asyncio.Condition()
        if self.max_kernels is not None:
            async with self._room:
                while self._count() >= self.max_kernels and not await self._evict():
                    await self._room.wait()
        self._starting += 1
        try:
            mounts = [] if self.user_data_dir is None else [Mount(self.user_data_dir)]
            return await Kernel.start(self.isolation, self._prepared_dir(session_id), self.env, mounts)
        finally:
            self._starting -= 1

    def _count(self) -> int:
        return self._starting + sum(slot.kernel is not None for slot in self._slots.values())

    async def _evict(self) -> bool:
        """Close the idle kernel that was used longest ago, if one is idle."""
        idle = [slot for slot in self._slots.values() if slot.kernel is not None and not slot.lock.locked()]
        if not idle:
            return False
        slot = min(idle, key=lambda one: one.used)
        await self._dispose(slot, "the session's kernel was closed to make room for others")
        return True

    async def _make_known(self) -> None:
        """Tell those who wait for room that a kernel is idle."""
        if self._room is not None:
            async with self._room:
                self._room.notify_all()

    async def _dispose(self, slot: _Slot, why: str = "the kernel was restarted") -> None:
        kernel, slot.kernel, slot.lost = slot.kernel, None, why
        if slot.timer is not None:
            slot.timer.cancel()
        if kernel is not None:
            await kernel.close()

    async def close(self, session_id: SessionId | None = None) -> None:
        """Close the kernel of a session, or of all."""
        closed = list(self._slots) if session_id is None else [session_id]
        slots = [slot for one in closed if (slot := self._slots.pop(one, None)) is not None]
        await asyncio.gather(*(self._dispose(slot) for slot in slots))

    def kill_all(self) -> None:
        """End all kernels from whatever thread, when nobody can use them any more."""
        slots, self._slots = list(self._slots.values()), {}
        if self._owner != os.getpid() or not any(slot.kernel for slot in slots):
            return
        for slot in slots:
            if slot.kernel is not None:
                slot.kernel.kill()
        if not sys.is_finalizing():
            for slot in slots:
                _later(self._dispose(slot))

    # Folders

    @property
    def work_dir(self) -> Path:
        with self._guard:
            if self._work_dir is None:
                owned = OwnedFolder("kernels")
                atexit.register(_remove, owned)
                self._work_dir = owned.path
        return self._work_dir

    def session_dir(self, session_id: SessionId) -> Path:
        return (self.work_dir / _folder_name(session_id)).resolve()

    def _prepared_dir(self, session_id: SessionId) -> Path:
        folder = self.isolation.scratch_folder(self.session_dir(session_id))
        if self.user_data_dir is not None:
            with suppress(FileExistsError):
                (folder / "data").symlink_to(self.user_data_dir, target_is_directory=True)
        return folder


_PLAIN_NAME = re.compile(r"[A-Za-z_-][A-Za-z0-9_-]{0,47}")


def _decoded(content: str) -> bytes:
    """The bytes of an image as messages carry it; what is none is kept as it is, since code may send anything."""
    try:
        return base64.b64decode(content)
    except ValueError:
        return content.encode("utf-8", "replace")


def _problem(cell: Cell, timeout: float) -> str:
    """What is wrong, in words for the model; "" if nothing is."""
    if cell.ending == "interrupted":
        return f"the code took longer than {timeout:g} seconds and was interrupted; variables are kept"
    if cell.ending == "killed":
        return (
            f"the code took longer than {timeout:g} seconds, did not heed the interrupt, and its kernel was killed: "
            "all variables are gone"
        )
    if cell.ending == "died":
        return f"the kernel died ({cell.reason}): all variables are gone; the next call starts a new one"
    return cell.error


def _folder_name(session_id: SessionId) -> str:
    """A folder's name for a session, different for each; ids never form a path."""
    if type(session_id) is int:
        return f"session-{session_id}"
    if isinstance(session_id, str) and _PLAIN_NAME.fullmatch(session_id) and not session_id.startswith("-"):
        return f"session-{session_id}"
    return f"session-{hashlib.sha256(repr(session_id).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _remove(folder: OwnedFolder) -> None:
    """Remove the folder at the end of this process."""
    end_all()  # or they would write there meanwhile
    with suppress(OSError):  # the next process tries again
        folder.remove()


def _later(coroutine: Coroutine[Any, Any, Any]) -> None:
    asyncio.run_coroutine_threadsafe(coroutine, background.loop())


def _look_at(work: asyncio.Future[Any]) -> None:
    """Take note of how abandoned work ended, so that nobody is warned of it."""
    if not work.cancelled():
        work.exception()


def _reap(kernels: weakref.ref[_Kernels], session_id: SessionId) -> None:
    """Close a kernel that was not used for long."""
    pool = kernels()
    slot = None if pool is None else pool._slots.get(session_id)
    if pool is not None and slot is not None and not slot.lock.locked():
        _later(pool._dispose(slot, "the session's kernel was closed because it was not used for long"))


def _show_in_notebook(path: str) -> None:
    """Show an image if this process is itself a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return
    display: Any = importlib.import_module("IPython.display")
    display.display(display.SVG(filename=path) if path.endswith(".svg") else display.Image(filename=path))
