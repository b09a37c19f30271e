"""Runs the requests of all threads and tasks on one thread, side by side in one batch."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from .engine import Batch, collect, Generation, GenerationStep, Reply, SamplingParams, TinyEngine

__all__ = ["Request", "Scheduler"]

logger = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 30.0  # after which the thread ends; the next request starts a new one


@dataclass(eq=False)
class Request:
    """One prompt on its way through the engine.

    `future` gets the reply. `on_step` is called with every sampled token, on the scheduler's thread, and must not
    block; what it raises drops the request.
    """

    prompt: list[int]
    params: SamplingParams
    on_step: Callable[[GenerationStep], None] | None = None
    future: Future[Generation] = field(default_factory=Future)
    steps: list[GenerationStep] = field(default_factory=list)
    dropped: bool = False

    def drop(self) -> None:
        """Nobody wants the reply any more."""
        self.dropped = True
        self.future.cancel()


class Scheduler:
    """The queue in front of an engine.

    A request joins those that are under way at their next token, and one that ends makes room for the next. The thread
    is a daemon, starts with the first request and ends when there was none for a while.
    """

    def __init__(self, engine: TinyEngine) -> None:
        self.engine = engine
        self._guard = threading.Lock()
        self._waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def submit(self, request: Request) -> Request:
        """Put a request in line; its `future` tells the rest."""
        with self._guard:
            if self._pid != os.getpid():  # a forked process has neither the thread nor its requests
                self._waiting, self._pid, self._thread = queue.SimpleQueue(), os.getpid(), None
            self._waiting.put(request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="lagentlike-tiny")
                self._thread.start()
        return request

    def _run(self) -> None:
        under_way: list[_Running] = []  # one, but where the engine was given other weights meanwhile
        while True:
            waiting = self._taken(block=not under_way, most=min((one.batch.room for one in under_way), default=1))
            if not waiting and not under_way and self._retire():
                return
            if waiting:
                if not under_way or under_way[-1].batch.prefixes is not self.engine.prefixes:
                    under_way.append(_Running(self.engine))
                under_way[-1].join(waiting)
            under_way = [one for one in under_way if one.step()]

    def _taken(self, block: bool, most: int) -> list[Request]:
        """What waits, up to `most`; with `block`, all of it as soon as something does."""
        taken: list[Request] = []
        with suppress(queue.Empty):
            if block:
                taken.append(self._waiting.get(timeout=_IDLE_SECONDS))
                most = Batch(self.engine).room
            while len(taken) < most:
                taken.append(self._waiting.get_nowait())
        return [request for request in taken if request.future.set_running_or_notify_cancel()]

    def _retire(self) -> bool:
        """Let the thread end, unless a request came just now."""
        with self._guard:
            if not self._waiting.empty():
                return False
            self._thread = None
            return True


class _Running:
    """Requests that are decoded as one batch."""

    def __init__(self, engine: TinyEngine) -> None:
        self.batch = Batch(engine)
        self._engine = engine
        self._requests: dict[Reply, Request] = {}

    def join(self, requests: list[Request]) -> None:
        """Take in requests; one that cannot be read gets the error."""
        readable = []
        for request in requests:
            try:
                readable.append((request, (self._engine.checked(request.prompt), request.params)))
            except ValueError as error:
                request.future.set_exception(error)
        try:
            replies = self.batch.add([one for _, one in readable])
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer to each request; the thread lives
            for request, _ in readable:
                request.future.set_exception(error)
            return
        self._requests |= zip(replies, (request for request, _ in readable), strict=True)

    def step(self) -> bool:
        """One token of every request; whether there is more to do."""
        for reply, request in list(self._requests.items()):
            if request.dropped:
                self._end(reply, CancelledError())
        try:
            taken = self.batch.step()
        except Exception as error:  # noqa: BLE001  # as above
            for request in self._requests.values():
                request.future.set_exception(error)
            return False
        for reply, step in taken:
            self._take(reply, step)
        return bool(self._requests)

    def _take(self, reply: Reply, step: GenerationStep) -> None:
        request = self._requests[reply]
        request.steps.append(step)
        if request.on_step is not None:
            try:
                request.on_step(step)
            except Exception as error:  # noqa: BLE001  # it goes to whoever asked
                logger.debug("nobody listens to a stream any more: %r", error)
                self._end(reply, error)
                return
        if step.finish_reason is not None:
            del self._requests[reply]
            request.future.set_result(collect(request.steps, len(request.prompt)))

    def _end(self, reply: Reply, error: BaseException) -> None:
        """Work on a request no longer."""
        self._requests.pop(reply).future.set_exception(error)
        self.batch.drop(reply)
