"""Tool calls that a model wrote as text, in the format of Hermes and Qwen."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import orjson

from ...errors import InvalidArgument
from ...schema import ToolCall
from .marks import Marks
from .room import Room

__all__ = [
    "MAX_CALLS",
    "MAX_REPLY",
    "CallFault",
    "CallScan",
    "ParsedCalls",
    "call_of",
    "calls_in",
    "loads_strictly",
    "parse_tool_calls",
    "raw_json",
]

MAX_CALLS = 128
"""Most calls that are taken from one reply."""

MAX_REPLY = 4 * 1024 * 1024
"""Longest reply, in characters, that is searched for calls."""


FaultKind = Literal["unclosed", "nested", "too many", "too long"]


class CallFault(NamedTuple):
    """A piece of a reply that begins as a call and is none.

    Attributes:
        kind: what is wrong with it.
        message: the same in words a model can act on.
        text: the piece.
    """

    kind: FaultKind
    message: str
    text: str

    def as_call(self) -> ToolCall:
        """A call that is not made, and whose result tells the model what is wrong."""
        name = _NAME.search(self.text[:2000])
        return ToolCall(name.group(1) if name else "", self.text, raw_text=self.text, error=self.message)


class ParsedCalls(NamedTuple):
    """What `parse_tool_calls` found.

    Attributes:
        content: the text without the calls.
        calls: the calls in order, without ids; where a call is no JSON object with a `name`, its `arguments` are the
            text between the marks and its `name` is what can be made out of it, or empty.
        errors: what begins as a call and is none, in order; it is not called.
    """

    content: str
    calls: list[ToolCall]
    errors: list[CallFault]


def parse_tool_calls(text: str, begin: str = "<tool_call>", end: str = "</tool_call>") -> ParsedCalls:
    """Find the calls `begin {"name": …, "arguments": {…}} end` in what a model wrote.

    Marks inside `<think>…</think>` (or before a `</think>` whose thinking began in the prompt), code fences, inline
    code and quotes are text, as are marks inside the strings of a call. A call that is not closed is an error. The time
    taken grows with the length of the text, whatever is in it.

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
    return CallScan(text, begin, end).parsed()


def calls_in(text: str) -> list[ToolCall]:
    """The calls that `parse_tool_calls` finds, each with an id, and with an `error` where it cannot be read."""
    parsed = parse_tool_calls(text)
    calls = parsed.calls + [fault.as_call() for fault in parsed.errors]
    for call in calls:
        call.id = f"call_{uuid.uuid4().hex[:24]}"
        if isinstance(call.arguments, str) and not call.error:
            call.error = _fault_of(call.arguments)
    return calls


def _fault_of(arguments: str) -> str:
    """What is wrong with arguments that are a text; empty if it is the text of an object."""
    try:
        fault = "" if isinstance(loads_strictly(arguments), dict) else "the arguments are no JSON object"
    except ValueError as error:
        fault = f"the call is no valid JSON: {error}"
    return fault and f'{fault}; write {{"name": …, "arguments": {{…}}}} between <tool_call> and </tool_call>'


def loads_strictly(text: str) -> Any:
    """JSON as RFC 8259 has it: no NaN, no key twice.

    Raises:
        ValueError: it is not that, is nested too deeply, or holds more than `MAX_CONTAINERS` lists and objects; the
            message says what is wrong and where.
    """
    if not Room().takes(text):
        raise ValueError(Room.FULL)
    value = _loads_quickly(text)
    if value is not _UNSURE:
        return value
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _loads_quickly(text: str) -> Any:
    """The value of JSON text, or `_UNSURE`.

    The fast codec forgets the first of two equal keys and rounds long integers. So it is asked where there are none of
    the latter, and believed where its value holds as many colons as the text (which must not write any as `\\u003a`).
    """
    if "\\u" in text or _LONG_NUMBER.search(text):
        return _UNSURE
    try:
        value = orjson.loads(text)
        colons = orjson.dumps(value).count(b":")
    except (TypeError, ValueError):
        return _UNSURE
    return value if colons == text.count(":") else _UNSURE


_UNSURE = object()
_LONG_NUMBER = re.compile("[0-9]{19}")


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
_MAX_PASSED = 2_000  # most places that look like calls and are none
NEAR = 8
"""Most space between a call and the mark around all calls."""


class CallScan:
    """One pass over a reply, from call to call; a format overrides how the text of a call is read.

    Args:
        text: the model's reply.
        begin, end: the marks around a call.
        around: the marks around all calls of a reply, where the format has such; they are no text of the reply.
    """

    def __init__(
        self, text: str, begin: str | re.Pattern[str], end: str, around: tuple[str, str] | None = None
    ) -> None:
        self.text = text
        self.begin = begin
        self.end = end
        self.calls: list[ToolCall] = []
        self.errors: list[CallFault] = []
        self.marks = Marks(text, begin, end)
        self.room = Room()
        self._around = around
        self._tried = self._passed = 0
        self._cuts: list[tuple[int, int]] = []

    def parsed(self) -> ParsedCalls:
        """All that is in the reply."""
        if len(self.text) > MAX_REPLY:
            message = (
                f"the reply has {len(self.text):,} characters, more than {MAX_REPLY:,}: call tools in a shorter one"
            )
            return ParsedCalls(self.text, [], [CallFault("too long", message, self.text[:200])])
        while (at := self.marks.step()) >= 0:
            if self.marks.thinking_ended:
                self.calls, self.errors, self._cuts = [], [], []
            elif self._tried == MAX_CALLS:
                message = f"there are more than {MAX_CALLS} calls: those after the first {MAX_CALLS} are not made"
                self.marks.jump(self.fault("too many", message, at, -1))
            elif self.room.is_full:
                self.marks.jump(self.fault("too many", Room.FULL, at, -1))
            else:
                self._tried += 1
                known = len(self.calls)
                self.marks.jump(self.read(at))
                if self.room.is_full:
                    for call in self.calls[known:]:
                        call.error = Room.FULL
        return ParsedCalls(self._content(), self.calls, self.errors)

    def _content(self) -> str:
        """The text without the calls, whole or broken."""
        pieces, at = [], 0
        for start, stop in self._cuts:
            pieces.append(self.text[at:start])
            at = stop
        pieces.append(self.text[at:])
        return "".join(pieces).strip()

    def read(self, start: int) -> int:
        """Take the call whose mark starts at `start`; where to go on, or -1."""
        assert isinstance(self.begin, str), "a format without one begin mark reads its calls itself"
        inside = start + len(self.begin)
        value, stop = self.value(inside)
        closing = self.marks.closing(stop)
        whole = closing >= 0 and not self.text[stop:closing].strip()
        if value is None or not whole:  # it may be thinking that began in the prompt
            thinking = self.marks.end_of_thinking(inside, len(self.text) if closing < 0 else closing)
            if thinking >= 0:
                return thinking
        if closing < 0:
            message = f"a {self.begin} is not closed by {self.end}: write the whole call again"
            return self.fault("unclosed", message, start, -1)
        if not whole and self.text.find(self.begin, stop, closing) >= 0:
            message = f"a {self.begin} stands inside another one: close each with {self.end} before the next"
            return self.fault("nested", message, start, self._behind(closing))
        self.calls.append(self.made(value if whole else None, self.text[inside:closing].strip()))
        self.cut(start, closing + len(self.end))
        return self._behind(closing)

    def no_call(self, at: int) -> int:
        """Go on at a place, or nowhere after many such: what was met only looked like a call."""
        self._tried -= 1
        self._passed += 1
        return at if self._passed < _MAX_PASSED else -1

    def made(self, value: Any, raw: str) -> ToolCall:
        """The call that a value describes, which is None where the text `raw` could not be read."""
        return call_of(value, raw)

    def cut(self, start: int, stop: int) -> None:
        """Leave the text between two places, and the marks around it, out of the content."""
        if self._around is not None:
            before, behind = self._around
            floor = self._cuts[-1][1] if self._cuts else 0
            opened = self.text.rfind(before, max(floor, start - len(before) - NEAR), start)
            if opened >= 0 and not self.text[opened + len(before) : start].strip():
                start = opened
            closed = self.text.find(behind, stop, stop + len(behind) + NEAR)
            if closed >= 0 and not self.text[stop:closed].strip():
                stop = closed + len(behind)
        self._cuts.append((start, stop))

    def fault(self, kind: FaultKind, message: str, start: int, stop: int) -> int:
        """Note that the text between two places is no call; where to go on."""
        upto = len(self.text) if stop < 0 else stop
        self.errors.append(CallFault(kind, message, self.text[start:upto].strip()))
        self.cut(start, upto)
        return stop

    def _behind(self, closing: int) -> int:
        """Behind the closing mark at that place, and of those that directly follow it."""
        at = closing + len(self.end)
        while self.text.startswith(self.end, behind := _end_of_space(self.text, at)):
            at = behind + len(self.end)
        return at

    def value(self, at: int) -> tuple[Any, int]:
        """What is called, as a value at a place, and where that ends; (None, at) where there is none."""
        return self.json_value(at)

    def json_value(self, at: int, upto: int | None = None) -> tuple[Any, int]:
        """The JSON value at a place and where it ends; (None, at) where there is none.

        It is read fastest where it ends at `upto`, which is the next end mark by default.
        """
        closing = self.text.find(self.end, at) if upto is None else upto
        if closing >= 0:
            inside = self.text[at:closing]
            if not self.room.takes(inside):
                return None, at
            value = _loads_quickly(inside)
            if value is not _UNSURE:
                return value, closing
        found = raw_json(self.text, _end_of_space(self.text, at))
        return found if found is not None and self.room.takes(self.text[at : found[1]]) else (None, at)


def raw_json(text: str, at: int) -> tuple[Any, int] | None:
    """The JSON value that starts at a place of a text and where it ends; None where there is none."""
    try:
        return _decoder.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None


def _end_of_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def call_of(value: Any, raw: str) -> ToolCall:
    """The call that a JSON value describes, or the raw text as its arguments."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        name = _NAME.search(raw[:2000])
        return ToolCall(name.group(1) if name else "", raw, raw_text=raw)
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, dict | str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(value["name"], arguments, raw_text=raw)
