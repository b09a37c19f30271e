"""Open a store of sessions by its path or its address."""

from __future__ import annotations

import os
import re

from ..errors import InvalidArgument
from .store import masked, SessionStore

__all__ = ["open_store"]


def open_store(place: SessionStore | str | os.PathLike[str]) -> SessionStore:
    """The store at a place.

    Args:
        place: the path of an SQLite file, an address such as `postgresql://user@host/database` or
            `redis://host:6379/0`, or a store, which is given back.

    Raises:
        InvalidArgument: it is an address of another kind, or none that can be read.
        MissingExtra: what it takes to reach the store is not installed.
        StateError: the file holds something else, or cannot be opened.

    >>> open_store("redis://:secret@sessions.example/0")
    RedisStore('redis://***@sessions.example/0')
    """
    if isinstance(place, SessionStore):
        return place
    if not isinstance(place, str | os.PathLike):
        raise InvalidArgument("store", place, _PLACES)
    scheme = re.match("[A-Za-z][A-Za-z0-9+.-]*(?=://)", place) if isinstance(place, str) else None
    if not isinstance(place, str) or scheme is None:
        from .sqlite import SQLiteStore  # each kind needs what no other does

        return SQLiteStore(place)
    if scheme[0] in ("postgresql", "postgres"):
        from .postgres import PostgresStore

        return PostgresStore(place)
    if scheme[0] in ("redis", "rediss", "unix"):
        from .redis import RedisStore

        return RedisStore(place)
    raise InvalidArgument("store", masked(place), _PLACES)


_PLACES = "give the path of an SQLite file, postgresql://…, redis://…, rediss://…, unix://…, or a SessionStore"
