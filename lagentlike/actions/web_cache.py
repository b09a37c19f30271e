"""Values that cost a request, kept for a while: for those who ask again, and for those who ask at the same time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["SharedCache"]

T = TypeVar("T")


class SharedCache(Generic[T]):
    """Keeps what was used last, and makes no value twice at once. For one event loop.

    Args:
        limit: how much is kept: a number of values, or what `weigh` says of them in sum.
        seconds: how long a value is good.
        weigh: how much a value counts; 1 by default.
        clock: the time in seconds.
    """

    def __init__(
        self,
        limit: int,
        seconds: float,
        weigh: Callable[[T], int] = lambda value: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._seconds = seconds
        self._weigh = weigh
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, int, T]] = OrderedDict()
        self._weight = 0
        self._running: dict[Hashable, _Run[T]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The value of a key, from `make` if there is none.

        Whoever asks while it is made waits for the same value. It is given up when nobody waits any more, and an error
        is kept for nobody.
        """
        kept = self._kept.get(key)
        if kept is not None:
            if self._clock() < kept[0]:
                self._kept.move_to_end(key)
                return kept[2]
            self._drop(key)
        run = self._running.get(key)
        if run is None:
            run = self._running[key] = _Run(asyncio.ensure_future(self._make(key, make)))
        run.waiting += 1
        try:
            return await asyncio.shield(run.task)
        finally:
            run.waiting -= 1
            if not run.waiting:
                run.task.cancel()  # of one that is done, this does nothing
                if self._running.get(key) is run:
                    del self._running[key]

    async def _make(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        value = await make()
        weight = self._weigh(value)
        if weight <= self._limit:
            self._kept[key] = (self._clock() + self._seconds, weight, value)
            self._weight += weight
            while self._weight > self._limit:
                self._drop(next(iter(self._kept)))
        return value

    def _drop(self, key: Hashable) -> None:
        _, weight, _ = self._kept.pop(key)
        self._weight -= weight


class _Run(Generic[T]):
    """A value that is being made, and how many wait for it."""

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0
