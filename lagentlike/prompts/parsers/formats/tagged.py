"""Calls whose arguments are written one by one between tags, as Qwen3-Coder and GLM-4.5 do."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Any, NamedTuple

from ....schema import ToolCall
from ..tool_call import call_of, CallScan, ParsedCalls
from ..tool_formats import ToolFormat
from .values import parameters_of, typed

__all__ = ["TaggedFormat", "Tags"]

_MAX_FAILED = 16  # how often a reply may be read to its end for the end of a value, which bounds the time it takes


class Tags(NamedTuple):
    """The tags of a format, as patterns that match at a place.

    Attributes:
        head: what comes before the arguments; group 1 is the tool's name.
        key: what comes before a value; group 1 is the argument's name.
        closing: the tag behind a value.
        after: what may come behind that tag.
        foot: what comes behind the arguments.
    """

    head: re.Pattern[str]
    key: re.Pattern[str]
    closing: str
    after: re.Pattern[str]
    foot: re.Pattern[str]


class TaggedFormat(ToolFormat):
    """Arguments one by one between tags; their types are those of the tool's schema."""

    begin: str = "<tool_call>"
    end = "</tool_call>"
    tags: Tags

    def parse(self, text: str) -> ParsedCalls:
        if self.begin not in text:
            return ParsedCalls(text.strip(), [], [])
        return _TaggedScan(text, self).parsed()

    @abstractmethod
    def value_of(self, written: str) -> str:
        """A value without what the format puts around it."""

    def write_value(self, value: Any) -> str:
        """A value as it is written between the tags."""
        return value if isinstance(value, str) else self.format_to_string(value)


class _TaggedScan(CallScan):
    """One pass over a reply of tagged calls.

    A value ends at the closing tag behind which the call goes on or ends, and which is not inside of a whole call that
    the value quotes; so a value may hold the format's own tags.
    """

    def __init__(self, text: str, form: TaggedFormat) -> None:
        super().__init__(text, form.begin, form.end)
        self._form = form
        self._parameters = parameters_of(form.tools)
        words = (form.begin, form.end, form.tags.closing, "</think>")
        self._words = re.compile("|".join(map(re.escape, words)))
        self._no_value_ends_behind = len(text)
        self._failed = 0
        self._fault = ""

    def value(self, at: int) -> tuple[Any, int]:
        tags, self._fault = self._form.tags, ""
        head = tags.head.match(self.text, at)
        if head is None:
            return self.json_value(at)
        name, stop = head.group(1), head.end()
        arguments: dict[str, Any] = {}
        parameters = self._parameters.get(name)
        while (key := tags.key.match(self.text, stop)) is not None:
            argument, closing = key.group(1), self._end_of_value(key.end())
            if closing < 0 or argument in arguments:
                is_twice = "is there twice" if argument in arguments else f"is not closed by {tags.closing}"
                self._fault = f" (the argument {argument!r} {is_twice})"
                return None, at
            arguments[argument] = typed(self._form.value_of(self.text[key.end() : closing]), argument, parameters)
            stop = closing + len(tags.closing)
        foot = tags.foot.match(self.text, stop)
        return ({"name": name, "arguments": arguments}, foot.end()) if foot else (None, at)

    def made(self, value: Any, raw: str) -> ToolCall:
        if value is not None or raw.startswith("{"):
            return call_of(value, raw)
        head = self._form.tags.head.match(raw)
        error = f"the call cannot be read{self._fault}. {self._form.usage}"
        return ToolCall(head.group(1) if head else "", raw, raw_text=raw, error=error)

    def _end_of_value(self, at: int) -> int:
        """Where the tag that closes the value at a place starts, or -1."""
        if at >= self._no_value_ends_behind or self._failed == _MAX_FAILED:
            return -1
        depth, quoted, thinking, is_there, tags = 0, 0, False, False, self._form.tags
        for found in self._words.finditer(self.text, at):
            word = found.group()
            if word == self.begin:
                is_call = tags.head.match(self.text, found.end()) is not None
                depth, quoted = depth + is_call, quoted + is_call
            elif word == self.end:
                depth = max(depth - 1, 0)
            elif word == "</think>":
                thinking = thinking or depth == 0
            elif tags.after.match(self.text, found.end()) is not None:
                if quoted and thinking:  # rather the end of thinking that began in the prompt, and a call behind it
                    break
                if depth == 0:
                    return found.start()
                is_there = True
        else:
            if not is_there:
                self._no_value_ends_behind = at
        self._failed += 1
        return -1
