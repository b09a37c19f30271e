"""Show a model only as much of a conversation as fits it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidArgument
from ..memory import Memory
from ..schema import AgentMessage, ChatMessage, unchecked_message
from .default import as_content, DefaultAggregator

__all__ = ["BudgetAggregator", "kept_from", "left_out", "text_size"]

Summarize = Callable[[Sequence[AgentMessage]], str]


class BudgetAggregator(DefaultAggregator):
    """Leaves out the oldest messages of a conversation that is too long; memory keeps them all.

    A user message in their place says so, and what the first request was. A tool's result is never shown without its
    call. Between two cuts the beginning stays the same, so that messages are rendered once and prefix caches hold.
    Where the cuts are depends on the messages alone: it is the same after a restart.

    Args:
        max_tokens: most tokens of the messages that are shown; None for any.
        max_messages: most messages that are shown beside that one; None for any.
        keep: which part of these a cut leaves, between 0 and 1.
        count: tokens of a message; by default four bytes of its text are taken for one.
        summarize: what to say in the place of the messages that a cut leaves out, the earlier summary first. It is
            called once for each cut, and again after a restart. It is a plain function: for a summary by a model,
            `AIAgent` has a `compressor`, which may be an agent.

    >>> from lagentlike import Agent, ScriptedLLM
    >>> llm = ScriptedLLM(lambda messages, params: f"{len(messages)} messages")
    >>> agent = Agent(llm, aggregator=BudgetAggregator(max_messages=4))
    >>> [agent(str(number)).content for number in range(3)]
    ['1 messages', '3 messages', '3 messages']
    >>> [message["content"] for message in llm.requests[-1].messages]
    ['(Earlier messages are left out here. The first request was: 0)', '3 messages', '2']
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        max_messages: int | None = None,
        keep: float = 0.5,
        count: Callable[[AgentMessage], int] | None = None,
        summarize: Summarize | None = None,
    ) -> None:
        for name, most in (("max_tokens", max_tokens), ("max_messages", max_messages)):
            if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
                raise InvalidArgument(name, most, "give a number of at least 1, or None")
        if max_tokens is None and max_messages is None:
            raise InvalidArgument("max_tokens", None, "give max_tokens, max_messages, or both")
        if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep < 1:
            raise InvalidArgument("keep", keep, "give the part to keep, between 0 and 1")
        self.max_tokens = max_tokens
        self.max_messages = max_messages
        self.keep = keep
        self.count = count or _estimated
        self.summarize = summarize

    def _cut(
        self, rendered: list[dict[str, Any]], new: list[AgentMessage], memory: Memory
    ) -> tuple[list[dict[str, Any]], Sequence[AgentMessage]]:
        key = (id(self), "cut")
        known: _Cut = memory.views.get(key) or _Cut(self)
        cut = known
        for message in memory.since(known.count):
            cut = self._after(cut, message, memory)
        others = memory.views if cut.start == known.start else {}  # what else was rendered began elsewhere
        memory.views = {**others, key: cut}
        if rendered and cut.start == known.start:
            return rendered, new
        start = cut.start if rendered else max(cut.start, len(memory) - len(new))  # a memory may show its end only
        note: list[dict[str, Any]] = [ChatMessage(role="user", content=cut.note)] if cut.note else []
        return note, memory.since(start)

    def _after(self, cut: _Cut, message: AgentMessage, memory: Memory) -> _Cut:
        """The cut once there is one more message."""
        sizes = (*cut.sizes, self.count(message))
        cut = replace(cut, count=cut.count + 1, sizes=sizes)
        most_tokens, most = self.max_tokens or float("inf"), self.max_messages or float("inf")
        if sum(sizes) <= most_tokens and len(sizes) <= most:
            return cut
        shown = memory.since(cut.start)[: len(sizes)]
        place = max(
            kept_from(shown, sizes, most_tokens * self.keep), kept_from(shown, [1] * len(sizes), most * self.keep)
        )
        if place == 0:
            return cut
        gone = shown[:place]
        if self.summarize is None:
            note = cut.note or left_out(gone)
        else:
            before = [unchecked_message(content=cut.note, sender="user")] if cut.note else []
            note = self.summarize([*before, *gone])
        return replace(cut, start=cut.start + place, sizes=sizes[place:], note=note)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_tokens={self.max_tokens}, max_messages={self.max_messages})"


@dataclass(frozen=True)
class _Cut:
    """From where on a memory is shown, once its first `count` messages were looked at."""

    aggregator: BudgetAggregator  # it is kept alive: its id is the key
    count: int = 0
    start: int = 0
    sizes: tuple[int, ...] = ()  # of the messages from `start` on
    note: str = ""


def kept_from(messages: Sequence[AgentMessage], sizes: Sequence[int], room: float) -> int:
    """Index of the first of the last messages that fit; the last one does, and a tool's result goes with its call."""
    start, used = len(messages) - 1, sizes[-1]
    while start > 0 and used + sizes[start - 1] <= room:
        start -= 1
        used += sizes[start]
    while start > 0 and messages[start].tool_results is not None:
        start -= 1
    return start


def left_out(messages: Iterable[AgentMessage]) -> str:
    """What a model is told in the place of messages, with the first request among them."""
    first = next((message for message in messages if message.sender == "user"), None)
    request = "" if first is None else f" The first request was: {str(as_content(first.content))[:2000]}"
    return f"(Earlier messages are left out here.{request})"


def text_size(message: AgentMessage) -> int:
    """Characters of a message and the arguments of its tool calls."""
    return len(str(message.content)) + sum(len(str(call.arguments)) for call in message.tool_calls or ())


def _estimated(message: AgentMessage) -> int:
    texts = [str(as_content(message.content)), *(str(call.arguments) for call in message.tool_calls or ())]
    texts += [result.text for result in message.tool_results or ()]
    return 4 + sum(len(text.encode(errors="replace")) for text in texts) // 4
