"""Make a conversation that is too long for its model shorter, without forgetting any of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..aggregators.default import as_content
from ..errors import InvalidArgument
from ..memory import Memory
from ..schema import AgentMessage, unchecked_message

__all__ = ["Compressed", "Compressor", "DropOldest", "compressed", "is_mark", "kept_from"]


@dataclass(frozen=True)
class Compressed:
    """What a compressor makes of a conversation.

    Args:
        keep_from: index of the first message that the model is still sent; it must not be a tool's result, which goes
            with its call.
        summary: what the model is told in place of the messages before that.
    """

    keep_from: int
    summary: str


Compressor = Callable[[Sequence[AgentMessage]], Compressed | None]
"""Gets the messages that were too long, the new ones last, and returns what is to be kept; None if nothing can go."""


class DropOldest:
    """Leaves out the oldest messages, and repeats the first request.

    Args:
        keep: which part of the text is kept, between 0 and 1.
    """

    def __init__(self, keep: float = 0.5) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep < 1:
            raise InvalidArgument("keep", keep, "give the part of the text to keep, between 0 and 1")
        self.keep = keep

    def __call__(self, messages: Sequence[AgentMessage]) -> Compressed | None:
        sizes = [_size(message) for message in messages]
        room = sum(sizes) * self.keep
        start = len(messages) - 1
        while start > 0 and sum(sizes[start - 1 :]) <= room:
            start -= 1
        while start > 0 and messages[start].tool_results is not None:
            start -= 1
        if start == 0:
            return None
        first = next((message for message in messages if message.sender == "user" and not is_mark(message)), None)
        request = "" if first is None else f" The first request was: {str(as_content(first.content))[:2000]}"
        return Compressed(start, f"({start} earlier messages are left out here.{request})")


def compressed(memory: Memory, new: Sequence[AgentMessage], compressor: Any, made: Any) -> AgentMessage | None:
    """The mark that tells from where on a memory's messages are sent; None if it would leave out nothing.

    Args:
        memory: what the model remembers.
        new: the messages that it is about to be asked with.
        compressor: who was asked.
        made: its answer.
    """
    if made is None:
        return None
    start = kept_from(memory, new)
    messages = [*memory.get_memory()[start:], *(message for message in new if not is_mark(message))]
    most = len(memory) - start  # what the model is about to be asked is kept
    if not isinstance(made, Compressed) or not 0 <= made.keep_from <= len(messages):
        raise InvalidArgument(
            "compressor", made, f"{compressor!r} must return None, or a Compressed within the messages"
        )
    if made.keep_from < len(messages) and messages[made.keep_from].tool_results is not None:
        raise InvalidArgument("keep_from", made.keep_from, "a tool's result cannot be kept without its call")
    keep_from = min(made.keep_from, most)
    while 0 < keep_from < len(messages) and messages[keep_from].tool_results is not None:
        keep_from -= 1
    if keep_from == 0:
        return None
    return unchecked_message(
        content=made.summary, sender="user", type=_MARK, extra_info={"keep_from": start + keep_from}
    )


def kept_from(memory: Memory, new: Sequence[AgentMessage] = ()) -> int:
    """The index of the first message of a memory that the model is still sent."""
    for message in (*new[::-1], *memory.get_memory()[::-1]):
        if is_mark(message):
            return int(message.extra_info["keep_from"])
    return 0


def is_mark(message: AgentMessage) -> bool:
    """Whether a message is where a conversation was compressed."""
    return message.type == _MARK


_MARK = "compressed"


def _size(message: AgentMessage) -> int:
    size = len(str(message.content))
    for call in message.tool_calls or ():
        size += len(str(call.arguments))
    return size
