"""The formats of DeepSeek: marks of its own around a name and JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ....schema import ToolCall, ToolResult
from ..tool_formats import json_arguments
from .headed import HeadedFormat, Header

__all__ = ["DeepSeekV3", "DeepSeekV31"]

_BEGIN, _SEPARATOR, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_CALLS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_OUTPUT = "<｜tool▁output▁begin｜>{}<｜tool▁output▁end｜>"
_HEAD = re.compile(rf"\s*([\w.:/-]{{1,128}}?)\s*{_SEPARATOR}")
_NAME_AND_FENCE = re.compile(r"\s*([\w.:/-]{1,128})\s*```(?:json)?\s*")


class DeepSeekV31(HeadedFormat):
    """A name and JSON between marks, as DeepSeek-V3.1 writes it; the older way is read too.

    Source: the chat template of DeepSeek-V3.1.
    """

    tool_type = "deepseek-v3.1"
    usage = (
        "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
        f"{_CALLS[0]}{_BEGIN}tool_call_name{_SEPARATOR}tool_call_arguments{_END}{_CALLS[1]}\n"
        "where `tool_call_arguments` is valid JSON; chain several calls directly, without separators or spaces."
    )
    begin, end, around = _BEGIN, _END, _CALLS

    def header(self, text: str, at: int) -> Header | None:
        head = _HEAD.match(text, at)
        if head is None:
            return None
        older = _NAME_AND_FENCE.match(text, head.end())
        return Header(older.group(1), "", older.end()) if older else Header(head.group(1), "", head.end())

    def write_call(self, call: ToolCall, index: int) -> str:
        return f"{_BEGIN}{call.name}{_SEPARATOR}{json_arguments(call)}{_END}"

    def results(self, results: Sequence[ToolResult]) -> str:
        return "".join(_OUTPUT.format(result.text) for result in results)


class DeepSeekV3(DeepSeekV31):
    """A name and JSON in a fence between marks, as DeepSeek-V3 and R1 write it; the newer way is read too.

    Source: the chat template of DeepSeek-R1.
    """

    tool_type = "deepseek-v3"
    usage = (
        "Call tools in this exact format, several calls in several lines:\n"
        f"{_CALLS[0]}{_BEGIN}function{_SEPARATOR}tool_name\n```json\narguments\n```{_END}{_CALLS[1]}\n"
        "where `arguments` is a JSON object."
    )

    def write_call(self, call: ToolCall, index: int) -> str:
        return f"{_BEGIN}function{_SEPARATOR}{call.name}\n```json\n{json_arguments(call)}\n```{_END}"

    def joined(self, calls: list[str]) -> str:
        return super().joined(["\n".join(calls)])

    def results(self, results: Sequence[ToolResult]) -> str:
        return f"<｜tool▁outputs▁begin｜>{super().results(results)}<｜tool▁outputs▁end｜>"
