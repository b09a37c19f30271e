"""Tool calls in a model's text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagentlike.errors import InvalidArgument
from lagentlike.prompts.parsers.tool_call import loads_strictly, MAX_CALLS, MAX_REPLY, parse_tool_calls


def call(name: str = "add", **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


ADD = call(a=1)


def test_text_and_call_are_told_apart() -> None:
    parsed = parse_tool_calls(f"I will add.\n{ADD}")
    assert parsed.content == "I will add."
    assert [(one.name, one.arguments) for one in parsed.calls] == [("add", {"a": 1})]
    assert parsed.calls[0].raw_text == '{"name": "add", "arguments": {"a": 1}}'
    assert parsed.errors == []


def test_a_reply_without_calls_is_its_own_content() -> None:
    assert parse_tool_calls("  Hello. \n") == ("Hello.", [], [])


def test_all_calls_are_kept_in_order() -> None:
    parsed = parse_tool_calls(f"First {call('a')} then\n{call('b')}{call('c')} done")
    assert [one.name for one in parsed.calls] == ["a", "b", "c"]
    assert parsed.content.split() == ["First", "then", "done"]


def test_parameters_means_arguments() -> None:
    parsed = parse_tool_calls('<tool_call>{"name": "f", "parameters": {"x": [1]}}</tool_call>')
    assert parsed.calls[0].arguments == {"x": [1]}


def test_a_call_without_arguments_has_none() -> None:
    assert parse_tool_calls('<tool_call>{"name": "now"}</tool_call>').calls[0].arguments == {}


def test_other_marks_can_be_chosen() -> None:
    parsed = parse_tool_calls('[[{"name": "f", "arguments": {}}]]', begin="[[", end="]]")
    assert parsed.calls[0].name == "f"
    with pytest.raises(InvalidArgument, match="begin, end"):
        parse_tool_calls("x", begin="")


@pytest.mark.parametrize("argument", ["</tool_call>", "<tool_call>", ADD, "</think>", "```\n", '"', "\\", "`"])
def test_marks_in_the_strings_of_a_call_are_text(argument: str) -> None:
    parsed = parse_tool_calls(f"{call('echo', text=argument)}\n{ADD}")
    assert [one.name for one in parsed.calls] == ["echo", "add"]
    assert parsed.calls[0].arguments == {"text": argument}
    assert parsed.errors == []


@pytest.mark.parametrize(
    "text",
    [
        f"<think>{ADD}</think>no",
        f"<think>maybe\n{ADD}",
        f"maybe\n{ADD}\n</think>\nno",
        f"```\n{ADD}\n```\nno",
        f"```json\n{ADD}",
        f"~~~~\n~~~\n{ADD}\n~~~~\nno",
        f"```\n```python\n{ADD}\n```",
        f"   ````xml\n```\n{ADD}\n````",
        f"Write `{call().replace(chr(10), '')}` to call.",
        f'The format is "{call().replace(chr(10), "")}".',
        json.dumps({"answer": f"use {ADD}"}),
        json.dumps([ADD, ADD, "x"]),
    ],
)
def test_thinking_fences_and_quotes_are_never_called(text: str) -> None:
    parsed = parse_tool_calls(text)
    assert parsed.calls == []
    assert parsed.content == text.strip()


@pytest.mark.parametrize(
    "before",
    [
        "<think>I need ```a fence</think>\n",
        "<think>the mark is <tool_call></think>\n",
        'It is 5" wide.\n',
        '<think>5" wide</think>',
        "```python\nprint('`')\n```\n",
        "    ```\n",
        "I use `add`: ",
        'She said "add": ',
        "The tag `<think>` opens it.\n",
    ],
)
def test_a_call_after_thinking_fences_and_quotes_is_made(before: str) -> None:
    parsed = parse_tool_calls(before + ADD)
    assert [one.name for one in parsed.calls] == ["add"]
    assert parsed.errors == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<tool_call>", "not closed"),
        (ADD.removesuffix("</tool_call>"), "not closed"),
        (f"{ADD}\n<tool_call>{{", "not closed"),
        (f"<tool_call>{ADD}</tool_call>", "stands inside another"),
        (f"<tool_call>\n{{}}\n{ADD}", "stands inside another"),
    ],
)
def test_unclosed_and_nested_calls_are_errors(text: str, error: str) -> None:
    parsed = parse_tool_calls(text)
    assert len(parsed.errors) == 1
    assert error in parsed.errors[0].message
    assert len(parsed.calls) == (1 if text.startswith(f"{ADD}\n") else 0)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"name": "add", "arguments": {"a": 1', "add"),
        ("{'name': 'add', 'arguments': {}}", ""),
        ('{"name": "add", "arguments": {"a": 1,}}', "add"),
        ("null", ""),
        ("[1, 2]", ""),
        ('"add"', ""),
        ("", ""),
        ('{"arguments": {}}', ""),
        ('{"name": 3, "arguments": {}}', ""),
        ('{"name": "add", "arguments": {"a": NaN}}', "add"),
        ('{"name": "add", "arguments": {"a": 1, "a": 2}}', "add"),
        ('{"name": "add"} and more', "add"),
        ("[" * 5000, ""),
        ("add(1, 2)", ""),
    ],
)
def test_a_broken_call_keeps_its_text_as_arguments(body: str, name: str) -> None:
    parsed = parse_tool_calls(f"<tool_call>\n{body}\n</tool_call>")
    assert [(one.name, one.arguments) for one in parsed.calls] == [(name, body)]
    assert parsed.errors == []


@pytest.mark.parametrize("value", [[1], 3, None, True])
def test_arguments_that_are_no_object_are_kept_as_text(value: object) -> None:
    parsed = parse_tool_calls(f'<tool_call>{{"name": "f", "arguments": {json.dumps(value)}}}</tool_call>')
    assert parsed.calls[0].arguments == json.dumps(value)


def test_the_number_of_calls_is_capped() -> None:
    parsed = parse_tool_calls(ADD * 100_000 if len(ADD) * 100_000 < MAX_REPLY else ADD * (MAX_REPLY // len(ADD)))
    assert len(parsed.calls) == MAX_CALLS
    assert f"more than {MAX_CALLS} calls" in parsed.errors[0].message


def test_a_reply_of_5_mb_is_refused() -> None:
    parsed = parse_tool_calls("x" * 5_000_000 + ADD)
    assert parsed.calls == []
    assert "5,000,0" in parsed.errors[0].message


PROBES = [
    "<tool_call>",
    '"<tool_call>',
    "`<tool_call>",
    "<think>",
    "</think>",
    "<think></think>",
    "```\n",
    "```\nx\n```\n",
    "~~~ x\n",
    "\n",
    "   `",
    '<tool_call>{"',
    '<tool_call>"\\"',
    "<tool_call>[",
    "<tool_call></tool_call>",
    "<tool_call>{}",
    "<tool_call> </tool_call>",
    " <tool_call>\n \n",
    '<tool_call>{"name": "',
    "</tool_call>",
    "<tool_call></think>",
    "<tool_call>{</think>",
    '<tool_call>"</think>',
    "~~~x\n</think>\n",
    "“<tool_call>",
    "> <tool_call>",
    "x`<tool_call>``",
    "'<tool_call>",
]


def seconds(text: str) -> float:
    """Best CPU time of three."""
    best = 1e9
    for _ in range(3):
        started = time.process_time()
        parse_tool_calls(text + "<tool_call>")
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.parametrize("probe", PROBES)
def test_no_text_takes_more_than_a_second_a_megabyte(probe: str) -> None:
    text = probe * (1_000_000 // len(probe))
    assert seconds(text) < 1


@given(st.lists(st.sampled_from([*PROBES, ADD, "x", "{", "}", '"', "\\", "\ud800", "é", "\x00"]), max_size=30))
@settings(max_examples=300, deadline=None)
def test_nothing_a_model_writes_raises(pieces: list[str]) -> None:
    parsed = parse_tool_calls("".join(pieces))
    assert all(isinstance(one.name, str) and isinstance(one.arguments, dict | str) for one in parsed.calls)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("NaN", "NaN"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("[" * 5_000, "too deeply"),
        ("[" * 100_000, "lists and objects"),
        ("{", "Expecting"),
    ],
)
def test_strict_json_names_the_fault(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        loads_strictly(text)


def min_seconds(work: Callable[..., Any], *given: Any) -> float:
    """Best CPU time of seven."""
    times = []
    for _ in range(7):
        started = time.process_time()
        work(*given)
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("item", ["1234", '"x"', '{"a":1,"b":"' + "x" * 200 + '","c":null}'], ids=len)
def test_arguments_of_a_megabyte_take_little_longer_than_plain_json(item: str) -> None:
    arguments = '{"x": [' + ",".join([item] * (1_000_000 // (len(item) + 1))) + "]}"
    call = f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'
    assert parse_tool_calls(call).calls[0].arguments == json.loads(arguments)
    plain = min_seconds(json.loads, arguments)
    assert min_seconds(loads_strictly, arguments) < 2.5 * plain + 0.05
    assert min_seconds(parse_tool_calls, call) < 2.5 * plain + 0.05


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(JSON, st.booleans(), st.sampled_from([None, 2, (",", ":")]))
@settings(max_examples=500, deadline=None)
def test_any_json_is_read_as_it_was_written(value: Any, ascii_only: bool, layout: Any) -> None:
    options: dict[str, Any] = {"separators": layout} if isinstance(layout, tuple) else {"indent": layout}
    text = json.dumps(value, ensure_ascii=ascii_only, **options)
    read = loads_strictly(text)
    assert (repr(read), json.dumps(read)) == (repr(value), json.dumps(value))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": ":", "a": 2}',
        '{"a": 2, "a": ":"}',
        '{"a": "\\u003a", "a": 2}',
        '{"x": "\\u003a\\u003a", "y": [{"a": 1, "a": 2}]}',
        '[{"b": {"a": 1, "\\u0061": 2}}]',
        '{"a:": 1, "a:": 1}',
    ],
)
def test_a_key_that_is_there_twice_is_refused_whatever_is_around_it(text: str) -> None:
    with pytest.raises(ValueError, match="is there twice"):
        loads_strictly(text)
    call = parse_tool_calls(f'<tool_call>{{"name": "f", "arguments": {text}}}</tool_call>').calls[0]
    assert isinstance(call.arguments, str)
