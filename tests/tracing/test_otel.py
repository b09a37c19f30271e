"""OpenTelemetry gets spans and metrics by the conventions for generative AI."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, server_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from lagentlike.actions import calculator
from lagentlike.agents import Agent, AsyncReAct, AsyncStreamingReAct, ReAct, StreamingReAct
from lagentlike.errors import MissingExtra, ServerError
from lagentlike.llms import ScriptedLLM
from lagentlike.schema import ToolCall
from lagentlike.tracing import JSONLTracer, OpenTelemetryTracer, read_trace

from .telling import ask, llm_for

SCRIPT = [ToolCall("calculator", {"expression": "6 * 7"}, id="one"), "It is 42."]


@pytest.fixture(autouse=True)
def nothing_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a tracer raises is logged."""
    yield
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]


class Watched:
    """A program whose OpenTelemetry keeps what it is given."""

    def __init__(self, **settings: Any) -> None:
        self._exporter, self.provider = InMemorySpanExporter(), TracerProvider(**settings)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])
        self.tracer = self.provider.get_tracer("test")

    def trace(self, **options: Any) -> OpenTelemetryTracer:
        return OpenTelemetryTracer(self.provider, self.meters, **options)

    def spans(self) -> list[Any]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> Any:
        return next(span for span in self.spans() if span.name == name)

    def metrics(self) -> dict[str, list[Any]]:
        told = self._reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: list(metric.data.data_points) for metric in told}


def constants(*modules: Any) -> set[Any]:
    return {value for module in modules for value in vars(module).values() if isinstance(value, str)}


@pytest.mark.parametrize("kind", [ReAct, AsyncReAct, StreamingReAct, AsyncStreamingReAct])
async def test_spans_are_nested_and_named_by_the_conventions(kind: Any) -> None:
    watched = Watched()
    llm = llm_for(kind, SCRIPT, temperature=0.0)
    with watched.trace(), watched.tracer.start_as_current_span("outer"):
        await ask(kind(llm, [calculator], name="Mathematician"))
        assert trace.get_current_span().name == "outer"  # type: ignore[attr-defined]
    by_id = {span.context.span_id: span for span in watched.spans()}
    agent, tool, chat = map(watched.named, ("invoke_agent Mathematician", "execute_tool calculator", "chat scripted"))
    assert by_id[agent.parent.span_id].name == "outer"
    assert len({span.context.trace_id for span in watched.spans()}) == 1
    assert tool.attributes["gen_ai.tool.call.id"] == "one"
    assert chat.attributes["gen_ai.request.temperature"] == 0.0
    assert chat.attributes["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert agent.attributes["gen_ai.usage.output_tokens"] == sum(
        span.attributes["gen_ai.usage.output_tokens"] for span in watched.spans() if span.name == "chat scripted"
    )
    known = constants(gen_ai_attributes, server_attributes) | {"error.type"}
    told = {name for span in watched.spans() for name in span.attributes}
    assert {name for name in told if not name.startswith("lagentlike.")} <= known
    assert not [name for name in told if name.startswith(("gen_ai.input", "gen_ai.output", "gen_ai.tool.call.a"))]


def test_spans_of_other_instrumentation_nest_in_ours() -> None:
    watched = Watched()

    def search() -> str:
        """Search."""
        with watched.tracer.start_as_current_span("SELECT"):
            return Agent(ScriptedLLM(["inner"]), name="Inner")("Q").content  # type: ignore[no-any-return]

    with watched.trace():
        ReAct(ScriptedLLM([ToolCall("search", {}), "done"]), [search])("Q")
    select = watched.named("SELECT")
    assert select.parent.span_id == watched.named("execute_tool search").context.span_id
    assert watched.named("invoke_agent Inner").parent.span_id == select.context.span_id


def test_content_is_told_when_asked_for_and_secrets_never() -> None:
    watched = Watched()
    with watched.trace(content=True):
        ReAct(ScriptedLLM(["the key is sk-0123456789abcdefgh"]), [calculator])("hello")
    chat = watched.named("chat scripted").attributes
    assert json.loads(chat["gen_ai.input.messages"])[-1] == {
        "role": "user",
        "parts": [{"type": "text", "content": "hello"}],
    }
    assert json.loads(chat["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "the key is ***"}], "finish_reason": "stop"}
    ]


def test_a_tool_call_and_its_result_have_the_conventions_shape() -> None:
    watched = Watched()
    with watched.trace(content=True):
        ReAct(ScriptedLLM(SCRIPT), [calculator])("Q")
    tool = watched.named("execute_tool calculator").attributes
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"expression": "6 * 7"}
    assert tool["gen_ai.tool.call.result"] == "42"
    last = [span for span in watched.spans() if span.name == "chat scripted"][-1]
    call, result = json.loads(last.attributes["gen_ai.input.messages"])[-2:]
    assert call["parts"][0]["type"] == "tool_call"
    assert (call["parts"][0]["id"], call["parts"][0]["name"]) == ("one", "calculator")
    assert result == {"role": "tool", "parts": [{"type": "tool_call_response", "id": "one", "response": "42"}]}


def test_an_error_has_its_type_and_its_text_only_as_content() -> None:
    watched = Watched()
    with watched.trace(), pytest.raises(ServerError):
        Agent(ScriptedLLM([ServerError("down, said the server")]))("Q")
    chat = watched.named("chat scripted")
    assert (chat.status.status_code, chat.status.description) == (trace.StatusCode.ERROR, None)
    assert chat.attributes["error.type"] == "ServerError"


def test_metrics_are_those_of_the_conventions() -> None:
    watched = Watched()
    with watched.trace():
        ReAct(ScriptedLLM(SCRIPT), [calculator])("Q")
    told = watched.metrics()
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"} <= told.keys() & constants(gen_ai_metrics)
    (duration,) = told["gen_ai.client.operation.duration"]
    assert (duration.count, duration.attributes["gen_ai.request.model"]) == (2, "scripted")
    assert len(duration.explicit_bounds) == 14
    kinds = {point.attributes["gen_ai.token.type"]: point for point in told["gen_ai.client.token.usage"]}
    assert kinds.keys() == {"input", "output"}
    assert told["gen_ai.execute_tool.duration"][0].attributes["gen_ai.tool.name"] == "calculator"


def test_a_file_has_the_ids_that_opentelemetry_gives(tmp_path: Any) -> None:
    watched = Watched()
    with JSONLTracer(tmp_path / "trace.jsonl") as file, watched.trace():
        ReAct(ScriptedLLM(SCRIPT), [calculator])("Q")
    theirs = {(f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") for span in watched.spans()}
    assert {(span["trace_id"], span["span_id"]) for span in read_trace(file.path)} == theirs


def test_what_is_not_sampled_is_not_exported_and_ends_no_turn() -> None:
    watched = Watched(sampler=ALWAYS_OFF)
    with watched.trace():
        assert Agent(ScriptedLLM(["Hello"]))("Q").content == "Hello"
    assert not watched.spans()


def test_without_opentelemetry_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtra, match=r"lagentlike\[otel\]"):
        OpenTelemetryTracer()
