"""A model that does not ask twice what it was answered before."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing, closing
from functools import partial
from types import TracebackType
from typing import Any

from .. import tapes
from ..concurrency import in_thread, in_threads, result_of
from ..errors import InvalidArgument, LLMError
from ..schema import Completion, ModelStatusCode, Usage
from .base import _checked, _is_batch, _LLM, AsyncBaseLLM, BaseLLM, Conversation, Params, side_by_side, StreamItem
from .caches import Cache, MemoryCache, SQLiteCache
from .fingerprint import asked, digest, own_params
from .kept_answer import answer_of, Parts, parts_of, plain_answer

__all__ = ["AsyncCachedLLM", "CachedLLM"]

logger = logging.getLogger(__name__)

_STREAMING, _END = ModelStatusCode.STREAM_ING, ModelStatusCode.END

Kept = tuple[Completion, list[Any] | None]
"""An answer, and the parts in which it came where it was streamed."""


class _Cached(_LLM):
    """What both colours share: keys, what is kept under them, and what is under way."""

    def __init__(
        self, llm: Any, cache: Cache | str | os.PathLike[str] | None = None, *, sampled: bool = False, version: str = ""
    ) -> None:
        kind = BaseLLM if isinstance(self, BaseLLM) else AsyncBaseLLM
        if not isinstance(llm, kind):
            raise InvalidArgument("llm", llm, f"give a model of this colour, a {kind.__name__}")
        if isinstance(cache, str | os.PathLike):
            cache = SQLiteCache(cache)
        if cache is not None and not isinstance(cache, Cache):
            raise InvalidArgument("cache", cache, "give the path of a file, a MemoryCache, an SQLiteCache, or None")
        self.llm: Any = llm
        self.cache = MemoryCache() if cache is None else cache
        self.sampled = sampled
        self.version = version
        self.hits = self.misses = self.passed = 0
        self.saved = Usage()
        self._warned = False

    @property
    def model(self) -> str:
        return str(self.llm.model)

    @property
    def real(self) -> bool:  # type: ignore[override]  # it is as real as its model
        return bool(self.llm.real)

    def __getattr__(self, name: str) -> Any:
        """What is not of its own is the model's: `gen_params`, `usage`, `url`, `tokenize`, …."""
        if name.startswith("_") or name == "llm":
            raise AttributeError(name)
        return getattr(self.llm, name)

    def update_gen_params(self, **gen_params: Any) -> None:
        self.llm.update_gen_params(**gen_params)

    def _params(self, gen_params: Any) -> Params:
        params: Params = self.llm._params(gen_params)
        return params

    def _key(self, messages: Conversation, params: Params, repeat: int = 0) -> str | None:
        """What the answer is kept under; None if it is not to be kept, or a tape is to have the request."""
        if tapes.current is not None:
            return None
        if not self.sampled and self._draws(params):
            if not self._warned:
                self._warned = True
                logger.warning(
                    "%r does not keep answers that are drawn at random: set temperature=0 or a seed, or sampled=True",
                    self,
                )
            return None
        try:
            request = asked(self.model, messages, params)
        except InvalidArgument as error:
            logger.warning("%r does not keep an answer: %s", self, error)
            return None
        return digest([request, str(getattr(self.llm, "url", "")), self.version, repeat])

    def _draws(self, params: Params) -> bool:
        """Whether the answer may be another one each time; a server that is told no temperature has one of its own."""
        if params.get("seed") is not None or params.get("top_k") == 1:
            return False
        temperature = params.get("temperature")
        return bool(self.llm.real) if temperature is None else bool(temperature != 0)

    def _requests(self, batch: Sequence[Any], gen_params: Params) -> list[tuple[Conversation, Params, str | None]]:
        """Each conversation of a batch as a request by itself; equal ones that are drawn at random are several."""
        params, seen = self._params(gen_params), dict[str | None, int]()
        requests = []
        for index, item in enumerate(batch):
            messages, own = _checked(item), own_params(params, index)
            key = self._key(messages, {**params, **own})
            repeat = seen.get(key, 0)
            seen[key] = repeat + 1
            if key is not None and repeat and self._draws({**params, **own}):
                key = self._key(messages, {**params, **own}, repeat)
            requests.append((messages, {**gen_params, **own}, key))
        return requests

    def _found(self, key: str) -> Kept | None:
        """What is kept under a key, which is a hit."""
        value = self.cache.get(key)
        if value is None:
            return None
        try:
            kept = json.loads(value)
            answer, parts = answer_of(kept["answer"]), kept.get("parts")
            if parts is not None and not isinstance(parts, list):
                raise ValueError(f"its parts are {type(parts).__name__}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            logger.warning("%r: the entry %.12s… is damaged (%s), and counts as missing", self, key, error)
            return None
        self._hit(answer)
        return answer, parts

    def _hit(self, answer: Completion) -> None:
        """Count an answer that cost nothing, and have it say so."""
        usage = answer.usage
        with _guard:
            self.hits += 1
            if usage is not None:
                self.saved += usage
        if usage is not None:
            usage.requests = 0

    def _missed(self, key: str | None) -> None:
        with _guard:
            if key is None:
                self.passed += 1
            else:
                self.misses += 1

    def _keep(self, key: str, answer: Completion, parts: list[Any] | None = None) -> bytes | None:
        """Keep an answer; its bytes, for who waited for it."""
        try:
            kept: dict[str, Any] = {"answer": plain_answer(answer)}
            if parts is not None:
                kept["parts"] = parts
            value = json.dumps(kept, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            logger.warning("%r cannot keep an answer: %s", self, error)
            return None
        self.cache.put(key, value)
        return value

    def _flight(self, key: str) -> _Flight:
        """A request under way that others may wait for: ours to make, or somebody else's."""
        place = id(self.cache), key
        with _guard:
            outcome = _flights.get(place)
            if outcome is not None:
                return _Flight(place, outcome, is_ours=False)
            outcome = _flights[place] = Future()
            outcome.set_running_or_notify_cancel()  # so that who gives up waiting does not cancel it for all
            return _Flight(place, outcome, is_ours=True)

    def _shared(self, outcome: Any) -> Completion | None:
        """What somebody else was answered, which costs nothing; None if that has to be asked for again."""
        if isinstance(outcome, LLMError):
            raise outcome
        if outcome is None:
            return None
        answer = answer_of(json.loads(outcome)["answer"])
        self._hit(answer)
        return answer


class CachedLLM(_Cached, BaseLLM):
    """A model whose answers are kept: what was asked before is answered from a cache, for nothing.

    The same request is one with the same model, messages and parameters, at the same server. Answers that are drawn at
    random are kept only if that is reproducible (a `seed`, or `temperature=0`) or wanted (`sampled=True`); a model
    behind a server that is told no temperature draws. Equal conversations in one batch are then several draws, each
    kept by itself. In a batch, the i-th conversation is asked with `seed + i`.

    An answer comes as it was, with its tool calls, token ids and log-probabilities, and is streamed in the parts in
    which it came; its `usage` tells its tokens and no request. Hits are charged to no `Budget`. Calls of `chat` that
    ask the same at the same time are one request. Errors are not kept.

    Args:
        llm: the model.
        cache: a `Cache`, or the path of an `SQLiteCache`; None keeps answers in memory. Models may share one.
        sampled: also keep answers that are drawn at random.
        version: part of what a request is: change it when the same name stands for another model.

    Attributes:
        hits, misses: answers from the cache, and requests whose answers were not there.
        passed: requests whose answers are not to be kept.
        saved: the usage that hits would have cost.

    >>> from lagentlike.llms import ScriptedLLM
    >>> llm = CachedLLM(ScriptedLLM(["Asked once."]))
    >>> [llm.chat([{"role": "user", "content": "Hello"}]) for _ in range(3)]
    ['Asked once.', 'Asked once.', 'Asked once.']
    >>> llm.hits, llm.misses, llm.saved.requests
    (2, 1, 2)
    """

    def chat(self, messages: Any, **gen_params: Any) -> Any:
        if _is_batch(messages):
            return in_threads([partial(self._answer, *request) for request in self._requests(messages, gen_params)])
        return self._answer(_checked(messages), gen_params, self._key(messages, self._params(gen_params)))

    def stream_chat(self, messages: Conversation, **gen_params: Any) -> Iterator[StreamItem]:
        key = self._key(_checked(messages), self._params(gen_params))
        found = None if key is None else self._found(key)
        if found is not None:
            answer, noted = found
            yield from _items(answer, noted)
            return
        self._missed(key)
        parts = Parts()
        with closing(self.llm.stream_chat(messages, **gen_params)) as stream:
            for item in stream:
                if item[0] == _STREAMING:
                    parts.add(item[1], item[2])
                elif key is not None:
                    self._keep(key, item[2], parts.ended(item[2]))
                yield item

    def _answer(self, messages: Conversation, gen_params: Params, key: str | None) -> Completion:
        answer: Completion
        if key is None:
            self._missed(key)
            answer = self.llm.chat(messages, **gen_params)
            return answer
        while not (flight := self._flight(key)).is_ours:
            shared = self._shared(result_of(flight.outcome))
            if shared is not None:
                return shared
        with flight:
            found = self._found(key)
            if found is not None:
                return found[0]
            self._missed(key)
            answer = self.llm.chat(messages, **gen_params)
            flight.result = self._keep(key, answer)
            return answer


class AsyncCachedLLM(_Cached, AsyncBaseLLM):
    """The async form of `CachedLLM`."""

    async def chat(self, messages: Any, **gen_params: Any) -> Any:
        if _is_batch(messages):
            return await side_by_side([self._answer(*request) for request in self._requests(messages, gen_params)])
        return await self._answer(_checked(messages), gen_params, self._key(messages, self._params(gen_params)))

    async def stream_chat(self, messages: Conversation, **gen_params: Any) -> AsyncIterator[StreamItem]:
        key = self._key(_checked(messages), self._params(gen_params))
        found = None if key is None else self._found(key)
        if found is not None:
            answer, noted = found
            for item in _items(answer, noted):
                yield item
                await asyncio.sleep(0)  # a stream lets others run between its chunks
            return
        self._missed(key)
        parts = Parts()
        async with aclosing(self.llm.stream_chat(messages, **gen_params)) as stream:
            async for item in stream:
                if item[0] == _STREAMING:
                    parts.add(item[1], item[2])
                elif key is not None:
                    await in_thread(self._keep, key, item[2], parts.ended(item[2]))
                yield item

    async def _answer(self, messages: Conversation, gen_params: Params, key: str | None) -> Completion:
        answer: Completion
        if key is None:
            self._missed(key)
            answer = await self.llm.chat(messages, **gen_params)
            return answer
        while not (flight := self._flight(key)).is_ours:
            shared = self._shared(await asyncio.wrap_future(flight.outcome))
            if shared is not None:
                return shared
        with flight:
            found = self._found(key)
            if found is not None:
                return found[0]
            self._missed(key)
            answer = await self.llm.chat(messages, **gen_params)
            flight.result = await in_thread(self._keep, key, answer)
            return answer


_guard = threading.Lock()  # of all counters, and of what is under way
_flights: dict[tuple[int, str], Future[Any]] = {}
os.register_at_fork(after_in_child=_flights.clear)


class _Flight:
    """A request that is under way; who makes it does so in a `with` block, at whose end the others are told.

    Attributes:
        outcome: what those who ask the same wait for: the answer's bytes, an error of the model, or None if they are to
            ask themselves.
        result: what is to be told them, once that is known.
    """

    def __init__(self, place: tuple[int, str], outcome: Future[Any], is_ours: bool) -> None:
        self._place = place
        self.outcome = outcome
        self.is_ours = is_ours
        self.result: bytes | LLMError | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, LLMError):
            self.result = error
        with _guard:
            _flights.pop(self._place, None)  # a fork of this process has none
        self.outcome.set_result(self.result)


def _items(answer: Completion, noted: list[Any] | None) -> Iterator[StreamItem]:
    """A kept answer as a stream."""
    for chunk, so_far in parts_of(noted, answer):
        if chunk or so_far is not answer:
            yield _STREAMING, chunk, so_far
    yield _END, "", answer
