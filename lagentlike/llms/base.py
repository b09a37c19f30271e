"""What every language model backend has in common."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from typing import Any, ClassVar, overload, TypeVar

from .. import tapes
from ..budget import charge_request, charge_usage
from ..errors import InvalidArgument, RealRequestsForbidden
from ..schema import Completion, ModelStatusCode, Usage
from ..tracing import spans

__all__ = ["AsyncBaseLLM", "BaseLLM", "Conversation", "StreamItem", "forbid_real_requests", "side_by_side"]

T = TypeVar("T")

_STREAMING = ModelStatusCode.STREAM_ING  # looked at for each part of a stream

Conversation = Sequence[Mapping[str, Any]]
"""Messages in chat format: dicts with `role` and `content`, and what else the role carries."""

Params = dict[str, Any]
"""Generation parameters of one call: `max_new_tokens`, `temperature`, `top_p`, `top_k`, `repetition_penalty`,
`stop_words` (list of texts), `tools` (JSON schemas), and whatever else a backend knows; None means not set."""

Part = tuple[str, Completion]
"""New text, and the answer so far."""

StreamItem = tuple[ModelStatusCode, str, Completion]
"""How far the answer is, its new text, and the answer so far."""


class _LLM:
    """The part that both colours share: parameters, budgets, usage."""

    real: ClassVar[bool] = True
    """Whether calls leave this process; `forbid_real_requests` refuses those."""

    def __init__(
        self,
        path: str = "",
        *,
        max_new_tokens: int | None = 512,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        repetition_penalty: float | None = None,
        stop_words: str | Sequence[str] | None = None,
        **gen_params: Any,
    ) -> None:
        self.path = path
        self.gen_params: Params = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "repetition_penalty": repetition_penalty,
            "stop_words": _stop_words(stop_words),
            **gen_params,
        }
        self.usage = Usage()

    @property
    def model(self) -> str:
        """The model's name, as `repr` and `summary` show it."""
        return self.path

    def update_gen_params(self, **gen_params: Any) -> None:
        """Change parameters for all calls to come."""
        if "stop_words" in gen_params:
            gen_params["stop_words"] = _stop_words(gen_params["stop_words"])
        self.gen_params.update(gen_params)

    def _params(self, gen_params: Mapping[str, Any]) -> Params:
        if not gen_params:
            return dict(self.gen_params)
        params = {**self.gen_params, **gen_params}
        if "stop_words" in gen_params:
            params["stop_words"] = _stop_words(gen_params["stop_words"])
        return params

    def _or_tape(self) -> Any:
        """What its requests are made of: itself, or what a tape has in its place."""
        return self if tapes.current is None else tapes.current.model(self)

    def _start(self) -> None:
        """Charge the budgets around this call with one request, or refuse it."""
        if self.real and _forbidden() and (tapes.current is None or tapes.current.makes_calls):
            raise RealRequestsForbidden(
                f"{self!r} would make a real request, and real requests are forbidden here: "
                "use ScriptedLLM or TinyLM, or leave forbid_real_requests()"
            )
        charge_request()

    def _finish(self, answer: Completion) -> Completion:
        """Count what the answer cost."""
        if type(answer) is not Completion:
            answer = _as_completion(answer, self)
        usage = answer.usage
        if usage is None:
            usage = answer.usage = Usage(requests=1)
        charge_usage(usage, self.usage)
        return answer

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"


class BaseLLM(_LLM):
    """A language model, called blocking.

    A backend implements `_chat` and, to stream for real, `_stream`; everything else is here.

    Args:
        path: name or path of the model.
        max_new_tokens: most tokens an answer may have.
        temperature, top_p, top_k, repetition_penalty: sampling; None leaves it to the backend's default.
        stop_words: texts that end an answer; they are not part of it.
        **gen_params: any other generation parameter of the backend.

    Attributes:
        gen_params: the parameters of every call; those given with a call go before them.
        usage: what all calls of this object cost so far.
    """

    @overload
    def chat(self, messages: Conversation, **gen_params: Any) -> Completion: ...
    @overload
    def chat(self, messages: Sequence[Conversation], **gen_params: Any) -> list[Completion]: ...
    def chat(self, messages: Any, **gen_params: Any) -> Completion | list[Completion]:
        """The answer to a conversation, or the list of answers to a list of conversations.

        Args:
            messages: dicts with `role` and `content` (shape `[turns]`, or `[batch][turns]`).
            **gen_params: parameters of this call; `tools` takes JSON schemas of tools the model may call.

        Returns:
            A `Completion` (a `str` with `tool_calls`, `reasoning`, `usage`, `tokens`, `finish_reason`), or a list.

        Raises:
            LLMError: the call failed; see `lagentlike.errors`.
            BudgetExceeded: a `Budget` around this call is used up.
        """
        params = self._params(gen_params)
        if not spans.tracers:
            return self.__answers(messages, params)
        with spans.begin_request(self, messages, params) as span:
            answers = self.__answers(messages, params)
            span.answered(answers)
            return answers

    def __answers(self, messages: Any, params: Params) -> Completion | list[Completion]:
        llm = self._or_tape()
        if _is_batch(messages):
            answers: list[Completion] = llm._chat_batch([_checked(item) for item in messages], params)
            return answers
        self._start()
        return self._finish(llm._chat(_checked(messages), params))

    def stream_chat(self, messages: Conversation, **gen_params: Any) -> Iterator[StreamItem]:
        """The answer to a conversation, part by part.

        Yields:
            `(status, chunk, response)`: STREAM_ING with the new text and the answer so far; at last END, an empty
            chunk and the whole answer.

        Raises:
            LLMError: the call failed; its `partial` is what came before.
        """
        params = self._params(gen_params)
        items = self.__items(messages, params)
        return spans.watched(self, messages, params, items) if spans.tracers else items

    def __items(self, messages: Conversation, params: Params) -> Iterator[StreamItem]:
        llm = self._or_tape()
        self._start()
        answer = Completion()
        with closing(llm._part_lists(_checked(messages), params)) as lists:
            for parts in lists:
                for chunk, answer in parts:
                    if chunk or answer.finish_reason is None:
                        yield _STREAMING, chunk, answer
        yield ModelStatusCode.END, "", self._finish(answer)

    def _chat(self, messages: Conversation, params: Params) -> Completion:
        """The backend's answer; `params` are this call's parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define _chat(messages, params) -> Completion")

    def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        """Answers to several conversations; a backend that decodes batches overrides this."""
        answers = []
        for messages in batch:
            self._start()
            answers.append(self._finish(self._chat(messages, params)))
        return answers

    def _stream(self, messages: Conversation, params: Params) -> Iterator[Part]:
        """New text and the answer so far, part by part; only the last one has `finish_reason` set."""
        answer = _as_completion(self._chat(messages, params), self)
        yield answer.text, answer

    def _part_lists(self, messages: Conversation, params: Params) -> Iterator[list[Part]]:
        """The parts in lists of those that came together; a backend that gets many at once overrides this."""
        with closing(self._stream(messages, params)) as parts:  # type: ignore[type-var]
            for part in parts:
                yield [part]


class AsyncBaseLLM(_LLM):
    """A language model, called from async code: the surface of `BaseLLM`, awaited."""

    @overload
    async def chat(self, messages: Conversation, **gen_params: Any) -> Completion: ...
    @overload
    async def chat(self, messages: Sequence[Conversation], **gen_params: Any) -> list[Completion]: ...
    async def chat(self, messages: Any, **gen_params: Any) -> Completion | list[Completion]:
        """The answer to a conversation, or the list of answers to a list of conversations; see `BaseLLM.chat`."""
        params = self._params(gen_params)
        if not spans.tracers:
            return await self.__answers(messages, params)
        with spans.begin_request(self, messages, params) as span:
            answers = await self.__answers(messages, params)
            span.answered(answers)
            return answers

    async def __answers(self, messages: Any, params: Params) -> Completion | list[Completion]:
        llm = self._or_tape()
        if _is_batch(messages):
            answers: list[Completion] = await llm._chat_batch([_checked(item) for item in messages], params)
            return answers
        self._start()
        return self._finish(await llm._chat(_checked(messages), params))

    def stream_chat(self, messages: Conversation, **gen_params: Any) -> AsyncIterator[StreamItem]:
        """The answer to a conversation, part by part; see `BaseLLM.stream_chat`."""
        params = self._params(gen_params)
        items = self.__items(messages, params)
        return spans.watched_async(self, messages, params, items) if spans.tracers else items

    async def __items(self, messages: Conversation, params: Params) -> AsyncIterator[StreamItem]:
        llm = self._or_tape()
        self._start()
        answer = Completion()
        async with aclosing(llm._part_lists(_checked(messages), params)) as lists:
            async for parts in lists:
                for chunk, answer in parts:
                    if chunk or answer.finish_reason is None:
                        yield _STREAMING, chunk, answer
        yield ModelStatusCode.END, "", self._finish(answer)

    async def _chat(self, messages: Conversation, params: Params) -> Completion:
        """The backend's answer; `params` are this call's parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define async _chat(messages, params) -> Completion")

    async def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        """Answers to several conversations, asked for side by side."""

        async def one(messages: Conversation) -> Completion:
            self._start()
            return self._finish(await self._chat(messages, params))

        return await side_by_side([one(messages) for messages in batch])

    async def _stream(self, messages: Conversation, params: Params) -> AsyncIterator[Part]:
        """New text and the answer so far, part by part; only the last one has `finish_reason` set."""
        answer = _as_completion(await self._chat(messages, params), self)
        yield answer.text, answer

    async def _part_lists(self, messages: Conversation, params: Params) -> AsyncIterator[list[Part]]:
        """The parts in lists of those that came together; a backend that gets many at once overrides this."""
        async with aclosing(self._stream(messages, params)) as parts:  # type: ignore[type-var]
            async for part in parts:
                yield [part]


async def side_by_side(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order; where one fails, the others are cancelled before its error is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _stop_words(value: Any) -> list[str]:
    words = [value] if isinstance(value, str) else value or []
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) and word for word in words):
        raise InvalidArgument("stop_words", value, "give a non-empty text, or a list of them")
    return list(words)


def _as_completion(answer: Any, llm: _LLM) -> Completion:
    """What a backend gave as its answer; a text will do.

    Raises:
        InvalidArgument: it is none.
    """
    if isinstance(answer, Completion):
        return answer
    if isinstance(answer, str):
        return Completion(answer)
    raise InvalidArgument(f"the answer of {type(llm).__name__}", answer, "return a Completion, or a text")


def _is_batch(messages: Any) -> bool:
    return isinstance(messages, list | tuple) and bool(messages) and isinstance(messages[0], list | tuple)


def _checked(messages: Any) -> Conversation:
    """The conversation, its shape looked at in constant time; backends check each message as they encode it."""
    if isinstance(messages, str):
        raise InvalidArgument("messages", messages, "give a list such as [{'role': 'user', 'content': 'Hi'}]")
    if not isinstance(messages, list | tuple) or not messages:
        raise InvalidArgument("messages", messages, "give a non-empty list of dicts with 'role' and 'content'")
    last = messages[-1]
    if not isinstance(last, (dict, Mapping)) or "role" not in last:
        raise InvalidArgument("messages[-1]", last, "each message is a dict with 'role' and 'content'")
    return messages


_FORBID = "LAGENTLIKE_FORBID_REAL_REQUESTS"
_forbid_depth = 0


def _forbidden() -> bool:
    return _forbid_depth > 0 or os.environ.get(_FORBID, "") not in ("", "0")


@contextmanager
def forbid_real_requests() -> Iterator[None]:
    """Refuse every model call that would leave this process, in all threads, while the block lasts.

    The environment variable `LAGENTLIKE_FORBID_REAL_REQUESTS=1` does the same for a whole process. `ScriptedLLM` and
    `TinyLM` are not affected.

    Raises:
        RealRequestsForbidden: from the call that would have been made.
    """
    global _forbid_depth
    _forbid_depth += 1
    try:
        yield
    finally:
        _forbid_depth -= 1
