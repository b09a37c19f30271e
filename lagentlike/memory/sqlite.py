"""Sessions in an SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ..concurrency import in_thread
from ..errors import InvalidArgument, LagentlikeError, StateError
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
    session_key,
    session_of,
    SessionStore,
    to_json,
)

__all__ = ["SQLiteStore"]

_SCHEMA = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, lengths TEXT NOT NULL,
    note TEXT NOT NULL, written REAL NOT NULL
);
CREATE TABLE states (session INTEGER, path TEXT, value TEXT NOT NULL, PRIMARY KEY (session, path)) WITHOUT ROWID;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY, session INTEGER NOT NULL, path TEXT NOT NULL, position INTEGER NOT NULL,
    message TEXT NOT NULL, UNIQUE (session, path, position)
);
"""
_INDEX = (
    "CREATE VIRTUAL TABLE found USING fts5(words, content='', detail=none, tokenize='unicode61 remove_diacritics 0')"
)
_FORMAT = 1

Work = Callable[[sqlite3.Connection], Any]


class SQLiteStore(SessionStore):
    """Sessions in an SQLite file, for one machine; several processes may share it.

    Turns that end at the same time are written together, in a thread, with one wait for the disk: a turn that was
    answered survives a power cut. Messages are found by their words where SQLite has FTS5, which it has nearly
    everywhere, and by reading them all elsewhere.

    Args:
        path: the file; made if need be, for its user alone.

    Raises:
        InvalidArgument: it is no path of a file.
        StateError: it is no such file.

    >>> import tempfile
    >>> from lagentlike import Agent, ScriptedLLM
    >>> agent = Agent(ScriptedLLM(["Green or black?"]))
    >>> folder = tempfile.TemporaryDirectory()
    >>> keeper = agent.keep(SQLiteStore(f"{folder.name}/sessions.db"))
    >>> agent("Tea, please.", session_id="ann").content
    'Green or black?'
    >>> keeper.store.blocking.search("tea")[0].snippet
    'Tea, please.'
    >>> keeper.store.blocking.close()
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if os.fspath(path) in ("", ":memory:"):
            raise InvalidArgument("path", path, "give the path of a file: without a store, sessions are in memory")
        self.path = Path(path)
        try:
            self.path.touch(mode=0o600)
            self._reader, self._writer = self._connect(), self._connect()
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"{os.fspath(path)!r} cannot be opened: {error}") from error
        try:
            self._indexed = self._prepare()
        except sqlite3.DatabaseError as error:
            self._reader.close()
            self._writer.close()
            raise StateError(f"{os.fspath(path)!r} holds no sessions: {error}") from error
        self._guard = threading.Lock()
        self._reading = threading.Lock()
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._writing = False
        self._thread = ThreadPoolExecutor(1, "lagentlike-sqlite")

    async def version(self, session_id: SessionId) -> int:
        self._check_process()
        key = session_key(session_id)
        with self._reading:  # a query that begins during another one of its connection sees no later turn than that
            found = self._read(self._reader, "SELECT version FROM sessions WHERE key = ?", key)
        return found[0][0] if found else 0

    async def load(self, session_id: SessionId) -> Kept | None:
        return await in_thread(self._load, session_id)

    async def append(self, session_id: SessionId, change: Change) -> None:
        key = session_key(session_id)
        await self._write(lambda database: self._append(database, session_id, key, change))

    async def delete(self, session_id: SessionId) -> None:
        key = session_key(session_id)
        await self._write(lambda database: self._delete(database, "key = ?", key))

    async def session_ids(self, owner: SessionId | None = None) -> list[SessionId]:
        return await in_thread(self._session_ids, owner)

    async def search(self, query: str, limit: int = 10, owner: SessionId | None = None) -> list[Found]:
        return await in_thread(self._search, terms_of(query), limit, owner)

    async def expire(self, seconds: float) -> list[SessionId]:
        before = time.time() - seconds
        keys: list[str] = await self._write(lambda database: self._delete(database, "written < ?", before))
        return [session_of(key) for key in keys]

    async def close(self) -> None:
        await in_thread(self._thread.shutdown)
        self._reader.close()
        self._writer.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.path)!r})"

    def _connect(self) -> sqlite3.Connection:
        self._check_process()
        return sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)

    def _prepare(self) -> bool:
        """Make the tables if they are not there; whether messages are indexed."""
        database = self._writer
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("BEGIN IMMEDIATE")
        with database:  # it commits, or rolls back
            version = database.execute("PRAGMA user_version").fetchone()[0]
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if version != _FORMAT and (version or tables):
                raise sqlite3.DatabaseError(f"it is a database of format {version}, this package reads {_FORMAT}")
            if version == _FORMAT:
                return "found" in tables
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_FORMAT}")
            try:
                database.execute(_INDEX)
            except sqlite3.OperationalError:  # this SQLite was built without it
                return False
            return True

    def _read(self, database: sqlite3.Connection, query: str, *values: Any) -> list[Any]:
        try:
            return database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StateError(f"{os.fspath(self.path)!r} cannot be read: {error}") from error

    def _load(self, session_id: SessionId) -> Kept | None:
        with closing(self._connect()) as database:
            database.execute("BEGIN")  # so that what is read is of one moment
            found = self._read(
                database, "SELECT id, version, lengths, note FROM sessions WHERE key = ?", session_key(session_id)
            )
            if not found:
                return None
            session, version, lengths, note = found[0]
            values = self._read(database, "SELECT path, value FROM states WHERE session = ?", session)
            messages = self._read(
                database, "SELECT path, message FROM messages WHERE session = ? ORDER BY path, position", session
            )
        return assembled(session_id, version, lengths, note, values, messages)

    def _session_ids(self, owner: SessionId | None) -> list[SessionId]:
        with closing(self._connect()) as database:
            query = "SELECT key FROM sessions WHERE substr(key, 1, ?) = ? ORDER BY id"
            return [session_of(key) for (key,) in self._read(database, query, *_within(owner))]

    def _search(self, terms: list[str], limit: int, owner: SessionId | None) -> list[Found]:
        if not terms:
            return []
        matching, values = "", []
        if self._indexed:
            matching = "AND messages.id IN (SELECT rowid FROM found WHERE found MATCH ?)"
            values = [" ".join(f'"{term}"' for term in terms)]
        with closing(self._connect()) as database:
            try:
                rows = database.execute(
                    "SELECT key, path, position, CAST(message AS BLOB) "
                    "FROM messages JOIN sessions ON sessions.id = session "
                    f"WHERE substr(key, 1, ?) = ? {matching} ORDER BY messages.id DESC",
                    (*_within(owner), *values),
                )
                return list(collected(candidates(rows), terms, limit))
            except sqlite3.Error as error:
                raise StateError(f"{os.fspath(self.path)!r} cannot be searched: {error}") from error

    async def _write(self, work: Work) -> Any:
        self._check_process()
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._guard:
            if not self._writing:
                try:
                    self._thread.submit(self._write_all)
                except RuntimeError:
                    raise StateError(f"{os.fspath(self.path)!r} cannot be written: it was closed here") from None
                self._writing = True
            self._waiting.append((work, done))
        return await done

    def _write_all(self) -> None:
        """Write what waits, and what comes in meanwhile, one transaction after another."""
        while True:
            with self._guard:
                group, self._waiting = self._waiting, []
                if not group:
                    self._writing = False
                    return
            self._commit([(work, done) for work, done in group if not done.cancelled()])

    def _commit(self, group: list[tuple[Work, asyncio.Future[Any]]]) -> None:
        outcomes: _Outcomes = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            with self._writer:
                outcomes = [(done, self._done(work)) for work, done in group]
        except Exception as error:  # noqa: BLE001  # whoever waits gets it
            outcomes = [(done, StateError(f"{os.fspath(self.path)!r} cannot be written: {error}")) for _, done in group]
        by_loop: dict[asyncio.AbstractEventLoop, _Outcomes] = {}
        for done, outcome in outcomes:
            by_loop.setdefault(done.get_loop(), []).append((done, outcome))
        for loop, those in by_loop.items():  # each is woken once
            with suppress(RuntimeError):  # it is closed: nobody waits
                loop.call_soon_threadsafe(_settle, those)

    def _done(self, work: Work) -> Any:
        """What one of the changes of a transaction gives; its error, if only that one fails."""
        self._writer.execute("SAVEPOINT one")
        try:
            outcome = work(self._writer)
        except (LagentlikeError, ValueError) as error:
            self._writer.execute("ROLLBACK TO one")
            outcome = error
        self._writer.execute("RELEASE one")
        return outcome

    def _append(self, database: sqlite3.Connection, session_id: SessionId, key: str, change: Change) -> None:
        lengths, now = to_json(change.lengths), time.time()
        if change.after:
            row = database.execute(
                "UPDATE sessions SET version = ?, lengths = ?, note = ?, written = ? WHERE key = ? AND version = ? "
                "RETURNING id",
                (change.version, lengths, change.note, now, key, change.after),
            ).fetchone()
        else:
            row = database.execute(
                "INSERT OR IGNORE INTO sessions (key, version, lengths, note, written) VALUES (?, ?, ?, ?, ?) "
                "RETURNING id",
                (key, change.version, lengths, change.note, now),
            ).fetchone()
        if row is None:
            found = database.execute("SELECT version FROM sessions WHERE key = ?", (key,)).fetchone()
            if found == (change.version,):  # it was made before
                return
            raise conflict(session_id)
        session = row[0]
        database.executemany(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?)",
            [(session, path, value) for path, value in change.values.items()],
        )
        for path, tail in change.tails.items():
            self._cut(database, "session = ? AND path = ? AND position >= ?", session, path, tail.start)
            for position, message in enumerate(tail.messages, tail.start):
                added = database.execute(
                    "INSERT INTO messages (session, path, position, message) VALUES (?, ?, ?, ?)",
                    (session, path, position, message),
                )
                if self._indexed:
                    words = " ".join(words_of(from_json(message, path)))
                    database.execute("INSERT INTO found (rowid, words) VALUES (?, ?)", (added.lastrowid, words))

    def _delete(self, database: sqlite3.Connection, which: str, value: Any) -> list[str]:
        gone = database.execute(f"DELETE FROM sessions WHERE {which} RETURNING id, key", (value,)).fetchall()
        for session, _ in gone:
            database.execute("DELETE FROM states WHERE session = ?", (session,))
            self._cut(database, "session = ?", session)
        return [key for _, key in gone]

    def _cut(self, database: sqlite3.Connection, which: str, *values: Any) -> None:
        """Remove messages, and what they are found by."""
        returning = "RETURNING id, CAST(message AS BLOB)"  # whatever is in it, it can go
        gone = database.execute(f"DELETE FROM messages WHERE {which} {returning}", values).fetchall()
        if self._indexed:
            for row, message in gone:
                with suppress(StateError):  # a damaged one: what it was found by leads nowhere now
                    words = " ".join(words_of(from_json(message, "a message")))
                    database.execute("INSERT INTO found (found, rowid, words) VALUES ('delete', ?, ?)", (row, words))


_Outcomes = list[tuple["asyncio.Future[Any]", Any]]


def _settle(outcomes: _Outcomes) -> None:
    """Tell those who wait, in their event loop."""
    for done, outcome in outcomes:
        if done.cancelled():
            continue
        if isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)


def _within(owner: SessionId | None) -> tuple[int, str]:
    prefix = key_prefix(owner)
    return len(prefix), prefix
