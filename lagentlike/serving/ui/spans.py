"""The last spans of an agent's turns, for the page to show."""

from __future__ import annotations

import math
import threading
from collections import deque, OrderedDict
from collections.abc import Mapping
from typing import Any

from ...module import Module
from ...schema import Completion
from ...tracing import Span, Tracer
from ...tracing.spans import shown
from .feed import Feed
from .look import key_of

__all__ = ["SpanLog", "Watcher"]


class _Entry:
    """A span: what readers are told of it, all that went in and came out, and the outermost turn that it is part of."""

    __slots__ = ("asks", "content", "parts", "prefix", "reasoned", "root", "told")

    def __init__(self, told: dict[str, Any], content: Mapping[str, Any], root: _Entry | None) -> None:
        self.told = told
        self.content = content
        self.root = root or self
        self.prefix = "" if root is not None else told.get("path") or ""  # where the agent is in a larger tree
        self.asks = False  # whether a model is asked in it
        self.parts: dict[str, list[str]] = {"text": [], "reasoning": []}  # what came so far, while it runs
        self.reasoned = 0


class SpanLog:
    """The last spans, and the events that tell of them: `begin`, `part` and `end`.

    What readers are told of a span is short: of what a model was sent, which grows with the conversation, nothing, and
    of long texts the beginning. `whole` has the rest.

    Args:
        feed: takes the events.
        max_spans: most spans that are remembered.
    """

    def __init__(self, feed: Feed, max_spans: int = 2000) -> None:
        self.feed = feed
        self._most = max_spans
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._sent: deque[_Entry] = deque()  # requests with the messages that they sent
        self._held = 0  # how many messages those are
        self._guard = threading.Lock()

    def knows(self, span_id: str | None) -> bool:
        """Whether a span is remembered."""
        return span_id in self._entries

    def begin(self, span: Mapping[str, Any], content: Mapping[str, Any]) -> None:
        """Take a span that has begun; one that is part of none that is remembered is an outermost turn."""
        with self._guard:
            parent = self._entries.get(span["parent_id"] or "")
            entry = _Entry(_cut(dict(span)), content, None if parent is None else parent.root)
            told, root = entry.told, entry.root
            if parent is None:
                told.update(parent_id=None, session=key_of(told.get("session_id")))
            told["session"] = root.told["session"]
            if root.prefix:
                told["path"] = (told.get("path") or "").removeprefix(root.prefix).removeprefix(".")
            told["content"] = _brief(told["kind"], content)
            root.asks = root.asks or told["kind"] == "request"
            self._entries[told["span_id"]] = entry
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
            self.feed.publish({"type": "begin", "span": told})

    def part(self, span_id: str, text: str, reasoning: str = "") -> None:
        """Take what came of an answer: its new text, and all of its reasoning so far."""
        with self._guard:
            entry = self._entries.get(span_id)
            if entry is not None:
                self._grow(entry, text, reasoning[entry.reasoned :])
                entry.reasoned = max(entry.reasoned, len(reasoning))

    def say(self, session: str, text: str) -> None:
        """Take what the outermost turn of a session gives out, if nothing is heard of a model's answers in it."""
        with self._guard:
            for entry in reversed(self._entries.values()):
                if entry.root is entry and entry.told["session"] == session:
                    if entry.told["status"] == "running" and not entry.asks:
                        self._grow(entry, text, "")
                    return

    def end(self, span: Mapping[str, Any], content: Mapping[str, Any]) -> None:
        """Take a span that has ended."""
        with self._guard:
            entry = self._entries.get(span["span_id"])
            if entry is not None:
                entry.content, entry.parts = content, {}
                told = entry.told
                kept = {name: told[name] for name in ("parent_id", "path") if name in told}
                told.update(_cut(dict(span)), **kept, content=_brief(told["kind"], content))
                if told["kind"] == "request":
                    self._hold(entry)
                self.feed.publish({"type": "end", "span": told})

    def told(self, session: str | None) -> dict[str, Any]:
        """The `spans` of a session (of all, for None), oldest first, and the `place` in the feed where they go on."""
        with self._guard:
            spans = [
                {**entry.told, "parts": {name: "".join(texts) for name, texts in entry.parts.items() if texts}}
                for entry in self._entries.values()
                if session in (None, entry.told["session"])
            ]
            return {"place": self.feed.place, "spans": spans}

    def sessions(self, *, running: bool = False) -> list[str]:
        """The keys of the sessions that there are turns of, or turns under way, in the order in which they began."""
        with self._guard:
            turns = [entry.told for entry in self._entries.values() if entry.root is entry]
            return list(dict.fromkeys(told["session"] for told in turns if not running or told["status"] == "running"))

    def beginning(self, session: str) -> str:
        """How the first turn of a session began, in some words; empty where nothing is known of it."""
        with self._guard:
            for entry in self._entries.values():
                if entry.root is entry and entry.told["session"] == session:
                    first = next(iter(entry.told["content"].get("messages") or ()), "")
                    return " ".join(str(first.get("content") if isinstance(first, dict) else first).split())[:80]
        return ""

    def whole(self, span_id: str) -> dict[str, Any] | None:
        """A span with all that went in and came out; None for one that is not remembered."""
        with self._guard:
            entry = self._entries.get(span_id)
            return None if entry is None else {**entry.told, "content": shown(dict(entry.content))}

    def _hold(self, entry: _Entry) -> None:
        """Keep what a model was sent, and let go of that of earlier requests where it is too much."""
        self._sent.append(entry)
        self._held += len(entry.content.get("messages") or ())
        while self._held > _MOST_MESSAGES and len(self._sent) > 1:
            old = self._sent.popleft()
            self._held -= len(old.content.get("messages") or ())
            old.content = {name: value for name, value in old.content.items() if name != "messages"}

    def _grow(self, entry: _Entry, text: str, reasoning: str) -> None:
        event = {"type": "part", "span_id": entry.told["span_id"], "session": entry.told["session"]}
        for name, new in (("text", text), ("reasoning", reasoning)):
            if new and name in entry.parts:
                entry.parts[name].append(new)
                event[name] = new
        self.feed.publish(event)


class Watcher(Tracer):
    """Puts the turns of one agent, and all that is part of them, into a log.

    Args:
        unit: the agent.
        log: the log.
    """

    def __init__(self, unit: Module, log: SpanLog) -> None:
        self._unit = unit
        self._log = log

    def begin(self, span: Span) -> None:
        if self._log.knows(span.parent_id) or (span.kind == "turn" and span.unit is self._unit):
            self._log.begin(span.plain(), span.content)

    def part(self, span: Span, text: str, answer: Completion) -> None:
        self._log.part(span.span_id, text, answer.reasoning or "")

    def end(self, span: Span) -> None:
        if self._log.knows(span.span_id):
            told = span.plain()
            if span.error is not None:
                told["error"] = span.error
            self._log.end(told, span.content)


def _brief(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a span's content that is short, with long texts cut."""
    brief: dict[str, Any] = _cut(
        shown({name: value for name, value in content.items() if kind != "request" or name != "messages"})
    )
    return brief


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONG:
        return f"{value[:_LONG]}… ({len(value) - _LONG} more characters)"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # which JSON cannot hold
    if isinstance(value, dict):
        return {name: _cut(item) for name, item in value.items() if name != "tokens"}
    return [_cut(item) for item in value] if isinstance(value, list) else value


_LONG = 10_000  # characters
_MOST_MESSAGES = 200_000  # which are shared with the agent's memory: these are references
