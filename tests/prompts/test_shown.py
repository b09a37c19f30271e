"""Replies that are still coming: text is shown at once, and nothing of a call, wherever the chunks are cut."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagentlike.agents import AsyncStreamingAIAgent, StreamingAIAgent
from lagentlike.agents.reasoning import split_thinking, thinking_so_far
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM, TinyLM
from lagentlike.prompts.parsers import tool_format, tool_format_names, ToolFormat
from lagentlike.prompts.parsers.shown import Shown
from lagentlike.schema import ModelStatusCode, ToolCall
from lagentlike.tools import calculator

NAMES = tool_format_names()
MOST_HELD = 160  # characters, more than any mark or unfinished beginning has
CALL = ToolCall("calculator", {"expression": "6 * 7"}, id="functions.calculator:0")
TOOLS = [api.schema.openai for api in calculator.apis().values()]


def _corpus(name: str) -> list[tuple[ToolFormat, str]]:
    """Replies with what surrounds calls in the worst cases, each with the format that it is in."""
    lines = Path(__file__).with_name(name).read_text("utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    forms = {name: tool_format(name) for name in NAMES}
    return [(forms.get(case["format"], forms["hermes"]), case["text"]) for case in cases if len(case["text"]) < 800]


def assert_shown(form: ToolFormat, text: str, cuts: list[int]) -> None:
    """What is shown after each cut is text of the whole reply, ever more of it, and all that is sure."""
    content, shown, last = form.parse(text).content, form.shown(), 0
    for cut in cuts:
        upto = shown.upto(text[:cut])
        assert last <= upto <= cut
        assert content.startswith(text[:upto].strip())
        last = upto


@pytest.mark.parametrize("name", ["format_calls.jsonl", "tool_calls.jsonl"])
def test_of_no_reply_anything_of_a_call_is_shown(name: str) -> None:
    for form, text in _corpus(name)[::3]:
        assert_shown(form, text, list(range(len(text) + 1)))


WORDS = ["Let me see.", "\n", " ", "`", "```", '"', "<think>", "</think>", "{", "[", "<tool_call>", "[TOOL", "é", "'"]
WORDS += ["<｜tool▁calls▁begin｜>", "<|tool_calls_section_begin|>", "<|python_start|>", '{"name"', "[add(", "[THINK]"]


@given(st.data(), st.sampled_from(NAMES))
@settings(max_examples=120, deadline=None)
def test_nor_of_any_other_however_its_chunks_are_cut(data: st.DataObject, name: str) -> None:
    form = tool_format(name, TOOLS)
    whole = form.write([CALL])
    marks = [piece for piece in re.split(r"(?<=[>\]])|(?=[<\[])", whole) if piece]
    text = "".join(data.draw(st.lists(st.sampled_from([*WORDS, *marks, whole]), max_size=8)))
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=len(text)))
    assert_shown(form, text, sorted(cuts))
    assert_shown(form, text, list(range(len(text) + 1)))
    shown = form.shown()
    upto = [shown.upto(prefix) for prefix in _prefixes(text, len(text))]
    assert [form.shown().upto(text[:cut]) for cut in cuts] == [upto[cut] for cut in cuts]  # whatever came before


def _prefixes(text: str, cut: int) -> list[str]:
    return [text[:length] for length in range(cut + 1)]


@given(st.sampled_from(NAMES), st.text(max_size=60), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_text_is_shown_at_once_up_to_the_call(name: str, words: str, size: int) -> None:
    form = tool_format(name, TOOLS)
    before = words.translate(dict.fromkeys(map(ord, "<[{`~\"'‘“”>"))) + "."
    text = f"{before}\n{form.write([CALL])}"
    shown = form.shown()
    for cut in range(0, len(text) + size, size):
        upto = shown.upto(text[:cut])
        assert upto == len(before[:cut].rstrip())  # no more and no less


@pytest.mark.parametrize("name", NAMES)
def test_half_a_mark_waits_and_is_shown_when_it_is_none(name: str) -> None:
    form = tool_format(name, TOOLS)
    whole = form.write([CALL])
    for length in range(1, len(whole)):
        assert form.shown().upto(f"A.\n{whole[:length]}") == 2
    shown = form.shown()
    first = whole[0]
    assert [shown.upto(text) for text in (f"A.\n{first}", f"A.\n{first}?", f"A.\n{first}? B")] == [2, 5, 7]
    assert max(len(text) - form.shown().upto(text) for text in _prefixes("word " * 99, 495)) < MOST_HELD


def test_of_a_format_that_does_not_say_how_calls_begin_nothing_is_shown() -> None:
    class Odd(ToolFormat):
        pass

    assert [Odd().shown().upto(text) for text in ("", "Let me see.")] == [0, 0]


def test_marks_around_all_calls_count_only_before_a_call() -> None:
    shown = Shown("<a>", "</a>", ("<all>", "</all>"))
    assert shown.upto("Hm. <all>  ") == 3
    assert shown.upto("Hm. <all>  no") == 13
    assert shown.upto("Hm. <all>  no <all> <a>") == 13


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "</th", "<thi", "a ", "\n", "`", "</think>\n\nSo"]), max_size=6)
)
@settings(max_examples=300, deadline=None)
def test_thinking_that_is_still_coming_is_apart_from_the_answer(pieces: list[str]) -> None:
    text = "".join(pieces)
    thinking, rest = split_thinking(text)
    for cut in range(len(text) + 1):
        so_far, answer = thinking_so_far(text[:cut])
        if thinking is not None and text.lstrip().startswith("<think>"):
            assert rest.startswith(answer)
            assert thinking.startswith((so_far or "").strip())
        elif thinking is None:
            assert (so_far, text.startswith(answer)) == (None, True)


# Agents and models


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_an_agent_shows_no_text_of_a_call(name: str, size: int) -> None:
    form = tool_format(name, TOOLS)
    call = form.write([CALL])
    replies = [f"<think>I reckon.</think>Let me reckon.\n{call}", "It is 42."]
    options: dict[str, Any] = {"enabled_toolsets": [], "tools": [calculator], "tool_format": name}
    blocking = StreamingAIAgent(ScriptedLLM(replies, chunk_size=size), **options)
    parts = list(blocking("6 * 7?"))
    other = AsyncStreamingAIAgent(AsyncScriptedLLM(replies, chunk_size=size), **options)
    assert [(one.content, one.reasoning) for one in parts] == [
        (one.content, one.reasoning) async for one in other("6 * 7?")
    ]
    said = [part.content for part in parts if part.tool_results is None]
    first = said[: said.index("Let me reckon.") + 1]
    assert all("Let me reckon.".startswith(text) for text in first)
    assert set(said[len(first) :]) - {"Let me reckon."} <= {"It is 42."[:length] for length in range(10)}
    assert said[-1] == "It is 42."
    assert {part.reasoning for part in parts} <= {None, *("I reckon."[:length].strip() for length in range(10))}
    assert [result.output for part in parts for result in part.tool_results or ()] == ["42"]
    memory = blocking.agent.memory
    assert memory is not None
    assert memory.get(0)[1].content == f"Let me reckon.\n{call}"  # the model is sent what it wrote


def test_a_model_of_this_process_shows_no_text_of_a_call() -> None:
    messages = [{"role": "user", "content": "What is the result of 6 * 7?"}]
    *parts, last = TinyLM().stream_chat(messages, tools=TOOLS)
    assert last[2].tool_calls
    assert "".join(chunk for _, chunk, _ in parts) == last[2].text
    assert all("<tool_call" not in answer.text for status, _, answer in parts if status == ModelStatusCode.STREAM_ING)
