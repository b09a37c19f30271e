"""What models that run in this process share: requests from the conversation to the answer, in both colours."""

from __future__ import annotations

import asyncio
import difflib
import queue
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Protocol

from ..concurrency import result_of
from ..errors import ContextLengthExceeded, InvalidArgument
from ..prompts.parsers.tool_formats import tool_format
from ..schema import Completion, TokenSpan, Usage
from .base import _LLM, AsyncBaseLLM, BaseLLM, Conversation, Params
from .prompting import Prompt, prompt_of, text_and_calls, wanted_tool
from .scheduler import OnStep, Request, Scheduler
from .tiny.engine import Generation, GenerationStep, SamplingParams

__all__ = ["AsyncLocalLLM", "LocalEngine", "LocalLLM", "sampling"]


class LocalEngine(Protocol):
    """What makes token ids of conversations, and knows how many a model reads."""

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt and its reply together."""
        ...

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """A conversation as the ids that its reply goes on from."""
        ...


class _Local(_LLM):
    """What both colours share: parameters in, requests to the engine, answers out."""

    real: ClassVar[bool] = False
    kind: ClassVar[str]
    """What errors about parameters call the model."""

    @property
    def engine(self) -> LocalEngine:
        """The engine behind it."""
        raise NotImplementedError(f"{type(self).__name__} must define engine")

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text."""
        raise NotImplementedError(f"{type(self).__name__} must define tokenize")

    @property
    def _vocab_size(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define _vocab_size")

    @property
    def _scheduler(self) -> Scheduler:
        """The line in front of the engine."""
        raise NotImplementedError(f"{type(self).__name__} must define _scheduler")

    def update_gen_params(self, **gen_params: Any) -> None:
        """Change parameters for all calls to come."""
        sampling(self._params(gen_params), self.kind)
        super().update_gen_params(**gen_params)

    def _request(self, messages: Conversation, params: Params, index: int = 0) -> _Asked:
        """A conversation as the engine takes it; the `index`-th of a batch draws with a seed of its own."""
        options = sampling(params, self.kind, index)
        prompt = prompt_of(
            messages, params, index, self.kind, self.path, self.engine.render, self.tokenize, self._vocab_size
        )
        limit = self.engine.max_length
        used = len(prompt.ids)
        if used >= limit:
            raise ContextLengthExceeded(
                f"the conversation has {used} tokens and the model reads {limit}: "
                "shorten it, give the agent memory=dict(type=Memory, recent_n=…), or use a larger model",
                used=used,
                limit=limit,
            )
        with_tokens = bool(params.get("logprobs") or params.get("top_logprobs"))
        return _Asked(self.path, Request(prompt.ids, options), prompt, with_tokens, self._scheduler)


class LocalLLM(_Local, BaseLLM):
    """A model that runs in this process, called blocking; calls made at once, from threads, are decoded together."""

    def _chat(self, messages: Conversation, params: Params) -> Completion:
        return self._request(messages, params).answer()

    def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        asked = []
        for index, messages in enumerate(batch):
            self._start()
            asked.append(self._request(messages, params, index))
        running = [one.submit() for one in asked]
        return [self._finish(one.read(future.result())) for one, future in zip(asked, running, strict=True)]

    def _stream(self, messages: Conversation, params: Params) -> Iterator[tuple[str, Completion]]:
        asked = self._request(messages, params)
        arrived: queue.SimpleQueue[GenerationStep | None] = queue.SimpleQueue()
        future = asked.submit(arrived.put)
        future.add_done_callback(lambda _: arrived.put(None))
        try:
            while (step := arrived.get()) is not None:
                if chunk := asked.take(step):
                    yield chunk, asked.so_far()
            yield asked.last(future.result())
        finally:
            asked.drop()


class AsyncLocalLLM(_Local, AsyncBaseLLM):
    """The async form of `LocalLLM`: tasks that ask at the same time are answered together, beside the event loop."""

    async def _chat(self, messages: Conversation, params: Params) -> Completion:
        await self._load()
        return await self._answer(self._request(messages, params))

    async def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        await self._load()
        asked = []
        for index, messages in enumerate(batch):
            self._start()
            asked.append(self._request(messages, params, index))
        return [self._finish(answer) for answer in await asyncio.gather(*map(self._answer, asked))]

    async def _stream(self, messages: Conversation, params: Params) -> AsyncIterator[tuple[str, Completion]]:
        await self._load()
        asked = self._request(messages, params)
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[GenerationStep | None] = asyncio.Queue()
        future = asked.submit(lambda step: _hand_over(loop, arrived, step))
        future.add_done_callback(lambda _: _hand_over(loop, arrived, None))
        try:
            while (step := await arrived.get()) is not None:
                if chunk := asked.take(step):
                    yield chunk, asked.so_far()
            yield asked.last(future.result())
        finally:
            asked.drop()

    async def _load(self) -> None:
        """Get the engine ready, beside the event loop."""

    async def _answer(self, asked: _Asked) -> Completion:
        try:
            return asked.read(await asyncio.wrap_future(asked.submit()))
        finally:
            asked.drop()


class _Asked:
    """One request, from the prompt to the answer."""

    def __init__(self, model: str, request: Request, prompt: Prompt, with_tokens: bool, scheduler: Scheduler) -> None:
        self._model = model
        self._request = request
        self._form, self._forced_tokens = prompt.form, prompt.forced_tokens
        self._with_tokens = with_tokens
        self._scheduler = scheduler
        self._forced = self._text = prompt.forced
        self._calls = None if prompt.form is None else prompt.form.shown()
        self._shown = self._taken = 0

    def submit(self, on_step: OnStep | None = None) -> Future[Generation]:
        """Put it in line."""
        self._request.on_step = on_step
        return self._scheduler.submit(self._request).future

    def drop(self) -> None:
        """Have it no longer worked on."""
        self._request.drop()

    def answer(self) -> Completion:
        """Wait for the whole answer."""
        try:
            return self.read(result_of(self.submit()))
        finally:
            self.drop()

    def read(self, generation: Generation) -> Completion:
        """What the engine gave, as an answer."""
        text, calls, reason = self._forced + generation.text, None, str(generation.finish_reason)
        if self._form is not None:
            text, calls = text_and_calls(text, self._form)
            reason = "tool_calls" if calls else reason
        return Completion(
            text,
            tool_calls=calls,
            usage=Usage(1, generation.prompt_tokens, len(generation.token_ids)),
            model=self._model,
            finish_reason=reason,
            tokens=self._span(len(generation.token_ids)),
        )

    def take(self, step: GenerationStep) -> str:
        """The new text of a stream that is sure to stand; a tool call is not text."""
        self._text += step.text
        self._taken += 1
        sure = len(self._text) if self._calls is None else self._calls.upto(self._text)
        chunk, self._shown = self._text[self._shown : sure], max(sure, self._shown)
        return chunk

    def so_far(self) -> Completion:
        """The answer up to here."""
        return Completion(self._text[: self._shown], model=self._model, tokens=self._span(self._taken))

    def last(self, generation: Generation) -> tuple[str, Completion]:
        """The end of a stream: what is left of the text, and the whole answer."""
        answer = self.read(generation)
        shown = self._text[: self._shown]
        if answer.tool_calls:
            shown = shown.lstrip()  # the answer is without that space then
        return answer.text[len(shown) :] if answer.text.startswith(shown) else "", answer

    def _span(self, count: int) -> TokenSpan | None:
        """The first `count` sampled tokens, if they are wanted."""
        if not self._with_tokens:
            return None
        steps = self._request.steps[:count]
        ids, logprobs = [step.token_id for step in steps], [step.logprob for step in steps]
        top = [step.top_logprobs or [] for step in steps] if steps[0].top_logprobs is not None else None
        return TokenSpan(ids, logprobs, self._request.prompt, top, self._forced_tokens)


def sampling(params: Mapping[str, Any], kind: str, index: int = 0) -> SamplingParams:
    """Generation parameters as the engine's options.

    Raises:
        InvalidArgument: a parameter is unknown, or its value out of range.
    """
    for name in params:
        if name not in _KNOWN:
            raise InvalidArgument(name, params[name], _cure(name, kind))
    values = {target: params[name] for name, target in _SAMPLING.items() if params.get(name) is not None}
    for name, (types, low, cure) in _RANGES.items():
        value = params.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, types) or not value >= low):
            raise InvalidArgument(name, value, cure)
    wanted_tool(params)
    if params.get("tool_format") is not None:
        tool_format(params["tool_format"])
    if values.get("seed") is not None:
        values["seed"] += index
    try:
        values["stop"] = tuple(params.get("stop_words") or ())
        return SamplingParams(**values)
    except ValueError as error:
        name, cure = str(error).partition("=")[0], str(error).partition(";")[2].strip()
        if name == "stop":
            name, cure = "stop_words", "give a list of non-empty texts"
        raise InvalidArgument(name, params.get(name), cure) from error


_SAMPLING = {
    "max_new_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "top_logprobs": "top_logprobs",
}
_KNOWN = {*_SAMPLING, "stop_words", "logprobs", "prompt_ids", "tools", "tool_choice", "tool_format"}
_RANGES: dict[str, tuple[Any, float, str]] = {
    "max_new_tokens": (int, 1, "give a whole number of at least 1"),
    "temperature": ((int, float), 0, "give 0 for the most likely token, or a number above"),
    "top_k": (int, 0, "give a whole number, 0 to keep all tokens"),
    "top_p": ((int, float), 0, "give a number above 0, at most 1"),
    "repetition_penalty": ((int, float), 0, "give a number above 0; 1 is none"),
    "seed": (int, 0, "give a whole number of at least 0"),
    "top_logprobs": (int, 0, "give a whole number of at least 0"),
}
_ALIASES = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "stop": "stop_words"}


def _cure(name: str, kind: str) -> str:
    close = _ALIASES.get(name) or next(iter(difflib.get_close_matches(name, [*_KNOWN, "session_id"], n=1)), None)
    if close:
        return f"{kind} has no such parameter; did you mean {close}?"
    if name == "meta_template":
        return f"{kind} has none: the model's chat template takes its place, or for HFTransformer template='internlm2'"
    return f"{kind} has no such parameter; it knows {', '.join(sorted(_KNOWN))}"


def _hand_over(loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[Any], item: Any) -> None:
    """Give an item to a task of a loop that may have ended by now."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(arrived.put_nowait, item)
