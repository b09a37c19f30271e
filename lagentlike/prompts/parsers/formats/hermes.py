"""The format of Hermes, Qwen2.5 and Qwen3: JSON between `<tool_call>` marks."""

from __future__ import annotations

import json

from ....schema import ToolCall
from ..tool_call import parse_tool_calls, ParsedCalls
from ..tool_formats import json_arguments, ToolFormat

__all__ = ["Hermes"]


class Hermes(ToolFormat):
    """JSON between `<tool_call>` marks, as Hermes 2 and later, Qwen2.5, Qwen3 and QwQ write it.

    Source: https://github.com/NousResearch/Hermes-Function-Calling and the models' chat templates.
    """

    tool_type = "hermes"
    usage = (
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n"
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )

    begin, end = "<tool_call>", "</tool_call>"

    def parse(self, text: str) -> ParsedCalls:
        return parse_tool_calls(text, self.begin, self.end)

    def write_call(self, call: ToolCall, index: int) -> str:
        name, arguments = json.dumps(call.name, ensure_ascii=False), json_arguments(call)
        return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
