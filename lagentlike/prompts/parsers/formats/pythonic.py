"""The pythonic format of Llama 4: a list of calls as Python writes them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from ....schema import ToolCall, ToolResult
from ..room import Room
from ..shown import beginnings
from ..tool_call import ParsedCalls, raw_json
from ..tool_formats import ToolFormat
from .open_scan import MAX_FAILED, OpenScan
from .values import parameters_of

__all__ = ["Pythonic", "python_call"]

MAX_LITERAL = 256 * 1024
"""Longest value, in characters, that is read as Python where it is no JSON."""

_BEGIN = re.compile(r"<\|python_start\|>|^[ \t]{0,8}\[\s{0,8}[A-Za-z_][\w.]{0,127}\(")
_BEGIN_QUICK = re.compile(_BEGIN.pattern, re.MULTILINE)
_START, _END = "<|python_start|>", "<|python_end|>"
_UNFINISHED = rf"{beginnings(_START)}|^[ \t]{{0,8}}\[\s{{0,8}}(?:[A-Za-z_][\w.]{{0,127}})?"
_HEAD = re.compile(r"\s*([A-Za-z_][\w.]{0,127})\(\s*")
_KEY = re.compile(r"([A-Za-z_]\w{0,127})\s*=(?!=)\s*")
_COMMA = re.compile(r"\s*,\s*")
_CLOSED = re.compile(r"\s*,?\s*\)")
_ENDS = re.compile(r"\s*[,)]")
_NOT_PYTHON = re.compile(r"\b(?:true|false|null|NaN|Infinity)\b")
_LIST_ENDS = re.compile(r"\s*,?\s*\]")
_TOKEN = re.compile(
    r'"(?:[^"\\]++|\\.)*+(?:"|\Z)|' + r"'(?:[^'\\]++|\\.)*+(?:'|\Z)" + r"|[\[\](){},]",
    re.DOTALL,
)


class Pythonic(ToolFormat):
    """`[name(argument="value"), …]` at the start of a line, as Llama 4 and others tuned for it write it.

    Values are JSON or Python literals; nothing is evaluated. Source: the prompt format of Llama 4.
    """

    tool_type = "pythonic"
    usage = (
        "Call tools in this exact format, with all calls in one list and nothing before it:\n"
        '[tool_name1(argument1="value", argument2=2), tool_name2()]'
    )

    begin, end, around, unfinished = _BEGIN, _END, (_START, _END), _UNFINISHED

    def parse(self, text: str) -> ParsedCalls:
        if _BEGIN_QUICK.search(text) is None:
            return ParsedCalls(text.strip(), [], [])
        return _PythonicScan(text, self).parsed()

    def write_call(self, call: ToolCall, index: int) -> str:
        given = call.arguments if isinstance(call.arguments, dict) else {}
        return f"{call.name}({', '.join(f'{name}={_written(value)}' for name, value in given.items())})"

    def joined(self, calls: list[str]) -> str:
        return f"[{', '.join(calls)}]"

    def results(self, results: Sequence[ToolResult]) -> str:
        return "\n".join(self.format_to_string([result.text])[1:-1] for result in results)


class _PythonicScan(OpenScan):
    """One pass over a reply of calls as Python writes them."""

    usage = Pythonic.usage

    def __init__(self, text: str, form: Pythonic) -> None:
        super().__init__(text, form.begin, form.end, form.around)
        self._known = parameters_of(form.tools)
        self._counted = False

    def read(self, start: int) -> int:
        marked = self.text.startswith(_START, start)
        at = self.behind_space(start + len(_START) if marked else start)
        if marked and not self.text.startswith("[", at):
            return self.unreadable(start, at)
        values, at_item = [], at + 1
        head = _HEAD.match(self.text, at_item)
        if not self._counted and head is not None and _KEY.match(self.text, head.end()) is not None:
            self._counted = True
            if not self.room.takes(self.text, at):  # nothing but calls may follow
                return self.fault("too many", Room.FULL, start, -1)
        while self.failed < MAX_FAILED and (found := python_call(self.text, at_item)) is not None:
            values.append(found[0])
            at_item = found[1]
            if (comma := _COMMA.match(self.text, at_item)) is None:
                break
            at_item = comma.end()
        ends = _LIST_ENDS.match(self.text, at_item)
        if values and ends is not None:
            return self.take(start, ends.end(), values)
        name = head.group(1) if head else ""
        meant = marked or name in self._known
        if not meant and (head is None or _KEY.match(self.text, head.end()) is None):
            return self.no_call(at + 1)
        return self.broken(start, at, name)

    def broken_call(self, name: str, raw: str) -> ToolCall:
        error = f"the call cannot be read: a value is no literal, or an argument has no name. {self.usage}"
        return ToolCall(name, raw, raw_text=raw, error=error)


def python_call(text: str, at: int) -> tuple[dict[str, Any], int] | None:
    """The call `name(argument=value, …)` at a place of a text and where it ends; None where there is none."""
    head = _HEAD.match(text, at)
    if head is None:
        return None
    stop = head.end()
    arguments: dict[str, Any] = {}
    while (key := _KEY.match(text, stop)) is not None:
        found = _value(text, key.end())
        if found is None or key.group(1) in arguments:
            return None
        arguments[key.group(1)], stop = found
        if (comma := _COMMA.match(text, stop)) is None:
            break
        stop = comma.end()
    closed = _CLOSED.match(text, stop)
    return ({"name": head.group(1), "arguments": arguments}, closed.end()) if closed else None


def _value(text: str, at: int) -> tuple[Any, int] | None:
    """The value at a place and where it ends; None where it is neither JSON nor a Python literal."""
    found = raw_json(text, at)
    if found is not None and _ENDS.match(text, found[1]):
        return found
    stop = _end_of_value(text, at)
    if stop < 0 or stop - at > MAX_LITERAL:
        return None
    try:
        return _plain(ast.literal_eval(text[at:stop].strip())), stop
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _written(value: Any) -> str:
    """A value as Python; JSON is that too, but for three words."""
    written = json.dumps(value, ensure_ascii=False)
    return repr(value) if _NOT_PYTHON.search(written) else written


def _end_of_value(text: str, at: int) -> int:
    """Where the comma or bracket behind a value is, or -1."""
    depth = 0
    for found in _TOKEN.finditer(text, at):
        word = found.group()
        if word in "[({":
            depth += 1
        elif depth == 0 and word in ",)]}":
            return found.start()
        elif word in ")]}":
            depth -= 1
    return -1


def _plain(value: Any) -> Any:
    """A Python literal as JSON has it.

    Raises:
        TypeError: JSON has no such value.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise TypeError(f"{value!r} is no JSON")
