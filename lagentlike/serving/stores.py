"""Where a server keeps its sessions, so that they outlive its process."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

from ..concurrency import in_thread
from ..errors import StateError

__all__ = ["SQLiteSessions", "SessionStore"]


class SessionStore(Protocol):
    """Sessions by their key, each a JSON object that is only ever read and written whole.

    A key is `owner/session`, of letters, digits, `_` and `-` on both sides of the one slash.
    """

    async def get(self, key: str) -> dict[str, Any] | None:
        """What was last put under a key, or None."""

    async def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a value; when this returns, a crash does not lose it any more."""

    async def delete(self, key: str) -> None:
        """Forget a key."""

    async def keys(self, prefix: str) -> list[str]:
        """The keys that begin with a text, the one first put first."""

    async def close(self) -> None:
        """Let go of files and connections."""


class SQLiteSessions:
    """Sessions in an SQLite file.

    What is put at the same time is written together, in a thread, with one wait for the disk (`synchronous=FULL`).
    Reads have a connection of their own and wait for no write; they take some microseconds, less than a thread would.

    Args:
        path: the file; made if need be, for its user alone.

    Raises:
        StateError: it is no SQLite file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.touch(mode=0o600)
        self._reader, self._writer = (
            sqlite3.connect(self.path, check_same_thread=False, isolation_level=None) for _ in range(2)
        )
        try:
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA synchronous=FULL")
            self._writer.execute("CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        except sqlite3.DatabaseError as error:
            self._close()
            raise StateError(f"{os.fspath(path)!r} holds no sessions: {error}") from error
        self._waiting: list[tuple[str, Mapping[str, Any] | None, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def get(self, key: str) -> dict[str, Any] | None:
        found = self._reader.execute("SELECT value FROM sessions WHERE key = ?", (key,)).fetchone()
        return None if found is None else orjson.loads(found[0])

    async def put(self, key: str, value: Mapping[str, Any]) -> None:
        await self._write(key, value)

    async def delete(self, key: str) -> None:
        await self._write(key, None)

    async def keys(self, prefix: str) -> list[str]:
        query = "SELECT key FROM sessions WHERE key >= ? AND key < ? ORDER BY rowid"
        found = self._reader.execute(query, (prefix, prefix + "\U0010ffff")).fetchall()
        return [key for (key,) in found]

    async def close(self) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._close()

    def _close(self) -> None:
        self._reader.close()
        self._writer.close()

    async def _write(self, key: str, value: Mapping[str, Any] | None) -> None:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, value, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await written

    async def _write_all(self) -> None:
        """Write what waits, and what comes in meanwhile, one transaction after another."""
        while self._waiting:
            group, self._waiting = self._waiting, []
            error = await in_thread(self._commit, [(key, value) for key, value, _ in group])
            for _, _, written in group:
                if written.done():
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(StateError(f"{os.fspath(self.path)!r} cannot be written: {error}"))

    def _commit(self, changes: list[tuple[str, Mapping[str, Any] | None]]) -> Exception | None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                for key, value in changes:
                    if value is None:
                        self._writer.execute("DELETE FROM sessions WHERE key = ?", (key,))
                    else:
                        self._writer.execute(
                            "INSERT INTO sessions VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                            (key, orjson.dumps(value)),
                        )
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
        except (sqlite3.Error, TypeError) as error:
            return error
        return None
