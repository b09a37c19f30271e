"""Make a conversation that is too long for its model shorter, without forgetting any of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..aggregators.budget import kept_from, left_out, text_size
from ..errors import InvalidArgument
from ..memory import Memory
from ..schema import AgentMessage, unchecked_message

__all__ = ["Compressed", "Compressor", "DropOldest", "compressed", "in_view", "is_mark"]


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
"""Gets the messages that were too long, the new ones last, and returns what is to be kept; None if nothing can go.

The summary of an earlier compression is the first of the messages; its `type` is "compressed"."""


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
        sizes = [text_size(message) for message in messages]
        start = kept_from(messages, sizes, sum(sizes) * self.keep)
        if start == 0:
            return None
        return Compressed(start, messages[0].content if is_mark(messages[0]) else left_out(messages))


def in_view(memory: Memory, new: Sequence[AgentMessage]) -> list[tuple[int, AgentMessage]]:
    """What a model is sent of a memory and what it is about to be asked with, each with its index in the memory.

    The summary of an earlier compression comes first. The new ones are at an index that the memory does not have yet.
    """
    remembered = list(memory)
    marks = (message for message in (*new[::-1], *remembered[::-1]) if is_mark(message))
    mark = next(marks, None)
    start = 0 if mark is None else int(mark.extra_info["keep_from"])
    known = [(index, message) for index, message in enumerate(remembered) if index >= start]
    asked = [(len(remembered), message) for message in new]
    view = [(index, message) for index, message in known + asked if not is_mark(message)]
    return view if mark is None else [(start, mark), *view]


def compressed(view: Sequence[tuple[int, AgentMessage]], made: Any, compressor: Any) -> AgentMessage | None:
    """The mark that tells from where on a memory's messages are sent; None if it would leave out nothing more.

    Args:
        view: what `in_view` gave.
        made: what the compressor makes of its messages.
        compressor: for the message of an error.

    Raises:
        InvalidArgument: it keeps what is not there, or a result without its call.
    """
    if made is None:
        return None
    if not isinstance(made, Compressed) or not 0 <= made.keep_from <= len(view):
        raise InvalidArgument(
            "compressor", made, f"{compressor!r} must return None, or a Compressed within the {len(view)} messages"
        )
    if made.keep_from < len(view) and view[made.keep_from][1].tool_results is not None:
        raise InvalidArgument("keep_from", made.keep_from, "a tool's result cannot be kept without its call")
    last = view[-1][0]  # what the model is about to be asked is kept, with the call of which it may be the result
    place = next(place for place, (index, _) in enumerate(view) if index == last)
    if view[place][1].tool_results is not None:
        place -= 1
    place = min(place, made.keep_from)
    if place <= is_mark(view[0][1]):
        return None
    keep_from = view[place][0]
    return unchecked_message(content=made.summary, sender="user", type=_MARK, extra_info={"keep_from": keep_from})


def is_mark(message: AgentMessage) -> bool:
    """Whether a message is where a conversation was compressed."""
    return message.type == _MARK


_MARK = "compressed"
