"""`lagentlike trace`: what happened, and how long it took."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from .common import Looks, UsageError

__all__ = ["add_options", "main"]

NAME = "trace"
HELP = """show what happened in a traced run

Prints the spans of a file that --trace or JSONLTracer wrote as trees: turns of agents, model requests and tool calls,
with how long they took, the tokens that went in and out, and what went wrong."""

EXAMPLES = """examples:
  lagentlike run --trace trace.jsonl my_agents.py:coder "What is 12 * 34?"
  lagentlike trace trace.jsonl
  lagentlike trace here.jsonl there.jsonl          a client's and its server's, as one tree
  lagentlike trace trace.jsonl --last 1 --content  what was said in the newest trace, if it was written down
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="the file, or those of several processes")
    parser.add_argument("--last", type=int, metavar="N", help="only the newest traces, so many of them")
    parser.add_argument("--content", action="store_true", help="show the first line of what was said, too")


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from ..tracing import read_trace

    if options.last is not None and options.last < 1:
        raise UsageError(f"--last takes a number of at least 1, not {options.last}")
    looks = Looks(sys.stdout)
    traces = _traces([span for file in options.files for span in read_trace(file)])
    for trace in traces if options.last is None else traces[-options.last :]:
        for line in _lines(trace, looks, options.content):
            sys.stdout.write(line + "\n")
    return 0


def _traces(spans: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The spans by trace, the oldest trace first, and in each the span that began first."""
    found = defaultdict(list)
    for span in sorted(spans, key=lambda span: span["start"]):
        found[span["trace_id"]].append(span)
    return list(found.values())


def _lines(trace: list[dict[str, Any]], looks: Looks, content: bool) -> Iterator[str]:
    began = datetime.fromtimestamp(trace[0]["start"]).astimezone()
    yield looks.dim(f"trace {trace[0]['trace_id']}  {began:%Y-%m-%d %H:%M:%S}")
    known = {span["span_id"] for span in trace}
    inside: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for span in trace:
        inside[span["parent_id"] if span["parent_id"] in known else None].append(span)
    waiting = [(span, "", "") for span in reversed(inside[None])]
    while waiting:
        span, branch, stem = waiting.pop()
        below = inside[span["span_id"]]
        yield looks.dim(branch) + _line(span, looks)
        if content:
            margin = looks.dim(stem + ("│  " if below else "   "))
            yield from (f"{margin}{looks.dim(name)} {text}" for name, text in _said(span, looks.width - len(stem) - 16))
        for number, child in enumerate(reversed(below)):
            waiting.append((child, stem + ("├─ " if number else "└─ "), stem + ("│  " if number else "   ")))


def _line(span: dict[str, Any], looks: Looks) -> str:
    """A span in one line: what it is, how long it took, what it cost, and how it ended."""
    name = span["name"] or span["kind"]
    told = [{"turn": looks.bold, "request": looks.cyan, "tool": looks.yellow}[span["kind"]](name)]
    path = span.get("path")
    if path:
        told[0] += looks.dim(f" {path}")
    told.append(_duration(span["seconds"]))
    if span.get("tokens_in") or span.get("tokens_out"):
        told.append(f"{span['tokens_in']}+{span['tokens_out']} tokens")
    if "first_token_seconds" in span:
        told.append(f"first after {_duration(span['first_token_seconds'])}")
    if "retries" in span:
        told.append(f"{span['retries']} retr{'y' if span['retries'] == 1 else 'ies'}")
    if span["status"] != "ok":
        error = span.get("error", {}).get("type")
        told.append(looks.red(span["status"] if error is None else f"{span['status']}: {error}"))
    return "  ".join(told)


def _said(span: dict[str, Any], width: int) -> Iterator[tuple[str, str]]:
    """The beginning of what was said in a span, by the name of what it is."""
    said = {**span.get("content", {}), "error": span.get("error", {}).get("message")}
    for name in ("missing", "messages", "arguments", "answer", "reply", "result", "error"):
        text = " ".join(_text(said.get(name)).split())
        if text:
            yield f"{name:9}", text if len(text) <= width else text[: max(width - 1, 1)] + "…"


def _text(value: Any) -> str:
    """A value in a few words: of messages, the last one's text."""
    if isinstance(value, list):
        return _text(value[-1]) if value else ""
    if isinstance(value, dict):
        if value.get("tool_calls"):
            calls = [call.get("function", call) for call in value["tool_calls"]]
            return ", ".join(f"{call.get('name')}({_text(call.get('arguments'))})" for call in calls)
        told = value.get("text", value.get("content"))
        return _text(told) if told is not None else ", ".join(f"{name}={_text(item)}" for name, item in value.items())
    return "" if value is None else str(value)


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
