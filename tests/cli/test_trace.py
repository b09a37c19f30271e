"""A traced run, and what `lagentlike trace` shows of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lagentlike.tracing import read_trace, spans

from .conftest import Outcome

AGENTS = '''
from lagentlike import Agent, ReAct, ScriptedLLM, Sequential, tool
from lagentlike.schema import Completion, ToolCall, Usage


@tool
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


said = Completion("It is 8.", usage=Usage(1, 20, 5))
agent = Sequential(ReAct(ScriptedLLM([ToolCall("double", {"number": 4}), said]), actions=[double], name="solver"))
broken = Agent(ScriptedLLM([ValueError("my key is sk-0123456789abcdefgh")]), name="broken")
'''


@pytest.fixture
def lagentlike(lagentlike: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Call the command; durations it prints are `…`."""

    def call(*arguments: str) -> Outcome:
        code, out, err = lagentlike(*arguments)
        return Outcome(code, re.sub(r"[\d.]+ (ms|s)\b", "…", out), err)

    return call


def test_a_run_is_traced_and_shown_as_a_tree(lagentlike: Callable[..., Outcome]) -> None:
    assert lagentlike("run", "--trace", "t.jsonl", "my_agents.py:agent", "What is 2 * 4?").code == 0
    assert spans.tracers == ()
    first, *tree = lagentlike("trace", "t.jsonl").out.splitlines()
    assert re.fullmatch(r"trace [0-9a-f]{32}  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", first)
    assert (
        "\n".join(tree)
        == """\
Sequential  …  20+5 tokens
└─ solver 0  …  20+5 tokens
   ├─ Agent 0.agent  …
   │  └─ scripted  …
   ├─ ActionExecutor 0.actions  …
   │  └─ double  …
   └─ Agent 0.agent  …  20+5 tokens
      └─ scripted  …  20+5 tokens"""
    )


def test_what_was_said_is_shown_where_it_was_written_down(lagentlike: Callable[..., Outcome]) -> None:
    lagentlike("run", "--trace", "t.jsonl", "my_agents.py:agent", "What is 2 * 4?")
    assert "It is 8." not in lagentlike("trace", "t.jsonl", "--content").out
    lagentlike("run", "--trace", "t.jsonl", "--trace-content", "my_agents.py:agent", "And 2 * 4?")
    shown = lagentlike("trace", "t.jsonl", "--content", "--last", "1").out
    assert "And 2 * 4?" in shown
    assert "answer    double(number=4)\n" in shown
    assert "arguments number=4\n" in shown
    assert "result    8\n" in shown
    assert "What is 2 * 4?" not in shown


def test_errors_are_shown_without_secrets(lagentlike: Callable[..., Outcome]) -> None:
    assert lagentlike("run", "--trace", "t.jsonl", "--trace-content", "my_agents.py:broken", "hi").code == 1
    shown = lagentlike("trace", "t.jsonl", "--content").out
    assert "broken  …  error: ValueError" in shown
    assert "my key is ***" in shown


def test_workers_of_a_batch_write_to_the_same_file(lagentlike: Callable[..., Outcome]) -> None:
    Path("prompts.jsonl").write_text('{"prompt": "What is 3 * 4?"}\n{"prompt": "What is 5 * 4?"}\n')
    asked = ("batch", "--dataset_file", "prompts.jsonl", "--run_name", "r", "--batch_size", "1", "--num_workers", "2")
    assert lagentlike(*asked, "--trace", "t.jsonl").code == 0
    told = read_trace("t.jsonl")
    assert len({span["trace_id"] for span in told if span["name"] == "AsyncAIAgent"}) == 2
    assert len({span["span_id"] for span in told}) == len(told)


def test_files_of_several_processes_are_one_tree(lagentlike: Callable[..., Outcome]) -> None:
    lagentlike("run", "--trace", "all.jsonl", "my_agents.py:agent", "What is 2 * 4?")
    lines = Path("all.jsonl").read_text().splitlines(keepends=True)
    Path("here.jsonl").write_text("".join(lines[::2]))
    Path("there.jsonl").write_text("".join(lines[1::2]))
    assert lagentlike("trace", "there.jsonl", "here.jsonl").out == lagentlike("trace", "all.jsonl").out


def test_a_file_that_is_no_trace_is_refused_in_one_line(lagentlike: Callable[..., Outcome]) -> None:
    assert lagentlike("trace", "my_agents.py").err.startswith("lagentlike: error: path='my_agents.py'")
    assert "cannot be read" in lagentlike("trace", "nowhere.jsonl").err
    assert "--last" in lagentlike("trace", "my_agents.py", "--last", "0").err
