"""A trace goes on behind HTTP."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from lagentlike.agents import Agent, AsyncAgent, AsyncSequential, AsyncStreamingAgent
from lagentlike.llms import AsyncGPTAPI, AsyncScriptedLLM, GPTAPI, ScriptedLLM
from lagentlike.llms.tiny import AsyncTinyLM
from lagentlike.schema import Completion, Usage
from lagentlike.serving import AgentServer, AsyncHTTPAgentClient, AsyncStreamingHTTPAgentClient, HTTPAgentClient
from lagentlike.serving.model_server import ModelServer
from lagentlike.tracing import current_span
from lagentlike.tracing.propagation import part_of, traceparent

from ..llms.fault_server import answer, FaultServer
from .telling import Listener
from .test_otel import Watched

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("colour", ["blocking", "async", "streaming"])
async def test_a_trace_goes_through_an_agent_client_to_its_server(colour: str) -> None:
    said = Completion("Hello", usage=Usage(1, 7, 3))
    agent = AsyncStreamingAgent(AsyncScriptedLLM([said]), name="far")
    async with AgentServer(agent, port=0) as server:
        with Listener() as told:
            if colour == "blocking":
                await asyncio.to_thread(HTTPAgentClient(url=server.url, name="near"), "Q")
            elif colour == "async":
                await AsyncHTTPAgentClient(url=server.url, name="near")("Q")
            else:
                [part async for part in AsyncStreamingHTTPAgentClient(url=server.url, name="near")("Q")]
    near, far, request = (
        next(span for span in told.ended if span["name"] == name) for name in ("near", "far", "scripted")
    )
    assert (far["parent_id"], request["parent_id"]) == (near["span_id"], far["span_id"])
    assert len({span["trace_id"] for span in told.ended}) == 1
    assert far["path"] == ""
    assert near["tokens_out"] == far["tokens_out"] == request["tokens_out"] == 3


async def test_a_trace_goes_through_a_model_server() -> None:
    async with ModelServer(AsyncTinyLM(), port=0) as server:
        with Listener() as told:
            llm = AsyncGPTAPI("tinylm", api_base=server.url, key=None, max_new_tokens=4)
            await AsyncAgent(llm)("Q")
            [part async for part in llm.stream_chat([{"role": "user", "content": "Q"}])]
    far = [span for span in told.ended if span["kind"] == "request" and "server" not in span]
    near = [span for span in told.ended if span["kind"] == "request" and "server" in span]
    assert [span["parent_id"] for span in far] == [span["span_id"] for span in near]
    assert {span["provider"] for span in near} == {"openai"}


async def test_the_trace_header_is_sent_only_where_somebody_listens() -> None:
    with FaultServer(answer()) as server:
        llm = GPTAPI("m", api_base=server.url, key="k")
        await asyncio.to_thread(llm.chat, [{"role": "user", "content": "Q"}])
        with Listener() as told:
            await asyncio.to_thread(llm.chat, [{"role": "user", "content": "Q"}])
        sent = [{name.lower(): value for name, value in request.headers.items()} for request in server.requests]
    assert "traceparent" not in sent[0]
    assert sent[1]["traceparent"] == f"00-{told.ended[0]['trace_id']}-{told.ended[0]['span_id']}-01"


async def test_opentelemetry_sees_one_trace_on_both_sides_and_keeps_the_decision_to_sample() -> None:
    agent = AsyncAgent(AsyncScriptedLLM(["Hello", "Hello"]), name="far")
    async with AgentServer(agent, port=0) as server:
        chain = AsyncSequential(AsyncHTTPAgentClient(url=server.url, name="near"))
        watched = Watched()
        with watched.trace():
            await chain("Q")
        near, far = watched.named("invoke_agent near"), watched.named("invoke_agent far")
        assert (far.parent.span_id, far.parent.is_remote) == (near.context.span_id, True)
        with Watched(sampler=ParentBased(ALWAYS_OFF)).trace(), Listener() as told:
            await chain("Q", session_id=1)
        assert told.ended
        assert not [span for span in told.spans if span.sampled]


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        (f"00-{TRACE}-{SPAN}-01", SPAN),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", SPAN),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
        (None, None),
    ],
)
def test_the_header_is_read_as_w3c_says(header: str | None, parent: str | None) -> None:
    with Listener() as told, part_of(header):
        Agent(ScriptedLLM(["Hello"]))("Q")
        assert current_span() is None
    assert told.ended[-1]["parent_id"] == parent
    if parent is not None:
        assert {span["trace_id"] for span in told.ended} == {TRACE}


def test_outside_of_all_spans_there_is_nothing_to_tell() -> None:
    assert traceparent() is None
