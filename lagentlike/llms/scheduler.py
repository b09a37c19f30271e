"""The line in front of a model of this process: requests of all threads and tasks, decoded together on one thread."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from .tiny.engine import collect, Generation, GenerationStep, SamplingParams

__all__ = ["Decoder", "OnStep", "Request", "Scheduler", "fail"]

logger = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 30.0  # after which the thread ends; the next request starts a new one
_EXIT_SECONDS: Final = 10.0  # that a program which ends waits for the token that is being decoded

OnStep = Callable[[GenerationStep], None]
"""Called with every sampled token, on the scheduler's thread; it must not block."""


@dataclass(eq=False)
class Request:
    """One prompt on its way through an engine.

    `future` gets the reply. What `on_step` raises drops the request.
    """

    prompt: list[int]
    params: SamplingParams
    on_step: OnStep | None = None
    future: Future[Generation] = field(default_factory=Future)
    steps: list[GenerationStep] = field(default_factory=list)
    dropped: bool = False

    def drop(self) -> None:
        """Nobody wants the reply any more."""
        self.dropped = True
        self.future.cancel()

    def take(self, step: GenerationStep) -> bool:
        """Take a sampled token; whether more are wanted."""
        self.steps.append(step)
        if self.on_step is not None:
            try:
                self.on_step(step)
            except Exception as error:  # noqa: BLE001  # it goes to whoever asked
                logger.debug("nobody listens to a stream any more: %r", error)
                self.future.set_exception(error)
                return False
        if step.finish_reason is None:
            return True
        self.future.set_result(collect(self.steps, len(self.prompt)))
        return False


class Decoder(Protocol):
    """Requests that are decoded side by side; it works on the scheduler's thread alone and lets no error out."""

    @property
    def room(self) -> int:
        """How many more requests it takes now; some, where it has none."""
        ...

    def join(self, requests: list[Request]) -> None:
        """Take in requests beside those that are under way; one that cannot be read gets the error."""
        ...

    def step(self) -> bool:
        """A token of every request; whether there is more to do."""
        ...


class Scheduler:
    """The queue in front of a decoder.

    A request joins those that are under way at their next token, and one that ends makes room for the next. The thread
    is a daemon, starts with the first request and ends when there was none for a while, or with the program: at the
    next token then, since torch aborts a process that ends while a thread is inside it.

    Args:
        decoder: makes the decoder, once for each thread.
        name: of the thread.
        window: seconds that an idle model waits for more requests after the first.
    """

    def __init__(self, decoder: Callable[[], Decoder], name: str, window: float = 0.0) -> None:
        self._decoder = decoder
        self._name, self._window = name, window
        self._guard = threading.Lock()
        self._waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def submit(self, request: Request) -> Request:
        """Put a request in line; its `future` tells the rest."""
        if _ending.is_set():
            fail([request], RuntimeError("the program is ending: nothing more is decoded"))
            return request
        with self._guard:
            if self._pid != os.getpid():  # a forked process has neither the thread nor its requests
                self._waiting, self._pid, self._thread = queue.SimpleQueue(), os.getpid(), None
            self._waiting.put(request)
            if self._thread is None:
                _started.add(self)
                self._thread = threading.Thread(target=self._run, daemon=True, name=self._name)
                self._thread.start()
        return request

    def _run(self) -> None:
        decoder, going = self._decoder(), False
        while not _ending.is_set():
            waiting = self._taken(decoder.room, block=not going)
            if not waiting and not going:
                if self._retire():
                    return
                continue
            if waiting:
                decoder.join(waiting)
            going = decoder.step()

    def _taken(self, most: int, block: bool) -> list[Request]:
        """What waits, up to `most`; with `block`, as soon as something does, and what comes within the window."""
        taken: list[Request] = []
        window = self._window if block else 0.0
        with suppress(queue.Empty):
            if block:
                taken.append(self._waiting.get(timeout=_IDLE_SECONDS))
            while len(taken) < most:
                taken.append(self._waiting.get(timeout=window) if window else self._waiting.get_nowait())
        return [request for request in taken if request.future.set_running_or_notify_cancel()]

    def _retire(self) -> bool:
        """Let the thread end, unless a request came just now."""
        with self._guard:
            if not self._waiting.empty():
                return False
            self._thread = None
            return True


_started: weakref.WeakSet[Scheduler] = weakref.WeakSet()
_ending = threading.Event()


@atexit.register
def _end() -> None:
    """Let the threads end before the program does; requests that are under way are never answered."""
    _ending.set()
    for scheduler in list(_started):
        thread = scheduler._thread
        if thread is not None and scheduler._pid == os.getpid():
            wake = Request([], SamplingParams())
            wake.drop()
            scheduler._waiting.put(wake)
            thread.join(_EXIT_SECONDS)


def fail(requests: list[Request], error: BaseException) -> None:
    """Answer requests with an error."""
    for request in requests:
        if not request.future.done():
            request.future.set_exception(error)
