"""Several tool parsers as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import InvalidArgument
from ...registry import create_object
from ...schema import ToolStatusCode
from .str_parser import StrParser
from .tool_parser import as_parsed, Found, ToolParser

__all__ = ["MixedToolParser"]


class MixedToolParser(StrParser):
    """Tries several tool parsers; the one whose call comes first in the text has it.

    Args:
        tool_type: name for the instruction message of this parser itself.
        template: instruction shown to the model before those of the parsers.
        parsers: the tool parsers, or `dict(type=...)` of them. Those with `many` may have several calls in a reply.
    """

    def __init__(
        self,
        tool_type: str | None = None,
        template: str = "",
        parsers: Sequence[ToolParser | Mapping[str, Any]] = (),
        **format_field: Any,
    ) -> None:
        super().__init__(template, **format_field)
        self.tool_type = tool_type
        built = [create_object(parser, f"parsers[{index}]") for index, parser in enumerate(parsers)]
        for index, parser in enumerate(built):
            if not isinstance(parser, ToolParser):
                raise InvalidArgument(f"parsers[{index}]", parser, "give a ToolParser or dict(type=ToolParser, …)")
        self.parsers: dict[str, ToolParser] = {str(parser.tool_type): parser for parser in built}

    def format_instruction(self) -> list[dict[str, str]]:
        """One system message for this parser and each of its parsers that has an instruction."""
        messages = []
        for name, text in [
            (self.tool_type, super().format_instruction()),
            *((name, parser.format_instruction()) for name, parser in self.parsers.items()),
        ]:
            if text:
                messages.append({"role": "system", "content": text, **({"name": name} if name else {})})
        return messages

    def parse_response(self, data: str) -> dict[str, Any]:
        """What the parser makes of it that finds the first call; else the text as a thought without a call."""
        return _first([parser.parse_response(data) for parser in self.parsers.values()], data) | self._all(data, False)

    def parse_cut(self, data: str) -> dict[str, Any]:
        return _first([parser.parse_cut(data) for parser in self.parsers.values()], data) | self._all(data, True)

    def _all(self, text: str, needs_end: bool) -> dict[str, Any]:
        """All calls in a text, where a parser may have several and there are; a call inside of another is none."""
        if not any(parser.many for parser in self.parsers.values()):
            return {}
        found = [call for parser in self.parsers.values() for call in parser.calls(text, needs_end)]
        calls: list[Found] = []
        for call in sorted(found, key=lambda call: call.start):
            if not calls or call.start >= calls[-1].behind:
                calls.append(call)
        return as_parsed(text, calls)

    def format_response(self, parsed: dict[str, Any]) -> str:
        if parsed.get("calls"):
            return "".join(self.format_response(call) for call in parsed["calls"])
        if parsed["tool_type"] is None:
            return str(parsed["thought"])
        return self.parsers[parsed["tool_type"]].format_response(parsed)


def _first(found: list[dict[str, Any]], text: str) -> dict[str, Any]:
    """The call that comes first in the text, of those that several parsers found."""
    calls = [parsed for parsed in found if parsed["tool_type"] is not None]
    none = {"tool_type": None, "thought": text, "action": None, "status": ToolStatusCode.NO_TOOL}
    return min(calls, key=lambda parsed: len(parsed["thought"]), default=none)
