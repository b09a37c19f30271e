"""Calls whose arguments are JSON behind a header that names the tool, as DeepSeek and Kimi write them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ....schema import ToolCall
from ..tool_call import call_of, CallScan, ParsedCalls
from ..tool_formats import ToolFormat

__all__ = ["Header", "HeadedFormat"]


class Header(NamedTuple):
    """What stands before the arguments of a call.

    Attributes:
        name: the tool's name.
        id: the call's id, where the format has one.
        stop: where the arguments begin.
    """

    name: str
    id: str
    stop: int


class HeadedFormat(ToolFormat):
    """A header and JSON between two marks; all calls of a reply stand between two more."""

    begin: str
    around: tuple[str, str]

    def parse(self, text: str) -> ParsedCalls:
        if self.begin not in text:
            return ParsedCalls(text.strip(), [], [])
        return _HeadedScan(text, self).parsed()

    def header(self, text: str, at: int) -> Header | None:
        """The header at a place of a text."""
        raise NotImplementedError

    def joined(self, calls: list[str]) -> str:
        return self.around[0] + "".join(calls) + self.around[1]


class _HeadedScan(CallScan):
    """One pass over a reply of calls with headers."""

    def __init__(self, text: str, form: HeadedFormat) -> None:
        super().__init__(text, form.begin, form.end, form.around)
        self._form = form
        self._header: Header | None = None

    def value(self, at: int) -> tuple[Any, int]:
        self._header = header = self._form.header(self.text, at)
        if header is None:
            return None, at
        closing = self.text.find(self.end, header.stop)
        fence = self.text.rfind("```", header.stop, closing) if self.text.endswith("```", 0, max(closing, 0)) else -1
        arguments, stop = self.json_value(header.stop, fence if fence >= 0 else closing)
        if stop == header.stop:
            return None, at
        foot = _END_OF_FENCE.match(self.text, stop)
        return {"name": header.name, "arguments": arguments}, foot.end() if foot else stop

    def made(self, value: Any, raw: str) -> ToolCall:
        header = self._header
        if header is None:
            error = f"the call cannot be read: its head is no tool's name. {self._form.usage}"
            return ToolCall("", raw, raw_text=raw, error=error)
        if value is None:
            written = self._form.header(raw, 0)
            arguments = _END_OF_FENCE.sub("", raw[written.stop :] if written else raw)
            return ToolCall(header.name, arguments.strip(), raw_text=raw, id=header.id)
        call = call_of(value, raw)
        call.id = header.id
        return call


_END_OF_FENCE = re.compile(r"\s*```")
