"""The formats of Mistral: a mark and JSON behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ....schema import ToolCall, ToolResult
from ..shown import Shown
from ..tool_call import call_of, ParsedCalls
from ..tool_formats import json_arguments, ToolFormat
from .open_scan import OpenScan

__all__ = ["Mistral", "MistralV11"]

_MARK = "[TOOL_CALLS]"
_HEAD = re.compile(r"\s*([\w.:/-]{1,128})\s*(?:\[CALL_ID\]\s*([\w.:-]{1,128}?)\s*)?(?:\[ARGS\]\s*)?(?=\{)")


class Mistral(ToolFormat):
    """A list of calls behind `[TOOL_CALLS]`, as models up to Mistral Large 2 and Nemo write it.

    The way of newer ones is read too, with or without `[CALL_ID]` and `[ARGS]`.
    Source: the chat template of Mistral-Nemo-Instruct-2407, and https://github.com/mistralai/mistral-common.
    """

    tool_type = "mistral"
    usage = (
        "Call tools in this exact format, with all calls in one JSON list:\n"
        '[TOOL_CALLS][{"name": "tool_name", "arguments": {"argument": "value"}}]'
    )

    begin = _MARK

    def parse(self, text: str) -> ParsedCalls:
        thinking = _behind_thinking(text)
        if text.find(_MARK, thinking) < 0:
            return ParsedCalls(text.strip(), [], [])
        rest = text[thinking:]
        parsed = _MistralScan(rest, _MARK, _MARK).parsed()
        space = rest[: len(rest) - len(rest.lstrip())]
        return parsed._replace(content=f"{text[:thinking]}{space}{parsed.content}".strip())

    def shown(self) -> Shown:
        return _MistralShown(_MARK, _MARK)

    def write_call(self, call: ToolCall, index: int) -> str:
        written = f'"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {json_arguments(call)}'
        return f'{{{written}, "id": {json.dumps(call.id)}}}' if call.id else f"{{{written}}}"

    def joined(self, calls: list[str]) -> str:
        return f"{_MARK}[{', '.join(calls)}]"

    def results(self, results: Sequence[ToolResult]) -> str:
        return "".join(
            f"[TOOL_RESULTS]{json.dumps(_told(result), ensure_ascii=False)}[/TOOL_RESULTS]" for result in results
        )


class _MistralShown(Shown):
    """How much of a reply is text; the thinking that it begins with holds no calls."""

    _thinking = 0

    def upto(self, text: str) -> int:
        thinking = _behind_thinking(text)
        if thinking != self._thinking:
            self._thinking, self._looked = thinking, 0
        return thinking + super().upto(text[thinking:])


def _behind_thinking(text: str) -> int:
    """Where a reply goes on behind the thinking that it begins with, as Magistral writes it."""
    if not text.lstrip().startswith("[THINK]"):
        return 0
    closing = text.find("[/THINK]")
    return len(text) if closing < 0 else closing + len("[/THINK]")


def _told(result: ToolResult) -> dict[str, str]:
    """What a model is told of a result, with the id of its call if that has one."""
    return {"content": result.text, **({"call_id": result.id} if result.id else {})}


class MistralV11(Mistral):
    """A name and JSON behind a `[TOOL_CALLS]` each, as Mistral Small 3.2, Devstral and Magistral write it.

    Source: https://github.com/mistralai/mistral-common, tokenizer versions 11 and 13.
    """

    tool_type = "mistral-v11"
    usage = (
        "Call tools in this exact format, each call behind a mark of its own:\n"
        '[TOOL_CALLS]tool_name[ARGS]{"argument": "value"}'
    )

    def write_call(self, call: ToolCall, index: int) -> str:
        return f"{_MARK}{call.name}[ARGS]{json_arguments(call)}"

    def joined(self, calls: list[str]) -> str:
        return "".join(calls)

    def results(self, results: Sequence[ToolResult]) -> str:
        return "".join(f"[TOOL_RESULTS]{result.text}[/TOOL_RESULTS]" for result in results)


class _MistralScan(OpenScan):
    """One pass over a reply of calls behind `[TOOL_CALLS]`."""

    usage = Mistral.usage

    def read(self, start: int) -> int:
        inside = start + len(_MARK)
        head = _HEAD.match(self.text, inside)
        at = self.behind_space(head.end() if head else inside)
        if not self.text.startswith("{" if head else ("[", "{"), at):
            return self.unreadable(start, inside)
        value, stop = self.json_at(at)
        if stop < 0:
            return self.broken(start, at, head.group(1) if head else "")
        calls = [{"name": head.group(1), "arguments": value, "id": head.group(2)}] if head else value
        return self.take(start, stop, calls if isinstance(calls, list) else [calls])

    def call_at(self, value: Any, raw: str) -> ToolCall:
        call = call_of(value, raw)
        if isinstance(value, dict) and isinstance(value.get("id"), str):
            call.id = value["id"]
        return call
