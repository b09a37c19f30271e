"""The model inside a tool loop: its replies are read for calls and thinking, and an empty one is no reply."""

from __future__ import annotations

import secrets
from typing import Any

from ..errors import LLMError
from ..prompts.parsers.tool_formats import ToolFormat
from ..schema import AgentMessage, ToolCall, Usage
from .agent import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent
from .reasoning import split_thinking

__all__ = ["AsyncLoopModel", "AsyncStreamingLoopModel", "EmptyReply", "LoopModel", "StreamingLoopModel"]


class EmptyReply(LLMError):
    """A model said nothing and called nothing; `usage` is what that cost."""

    def __init__(self, usage: Usage | None) -> None:
        super().__init__("the model's reply is empty")
        self.usage = usage


class LoopModel(Agent):
    """A model whose replies hold each call with an id of its own, and thinking apart from the answer.

    Raises:
        EmptyReply: the reply has neither text nor calls; its turn is taken back. In `train()` mode it stays, for it was
            sampled.
    """

    tool_format: ToolFormat | None = None

    def _read(self, completion: Any) -> AgentMessage:
        message = super()._read(completion)
        text = message.content
        if "</think>" in text or "<think>" in text:
            thinking, text = split_thinking(text)
            if thinking is not None:
                message.content = text
                message.reasoning = message.reasoning or thinking
        if self.tool_format is not None and not message.tool_calls:
            parsed = self.tool_format.parse(text)
            message.tool_calls = [*parsed.calls, *(fault.as_call() for fault in parsed.errors)] or None
        if message.tool_calls:
            _identify(message.tool_calls)
        elif not text.strip() and message.finish_reason != "length" and not self.training:
            raise EmptyReply(message.usage)
        return message


class AsyncLoopModel(LoopModel, AsyncAgent):
    """See `LoopModel`."""


class StreamingLoopModel(LoopModel, StreamingAgent):
    """See `LoopModel`."""


class AsyncStreamingLoopModel(AsyncLoopModel, AsyncStreamingAgent):
    """See `LoopModel`."""


def _identify(calls: list[ToolCall]) -> None:
    """Give an id to each call that has none, or another one's."""
    seen: set[str] = set()
    for call in calls:
        while not call.id or call.id in seen:
            call.id = f"call_{secrets.token_hex(8)}"
        seen.add(call.id)
