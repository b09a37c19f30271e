"""Where cached answers are kept: in memory, or in an SQLite file that processes share."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, Self

from ..errors import InvalidArgument, StateError

__all__ = ["Cache", "MemoryCache", "SQLiteCache"]

logger = logging.getLogger(__name__)

_now = time.time


class Cache:
    """What a `CachedLLM` keeps answers in: bytes by key. Its methods may be called from any thread."""

    def get(self, key: str) -> bytes | None:
        """What is kept under a key, None if nothing is. Async models call it in their event loop: it must be quick."""
        raise NotImplementedError(f"{type(self).__name__} must define get(key)")

    def put(self, key: str, value: bytes) -> None:
        """Keep something under a key."""
        raise NotImplementedError(f"{type(self).__name__} must define put(key, value)")

    def close(self) -> None:
        """Let go of what it holds open."""

    def __deepcopy__(self, memo: Any) -> Self:
        """A copy of a model shares it."""
        return self


class MemoryCache(Cache):
    """Answers in the memory of this process.

    Args:
        max_bytes: most bytes; what was not used for longest goes first.
        ttl: seconds after which an answer is forgotten; None for never.
    """

    def __init__(self, max_bytes: int = 256 * 2**20, ttl: float | None = None) -> None:
        self.max_bytes, self.ttl = _checked(max_bytes, ttl)
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._size = 0
        self._guard = threading.Lock()

    def get(self, key: str) -> bytes | None:
        with self._guard:
            value, written = self._kept.get(key, (None, 0.0))
            if value is None:
                return None
            if self.ttl is not None and _now() - written > self.ttl:
                self._drop(key)
                return None
            self._kept.move_to_end(key)
            return value

    def put(self, key: str, value: bytes) -> None:
        with self._guard:
            self._drop(key)
            self._kept[key] = value, _now()
            self._size += len(value)
            while self._size > self.max_bytes:
                self._drop(next(iter(self._kept)))

    def __len__(self) -> int:
        return len(self._kept)

    def __reduce__(self) -> Any:
        return MemoryCache, (self.max_bytes, self.ttl)  # another process has its own

    def __repr__(self) -> str:
        return f"MemoryCache({len(self)} answers)"

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= len(kept[0])


_SCHEMA = (
    """CREATE TABLE answers (
        key TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL, written REAL NOT NULL, used REAL NOT NULL
    )""",
    "CREATE INDEX by_use ON answers (used)",
    "CREATE TABLE size (bytes INTEGER NOT NULL)",
    "INSERT INTO size VALUES (0)",
    "CREATE TRIGGER added AFTER INSERT ON answers BEGIN UPDATE size SET bytes = bytes + length(new.value); END",
    "CREATE TRIGGER removed AFTER DELETE ON answers BEGIN UPDATE size SET bytes = bytes - length(old.value); END",
)
_APPLICATION = 0x6C616763  # how SQLite files say what they hold
_FORMAT = 1


class SQLiteCache(Cache):
    """Answers in an SQLite file, which several processes may share and any of them may be killed at.

    An entry that is damaged counts as missing, and a warning is logged; so does all of a file that breaks.

    Args:
        path: the file; made if need be, for its user alone.
        max_bytes: most bytes of answers; what was not used for longest goes first.
        ttl: seconds after which an answer is forgotten; None for never.

    Raises:
        StateError: the file cannot be opened, or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = 2**30, ttl: float | None = None) -> None:
        self.path = Path(path)
        self.max_bytes, self.ttl = _checked(max_bytes, ttl)
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._used: dict[str, float] = {}
        self._open()

    def get(self, key: str) -> bytes | None:
        with self._reading:
            try:
                row = self._reader().execute("SELECT value, crc, written FROM answers WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                logger.warning("%r cannot be read: %s", self, error)
                return None
            if row is None or (self.ttl is not None and _now() - row[2] > self.ttl):
                return None
            self._used[key] = _now()
        value, crc, _ = row
        if not isinstance(value, bytes) or zlib.crc32(value) != crc:
            logger.warning("%r: the entry %.12s… is damaged, and counts as missing", self, key)
            return None
        return value

    def put(self, key: str, value: bytes) -> None:
        now = _now()
        with self._reading:
            used, self._used = self._used, {}
        with self._writing:
            try:
                database = self._writer()
                database.execute("BEGIN IMMEDIATE")
                with database:  # it commits, or rolls back
                    database.executemany(
                        "UPDATE answers SET used = ? WHERE key = ?", [(at, k) for k, at in used.items()]
                    )
                    database.execute("DELETE FROM answers WHERE key = ?", (key,))  # REPLACE would run no trigger
                    database.execute(
                        "INSERT INTO answers VALUES (?, ?, ?, ?, ?)", (key, value, zlib.crc32(value), now, now)
                    )
                    self._make_room(database, now)
            except sqlite3.Error as error:
                logger.warning("%r: an answer cannot be kept: %s", self, error)

    def close(self) -> None:
        with self._reading, self._writing:
            for connection in (self._read, self._write):
                connection.close()

    def __len__(self) -> int:
        with self._reading:
            return int(self._reader().execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def __reduce__(self) -> Any:
        return SQLiteCache, (self.path, self.max_bytes, self.ttl)

    def __repr__(self) -> str:
        return f"SQLiteCache({os.fspath(self.path)!r})"

    def _open(self) -> None:
        self._pid = os.getpid()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            self._write, self._read = self._connect(), self._connect()
            self._prepare(self._write)
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"{os.fspath(self.path)!r} is no cache of answers: {error}") from error

    def _reader(self) -> sqlite3.Connection:
        if self._pid != os.getpid():  # a connection is of no use after a fork
            self._open()
        return self._read

    def _writer(self) -> sqlite3.Connection:
        self._reader()
        return self._write

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last answers, and breaks nothing
        database.execute("BEGIN IMMEDIATE")
        with database:
            application = database.execute("PRAGMA application_id").fetchone()[0]
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if not application and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA:
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {_APPLICATION}")
                database.execute(f"PRAGMA user_version = {_FORMAT}")
            elif (application, version) != (_APPLICATION, _FORMAT):
                raise sqlite3.DatabaseError("it holds something else, or is of another version")
            if self.ttl is not None:
                database.execute("DELETE FROM answers WHERE written < ?", (_now() - self.ttl,))

    def _make_room(self, database: sqlite3.Connection, now: float) -> None:
        excess = database.execute("SELECT bytes FROM size").fetchone()[0] - self.max_bytes
        if excess <= 0:
            return
        if self.ttl is not None:
            database.execute("DELETE FROM answers WHERE written < ?", (now - self.ttl,))
            excess = database.execute("SELECT bytes FROM size").fetchone()[0] - self.max_bytes
        gone = []
        for key, length in database.execute("SELECT key, length(value) FROM answers ORDER BY used, written"):
            if excess <= -self.max_bytes // 20:  # a little more than must go, so that it is not each time
                break
            gone.append((key,))
            excess -= length
        database.executemany("DELETE FROM answers WHERE key = ?", gone)


def _checked(max_bytes: Any, ttl: Any) -> tuple[int, float | None]:
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise InvalidArgument("max_bytes", max_bytes, "give a whole number of at least 1")
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int | float) or not ttl > 0):
        raise InvalidArgument("ttl", ttl, "give seconds, more than 0, or None to keep answers for ever")
    return max_bytes, ttl
