"""What a store of sessions is: where they are kept turn by turn, so that they outlive their process."""

from __future__ import annotations

import json
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from ..concurrency import run_in_background
from ..errors import InvalidArgument, SessionConflict, StateError
from .search import Found
from .state import check_session_id, id_from_json, id_to_json, SessionId

__all__ = [
    "BlockingStore",
    "Change",
    "Kept",
    "SessionStore",
    "Tail",
    "assembled",
    "candidates",
    "conflict",
    "from_json",
    "key_prefix",
    "masked",
    "session_key",
    "session_of",
    "to_json",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """A session as a store has it.

    Attributes:
        version: changes with each turn; never 0.
        lengths: how many messages each memory of the tree has, by its path.
        values: every other state of the tree, by its path.
        messages: the messages of each memory.
        note: what was kept with the last turn.
    """

    version: int
    lengths: Mapping[str, int]
    values: Mapping[str, Any]
    messages: Mapping[str, list[Any]]
    note: Any = None


@dataclass(frozen=True)
class Tail:
    """The end of a memory: its messages as JSON from position `start` on. What was there before goes."""

    start: int
    messages: Sequence[str]


@dataclass(frozen=True)
class Change:
    """What a turn changed of a session; a store takes it whole or not at all.

    Attributes:
        after: the version that it follows; 0 for a session that is not kept yet.
        version: the version that it makes.
        lengths: how long each memory is then, by its path.
        tails: what is new in them.
        values: other states that changed, as JSON.
        note: JSON that is kept beside the session.
    """

    after: int
    version: int
    lengths: Mapping[str, int]
    tails: Mapping[str, Tail] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    note: str = "null"


class SessionStore(ABC):
    """Sessions by their id, which several processes may read and write.

    `agent.keep(store)` keeps an agent's sessions in one, and `AgentServer(agent, store=store)` a server's. All methods
    are coroutines, for any event loop; `blocking` has them for code without one. A store is of the process that opened
    it, and not of one that is forked from that: a file or a connection that both go on with would be damaged.
    """

    _process: int

    def __new__(cls, *_: Any, **__: Any) -> Self:
        store = super().__new__(cls)
        store._process = os.getpid()
        return store

    def _check_process(self) -> None:
        """Refuse to go on in a process that was forked from the store's.

        Raises:
            StateError: this is one.
        """
        if self._process != os.getpid():
            cure = "open stores after the fork, or start processes by 'spawn'"
            raise StateError(f"{self!r} was opened before this process was forked: {cure}")

    @abstractmethod
    async def version(self, session_id: SessionId) -> int:
        """The version of a session; 0 if it is not there."""

    @abstractmethod
    async def load(self, session_id: SessionId) -> Kept | None:
        """A session as its last turn left it, or None.

        Raises:
            StateError: it is damaged, or cannot be read.
        """

    @abstractmethod
    async def append(self, session_id: SessionId, change: Change) -> None:
        """Keep what a turn changed; when this returns, a crash of this process does not lose it any more.

        A change that the session is at already, because an answer was lost, is not made again.

        Raises:
            SessionConflict: the session is not at the version that the change follows; nothing is changed.
            StateError: it cannot be written.
        """

    @abstractmethod
    async def delete(self, session_id: SessionId) -> None:
        """Forget a session."""

    @abstractmethod
    async def session_ids(self, owner: SessionId | None = None) -> list[SessionId]:
        """The sessions that are kept, the oldest first.

        Args:
            owner: only those whose id is a tuple of several parts that begins with this.
        """

    @abstractmethod
    async def search(self, query: str, limit: int = 10, owner: SessionId | None = None) -> list[Found]:
        """Messages that hold all words of a text, whatever their case, the newest first.

        Args:
            query: words; a text in a script without spaces is found wherever its parts are.
            limit: most messages; one that several memories of a session have counts once.
            owner: as for `session_ids`.
        """

    @abstractmethod
    async def expire(self, seconds: float) -> list[SessionId]:
        """Delete the sessions that had no turn for so long, and tell which they were."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of files and connections."""

    @property
    def blocking(self) -> BlockingStore:
        """The same for blocking code."""
        return BlockingStore(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class BlockingStore:
    """A store for code without an event loop."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def load(self, session_id: SessionId) -> Kept | None:
        return run_in_background(self._store.load(session_id))

    def delete(self, session_id: SessionId) -> None:
        run_in_background(self._store.delete(session_id))

    def session_ids(self, owner: SessionId | None = None) -> list[SessionId]:
        return run_in_background(self._store.session_ids(owner))

    def search(self, query: str, limit: int = 10, owner: SessionId | None = None) -> list[Found]:
        return run_in_background(self._store.search(query, limit, owner))

    def expire(self, seconds: float) -> list[SessionId]:
        return run_in_background(self._store.expire(seconds))

    def close(self) -> None:
        run_in_background(self._store.close())


def session_key(session_id: SessionId) -> str:
    """A session's id as ASCII text, for a column or a key; it is never part of a path.

    Raises:
        InvalidArgument: it is no id, or too long.
    """
    key = _encode(id_to_json(check_session_id(session_id)))
    if len(key) > _MAX_KEY:
        raise InvalidArgument("session_id", session_id, f"stores take ids of {_MAX_KEY} characters of JSON at most")
    return key


def session_of(key: str) -> SessionId:
    """The id that `session_key` made a key of.

    Raises:
        StateError: it is no such key.
    """
    return check_session_id(id_from_json(from_json(key, f"the id {key!r}")))


def key_prefix(owner: SessionId | None) -> str:
    """What the keys of an owner's sessions begin with."""
    return "" if owner is None else f"[{session_key(owner)},"


def to_json(value: Any) -> str:
    """Plain data as JSON."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer of more than 64 bits
        return _encode(value)


def from_json(text: str | bytes, where: str) -> Any:
    """What `to_json` wrote.

    Raises:
        StateError: it is no JSON; `where` says in the message what.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{where} is damaged: {error}") from error


def assembled(
    session_id: SessionId,
    version: int,
    lengths: str | bytes,
    note: str | bytes,
    values: Iterable[tuple[str, str | bytes]],
    messages: Iterable[tuple[str, str | bytes]],
) -> Kept:
    """A session from what a store has of it, each memory's messages in their order.

    Raises:
        StateError: something is missing, or is no JSON.
    """
    where = f"session {session_id!r}"
    expected = from_json(lengths, where)
    if not isinstance(expected, dict):
        raise StateError(f"{where} is damaged: its lengths are {type(expected).__name__}")
    found: dict[str, list[Any]] = {path: [] for path in expected}
    for path, message in messages:
        found.setdefault(path, []).append(from_json(message, f"{where}, message {len(found[path])} of {path!r}"))
    if {path: len(items) for path, items in found.items()} != expected:
        raise StateError(f"{where} is damaged: it has not as many messages as it had when it was kept")
    others = {path: from_json(value, f"{where}, {path!r}") for path, value in values}
    return Kept(version, expected, others, found, from_json(note, where))


def candidates(
    rows: Iterable[tuple[str, str, int, str | bytes]],
) -> Iterator[tuple[SessionId, str, int, Any]]:
    """What a search found, for `collected`, from session's key, path, position and message; damage is passed over."""
    for key, path, position, message in rows:
        session_id = session_of(key)
        try:
            read = from_json(message, f"session {session_id!r}, message {position} of {path!r}")
        except StateError as error:
            logger.warning("a search passes over what it cannot read: %s", error)
        else:
            yield session_id, path, position, read


def conflict(session_id: SessionId) -> SessionConflict:
    """What a store raises for a change that does not follow the last one."""
    return SessionConflict(
        f"session {session_id!r} went on elsewhere since it was read: this turn is taken back; make it again"
    )


def masked(address: str) -> str:
    """An address as messages show it: without who asks and their password.

    >>> masked("postgresql://ann:secret@host/talks?sslpassword=secret")
    'postgresql://***@host/talks?sslpassword=***'
    """
    return re.sub("((?:password|passwd)=)[^&]*", r"\1***", re.sub("://.*@", "://***@", address))


_encode: Callable[[Any], str] = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_MAX_KEY = 1000
