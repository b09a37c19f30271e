"""Where an agent's answers come from: a model of ours or a server of atroposlib, asked in one way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ..concurrency import in_thread
from ..errors import BadResponse, InvalidArgument
from ..llms.base import AsyncBaseLLM, BaseLLM
from ..llms.tiny.engine import TinyEngine
from ..llms.token_model import chat_tokenizer
from ..prompts.chat.tokenizer import ChatTokenizer
from ..schema import Completion, TokenSpan, Usage
from .result import AgentConfig, NOT_SAMPLED

__all__ = ["Answers", "opened"]

Messages = Sequence[Mapping[str, Any]]


class Answers(Protocol):
    """What gives the answers of one conversation."""

    prompts: ChatTokenizer | None
    """Makes token ids of the conversation; None where somebody else does."""

    async def ask(self, messages: Messages, ids: list[int] | None, config: AgentConfig) -> Completion:
        """The next answer, with its `tokens` where the engine gives them.

        Args:
            messages: the conversation.
            ids: the same as token ids, which the answer is to go on from; None where there are no `prompts`.
            config: how to sample.
        """
        ...


@asynccontextmanager
async def opened(server: Any, tokenizer: Any = None) -> AsyncIterator[Answers]:
    """What gives the answers for one conversation.

    Where a server takes token ids and there is a tokenizer, prompts are made here, and go on from the very ids that
    were read and sampled before. A managed server of atroposlib that is used as such makes them of text: it writes the
    end of a turn once more behind one that was sampled, and so its model reads what it never wrote.

    Args:
        server: a model of ours; what has `managed_server(tokenizer=…)`, such as atroposlib's `ServerManager`; or one
            API server, which has `tokens_and_logprobs_completion` or `chat_completion`.
        tokenizer: of the model behind a server; the server's own by default.

    Raises:
        InvalidArgument: the server is none of these.
    """
    if isinstance(server, AsyncBaseLLM | BaseLLM):
        yield _Model(server, await in_thread(_prompts_of, server))
    elif hasattr(server, "managed_server"):
        async with server.managed_server(tokenizer=tokenizer) as managed:
            tokenizer = tokenizer if tokenizer is not None else getattr(managed, "tokenizer", None)
            inner = getattr(managed, "server", None) if hasattr(managed, "tokenizer") else None
            prompts = None if inner is None else _prompts(tokenizer)
            yield _Managed(managed) if prompts is None else _Server(inner, prompts)
    elif hasattr(server, "tokens_and_logprobs_completion") or hasattr(server, "chat_completion"):
        prompts = None
        if hasattr(server, "tokens_and_logprobs_completion"):
            prompts = _prompts(tokenizer if tokenizer is not None else getattr(server, "tokenizer", None))
        yield _Managed(server) if prompts is None else _Server(server, prompts)
    else:
        cure = "give a model such as AsyncTinyLM(), a ServerManager of atroposlib, or one of its API servers"
        raise InvalidArgument("server", server, cure)


class _Model:
    """A model of ours, of either colour."""

    def __init__(self, llm: AsyncBaseLLM | BaseLLM, prompts: ChatTokenizer | None) -> None:
        self._llm = llm
        self.prompts = prompts

    async def ask(self, messages: Messages, ids: list[int] | None, config: AgentConfig) -> Completion:
        asking: dict[str, Any] = {"logprobs": True}
        if config.temperature is not None:
            asking["temperature"] = config.temperature
        if config.max_tokens is not None:
            asking["max_new_tokens"] = config.max_tokens
        if ids is not None:
            asking["prompt_ids"] = ids
        if isinstance(self._llm, BaseLLM):
            return await in_thread(self._llm.chat, list(messages), **asking)
        return await self._llm.chat(list(messages), **asking)


class _Server:
    """One API server of atroposlib, which is sent token ids and gives some."""

    def __init__(self, server: Any, prompts: ChatTokenizer) -> None:
        self._server = server
        self.prompts: ChatTokenizer | None = prompts
        self._decode = prompts.decode

    async def ask(self, messages: Messages, ids: list[int] | None, config: AgentConfig) -> Completion:
        if ids is None:
            raise InvalidArgument("ids", ids, "this server is sent token ids: give the tokenizer of its model")
        read, sampled, logprobs, reasons = await self._server.tokens_and_logprobs_completion(
            model=getattr(getattr(self._server, "config", None), "model_name", "default"),
            prompt=self._decode(ids, skip_special_tokens=False),
            input_ids=ids,
            n=1,
            **_sampling(config),
        )
        if len(sampled) != 1 or len(logprobs) != 1:
            raise BadResponse(f"{type(self._server).__name__} gave {len(sampled)} answers where one was asked for")
        span = TokenSpan(list(sampled[0]), _logprobs(sampled[0], logprobs[0]), list(read))
        reason = reasons[0] if reasons else None
        return Completion(
            self._decode(span.ids),
            usage=Usage(1, len(read), len(span.ids)),
            finish_reason=reason.get("type") if isinstance(reason, Mapping) else reason,
            tokens=span,
        )


class _Managed:
    """A session of a managed server, which keeps the tokens itself; or a server of text, which has none."""

    prompts: ChatTokenizer | None = None

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    async def ask(self, messages: Messages, ids: list[int] | None, config: AgentConfig) -> Completion:
        response = await self._managed.chat_completion(messages=list(messages), n=1, **_sampling(config))
        choice = response.choices[0]
        state = self._managed.get_state() if hasattr(self._managed, "get_state") else {}
        nodes = state.get("nodes") or []
        span = _span(nodes[-1]) if nodes else None
        usage = getattr(response, "usage", None)
        return Completion(
            choice.message.content or "",
            usage=Usage(1, getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0),
            finish_reason=choice.finish_reason,
            tokens=span,
        )


def _sampling(config: AgentConfig) -> dict[str, Any]:
    asking: dict[str, Any] = {"max_tokens": config.max_tokens}
    if config.temperature is not None:
        asking["temperature"] = config.temperature
    return asking


def _span(node: Any) -> TokenSpan | None:
    """The last answer in a node of a managed server; None where its tokens are invented."""
    if (getattr(node, "metadata", None) or {}).get("dummy_tokens"):
        return None
    start = len(node.tokens)
    while start and node.masked_tokens[start - 1] != NOT_SAMPLED:
        start -= 1
    sampled = list(node.tokens[start:])
    return TokenSpan(sampled, _logprobs(sampled, node.logprobs[start:]), list(node.tokens[:start]))


def _logprobs(ids: Sequence[int], logprobs: Sequence[float] | None) -> list[float] | None:
    """The log-probabilities of sampled tokens, if there is one for each, and none that only fills a place."""
    if logprobs is None or len(logprobs) != len(ids) or any(value > 0 for value in logprobs):
        return None
    return list(logprobs)


def _prompts(tokenizer: Any) -> ChatTokenizer | None:
    """What makes token ids of conversations, if this tokenizer can."""
    if tokenizer is None:
        return None
    try:
        return chat_tokenizer(tokenizer)
    except InvalidArgument:  # a slow one, or one without a chat template
        return None


def _prompts_of(llm: Any) -> ChatTokenizer | None:
    """What makes token ids of conversations for a model of ours; None where its server does that."""
    engine = getattr(llm, "engine", None)  # reads the weights, the first time
    if isinstance(engine, TinyEngine):
        return _of_directory(engine.path)
    for holder, name in ((llm, "prompts"), (engine, "chat")):
        prompts = getattr(holder, name, None)
        if isinstance(prompts, ChatTokenizer):
            return prompts
    return None


@lru_cache(maxsize=8)
def _of_directory(path: Path) -> ChatTokenizer:
    return ChatTokenizer.load(path)
