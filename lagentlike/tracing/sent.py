"""Each message that a model is sent, written once: a request is written as what it has more than the one before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from .spans import Span

__all__ = ["Sent", "restore"]

Content = dict[str, Any]
"""What was said in a request, as plain data: its `messages`, among others."""


class Sent:
    """The requests that were written last, one of each conversation.

    Args:
        most: messages that are remembered; the next request of a conversation that is forgotten is written whole.
    """

    def __init__(self, most: int = 50_000) -> None:
        self._most = most
        self._last: OrderedDict[Hashable, tuple[str, list[Any]]] = OrderedDict()  # ids of spans, and their messages
        self._held = 0
        self._guard = threading.RLock()  # garbage that is collected meanwhile may end a span

    def shortened(self, span: Span, content: Content) -> Content:
        """What is new in a request, and, as `after`, how many messages of which other one it follows."""
        earlier = self._last.get(_conversation(span))
        if earlier is None or not _is_conversation(span, content):
            return content
        span_id, before = earlier
        messages = content["messages"]
        common = next(
            (at for at, (one, other) in enumerate(zip(before, messages, strict=False)) if one != other),
            min(len(before), len(messages)),
        )
        if not common:
            return content
        return {**content, "after": {"span_id": span_id, "messages": common}, "messages": messages[common:]}

    def wrote(self, span: Span, content: Content) -> None:
        """Remember a request that was written, of which `content` is the whole."""
        if not _is_conversation(span, content):
            return
        with self._guard:
            _, before = self._last.pop(_conversation(span), ("", []))
            self._last[_conversation(span)] = span.span_id, content["messages"]
            self._held += len(content["messages"]) - len(before)
            while self._held > self._most:
                _, (_, gone) = self._last.popitem(last=False)
                self._held -= len(gone)


def restore(span: dict[str, Any], sent: dict[str, list[Any]]) -> None:
    """Make what was read of a request whole; where that it follows is not there, `missing` says so in its content.

    Args:
        span: what was read.
        sent: the messages of earlier requests by the ids of their spans; this one's are added.
    """
    content = span.get("content")
    if span["kind"] != "request" or not isinstance(content, dict) or not isinstance(content.get("messages"), list):
        return
    match content.pop("after", None):
        case None:
            pass
        case {"span_id": str(span_id), "messages": int(count)} if span_id in sent:
            content["messages"] = sent[span_id][:count] + content["messages"]
        case after:
            content["missing"] = (
                f"the messages before these are not in this file; they follow {after}"
            )
            return
    sent[span["span_id"]] = content["messages"]


def _is_conversation(span: Span, content: Content) -> bool:
    return span.kind == "request" and "batch" not in span.attributes and isinstance(content.get("messages"), list)


def _conversation(span: Span) -> Hashable:
    """What requests have in common that probably go on from one another."""
    turn = span.outer
    while turn is not None and turn.kind != "turn":
        turn = turn.outer
    session_id = None if turn is None else turn.attributes["session_id"]
    return id(span.unit), session_id, span.name
