"""Each message that a model is sent, written once: a request is written as what it has more than the one before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from .spans import Span

__all__ = ["Sent", "restore"]


class Sent:
    """The requests that were written last, one of each conversation.

    Args:
        most: messages that are remembered; the next request of a conversation that is forgotten is written whole.
    """

    def __init__(self, most: int = 50_000) -> None:
        self._most = most
        self._last: OrderedDict[Hashable, tuple[str, list[Any]]] = OrderedDict()  # ids of spans, and their messages
        self._held = 0

    def before(self, span: Span) -> tuple[str, list[Any]] | None:
        """What a request goes on from: the id of an earlier one's span, and the messages that both begin with.

        Args:
            span: any span; what comes back is None where it is no request with one conversation.
        """
        messages = span.content.get("messages")
        if span.kind != "request" or "batch" in span.attributes or not isinstance(messages, list | tuple):
            return None
        span_id, before = self._last.get(_conversation(span), ("", []))
        try:
            if [*messages[: len(before)]] == before:
                return span_id, before
            pairs = enumerate(zip(before, messages, strict=False))
            return span_id, before[: next((at for at, (one, other) in pairs if one != other), len(messages))]
        except Exception:  # noqa: BLE001  # a value that cannot be compared, whatever it raises
            return span_id, []

    def wrote(self, span: Span, messages: list[Any]) -> None:
        """Remember a request that was written, by all its messages as plain data; one thread at a time may do so."""
        _, before = self._last.pop(_conversation(span), ("", []))
        self._last[_conversation(span)] = span.span_id, messages
        self._held += len(messages) - len(before)
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
            content["missing"] = f"the messages before these are not in this file; they follow {after}"
            return
    sent[span["span_id"]] = content["messages"]


def _conversation(span: Span) -> Hashable:
    """What requests have in common that probably go on from one another."""
    turn = span.outer
    while turn is not None and turn.kind != "turn":
        turn = turn.outer
    session_id = None if turn is None else turn.attributes["session_id"]
    return id(span.unit), session_id, span.name
