"""The format of Qwen3-Coder: a function and its parameters as tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ....schema import ToolCall
from .tagged import TaggedFormat, Tags

__all__ = ["Qwen3Coder"]

_NAME = r"([^<>\n=]{1,128})"


class Qwen3Coder(TaggedFormat):
    """`<function=name>` with a `<parameter=name>` each, as Qwen3-Coder and Qwen3.5 write it.

    Source: the chat template of Qwen3-Coder-480B-A35B-Instruct.
    """

    tool_type = "qwen3-coder"
    usage = (
        "If you choose to call a function, reply in the following format:\n"
        "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
        "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
        "</parameter>\n</function>\n</tool_call>"
    )
    tags = Tags(
        head=re.compile(rf"\s*<function={_NAME}>"),
        key=re.compile(rf"\s*<parameter={_NAME}>"),
        closing="</parameter>",
        after=re.compile(rf"\s*(?:<parameter={_NAME}>|</function>\s*</tool_call>)"),
        foot=re.compile(r"\s*</function>"),
    )

    def value_of(self, written: str) -> str:
        return written.removeprefix("\n").removesuffix("\n")

    def write_call(self, call: ToolCall, index: int) -> str:
        given = call.arguments if isinstance(call.arguments, dict) else {}
        pairs = [f"<parameter={name}>\n{self.write_value(value)}\n</parameter>\n" for name, value in given.items()]
        return f"<tool_call>\n<function={call.name}>\n{''.join(pairs)}</function>\n</tool_call>"

    def described(self, tools: Iterable[Mapping[str, Any]]) -> str:
        return "\n".join(_described(tool.get("function", tool)) for tool in tools)


def _described(function: Mapping[str, Any]) -> str:
    """A tool as this family is told of it."""
    parameters = function.get("parameters") or {}
    lines = ["<function>", f"<name>{function['name']}</name>"]
    if function.get("description"):
        lines.append(f"<description>{function['description'].strip()}</description>")
    lines.append("<parameters>")
    for name, schema in parameters.get("properties", {}).items():
        lines += ["<parameter>", f"<name>{name}</name>"]
        lines += [f"<{key}>{_text(value)}</{key}>" for key, value in schema.items()]
        lines.append("</parameter>")
    lines += [f"<{key}>{_text(value)}</{key}>" for key, value in parameters.items() if key not in _TOLD]
    return "\n".join([*lines, "</parameters>", "</function>"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_TOLD = ("type", "properties")
