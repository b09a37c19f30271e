"""What tracers are told: spans of turns, requests and tool calls, and what they are part of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import calculator
from lagentlike.agents import Agent, AsyncReAct, AsyncStreamingReAct, ReAct, StreamingAgent, StreamingReAct
from lagentlike.errors import ServerError
from lagentlike.llms import AsyncGPTAPI, AsyncScriptedLLM, FallbackLLM, ScriptedLLM
from lagentlike.llms.transport import TransportOptions
from lagentlike.schema import Completion, ToolCall, Usage
from lagentlike.tracing import JSONLTracer, read_trace, Span, spans, Tracer

from ..llms.fault_server import completion, FaultServer, refuse, reply
from .telling import ask, Listener, llm_for

SCRIPT = [ToolCall("calculator", {"expression": "6 * 7"}, id="one"), "It is 42."]
COLOURS = [ReAct, AsyncReAct, StreamingReAct, AsyncStreamingReAct]


@pytest.mark.parametrize("kind", COLOURS)
async def test_spans_nest_in_all_colours(kind: Any) -> None:
    with Listener() as told:
        await ask(kind(llm_for(kind, SCRIPT), [calculator]))
    assert not told.open
    by_id = {span["span_id"]: span for span in told.ended}
    (root,) = [span for span in told.ended if span["parent_id"] is None]
    (tool,) = [span for span in told.ended if span["kind"] == "tool"]
    requests = [span for span in told.ended if span["kind"] == "request"]
    assert {span["trace_id"] for span in told.ended} == {root["trace_id"]}
    assert (root["kind"], root["path"], root["unit"], root["session_id"]) == ("turn", "", kind.__name__, 0)
    assert (tool["name"], tool["call_id"], tool["state"]) == ("calculator", "one", "success")
    assert by_id[tool["parent_id"]]["path"] == "actions"
    assert {by_id[span["parent_id"]]["kind"] for span in requests} == {"turn"}
    assert [span["finish_reason"] for span in requests] == ["tool_calls", "stop"]
    assert root["tokens_out"] == sum(span["tokens_out"] for span in requests)
    assert {span["status"] for span in told.ended} == {"ok"}


def test_parts_of_a_stream_are_told_as_they_come() -> None:
    with Listener() as told:
        stream: Any = StreamingAgent(ScriptedLLM(["a b c"], chunk_size=2))("Q")
        assert not told.open
        next(stream)
        assert told.parts == [("a ", "a ")]
        assert [span.kind for span in told.open] == ["turn", "request"]
        list(stream)
    assert [text for text, _ in told.parts] == ["a ", "b ", "c"]
    assert told.parts[-1][1] == "a b c"


def test_a_stream_that_is_left_is_abandoned(tmp_path: Path) -> None:
    with JSONLTracer(tmp_path / "trace.jsonl") as tracer:
        stream: Any = StreamingReAct(ScriptedLLM(["a long answer"], chunk_size=1), [calculator])("Q")
        next(stream)
        stream.close()
    assert {span["status"] for span in read_trace(tracer.path)} == {"abandoned"}


@pytest.mark.parametrize("content", [False, True])
def test_the_text_of_an_error_is_content(content: bool, tmp_path: Path) -> None:
    with JSONLTracer(tmp_path / "trace.jsonl", content=content) as tracer, pytest.raises(ValueError, match="broken"):
        Agent(ScriptedLLM([ValueError("broken with sk-abcdefghijklmnopqrstu")]))("Q")
    expected = {"type": "ValueError", **({"message": "broken with ***"} if content else {})}
    assert [span["error"] for span in read_trace(tracer.path)] == [expected, expected]


def test_an_error_that_cannot_be_shown_is_told_and_raised() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    with Listener() as told, pytest.raises(Mute):
        Agent(ScriptedLLM([Mute()]))("Q")
    assert [span["error"]["type"] for span in told.ended] == ["Mute", "Mute"]


def test_a_tracer_that_fails_ends_no_turn(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Tracer):
        def begin(self, span: Span) -> None:
            raise RuntimeError("no room")

    with Broken(), Listener() as told:
        assert Agent(ScriptedLLM(["Hello"]))("Q").content == "Hello"
    assert [span["kind"] for span in told.ended] == ["request", "turn"]
    assert "Broken.begin failed" in caplog.text


@pytest.mark.parametrize("kind", COLOURS)
async def test_where_nobody_listens_no_span_is_made(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "Span", None)
    agent = kind(llm_for(kind, SCRIPT), [calculator])
    await ask(agent)
    assert agent.state_dict()["memory"][-1]["content"] == "It is 42."


async def test_what_a_request_was_made_with_and_came_to_is_told() -> None:
    body = completion("hello", model="m-2026", usage={"prompt_tokens": 9, "completion_tokens": 4})
    body["usage"]["prompt_tokens_details"] = {"cached_tokens": 5}
    async with FaultServer(refuse(503), refuse(429), reply(body)) as server:
        fast = TransportOptions(backoff=0.001)
        llm = AsyncGPTAPI("m", api_base=server.url, key=None, temperature=0, stop_words="!", transport=fast)
        with Listener() as told:
            await llm.chat([{"role": "user", "content": "Q"}])
    (span,) = told.ended
    expected = {
        "name": "m",
        "model": "m",
        "provider": "openai",
        "server": f"127.0.0.1:{server.port}",
        "stream": False,
        "max_new_tokens": 512,
        "temperature": 0,
        "stop_words": ["!"],
        "retries": 2,
        "tokens_in": 9,
        "tokens_out": 4,
        "cached_tokens": 5,
        "finish_reason": "stop",
        "answering_model": "m-2026",
    }
    assert {name: span.get(name) for name in expected} == expected


async def test_a_batch_is_one_request_and_so_is_each_model_of_a_fallback() -> None:
    said = Completion("x", usage=Usage(1, 7, 3))
    conversations = [[{"role": "user", "content": text}] for text in ("one", "two")]
    with Listener() as told:
        await AsyncScriptedLLM([said, said]).chat(conversations)
        FallbackLLM([ScriptedLLM([ServerError("down")]), ScriptedLLM([said])]).chat(conversations[0])
    batch, failed, answered = told.ended
    assert (batch["batch"], batch["tokens_out"]) == (2, 6)
    assert (failed["error"]["type"], answered["status"]) == ("ServerError", "ok")


@pytest.mark.parametrize(
    ("api_base", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.anthropic.com/v1", "anthropic"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://mine.openai.azure.com/openai/v1", "azure.ai.openai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gcp.gemini"),
        ("https://example.com/v1", "openai"),
    ],
)
def test_providers_have_the_names_of_the_conventions(api_base: str, provider: str) -> None:
    with Listener() as told:
        spans.begin_request(AsyncGPTAPI("m", api_base=api_base, key=None), [], {})
    assert told.spans[0].attributes["provider"] == provider
