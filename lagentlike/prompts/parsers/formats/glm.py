"""The format of GLM-4.5: a name, and keys and values as tags."""

from __future__ import annotations

import re

from ....schema import ToolCall
from .tagged import TaggedFormat, Tags

__all__ = ["GLM"]


class GLM(TaggedFormat):
    """A name with `<arg_key>` and `<arg_value>` pairs, as GLM-4.5, 4.6 and 4.7 write it.

    Source: the chat template of GLM-4.5.
    """

    tool_type = "glm-4.5"
    usage = (
        "For each function call, output the function name and arguments within the following XML format:\n"
        "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>\n"
        "<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>"
    )
    tags = Tags(
        head=re.compile(r"\s*([\w.:/-]{1,128})(?=\s*(?:<arg_key>|</tool_call>))"),
        key=re.compile(r"\s*<arg_key>\s*([^<>\n]{1,128}?)\s*</arg_key>\s*<arg_value>"),
        closing="</arg_value>",
        after=re.compile(r"\s*(?:<arg_key>|</tool_call>)"),
        foot=re.compile(r"\s*(?=</tool_call>)"),
    )

    def value_of(self, written: str) -> str:
        return written

    def write_call(self, call: ToolCall, index: int) -> str:
        given = call.arguments if isinstance(call.arguments, dict) else {}
        pairs = [
            f"<arg_key>{name}</arg_key>\n<arg_value>{self.write_value(value)}</arg_value>\n"
            for name, value in given.items()
        ]
        return f"<tool_call>{call.name}\n{''.join(pairs)}</tool_call>"
