"""The model inside a tool loop: its replies are read for calls and thinking, and an empty one is no reply."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any

from ..colour import careful
from ..concurrency import Stop, Stopped
from ..errors import LLMError
from ..memory import SessionId
from ..prompts.parsers.tool_formats import ToolFormat
from ..schema import (
    AgentMessage,
    AgentStatusCode,
    Completion,
    message_of,
    ModelStatusCode,
    ToolCall,
    unchecked_message,
    Usage,
)
from .agent import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent
from .reasoning import END_OF_THINKING, split_thinking, thinking_so_far

__all__ = ["AsyncLoopModel", "AsyncStreamingLoopModel", "EmptyReply", "LoopModel", "StreamingLoopModel"]


class EmptyReply(LLMError):
    """A model said nothing and called nothing; `usage` is what that cost."""

    def __init__(self, usage: Usage | None) -> None:
        super().__init__("the model's reply is empty")
        self.usage = usage


class LoopModel(Agent):
    """A model whose replies hold each call with an id of its own, and thinking apart from the answer.

    The streaming forms show thinking apart from the answer as it comes, and nothing of a call that is text. With a
    `control`, a request is given up when that says so; of a stream, what was shown stays as the reply, whose
    `finish_reason` is "interrupted".

    Raises:
        Stopped: a request was given up, and there is nothing to keep; its turn is taken back.
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

    @careful
    def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, control: Stop | None = None, **kwargs: Any
    ) -> Any:
        """Ask the model for the reply to what the session remembers."""
        with (control or Stop()).here():
            completion = self._model().chat(self._prompt(session_id), **self._asking(kwargs))
        return self._read(completion)


class AsyncLoopModel(LoopModel, AsyncAgent):
    """See `LoopModel`."""

    @careful
    async def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, control: Stop | None = None, **kwargs: Any
    ) -> Any:
        """Ask the model for the reply to what the session remembers."""
        with (control or Stop()).watching():
            completion = await self._model().chat(self._prompt(session_id), **self._asking(kwargs))
        return self._read(completion)


class StreamingLoopModel(LoopModel, StreamingAgent):
    """See `LoopModel`."""

    @careful
    def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, control: Stop | None = None, **kwargs: Any
    ) -> Iterator[AgentMessage]:
        """Ask the model for the reply to what the session remembers, giving it out as it comes."""
        arriving = _Arriving(self.name, self.tool_format)
        with closing(self._model().stream_chat(self._prompt(session_id), **self._asking(kwargs))) as stream:
            try:
                for status, _, answer in (control or Stop()).each(stream):
                    if status != _STREAMING:
                        yield self._read(answer)
                    elif arriving.take(answer):
                        yield arriving.part()
            except Stopped:
                if not arriving.content:
                    raise
                yield arriving.kept()


class AsyncStreamingLoopModel(AsyncLoopModel, AsyncStreamingAgent):
    """See `LoopModel`."""

    @careful
    async def forward(  # type: ignore[override]  # the streaming form of the same call
        self, *message: AgentMessage, session_id: SessionId = 0, control: Stop | None = None, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Ask the model for the reply to what the session remembers, giving it out as it comes."""
        arriving = _Arriving(self.name, self.tool_format)
        asked = self._model().stream_chat(self._prompt(session_id), **self._asking(kwargs))
        async with aclosing(asked) as stream, aclosing((control or Stop()).each_async(stream)) as items:
            try:
                async for status, _, answer in items:
                    if status != _STREAMING:
                        yield self._read(answer)
                    elif arriving.take(answer):
                        yield arriving.part()
            except Stopped:
                if not arriving.content:
                    raise
                yield arriving.kept()


class _Arriving:
    """A reply that is still coming, as far as it may be shown.

    Attributes:
        content: the text, up to where a call may begin.
        reasoning: the thinking.
    """

    def __init__(self, name: str, tool_format: ToolFormat | None) -> None:
        self._fields = unchecked_message(sender=name, stream_state=AgentStatusCode.STREAM_ING).__dict__
        self._format = tool_format
        self._shown = None if tool_format is None else tool_format.shown()
        self._answer: Any = None
        self._is_text, self._seen = False, 0  # whether it began with no thinking; where thinking may end from there on
        self.content = ""
        self.reasoning: str | None = None

    def take(self, answer: Any) -> bool:
        """Take the answer so far; whether there is more to show."""
        before = self.content, self.reasoning
        self._answer = answer
        text = str.__str__(answer)
        self.reasoning = answer.reasoning if isinstance(answer, Completion) else None
        if self._is_text and text.find(END_OF_THINKING, self._seen) < 0:
            self._seen = max(len(text) - len(END_OF_THINKING), 0)
        else:
            thinking, rest = thinking_so_far(text)
            self._is_text, text = rest == text != "", rest
            self.reasoning = self.reasoning or thinking
        if self._format is not None and self._shown is not None:
            if not text.startswith(self.content):  # what was shown was thinking that had begun in the prompt
                self._shown = self._format.shown()
            text = text[: self._shown.upto(text)]
        self.content = text
        return (text, self.reasoning) != before

    def part(self) -> AgentMessage:
        """What is to be shown, as a part of a stream."""
        return message_of({**self._fields, "content": self.content, "reasoning": self.reasoning})

    def kept(self) -> AgentMessage:
        """What was shown, as the reply."""
        told = {
            "reasoning": self.reasoning,
            "model": getattr(self._answer, "model", None),
            "finish_reason": INTERRUPTED,
        }
        return unchecked_message(content=self.content, sender=self._fields["sender"], **told)


INTERRUPTED = "interrupted"
_STREAMING = ModelStatusCode.STREAM_ING  # looked at for each part of a stream


def _identify(calls: list[ToolCall]) -> None:
    """Give an id to each call that has none, or another one's."""
    seen: set[str] = set()
    for call in calls:
        while not call.id or call.id in seen:
            call.id = f"call_{secrets.token_hex(8)}"
        seen.add(call.id)
