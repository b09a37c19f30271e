"""CPU time of reading tool calls in each text format: long arguments, many calls, and texts that would trip a parser.

`python -m benchmarks.tool_formats [name …]`
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from lagentlike.prompts.parsers import tool_format, tool_format_names, ToolFormat
from lagentlike.schema import ToolCall

MB = 1_000_000
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}, "items": {"type": "array"}}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "text": {"text": 'a "b" \\ \n' * (MB // 9)},
    "numbers": {"items": [1234567] * (MB // 9)},
    "objects": {"items": [{"a": 1, "text": "x" * 180}] * (MB // 240)},  # of twice as many, all fit
}
PIECES = [
    '"', "`", "```\n", "~~~\n", "<think>", "</think>", "</think>\n", "\n", "> ", "“", "\\", " ",
    "[", "{", "(", "]", "}",
]  # fmt: skip


def seconds(form: ToolFormat, text: str, rounds: int = 3) -> float:
    """Best CPU time of a few."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        form.parse(text)
        times.append(time.process_time() - started)
    return min(times)


def probes(form: ToolFormat) -> Iterator[str]:
    """Pieces of a call and of what may surround it, each over and over, a megabyte long."""
    whole = form.write([ToolCall("f", {"text": "x"})])
    cuts = [whole[:stop] for stop in range(1, len(whole) + 1, 3)]
    for piece in [*PIECES, *cuts, *(cut + "\n" for cut in cuts), *(cut + "</think>\n" for cut in cuts)]:
        yield piece * (MB // len(piece))


def main(names: list[str]) -> None:
    """Print a row for each format."""
    print(f"{'format':14} {'text':>6} {'numbers':>8} {'objects':>8}  {'2x/1x':>6} {'calls':>6}  worst of the probes")
    for name in names or tool_format_names():
        form = tool_format(name, TOOLS)
        row = []
        for arguments in ARGUMENTS.values():
            text = form.write([ToolCall("f", arguments)])
            assert form.parse(text).calls[0].arguments == arguments
            row.append(1000 * seconds(form, text) / (len(text) / MB))
        twice = form.write([ToolCall("f", {"items": ARGUMENTS["objects"]["items"] * 2})])
        growth = seconds(form, twice) / seconds(form, form.write([ToolCall("f", ARGUMENTS["objects"])]))
        call = form.write([ToolCall("f", {})]) + "\n"
        many = 1000 * seconds(form, call * min(100_000, 4 * MB // len(call)))
        worst = max((seconds(form, text, 1), text[:40]) for text in probes(form))
        print(
            f"{name:14} {row[0]:6.1f} {row[1]:8.1f} {row[2]:8.1f}  {growth:6.2f} {many:6.1f}  "
            f"{1000 * worst[0]:.0f} {worst[1]!r}",
            flush=True,
        )
    print("columns: CPU ms a MB, ms for 100,000 calls or 4 MB of them, ms for the probe of 1 MB that takes longest")


if __name__ == "__main__":
    main(sys.argv[1:])
