"""The format of Llama 3: bare JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ....schema import ToolCall, ToolResult
from ..shown import beginnings
from ..tool_call import call_of, ParsedCalls
from ..tool_formats import json_arguments, ToolFormat
from .open_scan import OpenScan
from .pythonic import python_call

__all__ = ["Llama3"]

_TAG = "<|python_tag|>"
_BEGIN = re.compile(
    rf'{re.escape(_TAG)}|^[ \t]{{0,8}}(?:\[\s{{0,8}})?\{{\s{{0,8}}"(?:name|type|function|parameters|arguments)"'
)
_UNFINISHED = rf'{beginnings(_TAG)}|^[ \t]{{0,8}}(?:\[\s{{0,8}}|(?:\[\s{{0,8}})?\{{\s{{0,8}}(?:"[a-z]{{0,10}})?)'
_CALL = re.compile(r'[\[{\s]{0,32}"(?:type"\s*:\s*"function"\s*,\s*")?name"\s*:\s*"[^"\n]{0,128}"\s*,\s*"(?:param|arg)')
_NEXT = re.compile(r"\s*;\s*(?=\{)")
_INSIDE = re.compile(r'(?:[\[{]|":|[\]}"0-9],)\Z')
_ENDS = re.compile(r"\s*(?:<\|eom_id\|>|<\|eot_id\|>)")


class Llama3(ToolFormat):
    """JSON with `name` and `parameters` at the start of a line, as Llama 3.1 to 3.3 and Llama 4 write it.

    Several calls are separated by `;`. `<|python_tag|>` may stand before them, and before a call such as
    `brave_search.call(query="…")`. JSON inside other text, or without both keys, is no call.
    Source: the chat template of Llama-3.1-8B-Instruct, and Meta's description of its prompt format.
    """

    tool_type = "llama3"
    usage = (
        'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}, '
        "with nothing before it. Separate several calls with a semicolon. Do not use variables."
    )

    begin, end, unfinished = _BEGIN, _TAG, _UNFINISHED

    def parse(self, text: str) -> ParsedCalls:
        if _BEGIN_QUICK.search(text) is None:
            return ParsedCalls(text.strip(), [], [])
        return _LlamaScan(text, self.begin, self.end).parsed()

    def write_call(self, call: ToolCall, index: int) -> str:
        return f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "parameters": {json_arguments(call)}}}'

    def joined(self, calls: list[str]) -> str:
        return "; ".join(calls)

    def results(self, results: Sequence[ToolResult]) -> str:
        return "\n".join(json.dumps(result.text, ensure_ascii=False) for result in results)


_BEGIN_QUICK = re.compile(_BEGIN.pattern, re.MULTILINE)


class _LlamaScan(OpenScan):
    """One pass over a reply of bare calls."""

    usage = Llama3.usage

    def read(self, start: int) -> int:
        tagged = self.text.startswith(_TAG, start)
        at = self.behind_space(start + len(_TAG) if tagged else start)
        if tagged and not self.text.startswith(("{", "["), at):
            return self._built_in(start, at)
        if not tagged and self._is_inside(start):
            return self.no_call(self._behind(start))
        value, stop = self.json_at(at)
        if stop < 0:
            if tagged or _CALL.match(self.text, at):
                return self.broken(start, at, "")
            return self.no_call(self._behind(start))
        values = value if isinstance(value, list) else [value]
        if not (values and all(_is_call(one) for one in values)) and not tagged:
            return self.no_call(stop)
        stop = self.take(start, stop, values)
        if stop >= 0 and (separator := _NEXT.match(self.text, stop)) is not None:
            self.cut(stop, separator.end())
            return self.read(separator.end())
        return self._ended(stop)

    def call_at(self, value: Any, raw: str) -> ToolCall:
        if isinstance(value, dict) and isinstance(value.get("function"), str) and "name" not in value:
            value = {**value, "name": value["function"]}
        return call_of(value, raw)

    def _built_in(self, start: int, at: int) -> int:
        """Take a call of a tool that is built in, in the manner of Python."""
        found = python_call(self.text, at)
        if found is None:
            return self.unreadable(start, at)
        value, stop = found
        return self._ended(self.take(start, stop, [{**value, "name": value["name"].removesuffix(".call")}]))

    def _ended(self, stop: int) -> int:
        """Behind the mark of the end of a turn, if it is there."""
        ends = _ENDS.match(self.text, stop) if stop >= 0 else None
        if ends is None:
            return stop
        self.cut(stop, ends.end())
        return ends.end()

    def _behind(self, start: int) -> int:
        """Behind a brace that begins no call."""
        return self.text.index("{", start) + 1

    def _is_inside(self, start: int) -> bool:
        """Whether what stands before is JSON that goes on here."""
        return _INSIDE.search(self.text[max(0, start - 64) : start].rstrip()) is not None


def _is_call(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("name", value.get("function")), str):
        return False
    return any(isinstance(value.get(key), dict) for key in ("parameters", "arguments"))
