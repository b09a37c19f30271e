"""Spans and metrics for OpenTelemetry, by its conventions for generative AI."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ..errors import MissingExtra
from .secrets import mask, secrets_of_environment
from .spans import Span, Tracer

__all__ = ["OpenTelemetryTracer"]


class OpenTelemetryTracer(Tracer):
    """Makes OpenTelemetry spans: `invoke_agent` of turns, `chat` of model requests, `execute_tool` of tool calls.

    Names and attributes are those of the GenAI conventions, which are still in development
    (https://github.com/open-telemetry/semantic-conventions-genai). Each is current while its work runs, so that what
    other instrumentation sees there is part of it, and it is part of what is current where it begins. It also records
    the metrics `gen_ai.client.token.usage`, `gen_ai.client.operation.duration`, `gen_ai.invoke_agent.duration` and
    `gen_ai.execute_tool.duration`.

    Needs the extra `otel`, which is OpenTelemetry's API; where spans and metrics go is up to the SDK of your program.

    Args:
        tracer_provider, meter_provider: the program's own by default.
        content: also record messages, answers, arguments, results and the texts of errors; secrets are masked.

    Raises:
        MissingExtra: `opentelemetry-api` is not installed.
    """

    names_spans: ClassVar[bool] = True

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None, *, content: bool = False) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ImportError as error:
            raise MissingExtra("opentelemetry-api", "otel") from error
        self.content = content
        self._context = context
        self._trace = trace
        self._tracer = trace.get_tracer("lagentlike", tracer_provider=tracer_provider)
        meter = metrics.get_meter("lagentlike", meter_provider=meter_provider)
        self._seconds = {
            kind: meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=_SECONDS)
            for kind, name in _DURATIONS.items()
        }
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", explicit_bucket_boundaries_advisory=_TOKENS
        )
        self._open: dict[Span, Any] = {}
        self._secrets = secrets_of_environment()

    def begin(self, span: Span) -> None:
        trace = self._trace
        started = self._tracer.start_span(
            mask(f"{_OPERATIONS[span.kind]} {span.name}", self._secrets),
            context=self._context_of(span),
            kind=trace.SpanKind.CLIENT if "server" in span.attributes else trace.SpanKind.INTERNAL,
            attributes=mask(_first_attributes(span), self._secrets),
            start_time=int(span.start * 1e9),
        )
        self._open[span] = started
        context = started.get_span_context()
        if context.is_valid:
            span.trace_id = trace.format_trace_id(context.trace_id)
            span.span_id = trace.format_span_id(context.span_id)
            span.sampled = context.trace_flags.sampled

    def enter(self, span: Span) -> Any:
        return self._context.attach(self._trace.set_span_in_context(self._open[span]))

    def leave(self, span: Span, entered: Any) -> None:
        self._context.detach(entered)

    def end(self, span: Span) -> None:
        started = self._open.pop(span)
        started.set_attributes(_last_attributes(span))
        if self.content:
            started.set_attributes(_content(mask(span.plain(content=True).get("content", {}), self._secrets), span))
        if span.error is not None:
            message = mask(span.error["message"], self._secrets) if self.content else None
            started.set_status(self._trace.StatusCode.ERROR, message)
        started.end(end_time=int((span.start + (span.seconds or 0.0)) * 1e9))
        self._measure(span)

    def _context_of(self, span: Span) -> Any:
        """What a span is part of: what is current, unless it comes from elsewhere and that is not known yet."""
        trace, remote = self._trace, span.remote
        if remote is None:
            return None
        trace_id = int(remote.trace_id, 16)
        if trace.get_current_span().get_span_context().trace_id == trace_id:
            return None
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if remote.sampled else trace.TraceFlags.DEFAULT)
        context = trace.SpanContext(trace_id, int(remote.span_id, 16), is_remote=True, trace_flags=flags)
        return trace.set_span_in_context(trace.NonRecordingSpan(context))

    def _measure(self, span: Span) -> None:
        told = mask({**_first_attributes(span), **_last_attributes(span)}, self._secrets)
        dimensions = {name: told[name] for name in _DIMENSIONS if name in told}
        self._seconds[span.kind].record(span.seconds or 0.0, dimensions)
        if span.kind == "request" and "tokens_in" in span.attributes:
            for direction, name in (("input", "tokens_in"), ("output", "tokens_out")):
                self._tokens.record(span.attributes[name], {**dimensions, "gen_ai.token.type": direction})


_OPERATIONS = {"turn": "invoke_agent", "request": "chat", "tool": "execute_tool"}
_DURATIONS = {
    "turn": "gen_ai.invoke_agent.duration",
    "request": "gen_ai.client.operation.duration",
    "tool": "gen_ai.execute_tool.duration",
}
_SECONDS = [0.01 * 2**step for step in range(14)]
_TOKENS = [4**step for step in range(14)]
_DIMENSIONS = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "gen_ai.agent.name",
    "gen_ai.tool.name",
    "server.address",
    "server.port",
    "error.type",
)


def _first_attributes(span: Span) -> dict[str, Any]:
    """What is known when a span begins, which samplers may look at."""
    known = span.attributes
    told: dict[str, Any] = {"gen_ai.operation.name": _OPERATIONS[span.kind]}
    if span.kind == "turn":
        told |= {
            "gen_ai.provider.name": "lagentlike",
            "gen_ai.agent.name": span.name,
            "gen_ai.conversation.id": _text(known["session_id"]),
            "lagentlike.path": known["path"],
        }
    elif span.kind == "request":
        told |= {"gen_ai.provider.name": known["provider"], "gen_ai.request.model": known["model"]}
        told |= {attribute: known[name] for name, attribute in _REQUEST.items() if name in known}
        if "server" in known:
            host, _, port = known["server"].rpartition(":")
            told |= {"server.address": host, "server.port": int(port)}
    else:
        told |= {"gen_ai.tool.name": span.name, "gen_ai.tool.type": "function"}
        if known["call_id"]:
            told["gen_ai.tool.call.id"] = known["call_id"]
    return told


def _last_attributes(span: Span) -> dict[str, Any]:
    """What is known when it has ended."""
    known = span.attributes
    told = {attribute: known[name] for name, attribute in _OUTCOME.items() if name in known}
    if "finish_reason" in known:
        told["gen_ai.response.finish_reasons"] = [known["finish_reason"]]
    if span.status != "ok":
        told["error.type"] = span.error["type"] if span.error is not None else span.status
    return told


_REQUEST = {
    "max_new_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "stop_words": "gen_ai.request.stop_sequences",
    "stream": "gen_ai.request.stream",
}
_OUTCOME = {
    "answering_model": "gen_ai.response.model",
    "tokens_in": "gen_ai.usage.input_tokens",
    "tokens_out": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "first_token_seconds": "gen_ai.response.time_to_first_chunk",
    "retries": "lagentlike.retries",
}


def _content(content: dict[str, Any], span: Span) -> dict[str, str]:
    """What was said, as JSON: attributes have no structure everywhere."""
    if span.kind == "tool":
        names = {"arguments": "gen_ai.tool.call.arguments", "result": "gen_ai.tool.call.result"}
        return {attribute: _text(content[name]) for name, attribute in names.items() if name in content}
    told = {}
    if "messages" in content and "batch" not in span.attributes:
        told["gen_ai.input.messages"] = _text([_message(one, "user") for one in content["messages"]])
    answer = content.get("answer", content.get("reply"))
    if answer is not None:
        listed = answer if isinstance(answer, list) else [answer]
        finish = {"finish_reason": span.attributes.get("finish_reason", "stop")}
        told["gen_ai.output.messages"] = _text([_message(one, "assistant") | finish for one in listed])
    return told


def _message(plain: Any, role: str) -> dict[str, Any]:
    """A message in the conventions' shape: a role, and parts."""
    if not isinstance(plain, dict):
        return {"role": role, "parts": [{"type": "text", "content": _text(plain)}]}
    text = plain.get("text", plain.get("content"))
    if plain.get("role") == "tool":
        return {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": plain.get("tool_call_id"), "response": text}],
        }
    parts: list[dict[str, Any]] = []
    if plain.get("reasoning"):
        parts.append({"type": "reasoning", "content": plain["reasoning"]})
    if text:
        parts.append({"type": "text", "content": _text(text)})
    for call in plain.get("tool_calls") or ():
        called = call.get("function", call)
        arguments = called.get("arguments")
        parts.append({"type": "tool_call", "id": call.get("id"), "name": called.get("name"), "arguments": arguments})
    return {"role": plain.get("role", role), "parts": parts}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
