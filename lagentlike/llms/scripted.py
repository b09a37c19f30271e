"""A model for tests that says what it was told to say, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, ClassVar

from ..concurrency import step
from ..errors import InvalidArgument, LLMError, ScriptExhausted
from ..schema import Completion, ToolCall
from .base import _LLM, AsyncBaseLLM, BaseLLM, Conversation, Params

__all__ = ["AsyncScriptedLLM", "Reply", "ScriptedLLM", "ScriptedRequest"]

Reply = str | Completion | ToolCall | list[ToolCall] | BaseException | type[BaseException] | Callable[..., Any]
"""What a script may hold: a text, a `Completion`, one or several tool calls, an exception to raise, or a function of
`(messages, params)` that returns any of these (plain or async)."""


@dataclass(frozen=True)
class ScriptedRequest:
    """What a scripted model was asked: the conversation and the parameters of the call."""

    messages: list[dict[str, Any]]
    params: dict[str, Any]

    @property
    def last(self) -> Any:
        """The content of the last message."""
        return self.messages[-1].get("content")

    @property
    def tools(self) -> list[str]:
        """Names of the tools that were offered."""
        return [tool.get("function", tool).get("name", "") for tool in self.params.get("tools") or ()]

    def __str__(self) -> str:
        return "\n".join(f"  {item.get('role')}: {_short(item.get('content'))}" for item in self.messages)


class _Scripted(_LLM):
    """What both colours share: the script and the record."""

    real: ClassVar[bool] = False
    requests: list[ScriptedRequest]
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        replies: Iterable[Any] | Callable[..., Any] = (),
        *,
        chunk_size: int = 8,
        latency: float = 0.0,
        path: str = "scripted",
        **gen_params: Any,
    ) -> None:
        super().__init__(path, **gen_params)
        if chunk_size < 1:
            raise InvalidArgument("chunk_size", chunk_size, "give the characters a chunk should have, at least 1")
        if not latency >= 0:
            raise InvalidArgument("latency", latency, "give seconds, at least 0")
        self.chunk_size = chunk_size
        self.latency = latency
        self.requests = []
        self._calls_made = 0
        self._always: Callable[..., Any] | None = None
        if _is_function(replies):
            self._always = replies  # type: ignore[assignment]  # a function, as was just seen
            replies = ()
        elif isinstance(replies, str | ToolCall | BaseException):
            replies = (replies,)
        elif not isinstance(replies, Iterable):
            raise InvalidArgument("replies", replies, "give a list of replies, or one function that answers every call")
        self._replies = iter(replies)

    @property
    def answered(self) -> int:
        """How many requests were made so far."""
        return len(self.requests)

    def assert_exhausted(self) -> None:
        """Fail unless every reply was asked for.

        Raises:
            AssertionError: replies are left; the message shows the next ones.
        """
        with self._guard:
            left = [reply for _, reply in zip(range(4), self._replies, strict=False)]
            self._replies = _chain(left, self._replies)
        if left:
            shown = ", ".join(_short(reply) for reply in left[:3]) + (", …" if len(left) > 3 else "")
            raise AssertionError(f"after {self.answered} requests these replies were never asked for: {shown}")

    def assert_asked(self, *texts: str, request: int = -1, role: str | None = None, **params: Any) -> ScriptedRequest:
        """Fail unless a request held the given texts and parameters.

        Args:
            *texts: each must occur in the content of one of the request's messages.
            request: which request, counted as in a list.
            role: look only at messages of this role.
            **params: parameters the call must have had, with these values.

        Returns:
            The request, to look at further.

        Raises:
            AssertionError: it did not; the message shows what was asked.
        """
        try:
            asked = self.requests[request]
        except IndexError:
            raise AssertionError(f"there is no request {request}: {self.answered} were made") from None
        contents = [str(item.get("content")) for item in asked.messages if role in (None, item.get("role"))]
        where = "no message" if role is None else f"no {role} message"
        for text in texts:
            if not any(text in content for content in contents):
                raise AssertionError(f"{where} of request {request} holds {text!r}; it was\n{asked}")
        for name, value in params.items():
            if asked.params.get(name) != value:
                found = asked.params.get(name)
                raise AssertionError(f"request {request} had {name}={found!r} instead of {value!r}")
        return asked

    def _take(self, messages: Conversation, params: Params) -> Any:
        """Record the request; the reply that is next in line, a function's reply already called for."""
        with self._guard:
            known = self.requests[-1].messages if self.requests else []  # a conversation is kept once
            kept = [old if old == item else dict(item) for old, item in zip_longest(known[: len(messages)], messages)]
            self.requests.append(ScriptedRequest(kept, dict(params)))
            reply: Any = self._always if self._always is not None else next(self._replies, _END)
            number = len(self.requests)
        if reply is _END:
            raise ScriptExhausted(
                f"request {number} finds no reply left in the script of {number - 1}: add one, or give a function "
                f"that answers every call; it was asked\n{self.requests[-1]}"
            )
        return reply(messages, params) if _is_function(reply) else reply

    def _completed(self, reply: Any) -> Completion:
        """A reply as an answer; an exception is raised."""
        if isinstance(reply, BaseException) or (isinstance(reply, type) and issubclass(reply, BaseException)):
            raise reply
        if isinstance(reply, ToolCall):
            reply = [reply]
        if isinstance(reply, Completion):
            text, extras = reply.text, reply.extras()
        elif isinstance(reply, str):
            text, extras = reply, {}
        elif isinstance(reply, list) and reply and all(isinstance(call, ToolCall) for call in reply):
            text, extras = "", {"tool_calls": reply}
        else:
            raise InvalidArgument(
                "reply", reply, "give a str, Completion, ToolCall, list of ToolCall, exception, or a function"
            )
        calls = extras.get("tool_calls")
        if calls:
            extras["tool_calls"] = [self._identified(call) for call in calls]
        extras["finish_reason"] = extras.get("finish_reason") or ("tool_calls" if calls else "stop")
        extras["model"] = extras.get("model") or "scripted"
        return Completion(text, **extras)

    def _identified(self, call: ToolCall) -> ToolCall:
        with self._guard:
            self._calls_made += 1
            return replace(call, id=call.id or f"call_{self._calls_made}")

    def _parts(self, answer: Completion) -> Iterator[tuple[str, Completion]]:
        """The answer in chunks, its last one with all the rest."""
        text, size = answer.text, self.chunk_size
        for end in range(size, len(text), size):
            yield text[end - size : end], Completion(text[:end], model=answer.model)
        yield text[(len(text) - 1) // size * size if text else 0 :], answer

    def _partial(self, error: LLMError) -> Iterator[tuple[str, Completion]]:
        """What a broken stream gave before it broke."""
        text = error.partial
        for start in range(0, len(text), self.chunk_size):
            yield text[start : start + self.chunk_size], Completion(text[: start + self.chunk_size])


class ScriptedLLM(_Scripted, BaseLLM):
    """A model that gives the replies of a script, one a call, and records what it was asked.

    Args:
        replies: any iterable of replies (endless ones too): a text, a `Completion`, a `ToolCall` or a list of them, an
            exception to raise (an `LLMError` with `partial` streams that part first), or a function of
            `(messages, params)` returning one of these. One function alone answers every call.
        chunk_size: characters a chunk of a stream has.
        latency: seconds an answer takes.
        path: the model's name.
        **gen_params: parameters of every call, as for any model.

    Attributes:
        requests: what was asked so far, a `ScriptedRequest` (`messages`, `params`, `last`, `tools`) each.

    >>> llm = ScriptedLLM(["Hello!", lambda messages, params: messages[-1]["content"].upper()])
    >>> llm.chat([{"role": "user", "content": "hi"}])
    'Hello!'
    >>> llm.chat([{"role": "user", "content": "echo"}])
    'ECHO'
    >>> llm.requests[1].last
    'echo'
    >>> llm.assert_exhausted()
    """

    def _chat(self, messages: Conversation, params: Params) -> Completion:
        reply = self._take(messages, params)
        if inspect.iscoroutine(reply):
            reply = step(reply, "an async function of the script")
        if self.latency:
            time.sleep(self.latency)
        return self._completed(reply)

    def _stream(self, messages: Conversation, params: Params) -> Iterator[tuple[str, Completion]]:
        try:
            answer = self._chat(messages, params)
        except LLMError as error:
            yield from self._partial(error)
            raise
        yield from self._parts(answer)


class AsyncScriptedLLM(_Scripted, AsyncBaseLLM):
    """The async form of `ScriptedLLM`; functions of its script may be async."""

    async def _chat(self, messages: Conversation, params: Params) -> Completion:
        reply = self._take(messages, params)
        if inspect.isawaitable(reply):
            reply = await reply
        if self.latency:
            await asyncio.sleep(self.latency)
        return self._completed(reply)

    async def _stream(self, messages: Conversation, params: Params) -> AsyncIterator[tuple[str, Completion]]:
        try:
            answer = await self._chat(messages, params)
        except LLMError as error:
            for part in self._partial(error):
                yield part
                await asyncio.sleep(0)
            raise
        for part in self._parts(answer):
            yield part
            await asyncio.sleep(0)  # a stream lets others run between its chunks


_END = object()


def _is_function(reply: Any) -> bool:
    return callable(reply) and not isinstance(reply, type)


def _chain(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    yield from first
    yield from rest


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
