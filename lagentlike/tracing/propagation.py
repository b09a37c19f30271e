"""Traces that go on in other processes, by the header of W3C's Trace Context (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from . import spans

__all__ = ["part_of", "traced", "traceparent"]


def traceparent() -> str | None:
    """What tells another process which span the work asked of it is part of: `00-<trace_id>-<span_id>-<flags>`."""
    span = spans.innermost()
    return None if span is None else f"00-{span.trace_id}-{span.span_id}-{'01' if span.sampled else '00'}"


def traced(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of a request, and the one that tells of the span that it is part of."""
    told = traceparent()
    return headers if told is None else {**headers, "traceparent": told}


@contextmanager
def part_of(told: str | None) -> Iterator[None]:
    """Make what runs in the block part of a span elsewhere, if somebody listens and there is one."""
    remote = _read(told) if told is not None and spans.tracers else None
    if remote is None:
        yield
        return
    with spans.within(remote):
        yield


def _read(told: str) -> spans.Remote | None:
    """The span that a header tells of; None where it is no good."""
    version, trace_id, span_id, flags, *more = [*told.split("-"), "", "", ""]
    lengths = [len(piece) for piece in (version, trace_id, span_id, flags)]
    if lengths != [2, 32, 16, 2] or not _DIGITS.issuperset(version + trace_id + span_id + flags):
        return None
    if version == "ff" or (version == "00" and any(more)) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return spans.Remote(trace_id, span_id, bool(int(flags, 16) & 1))


_DIGITS = frozenset("0123456789abcdef")
