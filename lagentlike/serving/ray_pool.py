"""Actors that are copies of one agent, as many as there is work for; a session stays with its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..cluster import ROOM_AFTER
from ..concurrency import background
from ..errors import InvalidArgument
from ..memory import SessionId
from .ray_host import Description
from .ray_sessions import Record

__all__ = ["ActorPool", "PoolSettings", "Seat"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolSettings:
    """How many actors there are.

    Attributes:
        min_size: so many, always.
        max_size: at most so many.
        idle_seconds: one that had nothing to do for so long ends, where there are more than `min_size`.
    """

    min_size: int = 1
    max_size: int = 1
    idle_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, least in (("min_size", 1), ("max_size", self.min_size)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidArgument(name, value, f"give a whole number of at least {least}")
        if not isinstance(self.idle_seconds, int | float) or not self.idle_seconds > 0:
            raise InvalidArgument("idle_seconds", self.idle_seconds, "give seconds")


@dataclass(eq=False)
class Seat:
    """One actor.

    Attributes:
        actor: its handle.
        started: the description of its agent, when that is made.
        under_way: turns that it makes.
        known: the sessions that it knows, as it knows them.
        idle_since: when its last turn ended.
        since: when it was asked for.
    """

    actor: Any
    started: Future[Description | Exception]
    under_way: int = 0
    known: dict[SessionId, Record | None] = field(default_factory=dict)
    idle_since: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)

    @property
    def made(self) -> bool:
        """Whether its agent was made."""
        started = self.started
        return started.done() and not started.exception() and isinstance(started.result(), Description)


class ActorPool:
    """Keeps the actors, which `start` makes and `kill` ends.

    A new session goes to an actor that has nothing to do, else to a new one while there may be more, else to the one
    that has least to do. From then on it stays there, until that actor ends.
    """

    def __init__(self, start: Callable[[], Any], kill: Callable[[Any], None], settings: PoolSettings) -> None:
        self._start, self._kill, self._settings = start, kill, settings
        self._guard = threading.RLock()
        self._seats: list[Seat] = []
        self._places: dict[SessionId, Seat] = {}
        self._closed = False
        self._fill()

    @property
    def size(self) -> int:
        """How many actors there are."""
        return len(self._seats)

    @property
    def first(self) -> Seat:
        """The actor that was started first."""
        return self._seats[0]

    @property
    def actors(self) -> list[Any]:
        """Their handles."""
        return [seat.actor for seat in self._seats]

    def take(self, session_id: SessionId) -> Seat:
        """The actor of a session, which now has one turn more to make."""
        with self._guard:
            if self._closed:
                raise InvalidArgument("session_id", session_id, "this agent's actors were closed")
            self._fill()
            seat = self._places.get(session_id)
            if seat is None or self.is_late(seat):
                seat = min(self._seats, key=lambda one: (self.is_late(one), one.under_way))
                if seat.under_way and len(self._seats) < self._settings.max_size:
                    seat = self._grow()
                self._places[session_id] = seat
            seat.under_way += 1
            return seat

    def is_late(self, seat: Seat) -> bool:
        """Whether there is no room for an actor, and another one is there."""
        return (
            not seat.started.done()
            and time.monotonic() - seat.since > ROOM_AFTER
            and any(one.made for one in self._seats)
        )

    def give_back(self, seat: Seat) -> None:
        """A turn has ended."""
        with self._guard:
            seat.under_way -= 1
            seat.idle_since = time.monotonic()
            if not seat.under_way and len(self._seats) > self._settings.min_size:
                loop = background.loop()
                loop.call_soon_threadsafe(loop.call_later, self._settings.idle_seconds, self._reap)

    def lost(self, seat: Seat) -> None:
        """An actor has ended; its sessions go elsewhere when they go on."""
        with self._guard:
            if seat not in self._seats:
                return
            self._end(seat)  # it may live on, where only the way to it is lost
            if seat.made and not self._closed:
                self._fill()  # one that ended as it began is replaced when it is needed, or that would never stop

    def forget(self, session_id: SessionId) -> None:
        """A session is over."""
        with self._guard:
            seat = self._places.pop(session_id, None)
            if seat is not None and seat.known.pop(session_id, None) is not None:
                seat.actor.forget.remote(session_id)

    def close(self) -> None:
        """End all actors."""
        with self._guard:
            self._closed = True
            for seat in list(self._seats):
                self._end(seat)

    def _fill(self) -> None:
        while len(self._seats) < self._settings.min_size:
            self._grow()

    def _grow(self) -> Seat:
        actor = self._start()
        seat = Seat(actor, actor.start.remote().future())
        self._seats.append(seat)
        actor.live.remote().future().add_done_callback(partial(self._ended, seat))
        return seat

    def _ended(self, seat: Seat, life: Future[None]) -> None:
        life.exception()
        background.loop().call_soon_threadsafe(
            self.lost, seat
        )  # this is a thread of Ray's, which must not wait for Ray

    def _reap(self) -> None:
        with self._guard:
            latest = time.monotonic() - self._settings.idle_seconds
            for seat in list(self._seats):
                if len(self._seats) > self._settings.min_size and not seat.under_way and seat.idle_since <= latest:
                    logger.info("an actor that had nothing to do for %g s ends", self._settings.idle_seconds)
                    self._end(seat)

    def _end(self, seat: Seat) -> None:
        self._remove(seat)
        self._kill(seat.actor)

    def _remove(self, seat: Seat) -> None:
        self._seats.remove(seat)
        for session_id in [one for one, place in self._places.items() if place is seat]:
            del self._places[session_id]
