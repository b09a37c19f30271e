"""Runs the requests of all threads and tasks on one thread, those that wait together as one batch."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Final

from .engine import collect, Generation, GenerationStep, SamplingParams, TinyEngine

__all__ = ["Request", "Scheduler"]

logger = logging.getLogger(__name__)

_GROUPS: Final = 4  # batches decoded in turn; later requests wait for one to end, so that batches stay large
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

    Requests that wait when the thread looks become one batch; a few batches run side by side, a token of each in turn,
    so a long answer does not hold up a short one. The thread is a daemon, starts with the first request and ends when
    there was none for a while.
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
        groups: list[_Group] = []
        while True:
            if len(groups) < _GROUPS:
                waiting = self._taken(block=not groups)
                if not waiting and not groups:
                    if self._retire():
                        return
                    continue
                if waiting:
                    groups.append(_Group(self.engine, waiting))
            groups = [group for group in groups if group.step()]

    def _taken(self, block: bool) -> list[Request]:
        """All that waits; with `block`, as soon as something does."""
        taken: list[Request] = []
        try:
            if block:
                taken.append(self._waiting.get(timeout=_IDLE_SECONDS))
            while True:
                taken.append(self._waiting.get_nowait())
        except queue.Empty:
            return [request for request in taken if request.future.set_running_or_notify_cancel()]

    def _retire(self) -> bool:
        """Let the thread end, unless a request came just now."""
        with self._guard:
            if not self._waiting.empty():
                return False
            self._thread = None
            return True


class _Group:
    """Requests decoded as one batch."""

    def __init__(self, engine: TinyEngine, requests: Sequence[Request]) -> None:
        self._requests = list(requests)
        self._rounds = _rounds(engine, self._requests)

    def step(self) -> bool:
        """One token of every request; whether there is more to do."""
        try:
            for request, step in next(self._rounds, ()):
                self._take(request, step)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer to each request; the thread lives
            for request in self._requests:
                if not request.future.done():
                    request.future.set_exception(error)
        if any(not request.future.done() for request in self._requests):
            return True
        self._rounds.close()  # type: ignore[attr-defined]  # a generator, whose end keeps what was read
        return False

    def _take(self, request: Request, step: GenerationStep) -> None:
        if request.future.done():
            return
        if request.dropped:
            request.future.set_exception(CancelledError())
            return
        request.steps.append(step)
        if request.on_step is not None:
            try:
                request.on_step(step)
            except Exception as error:  # noqa: BLE001  # it goes to whoever asked
                logger.debug("nobody listens to a stream any more: %r", error)
                request.future.set_exception(error)
                return
        if step.finish_reason is not None:
            request.future.set_result(collect(request.steps, len(request.prompt)))


def _rounds(engine: TinyEngine, requests: list[Request]) -> Iterator[list[tuple[Request, GenerationStep]]]:
    """The tokens that the requests get, round by round."""
    if len(requests) == 1:
        only = requests[0]
        for step in engine.stream(only.prompt, only.params):
            yield [(only, step)]
        return
    prompts, params = [request.prompt for request in requests], [request.params for request in requests]
    for steps in engine.stream_batch(prompts, params):
        yield [(requests[index], step) for index, step in steps]
