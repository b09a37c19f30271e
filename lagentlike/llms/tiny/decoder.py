"""Decodes the requests of a scheduler with the embedded model, side by side in one batch."""

from __future__ import annotations

from concurrent.futures import CancelledError

from ..scheduler import fail, Request
from .engine import Batch, Reply, TinyEngine

__all__ = ["TinyDecoder"]


class TinyDecoder:
    """The requests under way with one engine: one batch, but where the engine was given other weights meanwhile."""

    def __init__(self, engine: TinyEngine) -> None:
        self._engine = engine
        self._under_way: list[_Running] = []

    @property
    def room(self) -> int:
        """How many more requests it takes now."""
        return min((one.batch.room for one in self._under_way), default=Batch(self._engine).room)

    def join(self, requests: list[Request]) -> None:
        """Take in requests; one that cannot be read gets the error."""
        if not self._under_way or self._under_way[-1].batch.prefixes is not self._engine.prefixes:
            self._under_way.append(_Running(self._engine))
        self._under_way[-1].join(requests)

    def step(self) -> bool:
        """One token of every request; whether there is more to do."""
        self._under_way = [one for one in self._under_way if one.step()]
        return bool(self._under_way)


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
                fail([request], error)
        try:
            replies = self.batch.add([one for _, one in readable])
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer to each request; the thread lives
            fail([request for request, _ in readable], error)
            return
        self._requests |= zip(replies, (request for request, _ in readable), strict=True)

    def step(self) -> bool:
        """One token of every request; whether there is more to do."""
        for reply, request in list(self._requests.items()):
            if request.dropped:
                fail([request], CancelledError())
                self._end(reply)
        try:
            taken = self.batch.step()
        except Exception as error:  # noqa: BLE001  # as above
            fail(list(self._requests.values()), error)
            return False
        for reply, step in taken:
            if not self._requests[reply].take(step):
                self._end(reply)
        return bool(self._requests)

    def _end(self, reply: Reply) -> None:
        """Work on a request no longer."""
        del self._requests[reply]
        self.batch.drop(reply)
