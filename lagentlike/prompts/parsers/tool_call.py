"""Tool calls that a model wrote as text, in the format of Hermes and Qwen."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ...errors import InvalidArgument
from ...schema import ToolCall

__all__ = ["MAX_CALLS", "MAX_REPLY", "ParsedCalls", "loads_strictly", "parse_tool_calls"]

MAX_CALLS = 128
"""Most calls that are taken from one reply."""

MAX_REPLY = 4 * 1024 * 1024
"""Longest reply, in characters, that is searched for calls."""


class ParsedCalls(NamedTuple):
    """What `parse_tool_calls` found.

    Attributes:
        content: the text without the calls.
        calls: the calls in order, without ids; where a call is no JSON object with a `name`, its `arguments` are the
            text between the marks and its `name` is what can be made out of it, or empty.
        errors: what is wrong with the rest, in words a model can act on; what is named here is not called.
    """

    content: str
    calls: list[ToolCall]
    errors: list[str]


def parse_tool_calls(text: str, begin: str = "<tool_call>", end: str = "</tool_call>") -> ParsedCalls:
    """Find the calls `begin {"name": …, "arguments": {…}} end` in what a model wrote.

    Marks inside `<think>…</think>`, code fences, inline code and quotes are text, as are marks inside the strings of a
    call. A call that is not closed is an error. The time taken grows with the length of the text, whatever is in it.

    Args:
        text: the model's reply. `MAX_REPLY` and `MAX_CALLS` bound what is taken from it.
        begin, end: the marks around a call.

    Returns:
        `(content, calls, errors)`; whatever the model wrote, nothing is raised.

    >>> parsed = parse_tool_calls('Let me see.\\n<tool_call>\\n{"name": "add", "arguments": {"a": 1}}\\n</tool_call>')
    >>> parsed.content, parsed.calls[0].name, parsed.calls[0].arguments
    ('Let me see.', 'add', {'a': 1})
    """
    if not begin or not end:
        raise InvalidArgument("begin, end", (begin, end), "give the texts that a call starts and ends with")
    if begin not in text:
        return ParsedCalls(text.strip(), [], [])
    if len(text) > MAX_REPLY:
        error = f"the reply has {len(text):,} characters, more than {MAX_REPLY:,}: call tools in a shorter one"
        return ParsedCalls(text, [], [error])
    scan = _Scan(text, begin, end)
    scan.run()
    return ParsedCalls(scan.content(), scan.calls, scan.errors)


def loads_strictly(text: str) -> Any:
    """JSON as RFC 8259 has it: no NaN, no key twice.

    Raises:
        ValueError: it is not that, or is nested too deeply; the message says what is wrong and where.
    """
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON: use null or a text")


def _refuse_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twin!r} is there twice")
    return found


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_twins)
_NAME = re.compile(r'"name"\s{0,8}:\s{0,8}"([\w.-]{1,64})"')
_SPACE = re.compile(r"\s*")
_FENCE = r"^ {0,3}(?:`{3,}|~{3,})"


@lru_cache(maxsize=32)
def _marks(begin: str) -> re.Pattern[str]:
    """What decides whether a text at some place is a call: its mark, thinking, fences."""
    return re.compile(f"{re.escape(begin)}|</?think>|{_FENCE}", re.MULTILINE)


class _Scan:
    """One pass over a reply, from mark to mark."""

    def __init__(self, text: str, begin: str, end: str) -> None:
        self.text = text
        self.begin = begin
        self.end = end
        self.calls: list[ToolCall] = []
        self.errors: list[str] = []
        self._cuts: list[tuple[int, int]] = []
        self._quotes = (0, 0, 0)  # how far the current line was looked at; its double quotes and backticks so far

    def run(self) -> None:
        search = _marks(self.begin).search
        at = 0
        while at >= 0 and (mark := search(self.text, at)) is not None:
            word = mark.group()
            if word not in (self.begin, "<think>", "</think>"):
                at = self._jump(self._end_of_fence(mark))
            elif self._is_quoted(mark.start()):
                at = mark.end()
            elif word == self.begin:
                at = self._jump(self._call(mark.start(), mark.end()))
            elif word == "<think>":
                closing = self.text.find("</think>", mark.end())
                at = self._jump(-1 if closing < 0 else closing + len("</think>"))
            else:  # thinking that began in the prompt: all up to here
                at = self._jump(mark.end())
                self.calls, self.errors, self._cuts = [], [], []

    def content(self) -> str:
        """The text without the calls."""
        pieces, at = [], 0
        for start, stop in self._cuts:
            pieces.append(self.text[at:start])
            at = stop
        pieces.append(self.text[at:])
        return "".join(pieces).strip()

    def _jump(self, at: int) -> int:
        """Go on there, with no quote open."""
        self._quotes = (at, 0, 0)
        return at

    def _end_of_fence(self, mark: re.Match[str]) -> int:
        """Behind the line that closes a code fence, or -1."""
        fence = mark.group().lstrip(" ")
        at = mark.end()
        while (at := self.text.find("\n", at)) >= 0 and (closing := self.text.find(fence, at)) >= 0:
            line = self.text.rfind("\n", at, closing) + 1
            at = self.text.find("\n", closing)
            at = len(self.text) if at < 0 else at
            if closing - line <= 3 and not self.text[line:at].strip(" \t\r").strip(fence[0]):
                return at
        return -1

    def _is_quoted(self, at: int) -> bool:
        """Whether a double quote or a backtick is open on the line at that place."""
        seen, quotes, ticks = self._quotes
        line = self.text.rfind("\n", seen, at) + 1
        if line:
            seen, quotes, ticks = line, 0, 0
        quotes += self.text.count('"', seen, at) - self.text.count('\\"', seen, at)
        ticks += self.text.count("`", seen, at)
        self._quotes = (at, quotes, ticks)
        return bool(quotes % 2 or ticks % 2)

    def _call(self, start: int, inside: int) -> int:
        """Take the call whose mark starts at `start`; where to go on, or -1."""
        if len(self.calls) == MAX_CALLS:
            self.errors.append(f"there are more than {MAX_CALLS} calls: those after the first {MAX_CALLS} are not made")
            return -1
        value, stop = self._value(inside)
        closing = self.text.find(self.end, stop)
        if closing < 0:
            self.errors.append(f"a {self.begin} is not closed by {self.end}: write the whole call again")
            return -1
        if self.text.find(self.begin, stop, closing) >= 0:
            self.errors.append(f"a {self.begin} stands inside another one: close each with {self.end} before the next")
            return self._behind(closing)
        raw = self.text[inside:closing].strip()
        whole = not self.text[stop:closing].strip()
        self.calls.append(_tool_call(value if whole else None, raw))
        self._cuts.append((start, closing + len(self.end)))
        return self._behind(closing)

    def _behind(self, closing: int) -> int:
        """Behind the closing mark at that place, and of those that directly follow it."""
        at = closing + len(self.end)
        while self.text.startswith(self.end, behind := _end_of_space(self.text, at)):
            at = behind + len(self.end)
        return at

    def _value(self, at: int) -> tuple[Any, int]:
        """The JSON value at a place and where it ends; (None, at) where there is none."""
        try:
            return _decoder.raw_decode(self.text, _end_of_space(self.text, at))
        except (ValueError, RecursionError):
            return None, at


def _end_of_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _tool_call(value: Any, raw: str) -> ToolCall:
    """The call that a JSON value describes, or the raw text as its arguments."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        name = _NAME.search(raw[:2000])
        return ToolCall(name.group(1) if name else "", raw, raw_text=raw)
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, dict | str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(value["name"], arguments, raw_text=raw)
