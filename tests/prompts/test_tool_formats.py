"""Text formats of tool calls: found by name, read whatever surrounds them, and written as they are read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagentlike.actions import ActionExecutor
from lagentlike.agents import AsyncReAct, ReAct
from lagentlike.errors import InvalidArgument
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.prompts.chat import ChatTemplate
from lagentlike.prompts.parsers import (
    register_tool_format,
    tool_format,
    tool_format_for,
    tool_format_names,
    tool_formats,
    ToolFormat,
)
from lagentlike.prompts.parsers.room import MAX_CONTAINERS
from lagentlike.prompts.parsers.tool_call import ParsedCalls
from lagentlike.schema import AgentMessage, ToolCall

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
WIDE = [
    tool(
        name,
        flag={"type": "boolean"},
        ratio={"type": "number"},
        items={"type": "array"},
        table={"type": "object"},
        words={"type": "string"},
        level={"$ref": "#/$defs/Level"},
    )
    for name in ("many", "kit_b")
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


# By name


def test_a_format_is_found_by_its_name_or_what_others_call_it() -> None:
    for name in NAMES:
        assert tool_format(name).tool_type == name
    for alias, name in [("Qwen3_Coder", "qwen3-coder"), ("llama3_json", "llama3"), ("deepseek_v31", "deepseek-v3.1")]:
        assert tool_format(alias).tool_type == name
    with pytest.raises(InvalidArgument, match=r"did you mean 'hermes'\? The names are deepseek-v3, .*, qwen3-coder"):
        tool_format("hermez")
    with pytest.raises(InvalidArgument, match="tool_format=3"):
        tool_format(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "hermes"),
        ("Qwen/Qwen3-8B", "hermes"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3-coder"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "hermes"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "pythonic"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
        ("mistralai/Mistral-Nemo-Instruct-2407", "mistral"),
        ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistral-v11"),
        ("mistralai/Devstral-Small-2507", "mistral-v11"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek-v3.1"),
        ("zai-org/GLM-4.5-Air", "glm-4.5"),
        ("moonshotai/Kimi-K2-Instruct", "kimi-k2"),
        ("/models/some_new_model", "hermes"),
    ],
)
def test_a_models_name_tells_its_format(model: str, name: str) -> None:
    assert tool_format_for(model).tool_type == name
    assert tool_format_for(model, override="kimi-k2").tool_type == "kimi-k2"


def test_a_format_of_ones_own_is_made_known() -> None:
    class Shouted(ToolFormat):
        tool_type = "shouted"
        usage = "CALL!"

        def parse(self, text: str) -> ParsedCalls:
            return ParsedCalls("", [ToolCall(text.lower(), {})], [])

    register_tool_format("Shouted", Shouted)
    try:
        assert tool_format("shouted", TOOLS).parse_response("NOW")["action"] == {"name": "now", "parameters": {}}
        assert "shouted" in tool_format_names()
    finally:
        del tool_formats._FORMATS["shouted"]
    with pytest.raises(InvalidArgument, match="make='x'"):
        register_tool_format("x", "x")  # type: ignore[arg-type]


# What is written is read


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TRICKY = st.sampled_from(
    ["</tool_call>", "<tool_call>", "</think>", "```\n", '"', "'", "\\", "[TOOL_CALLS]", "<|tool_call_end|>", "\n", "é",
     "<｜tool▁call▁end｜>", "]}", "{[(", "; ", "true", "1", "None", "<parameter=a>", "<arg_key>", " ", "<|python_tag|>"]
)  # fmt: skip
TEXT = st.lists(TRICKY | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=6).map("".join)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "flag": st.booleans(),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "items": st.lists(JSON, max_size=3),
        "table": st.dictionaries(st.text(max_size=4), JSON, max_size=3),
        "words": TEXT,
        "level": st.sampled_from(["low", 2]),
    },
)
CALLS = st.lists(st.builds(ToolCall, st.sampled_from(["many", "kit_b"]), ARGUMENTS), min_size=1, max_size=4)


def as_pairs(calls: list[ToolCall]) -> list[tuple[str, str]]:
    """The calls with what tells 1 from 1.0 and true."""
    return [(call.name, json.dumps(call.arguments, sort_keys=True)) for call in calls]


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(calls=CALLS, content=st.sampled_from(["", "Let me see.", 'It is 5" wide.\nSo:']))
def test_calls_are_read_as_they_are_written(name: str, calls: list[ToolCall], content: str) -> None:
    form = tool_format(name, WIDE)
    parsed = form.parse(form.write(calls, content))
    assert as_pairs(parsed.calls) == as_pairs(calls)
    assert (parsed.content, parsed.errors) == (content, [])
    again = form.format_response(form.parse_response(form.write(calls, content)))
    assert as_pairs(form.parse(again).calls) == as_pairs(calls)


# (family's template, format, how many calls its template writes, what ends the reply)
FAMILIES = [
    ("qwen2.5", "hermes", 3, "<|im_end|>"),
    ("qwen3", "hermes", 3, "<|im_end|>"),
    ("qwq", "hermes", 3, "<|im_end|>"),
    ("deepseek-r1", "deepseek-v3", 3, "<｜end▁of▁sentence｜>"),
    ("glm-4.5", "glm-4.5", 3, ""),
    ("kimi-k2", "kimi-k2", 3, "<|im_end|>"),
    ("llama-3.1", "llama3", 1, "<|eot_id|>"),
    ("llama-3.2", "llama3", 1, "<|eot_id|>"),
    ("mistral-nemo", "mistral", 3, "</s>"),
]


@pytest.mark.parametrize(("family", "name", "most", "end"), FAMILIES)
@settings(deadline=None, max_examples=40)
@given(calls=CALLS)
def test_what_a_familys_chat_template_writes_is_read(
    family: str, name: str, most: int, end: str, calls: list[ToolCall]
) -> None:
    calls = calls[:most]
    for index, call in enumerate(calls):
        call.id = f"abcdefgh{index}"
    template = ChatTemplate.named(family)
    asked = [{"role": "user", "content": "Go"}]
    answer = {"role": "assistant", "content": "", "tool_calls": [call.as_openai() for call in calls]}
    text = template.render([*asked, answer])
    reply = text.removeprefix(template.render(asked)).strip().removesuffix(end)
    reply = reply.split("<|start_header_id|>assistant<|end_header_id|>\n\n")[-1]
    parsed = tool_format(name, WIDE).parse(reply)
    assert as_pairs(parsed.calls) == as_pairs(calls)
    assert parsed.errors == []


# Whatever a model writes


PIECES = st.sampled_from(sorted({case["text"] for case in CASES if len(case["text"]) < 120}))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(PIECES.map(lambda text: text[:-1]), PIECES, TEXT, st.text(max_size=3)), max_size=8))
def test_nothing_a_model_writes_raises(name: str, pieces: list[str]) -> None:
    found = tool_format(name, TOOLS).parse_response("".join(pieces))
    assert (found["tool_type"] is None) == (found["calls"] == [])
    assert all(isinstance(call["name"], str) and isinstance(call["parameters"], dict | str) for call in found["calls"])


BROKEN = [
    '{"a": 1', '{"a": 1,}', "{'a': 1}", '{"a": NaN}', '{"a": Infinity}', '{"a": 1, "a": 2}', '{a: 1}', '{"a" 1}',
    '{"a": 1 "b": 2}', '{"a": 01}', '{"a": .5}', '{"a": +1}', '{"a": 0x10}', '{"a": 1.}', '{"a": "x}', '{"a": "\\x41"}',
    '{"a": "\n"}', '{"a": True}', '{"a": None}', '{"a": undefined}', '{"a": 1} extra', '{"a": 1}}', '{{"a": 1}}',
    '{"a": [1, 2}', '{"a": [1,, 2]}', '{"a": 1;}', '{"a"= 1}', '{"a": "it"s"}', '{"a": 1 // no\n}', '{"a": /* no */ 1}',
    "{'a': \"x\"}", '{"a": “x”}', '{"a": (1, 2)}', '{"a": `x`}', '{"a": b}', '{"a": -}', '{"a": 1e}', '{"a": "\\u12"}',
    '{"a": {"b": 1}', '{,}', '{"a"}', '{"a": }', '{: 1}', '{"a": 1,, "b": 2}', '{"a": "x"  "y"}', '{"a": 1}{"b": 2}',
    '{"a": 1]', '{"a": "\t"}', '{"a": 1,"b"}', '{null: 1}', '{1: 2}', '{"a": -Infinity}', '{"a": nan}', '{"a": 1_000}',
    '{"a": 1,000}', '{"a": "x\\"}', '{"a": tru}', '{"a": {}', '{"a": [}', '{"a": [1 2]}', '{"b": {"c": 1, "c": 2}}',
]  # fmt: skip


def holding(name: str, body: str) -> str:
    """A call of `add` whose arguments are a text."""
    written = tool_format(name).write([ToolCall("add", body)])
    assert body in written
    return written


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("pythonic", "qwen3-coder", "glm-4.5")])
def test_broken_json_goes_back_to_the_model_as_an_error(name: str) -> None:
    assert len(BROKEN) >= 60
    for body in BROKEN:
        parsed = tool_format(name, TOOLS).parse(holding(name, body))
        calls = [*parsed.calls, *(fault.as_call() for fault in parsed.errors)]
        assert calls, body
        message = AgentMessage(content="", tool_calls=calls)
        results = ActionExecutor([add])(message).tool_results
        assert results is not None
        assert not results[0].success, body
        assert results[0].error


@pytest.mark.parametrize("name", ["qwen3-coder", "glm-4.5"])
def test_a_broken_call_between_tags_goes_back_to_the_model_as_an_error(name: str) -> None:
    whole = tool_format(name).write([ToolCall("add", {"a": 1, "b": 2})])
    body = whole.removeprefix("<tool_call>").removesuffix("</tool_call>")
    for cut in range(1, len(body) - 1):
        parsed = tool_format(name, TOOLS).parse(f"<tool_call>{body[:cut]}</tool_call>")
        [called] = parsed.calls
        results = ActionExecutor([add])(AgentMessage(content="", tool_calls=[called])).tool_results
        assert results is not None
        assert not results[0].success, body[:cut]
    twice = whole.replace("b", "a") if name == "glm-4.5" else whole.replace("=b>", "=a>")
    [called] = tool_format(name, TOOLS).parse(twice).calls
    assert "'a' is there twice" in called.error


def test_a_broken_pythonic_call_is_told_to_the_model_and_spoils_no_other() -> None:
    broken = ["[add(a=x)]", "[add(1, 2)]", "[add(a=f(1))]", "[add(a=1, a=2)]", "[add(a=1 b=2)]", "[add(a={1})]"]
    parsed = tool_format("pythonic", TOOLS).parse("\n".join([*broken, "[add(a=1, b=2)]"]))
    *wrong, right = parsed.calls
    assert len(wrong) == len(broken)
    assert all("cannot be read" in call.error and call.name == "add" for call in wrong)
    assert (right.arguments, right.error) == ({"a": 1, "b": 2}, "")


@pytest.mark.parametrize("name", NAMES)
def test_a_call_of_too_many_lists_and_objects_is_not_read_and_brackets_in_texts_are_none(name: str) -> None:
    schema = {"type": "object", "properties": {"items": {"type": "array"}, "text": {"type": "string"}}}
    form = tool_format(name, [{"type": "function", "function": {"name": "f", "parameters": schema}}])
    fits = {"items": [[]] * (MAX_CONTAINERS - 10), "text": "[{" * MAX_CONTAINERS}
    assert form.parse(form.write([ToolCall("f", fits)])).calls[0].arguments == fits
    text = form.write([ToolCall("f", {"items": [[]] * MAX_CONTAINERS})])
    parsed = form.parse(text)
    [refused] = parsed.calls + [fault.as_call() for fault in parsed.errors]
    [result] = ActionExecutor([f])(AgentMessage(content="", tool_calls=[refused])).tool_results
    if isinstance(refused.arguments, dict):  # in formats without JSON around it, the one argument stays a text
        assert isinstance(refused.arguments["items"], str)
        assert "items" in result.error
    else:
        assert "10,000 lists and objects" in result.error


def test_the_calls_of_a_reply_share_the_room_for_lists_and_objects() -> None:
    call = tool_format("hermes").write([ToolCall("f", {"items": [[]] * (MAX_CONTAINERS // 3)})])
    parsed = tool_format("hermes").parse("\n".join([call] * 5))
    assert [bool(call.error) for call in parsed.calls] == [False, False, True]
    assert ["10,000" in fault.message for fault in parsed.errors] == [True]


def f(items: list[Any]) -> str:
    """Take items."""
    return f"{len(items)} items"


# In an agent


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_uses_a_format_by_its_name_over_several_turns(name: str) -> None:
    form = tool_format(name)
    first = form.write([ToolCall("add", {"a": 1, "b": 2}), ToolCall("add", {"a": 3, "b": 4})], "Let me see.")
    second = form.write([ToolCall("add", {"a": 3, "b": 7})])
    llm = ScriptedLLM([first, second, "It is 10."])
    assert ReAct(llm, [add], output_format=name)("Add").content == "It is 10."
    system, *history = llm.requests[2].messages
    assert "Add two numbers." in system["content"]
    assert form.usage in system["content"]
    assert [message["role"] for message in history] == ["user", "assistant", "user", "assistant", "user"]
    assert history[1]["content"] == first
    assert history[2]["content"].index("3") < history[2]["content"].index("7")
    assert "10" in history[4]["content"]
    assert not llm.requests[0].params.get("tools")


async def test_an_async_agent_uses_a_format_by_its_name() -> None:
    call = tool_format("hermes").write([ToolCall("add", {"a": 1, "b": 2})])
    agent = AsyncReAct(AsyncScriptedLLM([call, "It is 3."]), [add], output_format="hermes")
    assert (await agent("Add")).content == "It is 3."


def test_a_call_that_is_not_whole_is_told_to_the_model() -> None:
    llm = ScriptedLLM(["<tool_call>\n<function=add>\n<parameter=a>\n1", "Sorry."])
    assert ReAct(llm, [add], output_format="qwen3-coder")("Add").content == "Sorry."
    assert "is not closed by </tool_call>" in llm.requests[1].messages[-1]["content"]
