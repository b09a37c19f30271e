"""What a session remembers, and where it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .address import open_store
    from .keeper import Keeper
    from .manager import MemoryManager
    from .memory import Memory
    from .postgres import PostgresStore
    from .redis import RedisStore
    from .search import Found
    from .sqlite import SQLiteStore
    from .state import check_session_id, SessionId, SessionState, SessionValue
    from .store import Change, Kept, SessionStore, Tail

__all__ = [
    "Change",
    "Found",
    "Keeper",
    "Kept",
    "Memory",
    "MemoryManager",
    "PostgresStore",
    "RedisStore",
    "SQLiteStore",
    "SessionId",
    "SessionState",
    "SessionStore",
    "SessionValue",
    "Tail",
    "check_session_id",
    "open_store",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "address": ["open_store"],
        "keeper": ["Keeper"],
        "manager": ["MemoryManager"],
        "memory": ["Memory"],
        "postgres": ["PostgresStore"],
        "redis": ["RedisStore"],
        "search": ["Found"],
        "sqlite": ["SQLiteStore"],
        "state": ["SessionId", "SessionState", "SessionValue", "check_session_id"],
        "store": ["Change", "Kept", "SessionStore", "Tail"],
    },
)
