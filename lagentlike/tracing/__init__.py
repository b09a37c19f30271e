"""See what a program of agents does: spans of turns, model requests and tool calls, for a file or OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .jsonl import JSONLTracer, read_trace
    from .otel import OpenTelemetryTracer
    from .secrets import mask
    from .spans import current_span, Span, Tracer

__all__ = ["JSONLTracer", "OpenTelemetryTracer", "Span", "Tracer", "current_span", "mask", "read_trace"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "jsonl": ["JSONLTracer", "read_trace"],
        "otel": ["OpenTelemetryTracer"],
        "secrets": ["mask"],
        "spans": ["Span", "Tracer", "current_span"],
    },
)
