"""Thinking and quoted text never execute, whatever the format; what is unclosed or nested is an error.

The cases are in tool_calls.jsonl, with what is right for each; make_tool_calls.py says how they were put together.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lagentlike.agents import Agent
from lagentlike.llms import ScriptedLLM
from lagentlike.prompts import InterpreterParser, PluginParser, ToolParser
from lagentlike.prompts.parsers.tool_call import parse_tool_calls
from lagentlike.schema import Completion

CASES = [json.loads(line) for line in Path(__file__).with_name("tool_calls.jsonl").read_text("utf-8").splitlines()]
FORMATS = ["tool_call", "plugin", "interpreter", "python"]
PARSERS = {
    "plugin": PluginParser(),
    "interpreter": InterpreterParser(),
    "python": ToolParser("python", begin="```python\n", end="\n```\n"),
}


def cases(*formats: str) -> list[Any]:
    chosen = [case for case in CASES if case["format"] in formats]
    return [pytest.param(case, id=f"{case['format']}-{index}") for index, case in enumerate(chosen)]


def test_each_format_has_at_least_200_cases() -> None:
    counted = Counter(case["format"] for case in CASES)
    assert set(counted) == set(FORMATS)
    assert min(counted.values()) >= 200


@pytest.mark.parametrize("case", cases("tool_call"))
def test_calls_in_tags_are_those_that_are_meant(case: dict[str, Any]) -> None:
    parsed = parse_tool_calls(case["text"])
    assert [{"name": call.name, "arguments": call.arguments} for call in parsed.calls] == case["calls"], case["about"]
    assert [fault.kind for fault in parsed.errors] == case["errors"], case["about"]
    assert parsed.content.split() == case["content"].split(), case["about"]


@pytest.mark.parametrize("case", cases("plugin", "interpreter", "python"))
def test_the_call_between_marks_is_the_first_that_is_meant(case: dict[str, Any]) -> None:
    reason = "length" if case["cut"] else "stop"
    agent = Agent(ScriptedLLM([Completion(case["text"], finish_reason=reason)]), output_format=PARSERS[case["format"]])
    parsed = agent("Go").formatted
    assert parsed["status"].name == case["status"], case["about"]
    assert parsed["thought"] == case["thought"], case["about"]
    assert parsed["tool_type"] == (None if case["status"] == "NO_TOOL" else case["format"])
    if "action" in case:
        assert parsed["action"] == case["action"], case["about"]
