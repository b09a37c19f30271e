"""Sessions in a PostgreSQL database."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from ..concurrency import in_thread, on_background
from ..errors import InvalidArgument, MissingExtra, StateError
from .search import collected, Found, terms_of, words_of
from .state import SessionId
from .store import (
    assembled,
    candidates,
    Change,
    conflict,
    from_json,
    Kept,
    key_prefix,
    masked,
    session_key,
    session_of,
    SessionStore,
    to_json,
)

__all__ = ["PostgresStore"]

T = TypeVar("T")

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS {0};
CREATE TABLE IF NOT EXISTS {0}.sessions (
    id BIGSERIAL PRIMARY KEY, key TEXT COLLATE "C" NOT NULL UNIQUE, version BIGINT NOT NULL, lengths TEXT NOT NULL,
    note TEXT NOT NULL, written DOUBLE PRECISION NOT NULL
);
CREATE TABLE IF NOT EXISTS {0}.states (
    session BIGINT REFERENCES {0}.sessions ON DELETE CASCADE, path TEXT, value TEXT NOT NULL,
    PRIMARY KEY (session, path)
);
CREATE TABLE IF NOT EXISTS {0}.messages (
    id BIGSERIAL PRIMARY KEY, session BIGINT NOT NULL REFERENCES {0}.sessions ON DELETE CASCADE, path TEXT NOT NULL,
    position INTEGER NOT NULL, message TEXT NOT NULL, words TSVECTOR NOT NULL, UNIQUE (session, path, position)
);
CREATE INDEX IF NOT EXISTS messages_words ON {0}.messages USING gin (words);
"""
_LOCK = 0x6C6167656E74  # so that two processes that start do not make the tables at the same time


class PostgresStore(SessionStore):
    """Sessions in a PostgreSQL database, for agents on many machines; extra `postgres`.

    JSON is kept as text, since `jsonb` refuses some of it and keeps no order. Messages are found through a `tsvector`.

    Args:
        dsn: address such as `postgresql://user:password@host/database`; asyncpg reads `PGHOST`, `PGPASSWORD` and their
            like for what is missing.
        schema: schema that the tables are in; made if need be.
        max_connections: most connections of this process.

    A connection or an answer that is not there within 30 seconds is a `StateError`.

    Raises:
        MissingExtra: asyncpg is not installed.
    """

    def __init__(self, dsn: str | None = None, schema: str = "lagentlike", max_connections: int = 10) -> None:
        try:
            import asyncpg
        except ImportError as error:
            raise MissingExtra("asyncpg", "postgres") from error
        if not re.fullmatch("[a-z_][a-z0-9_]{0,62}", schema):
            raise InvalidArgument("schema", schema, "give small letters, digits and _")
        self._dsn = dsn
        self._schema = schema
        self._max_connections = max_connections
        self._asyncpg = asyncpg
        self._pool: Any = None
        self._opening: asyncio.Lock | None = None

    async def version(self, session_id: SessionId) -> int:
        query = f"SELECT version FROM {self._schema}.sessions WHERE key = $1"
        return await self._do(lambda database: database.fetchval(query, session_key(session_id))) or 0

    async def load(self, session_id: SessionId) -> Kept | None:
        async def load(database: Any) -> Kept | None:
            async with database.transaction(isolation="repeatable_read", readonly=True):
                found = await database.fetchrow(
                    f"SELECT id, version, lengths, note FROM {self._schema}.sessions WHERE key = $1",
                    session_key(session_id),
                )
                if found is None:
                    return None
                session, version, lengths, note = found
                values = await database.fetch(
                    f"SELECT path, value FROM {self._schema}.states WHERE session = $1", session
                )
                messages = await database.fetch(
                    f"SELECT path, message FROM {self._schema}.messages WHERE session = $1 ORDER BY path, position",
                    session,
                )
            return await in_thread(assembled, session_id, version, lengths, note, values, messages)

        return await self._do(load)

    async def append(self, session_id: SessionId, change: Change) -> None:
        async def append(database: Any) -> None:
            async with database.transaction():
                await self._append(database, session_id, change)

        await self._do(append)

    async def delete(self, session_id: SessionId) -> None:
        query = f"DELETE FROM {self._schema}.sessions WHERE key = $1"
        await self._do(lambda database: database.execute(query, session_key(session_id)))

    async def session_ids(self, owner: SessionId | None = None) -> list[SessionId]:
        query = f"SELECT key FROM {self._schema}.sessions WHERE starts_with(key, $1) ORDER BY id"
        found = await self._do(lambda database: database.fetch(query, key_prefix(owner)))
        return [session_of(key) for (key,) in found]

    async def search(self, query: str, limit: int = 10, owner: SessionId | None = None) -> list[Found]:
        terms = terms_of(query)
        if not terms:
            return []
        matching = " & ".join(f"'{term}'" for term in terms)  # words have no quotes

        async def search(database: Any) -> list[Found]:
            rows = await database.fetch(
                f"SELECT key, path, position, message FROM {self._schema}.messages AS found "
                f"JOIN {self._schema}.sessions ON sessions.id = session "
                "WHERE words @@ $1::tsquery AND starts_with(key, $2) ORDER BY found.id DESC LIMIT $3",
                matching,
                key_prefix(owner),
                limit * _COPIES,
            )
            return list(collected(candidates(rows), terms, limit))

        return await self._do(search)

    async def expire(self, seconds: float) -> list[SessionId]:
        query = f"DELETE FROM {self._schema}.sessions WHERE written < $1 RETURNING key"
        found = await self._do(lambda database: database.fetch(query, time.time() - seconds))
        return [session_of(key) for (key,) in found]

    async def close(self) -> None:
        await on_background(self._close())

    def __repr__(self) -> str:
        place = "" if self._dsn is None else f"{masked(self._dsn)!r}, "
        return f"{type(self).__name__}({place}schema={self._schema!r})"

    async def _append(self, database: Any, session_id: SessionId, change: Change) -> None:
        key, lengths, now = session_key(session_id), to_json(change.lengths), time.time()
        if change.after:
            session = await database.fetchval(
                f"UPDATE {self._schema}.sessions SET version = $1, lengths = $2, note = $3, written = $4 "
                "WHERE key = $5 AND version = $6 RETURNING id",
                *(change.version, lengths, change.note, now, key, change.after),
            )
        else:
            session = await database.fetchval(
                f"INSERT INTO {self._schema}.sessions (version, lengths, note, written, key) "
                "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO NOTHING RETURNING id",
                *(change.version, lengths, change.note, now, key),
            )
        if session is None:
            query = f"SELECT version FROM {self._schema}.sessions WHERE key = $1"
            if await database.fetchval(query, key) == change.version:  # it was made before
                return
            raise conflict(session_id)
        if change.values:
            await database.executemany(
                f"INSERT INTO {self._schema}.states VALUES ($1, $2, $3) "
                "ON CONFLICT (session, path) DO UPDATE SET value = excluded.value",
                [(session, path, value) for path, value in change.values.items()],
            )
        for path, tail in change.tails.items():
            await database.execute(
                f"DELETE FROM {self._schema}.messages WHERE session = $1 AND path = $2 AND position >= $3",
                *(session, path, tail.start),
            )
            await database.executemany(
                f"INSERT INTO {self._schema}.messages (session, path, position, message, words) "
                "VALUES ($1, $2, $3, $4, array_to_tsvector($5))",
                [
                    (session, path, position, message, words_of(from_json(message, path))[:_MAX_WORDS])
                    for position, message in enumerate(tail.messages, tail.start)
                ],
            )

    async def _do(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do something with a connection, on the background loop, which has them all."""
        self._check_process()
        return await on_background(self._on_connection(work))

    async def _on_connection(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            async with self._connection() as database:
                return await work(database)
        except (self._asyncpg.PostgresError, self._asyncpg.InterfaceError, OSError) as error:
            raise StateError(f"{self!r} failed: {str(error) or type(error).__name__}") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._pool is None:
                self._pool = await self._opened()
        async with self._pool.acquire() as database:
            yield database

    async def _opened(self) -> Any:
        """Connections, to tables that are there."""
        limits = {"min_size": 0, "max_size": self._max_connections}
        pool = self._asyncpg.create_pool(self._dsn, **limits, timeout=_PATIENCE, command_timeout=_PATIENCE)
        try:
            await pool
            async with pool.acquire() as database, database.transaction():
                await database.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                await database.execute(_SCHEMA.format(self._schema))
        except BaseException as error:
            pool.terminate()
            if isinstance(error, ValueError) and self._dsn is not None:
                cure = "give an address such as postgresql://user:password@host/database"
                raise InvalidArgument("dsn", masked(self._dsn), cure) from None  # that error may show the password
            raise
        return pool

    async def _close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()


_PATIENCE = 30.0
_MAX_WORDS = 10_000  # of a message, so that a tsvector holds them
_COPIES = 8  # a message may be in the memories of so many units of a tree
