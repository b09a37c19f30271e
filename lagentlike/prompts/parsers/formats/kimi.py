"""The format of Kimi K2: marks of its own around a numbered name and JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ....schema import ToolCall, ToolResult
from ..tool_formats import json_arguments
from .headed import HeadedFormat, Header

__all__ = ["KimiK2"]

_BEGIN, _ARGUMENTS, _END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
_CALLS = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
_HEAD = re.compile(rf"\s*((?:functions\.)?([\w.:/-]{{1,128}}?)(?::\d{{1,9}})?)\s*{re.escape(_ARGUMENTS)}\s*")


class KimiK2(HeadedFormat):
    """`functions.name:0` and JSON between marks, as Kimi K2 writes it; the id of a call is that head.

    Source: the chat template of Kimi-K2-Instruct.
    """

    tool_type = "kimi-k2"
    usage = (
        "Call tools in this exact format, with calls numbered from 0 and their arguments as a JSON object:\n"
        f'{_CALLS[0]}{_BEGIN}functions.tool_name:0{_ARGUMENTS}{{"argument": "value"}}{_END}{_CALLS[1]}'
    )
    begin, end, around = _BEGIN, _END, _CALLS

    def header(self, text: str, at: int) -> Header | None:
        head = _HEAD.match(text, at)
        return Header(head.group(2), head.group(1), head.end()) if head else None

    def write_call(self, call: ToolCall, index: int) -> str:
        known = _ID.fullmatch(call.id)
        written = call.id if known else f"functions.{call.name}:{index}"
        return f"{_BEGIN}{written}{_ARGUMENTS}{json_arguments(call)}{_END}"

    def results(self, results: Sequence[ToolResult]) -> str:
        return "\n".join(f"## Return of {result.id or result.name}\n{result.text}" for result in results)


_ID = re.compile(r"functions\.[\w.:/-]{1,128}:\d{1,9}")
