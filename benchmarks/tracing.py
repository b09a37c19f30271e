"""What tracing costs: CPU time of a turn without a tracer, with one that writes to a file, and with content.

`python -m benchmarks.tracing [--turns 2000]` measures the three in turn. How much a turn takes where nobody listens is
counted in instructions (`valgrind --tool=cachegrind`) of this program with `--only none` before and after a change.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median

from lagentlike.actions import calculator
from lagentlike.agents import AsyncReAct
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.schema import ToolCall
from lagentlike.tracing import JSONLTracer, read_trace

__all__ = ["main", "measure"]

MODES = ("none", "file", "content")
ROUNDS = 3


def measure(mode: str, turns: int, folder: Path) -> tuple[float, int]:
    """CPU milliseconds of a turn with one tool call, and the spans of all turns."""
    script = [ToolCall("calculator", {"expression": "6 * 7"}, id="one"), "It is 42."] * turns
    agent = AsyncReAct(AsyncScriptedLLM(script), [calculator])
    path = folder / f"{mode}.jsonl"
    path.unlink(missing_ok=True)

    async def talk() -> None:
        for number in range(turns):
            await agent("What is six by seven?", session_id=number)

    with nullcontext() if mode == "none" else JSONLTracer(path, content=mode == "content"):
        began = time.process_time()
        asyncio.run(talk())
        took = time.process_time() - began
    return 1000 * took / turns, len(read_trace(path)) if path.exists() else 0


def main() -> int:
    """Print what a turn and a span cost."""
    parser = argparse.ArgumentParser(description="What tracing costs.")
    parser.add_argument("--turns", type=int, default=2000)
    parser.add_argument("--only", choices=MODES, help="measure one of them")
    options = parser.parse_args()
    modes = MODES if options.only is None else (options.only,)
    with tempfile.TemporaryDirectory() as folder:
        rounds = [{mode: measure(mode, options.turns, Path(folder)) for mode in modes} for _ in range(ROUNDS)]
    base = median(one["none"][0] for one in rounds) if "none" in modes else None
    for mode in modes:
        turn, spans = median(one[mode][0] for one in rounds), rounds[0][mode][1] / options.turns
        span = f", {(turn - base) / spans:.3f} ms for each of {spans:g} spans" if spans and base is not None else ""
        sys.stdout.write(f"{mode:8} {turn:.3f} ms a turn{span}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
