"""Sessions in a Redis database."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from ..concurrency import in_thread, on_background
from ..errors import InvalidArgument, MissingExtra, StateError
from .search import collected, Found, terms_of
from .state import SessionId
from .store import (
    assembled,
    Change,
    conflict,
    Kept,
    key_prefix,
    masked,
    session_key,
    session_of,
    SessionStore,
    to_json,
)

__all__ = ["RedisStore"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Scripts run whole or not at all. KEYS: the session, the sessions by age, the sessions by their last turn.
_APPEND = """
local change = cjson.decode(ARGV[1])
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if version == change.version then return 1 end -- it was made before
if version ~= change.after then return 0 end
redis.call('HSET', KEYS[1], 'version', change.version, 'lengths', change.lengths, 'note', change.note)
for _, state in ipairs(change.values) do redis.call('HSET', KEYS[1], 'state ' .. state[1], state[2]) end
for _, tail in ipairs(change.tails) do
    local list = KEYS[1] .. ' ' .. tail[1]
    if tail[2] == 0 then redis.call('DEL', list) else redis.call('LTRIM', list, 0, tail[2] - 1) end
    for _, message in ipairs(tail[3]) do redis.call('RPUSH', list, message) end
end
redis.call('ZADD', KEYS[2], 'NX', ARGV[3], ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[2])
return 1
"""
_LOAD = """
local lengths = redis.call('HGET', KEYS[1], 'lengths')
if not lengths then return {} end
local found = {redis.call('HGETALL', KEYS[1])}
for path in pairs(cjson.decode(lengths)) do
    table.insert(found, {path, redis.call('LRANGE', KEYS[1] .. ' ' .. path, 0, -1)})
end
return found
"""
_DELETE = """
if tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or '0') > tonumber(ARGV[2]) then return 0 end
local readable, lengths = pcall(cjson.decode, redis.call('HGET', KEYS[1], 'lengths') or '{}')
for path in pairs(readable and type(lengths) == 'table' and lengths or {}) do
    redis.call('DEL', KEYS[1] .. ' ' .. path)
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return redis.call('DEL', KEYS[1])
"""


class RedisStore(SessionStore):
    """Sessions in a Redis database, for agents on many machines; extra `redis`.

    A turn survives the end of this process; whether it survives that of Redis is a setting there: `appendonly yes` with
    `appendfsync always`. A search reads all sessions. Redis Cluster is not supported.

    Args:
        url: address such as `redis://:password@host:6379/0`.
        prefix: what all keys begin with.
        max_connections: most connections of this process.

    A connection or an answer that is not there within 30 seconds is a `StateError`.

    Raises:
        InvalidArgument: `url` is no such address.
        MissingExtra: redis is not installed.
    """

    def __init__(
        self, url: str = "redis://127.0.0.1:6379/0", prefix: str = "lagentlike:", max_connections: int = 50
    ) -> None:
        try:
            import redis.asyncio
        except ImportError as error:
            raise MissingExtra("redis", "redis") from error
        if not isinstance(prefix, str):
            raise InvalidArgument("prefix", prefix, "give a text")
        self._errors = (redis.RedisError, OSError)
        self._url = url
        self._prefix = prefix
        try:
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                url,
                max_connections=max_connections,
                timeout=_PATIENCE,
                socket_timeout=_PATIENCE,
                socket_connect_timeout=_PATIENCE,
            )
        except ValueError:  # its text may show the password
            cure = "give an address such as redis://:password@host:6379/0"
            raise InvalidArgument("url", masked(url), cure) from None
        self._client = redis.asyncio.Redis.from_pool(pool)

    async def version(self, session_id: SessionId) -> int:
        key = self._key(session_key(session_id))
        return int(await self._do(lambda client: client.hget(key, "version")) or 0)

    async def load(self, session_id: SessionId) -> Kept | None:
        found = await self._script(_LOAD, session_key(session_id))
        if not found:
            return None
        pairs = iter(found[0])
        head = {name.decode(): value for name, value in zip(pairs, pairs, strict=True)}
        states = [(name[len("state ") :], value) for name, value in head.items() if name.startswith("state ")]
        messages = [(path.decode(), message) for path, items in found[1:] for message in items]
        version, lengths, note = int(head["version"]), head["lengths"], head["note"]
        return await in_thread(assembled, session_id, version, lengths, note, states, messages)

    async def append(self, session_id: SessionId, change: Change) -> None:
        key = session_key(session_id)
        written = {
            "after": str(change.after),
            "version": str(change.version),
            "lengths": to_json(change.lengths),
            "note": change.note,
            "values": list(change.values.items()),
            "tails": [(path, tail.start, tail.messages) for path, tail in change.tails.items()],
        }
        if not await self._script(_APPEND, key, json.dumps(written), key, repr(time.time())):
            raise conflict(session_id)

    async def delete(self, session_id: SessionId) -> None:
        key = session_key(session_id)
        await self._script(_DELETE, key, key, "inf")

    async def session_ids(self, owner: SessionId | None = None) -> list[SessionId]:
        found = await self._do(lambda client: client.zrange(self._by_age, 0, -1))
        return [session_of(key.decode()) for key in found if key.decode().startswith(key_prefix(owner))]

    async def search(self, query: str, limit: int = 10, owner: SessionId | None = None) -> list[Found]:
        terms = terms_of(query)
        found: list[Found] = []
        for session_id in reversed(await self.session_ids(owner)) if terms else ():
            try:
                kept = await self.load(session_id)
            except StateError as error:
                logger.warning("a search passes over what it cannot read: %s", error)
                continue
            if kept is not None:
                found += collected(_newest_first(session_id, kept), terms, limit - len(found))
            if len(found) >= limit:
                break
        return found

    async def expire(self, seconds: float) -> list[SessionId]:
        before = repr(time.time() - seconds)
        found = await self._do(lambda client: client.zrangebyscore(self._by_turn, "-inf", before))
        gone = [key for key in (one.decode() for one in found) if await self._script(_DELETE, key, key, before)]
        return [session_of(key) for key in gone]

    async def close(self) -> None:
        await self._do(lambda client: client.aclose())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({masked(self._url)!r})"

    @property
    def _by_age(self) -> str:
        return f"{self._prefix}sessions"

    @property
    def _by_turn(self) -> str:
        return f"{self._prefix}turns"

    def _key(self, key: str) -> str:
        return f"{self._prefix}session {key}"

    async def _script(self, script: str, key: str, *arguments: str) -> Any:
        keys = (self._key(key), self._by_age, self._by_turn)
        return await self._do(lambda client: client.eval(script, len(keys), *keys, *arguments))

    async def _do(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do something with the client, on the background loop, which has its connections."""
        self._check_process()
        return await on_background(self._on_client(work))

    async def _on_client(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await work(self._client)
        except self._errors as error:
            raise StateError(f"{self!r} failed: {str(error) or type(error).__name__}") from error


_PATIENCE = 30.0


def _newest_first(session_id: SessionId, kept: Kept) -> Iterator[tuple[SessionId, str, int, Any]]:
    for path, messages in kept.messages.items():
        for position in range(len(messages) - 1, -1, -1):
            yield session_id, path, position, messages[position]
