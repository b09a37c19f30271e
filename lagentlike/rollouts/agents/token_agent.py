"""An agent whose prompts go on from the very token ids that its model read and wrote before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ...agents.agent import AsyncAgent
from ...agents.recall import placed
from ...aggregators import DefaultAggregator
from ...colour import careful
from ...errors import ContextLengthExceeded
from ...memory import Memory, SessionId
from ...prompts import StrParser
from ...schema import AgentMessage, ToolCall, ToolResult
from ...trajectory import arguments_of, text_of

__all__ = ["ConversationAggregator", "PromptBuilder", "TokenAgent", "remembered"]


class PromptBuilder(Protocol):
    """What makes token ids of conversations, as `ChatTokenizer` does."""

    def encode_chat(self, messages: Any, tools: Any = None, add_generation_prompt: bool = False) -> list[int]:
        """The ids of a conversation."""
        ...

    def continue_ids(self, ids: list[int], messages: Any, tools: Any = None) -> list[int]:
        """The next prompt: `ids`, which stand for the messages up to the last answer, and what came after."""
        ...

    @property
    def splits_answers(self) -> bool:
        """Whether an answer is more than a text."""
        ...

    def answer(self, ids: Iterable[int]) -> dict[str, Any]:
        """What a model sampled, as the chat message that `continue_ids` takes."""
        ...

    def rows(self, messages: Any, tools: Any = None) -> tuple[list[int], list[int]]:
        """The ids of a conversation, and a mask that is 1 on what an assistant said."""
        ...


class ConversationAggregator(DefaultAggregator):
    """Renders memory as it is, system messages included."""

    def render(self, message: AgentMessage, name: str, parser: StrParser | None) -> list[dict[str, Any]]:
        if message.sender == "system":
            return [{"role": "system", "content": message.content}]
        return super().render(message, name, parser)


class TokenAgent(AsyncAgent):
    """An agent whose prompts go on from the very token ids that its model read and wrote before.

    Args:
        llm: a model that takes `prompt_ids`, or, without `prompts`, any.
        prompts: makes token ids of conversations; None leaves that to the model's server.
        max_model_len: most tokens of a conversation.
        tool_parser: finds calls in the text of an answer that has none.
        **options: as for `AsyncAgent`.
    """

    def __init__(
        self,
        llm: Any,
        prompts: PromptBuilder | None = None,
        max_model_len: int | None = None,
        tool_parser: Callable[[str], list[ToolCall]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(llm, aggregator=ConversationAggregator(), **options)
        self.prompts = prompts
        self.max_model_len = max_model_len
        self.tool_parser = tool_parser

    @careful
    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Ask the model for the reply to what the session remembers; `kwargs` are generation parameters."""
        messages = self._prompt(session_id)
        asking = dict(self._asking(kwargs))
        if self.prompts is not None:
            ids = self._prompt_ids(self.prompts, messages, session_id, kwargs.get("tools"))
            asking["prompt_ids"] = ids
            if self.prompts.splits_answers:
                asking["logprobs"] = True  # with them come the ids that its parts are read from
            self._fit(asking, len(ids))
        answer = self._read(await self._model().chat(messages, **asking))
        if self.prompts is not None and self.prompts.splits_answers and answer.tokens is not None:
            read = self.prompts.answer(answer.tokens.said)
            answer.content, answer.reasoning = read["content"], read.get("thinking")
            answer.tool_calls = [_call(call) for call in read.get("tool_calls", ())] or None
        if self.tool_parser is not None and not answer.tool_calls:
            answer.tool_calls = self.tool_parser(answer.content) or None
        return answer

    def _prompt_ids(
        self, prompts: PromptBuilder, messages: list[dict[str, Any]], session_id: SessionId, tools: Any
    ) -> list[int]:
        """The ids so far and those of what came since; without ids so far, those of the whole conversation."""
        answers = [one for one in self._memory(session_id).get_memory() if one.is_from(self.name)]
        span = answers[-1].tokens if answers else None
        if span is None or span.prompt_ids is None:
            return prompts.encode_chat(messages, tools, add_generation_prompt=True)
        said = [dict(message) for message in messages]
        for index, answer in placed(messages, answers):
            if answer.tokens is not None and answer.tokens.ids:
                said[index] = prompts.answer(answer.tokens.said)
        return prompts.continue_ids([*span.prompt_ids, *span.ids], said, tools)

    def _fit(self, asking: dict[str, Any], used: int) -> None:
        """Leave no more room for the answer than there is."""
        if self.max_model_len is None:
            return
        room = self.max_model_len - used
        if room < 1:
            raise ContextLengthExceeded(
                f"the conversation has {used} tokens and max_model_len is {self.max_model_len}",
                used=used,
                limit=self.max_model_len,
            )
        wanted = asking.get("max_new_tokens") or self.llm.gen_params.get("max_new_tokens") or room
        asking["max_new_tokens"] = min(wanted, room)

    def _memory(self, session_id: SessionId) -> Memory:
        assert self.memory is not None
        return self.memory.get(session_id)


def remembered(messages: Iterable[Mapping[str, Any]], name: str) -> list[AgentMessage]:
    """Chat messages as an agent of that name remembers them."""
    kept: list[AgentMessage] = []
    for message in messages:
        role = message["role"]
        if role == "assistant":
            calls = [_call(call) for call in message.get("tool_calls") or ()]
            kept.append(AgentMessage(content=text_of(message), sender=name, tool_calls=calls or None))
        elif role == "tool":
            text, called = text_of(message), message.get("name", message.get("tool_name")) or ""
            result = ToolResult(True, text, id=message.get("tool_call_id") or "", name=called)
            kept.append(AgentMessage(content=text, sender="tool", tool_results=[result]))
        else:
            content = message["content"]
            kept.append(AgentMessage(content=content, sender="system" if role == "system" else "user"))
    return kept


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(function["name"], arguments_of(function["arguments"]), id=call.get("id") or "")
