"""Several models as one: where one fails for good, the next is asked."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from functools import partial
from typing import Any

from ..concurrency import in_threads
from ..errors import (
    AuthenticationFailed,
    ConnectFailed,
    ContextLengthExceeded,
    InvalidArgument,
    LLMError,
    RateLimited,
    RealRequestsForbidden,
    RequestRefused,
    RequestTimeout,
    ScriptExhausted,
    ServerError,
)
from ..schema import Usage
from .base import _is_batch, _LLM, AsyncBaseLLM, BaseLLM, Conversation, Params, side_by_side, StreamItem
from .fingerprint import own_params

__all__ = ["AsyncFallbackLLM", "FallbackLLM"]

logger = logging.getLogger(__name__)

Errors = type[LLMError] | tuple[type[LLMError], ...] | Callable[[LLMError], bool]


class _Fallback(_LLM):
    """What both colours share: the models, and when to go on to the next."""

    def __init__(self, llms: Sequence[Any], *, on: Errors | None = None, cooldown: float = 30.0) -> None:
        kind = BaseLLM if isinstance(self, BaseLLM) else AsyncBaseLLM
        if not isinstance(llms, list | tuple) or not llms or not all(isinstance(llm, kind) for llm in llms):
            raise InvalidArgument(
                "llms", llms, f"give a list of models, each a {kind.__name__}, the first choice first"
            )
        kinds = on if isinstance(on, tuple) else (on,)
        named = all(isinstance(one, type) and issubclass(one, LLMError) for one in kinds)
        if on is not None and not named and (isinstance(on, type) or not callable(on)):
            cure = "give a class of lagentlike.errors.LLMError, a tuple of them, or a function of an error"
            raise InvalidArgument("on", on, cure)
        if isinstance(cooldown, bool) or not isinstance(cooldown, int | float) or not cooldown >= 0:
            raise InvalidArgument("cooldown", cooldown, "give seconds, at least 0")
        self.llms = list(llms)
        self.on: Any = on
        self.cooldown = cooldown
        self._rests_until: dict[int, float] = {}  # by the model's place

    @property
    def model(self) -> str:
        return " or ".join(llm.model for llm in self.llms)

    @property
    def real(self) -> bool:  # type: ignore[override]  # it is as real as its models
        return any(llm.real for llm in self.llms)

    @property
    def usage(self) -> Usage:  # type: ignore[override]  # of all its models
        """What all calls of its models cost so far."""
        return sum((llm.usage for llm in dict.fromkeys(self.llms)), Usage())

    def __getattr__(self, name: str) -> Any:
        """What is not of its own is the first model's: `gen_params`, `url`, `tokenize`, …."""
        if name.startswith("_") or name == "llms":
            raise AttributeError(name)
        return getattr(self.llms[0], name)

    def update_gen_params(self, **gen_params: Any) -> None:
        for llm in self.llms:
            llm.update_gen_params(**gen_params)

    def _in_order(self) -> list[tuple[int, Any]]:
        """The models by their places: those that rest last, for one of them may be all there is."""
        now = _now()
        return sorted(enumerate(self.llms), key=lambda placed: self._rests_until.get(placed[0], 0.0) > now)

    def _goes_on(self, error: LLMError, place: int, failures: list[LLMError]) -> bool:
        """Whether another model may do better; one that is down rests for a while."""
        llm = self.llms[place]
        if isinstance(error, _DOWN):
            rest = max(self.cooldown, getattr(error, "retry_after", None) or 0.0) if self.cooldown else 0.0
            self._rests_until[place] = _now() + rest
        if not self._falls(error) or len(failures) + 1 == len(self.llms):
            for earlier in failures:
                error.add_note(f"before, another model failed: {type(earlier).__name__}: {earlier}")
            return False
        failures.append(error)
        logger.warning("%r failed (%s): asking the next model", llm, type(error).__name__)
        return True

    def _falls(self, error: LLMError) -> bool:
        """Whether the next model is asked after an error."""
        on = _may_do_better if self.on is None else self.on
        return isinstance(error, on) if isinstance(on, type | tuple) else bool(on(error))

    def _each(self, batch: Sequence[Any], gen_params: Params) -> list[tuple[Any, Params]]:
        """Each conversation of a batch with the parameters by which it is asked by itself."""
        params = self.llms[0]._params(gen_params)
        return [(item, {**gen_params, **own_params(params, index)}) for index, item in enumerate(batch)]


class FallbackLLM(_Fallback, BaseLLM):
    """Models of which the next one is asked where one fails for good: its retries are exhausted, it is down.

    A request that a server refuses as wrong (400, 422, …) is not made again, and a stream that has begun is not started
    anew: their errors are raised, with what came in `partial`. The next model is asked where the key is not accepted
    (another server has another key), where there is no such model, and where the conversation is too long for one.
    A model that was down is asked last until its `cooldown` is over. In a batch, each conversation falls by itself; the
    i-th is asked with `seed + i`. A `Budget` counts the request of every model that was asked.

    Args:
        llms: the models, the first choice first. Each has its own parameters, retries, limiter and usage.
        on: the errors after which the next model is asked, instead of those above: a class, a tuple of them, or a
            function that tells.
        cooldown: seconds for which a model that was down, refused the key or was asked too often (or longer, if its
            server says so) is asked after the others; 0 has the first choice asked first each time.

    Raises:
        LLMError: the error of the last model that was asked; notes in it tell of the earlier ones.

    >>> from lagentlike.errors import ServerError
    >>> from lagentlike.llms import ScriptedLLM
    >>> llm = FallbackLLM([ScriptedLLM([ServerError("down")]), ScriptedLLM(["Here I am."])])
    >>> llm.chat([{"role": "user", "content": "Hello?"}])
    'Here I am.'
    """

    def chat(self, messages: Any, **gen_params: Any) -> Any:
        if _is_batch(messages):
            return in_threads([partial(self.chat, item, **own) for item, own in self._each(messages, gen_params)])
        failures: list[LLMError] = []
        for place, llm in self._in_order():
            try:
                return llm.chat(messages, **gen_params)
            except LLMError as error:
                if not self._goes_on(error, place, failures):
                    raise

    def stream_chat(self, messages: Conversation, **gen_params: Any) -> Iterator[StreamItem]:
        failures: list[LLMError] = []
        for place, llm in self._in_order():
            begun = False
            try:
                with closing(llm.stream_chat(messages, **gen_params)) as stream:
                    for item in stream:
                        begun = True
                        yield item
            except LLMError as error:
                if begun or not self._goes_on(error, place, failures):
                    raise
            else:
                return


class AsyncFallbackLLM(_Fallback, AsyncBaseLLM):
    """The async form of `FallbackLLM`."""

    async def chat(self, messages: Any, **gen_params: Any) -> Any:
        if _is_batch(messages):
            return await side_by_side([self.chat(item, **own) for item, own in self._each(messages, gen_params)])
        failures: list[LLMError] = []
        for place, llm in self._in_order():
            try:
                return await llm.chat(messages, **gen_params)
            except LLMError as error:
                if not self._goes_on(error, place, failures):
                    raise

    async def stream_chat(self, messages: Conversation, **gen_params: Any) -> AsyncIterator[StreamItem]:
        failures: list[LLMError] = []
        for place, llm in self._in_order():
            begun = False
            try:
                async with aclosing(llm.stream_chat(messages, **gen_params)) as stream:
                    async for item in stream:
                        begun = True
                        yield item
            except LLMError as error:
                if begun or not self._goes_on(error, place, failures):
                    raise
            else:
                return


_now = time.monotonic
_DOWN = (ConnectFailed, RequestTimeout, ServerError, RateLimited, AuthenticationFailed)


def _may_do_better(error: LLMError) -> bool:
    """Whether a failure is of the one model or server, and not of the request."""
    if isinstance(error, RequestRefused):
        return isinstance(error, AuthenticationFailed | ContextLengthExceeded) or error.status == 404
    return not isinstance(error, ScriptExhausted | RealRequestsForbidden)
