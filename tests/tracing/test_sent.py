"""A trace with what was said grows with what is new, and each request is whole to who reads it."""

from __future__ import annotations

import copy
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st

from lagentlike.actions import calculator
from lagentlike.agents import Agent, AsyncAgent, AsyncStreamingAgent, ReAct, Sequential, StreamingAgent
from lagentlike.cli import main
from lagentlike.llms import ScriptedLLM
from lagentlike.schema import ToolCall
from lagentlike.tracing import JSONLTracer, read_trace, Span, Tracer
from lagentlike.tracing.sent import Sent

from .telling import ask, llm_for


def echo(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
    return "heard " + ", ".join(str(message["content"]) for message in messages if message["role"] == "user")


class Requests(Tracer):
    """Keeps what models were sent, as it was then."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}

    def end(self, span: Span) -> None:
        if span.kind == "request":
            self.sent[span.span_id] = copy.deepcopy(span.plain(content=True)["content"]["messages"])


def sent(path: Path) -> dict[str, Any]:
    return {span["span_id"]: span["content"]["messages"] for span in read_trace(path) if span["kind"] == "request"}


@pytest.mark.parametrize("kind", [Agent, AsyncAgent, StreamingAgent, AsyncStreamingAgent])
async def test_each_message_is_written_once_and_read_with_each_request(kind: Any, tmp_path: Path) -> None:
    agent, requests = kind(llm_for(kind, echo)), Requests()
    with requests, JSONLTracer(tmp_path / "trace.jsonl", content=True) as tracer:
        for number in range(20):
            await ask(agent, f"question {number}.")
    assert sent(tracer.path) == requests.sent
    lines = [json.loads(line) for line in tracer.path.read_text().splitlines()]
    written = [line["content"]["messages"] for line in lines if line["kind"] == "request"]
    assert [len(messages) for messages in written] == [1] + [2] * 19


def test_sessions_units_and_models_that_take_turns_keep_apart(tmp_path: Path) -> None:
    team = Sequential(
        Agent(ScriptedLLM(echo), "First."),
        ReAct(ScriptedLLM([ToolCall("calculator", {"expression": "1"}), "so"] * 9), [calculator]),
    )
    requests = Requests()
    with requests, JSONLTracer(tmp_path / "trace.jsonl", content=True) as tracer:
        for number in range(4):
            for session in ("ann", "bob"):
                team(f"{session} {number}", session_id=session)
        ScriptedLLM(echo).chat([{"role": "user", "content": "on its own"}])
        ScriptedLLM(echo).chat([[{"role": "user", "content": "one"}], [{"role": "user", "content": "of two"}]])
    assert sent(tracer.path) == requests.sent
    assert tracer.path.read_text().count("First.") == 2  # once a session
    assert tracer.path.read_text().count('"after"') == 2 * (3 + 7)


_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.sampled_from(["a", "b"])}
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(_message, min_size=1, max_size=6), min_size=1, max_size=8), st.integers(0, 10))
def test_whatever_is_sent_is_read(tmp_path: Path, conversations: list[Any], most: int) -> None:
    path = tmp_path / "trace.jsonl"
    path.unlink(missing_ok=True)
    model, messages = ScriptedLLM(echo), []
    with JSONLTracer(path, content=True) as tracer:
        tracer._sent = Sent(most)
        for conversation in conversations:
            messages[:] = conversation  # the same list, which somebody edits
            model.chat(messages)
    assert list(sent(path).values()) == conversations


def test_values_that_cannot_be_compared_are_written(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": np.arange(3)}]
    with JSONLTracer(tmp_path / "trace.jsonl", content=True) as tracer:
        for _ in range(2):
            ScriptedLLM(lambda messages, params: "Hello").chat(messages)
    assert list(sent(tracer.path).values()) == [[{"role": "user", "content": "[0 1 2]"}]] * 2


def test_threads_keep_their_conversations(tmp_path: Path) -> None:
    agent, requests = Agent(ScriptedLLM(echo)), Requests()

    def talk(session: int) -> None:
        for number in range(10):
            agent(f"{session}.{number}", session_id=session)

    with requests, JSONLTracer(tmp_path / "trace.jsonl", content=True) as tracer:
        threads = [threading.Thread(target=talk, args=(session,)) for session in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sent(tracer.path) == requests.sent


def test_where_the_beginning_is_lost_a_request_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = Agent(ScriptedLLM(echo))
    with JSONLTracer(tmp_path / "trace.jsonl", content=True) as tracer:
        for text in ("one", "two", "three"):
            agent(text)
    lines = tracer.path.read_text().splitlines(keepends=True)
    tracer.path.write_text("".join(line for line in lines[1:]))
    second, third = (span["content"] for span in read_trace(tracer.path) if span["kind"] == "request")
    for content, count in ((second, 1), (third, 3)):
        assert content["missing"].startswith("the messages before these are not in this file")
        assert f"'messages': {count}" in content["missing"]
    assert [message["content"] for message in third["messages"]] == ["heard one, two", "three"]
    assert main(["trace", str(tracer.path), "--content"]) == 0
    assert "the messages before these are not in this file" in capsys.readouterr().out


@pytest.mark.parametrize("after", [3, {}, {"span_id": [], "messages": 1}, {"span_id": "x", "messages": "1"}])
def test_a_request_that_follows_nonsense_says_so(after: Any, tmp_path: Path) -> None:
    with JSONLTracer(tmp_path / "trace.jsonl", content=True) as tracer:
        Agent(ScriptedLLM(["Hello"]))("Q")
    request, *_ = map(json.loads, tracer.path.read_text().splitlines())
    request["content"]["after"] = after
    tracer.path.write_text(json.dumps(request))
    (read,) = read_trace(tracer.path)
    assert read["content"]["messages"] == [{"role": "user", "content": "Q"}]
    assert str(after) in read["content"]["missing"]
