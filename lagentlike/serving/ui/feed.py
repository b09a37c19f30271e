"""Events in a line of bounded length, from any thread to any number of readers, each going on where it stopped."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

__all__ = ["Feed"]


class Feed:
    """The last events, numbered.

    A reader has a place in the line and nothing else, so one that is slow or gone costs nothing. One whose place is out
    of the line by now is told so by a `reset`: it looks at everything anew, and goes on from there.

    Args:
        max_events: most events in the line.
        max_bytes: how much they may weigh together.

    >>> async def read():
    ...     feed = Feed()
    ...     place = feed.place
    ...     feed.publish({"type": "hello"})
    ...     feed.close()
    ...     return [event async for event in feed.since(place)]
    >>> [event.partition(b"\\n")[0] for event in asyncio.run(read())]
    [b'{"type":"hello"}']
    """

    def __init__(self, max_events: int = 5000, max_bytes: int = 4 * 2**20) -> None:
        self._name = os.urandom(4).hex()  # so that a place in the line of an earlier process is none in this one
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._line: deque[bytes] = deque()
        self._weight = 0
        self._last = 0  # number of the last event
        self._closed = False
        self._guard = threading.Lock()
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @property
    def place(self) -> str:
        """The place after the last event."""
        return f"{self._name}.{self._last}"

    @property
    def readers(self) -> int:
        """How many wait for the next event."""
        return len(self._waiting)

    def publish(self, event: Mapping[str, Any]) -> None:
        """Put an event at the end of the line; from any thread."""
        told = json.dumps(event, default=str, separators=(",", ":")).encode()
        with self._guard:
            self._line.append(told)
            self._last += 1
            self._weight += len(told)
            while len(self._line) > self._max_events or self._weight > self._max_bytes:
                self._weight -= len(self._line.popleft())
            self._wake()

    def close(self) -> None:
        """Let all readers come to an end."""
        with self._guard:
            self._closed = True
            self._wake()

    async def since(self, place: str | None) -> AsyncIterator[bytes]:
        """The events after a place, and those to come, as server-sent events have them after `data: `."""
        number = self._number(place)
        woken, loop = asyncio.Event(), asyncio.get_running_loop()
        while True:
            with self._guard:
                new: bytes | None = None
                if number is None or number < self._last - len(self._line):
                    new, number = b'{"type":"reset"}', self._last
                elif number < self._last:
                    new, number = self._line[number - self._last], number + 1
                elif self._closed:
                    return
                else:
                    woken.clear()
                    self._waiting[woken] = loop
            if new is not None:
                yield b"%b\nid: %b" % (new, f"{self._name}.{number}".encode())
                continue
            try:
                await woken.wait()
            finally:
                with self._guard:
                    self._waiting.pop(woken, None)

    def _number(self, place: str | None) -> int | None:
        """The number of the event before a place; None for no place in this line."""
        name, _, number = (place or "").partition(".")
        known = name == self._name and number.isascii() and number.isdigit() and len(number) < 20
        return int(number) if known and int(number) <= self._last else None

    def _wake(self) -> None:
        for woken, loop in self._waiting.items():
            with suppress(RuntimeError):  # the loop is closed, and its reader gone
                loop.call_soon_threadsafe(woken.set)
        self._waiting.clear()
