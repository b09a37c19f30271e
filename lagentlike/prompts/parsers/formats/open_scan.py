"""Calls that no mark closes: each ends where its brackets do."""

from __future__ import annotations

import json
import re
from typing import Any

from ....schema import ToolCall
from ..tool_call import call_of, CallScan, MAX_CALLS

__all__ = ["MAX_FAILED", "OpenScan"]

MAX_FAILED = 3
"""How often a reply may be read to its end for the end of a call, which bounds the time it takes."""


class OpenScan(CallScan):
    """One pass over a reply whose calls end with their last bracket."""

    usage = ""
    """How a call is written, for what a model is told of one that cannot be read."""

    failed = 0
    """How often the end of a call was looked for in vain."""

    def json_at(self, at: int) -> tuple[Any, int]:
        """The JSON value that starts at a place and where it ends; (None, -1) where there is none."""
        upto = -1
        if len(self.calls) < _FEW:  # a long call is one of few; of many in one line, none ends with the line
            ends = self.text.find("\n" if isinstance(self.begin, re.Pattern) else self.begin, at)
            upto = len(self.text) if ends < 0 else ends
        value, stop = self.json_value(at, upto)
        return (None, -1) if stop == at else (value, stop)

    def behind_space(self, at: int) -> int:
        """The next place that is no space."""
        space = _SPACE.match(self.text, at)
        return at if space is None else space.end()

    def call_at(self, value: Any, raw: str) -> ToolCall:
        """The call that an item of a list describes."""
        return call_of(value, raw)

    def take(self, start: int, stop: int, values: list[Any]) -> int:
        """Take the calls that the text between two places describes; where to go on."""
        single = len(values) == 1
        for value in values:
            if len(self.calls) == MAX_CALLS:
                message = f"there are more than {MAX_CALLS} calls: those after the first {MAX_CALLS} are not made"
                return self.fault("too many", message, start, -1)
            raw = self.text[start:stop] if single else json.dumps(value, ensure_ascii=False)
            self.calls.append(self.call_at(value, raw))
        self.cut(start, stop)
        return stop

    def broken(self, start: int, at: int, name: str) -> int:
        """Take what starts as a call and has a bracket at a place, but is no JSON; where to go on."""
        stop = self.end_of_brackets(at)
        thinking = self.marks.end_of_thinking(at, len(self.text) if stop < 0 else stop)
        if thinking >= 0:
            return thinking
        if stop < 0:
            message = f"the call is not whole: its brackets are not closed. {self.usage}"
            return self.fault("unclosed", message, start, -1)
        self.calls.append(self.broken_call(name, self.text[at:stop]))
        self.cut(start, stop)
        return stop

    def broken_call(self, name: str, raw: str) -> ToolCall:
        """The call of a text that cannot be read; JSON is left to the executor, which names the fault."""
        call = call_of(None, raw)
        call.name = name or call.name
        return call

    def unreadable(self, start: int, inside: int) -> int:
        """Take what is a mark with no call behind it; where to go on."""
        thinking = self.marks.end_of_thinking(inside, len(self.text))
        if thinking >= 0:
            return thinking
        stop = self.text.find("\n", inside)
        stop = len(self.text) if stop < 0 else stop
        if not self.text[inside:stop].strip():
            return self.fault("unclosed", f"there is no call behind the mark. {self.usage}", start, -1)
        raw = self.text[start:stop]
        self.calls.append(ToolCall("", raw, raw_text=raw, error=f"the call cannot be read. {self.usage}"))
        self.cut(start, stop)
        return stop

    def end_of_brackets(self, at: int) -> int:
        """Where the bracket at a place is closed, as far as strings let tell; -1 where it is not."""
        if self.failed >= MAX_FAILED:
            return -1
        depth = 0
        for found in _BRACKETS.finditer(self.text, at):
            word = found.group()
            if word in "[{(":
                depth += 1
            elif word in ")}]":
                depth -= 1
                if depth == 0:
                    return found.end()
        self.failed += 1
        return -1


_FEW = 4
_SPACE = re.compile(r"\s*")
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[\](){}]', re.DOTALL)
