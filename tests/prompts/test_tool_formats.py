"""Text formats of tool calls: found by name, read whatever surrounds them, and written as they are read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lagentlike.prompts.parsers import tool_format, tool_format_names

NAMES = tool_format_names()
CASES = [json.loads(line) for line in Path(__file__).with_name("format_calls.jsonl").read_text("utf-8").splitlines()]


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "$defs": {"Level": {"enum": ["low", 2]}}}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": parameters}}


TOOLS = [
    tool("add", a={"type": "integer"}, b={"type": "integer"}),
    tool("say", text={"type": "string"}),
    tool("now"),
    tool(
        "many",
        flag={"type": "boolean"},
        ratio={"type": "number"},
        items={"type": "array"},
        table={"type": "object"},
        maybe={"anyOf": [{"type": "string"}, {"type": "null"}]},
        either={"type": ["integer", "string"]},
        level={"$ref": "#/$defs/Level"},
    ),
]


def test_each_format_has_at_least_200_cases() -> None:
    counted = Counter(case["format"] for case in CASES)
    assert min(counted.values()) >= 200
    assert {*counted, "hermes"} == set(NAMES)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case['format']}-{at}") for at, case in enumerate(CASES)])
def test_calls_are_those_that_are_meant(case: dict[str, Any]) -> None:
    parsed = tool_format(case["format"], TOOLS).parse(case["text"])
    assert [{"name": call.name, "arguments": call.arguments} for call in parsed.calls] == case["calls"], case["about"]
    assert [fault.kind for fault in parsed.errors] == case["errors"], case["about"]
    assert parsed.content.split() == case["content"].split(), case["about"]
