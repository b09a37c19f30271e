"""What a sandbox costs: starting one, a session of Python in one, kernels and terminals, with and without isolation.

Run by hand: `python -m benchmarks.sandbox`; `--rounds 5` for a quick look, `--only worker` for some of the rows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from lagentlike.actions import ActionExecutor, IPythonInterpreter, terminal_tools
from lagentlike.sandbox import Isolation, isolation_of, Worker
from lagentlike.schema import AgentMessage, ToolCall

__all__ = ["ROWS", "main"]

Row = Callable[[Isolation, int], Iterator[tuple[str, float]]]
"""Gives what was measured, name and seconds, as often as it is told."""


def main() -> None:
    """Print the median of each row, isolated and not, measured in turn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sandbox", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    options = parser.parse_args()
    began = time.perf_counter()
    isolations = [isolation_of(name) for name in ("bwrap", "unsafe_local")]
    isolations[0].check()
    print(f"{'self-checks, once a process':34} {1000 * (time.perf_counter() - began):9.2f} ms")
    print(f"{'':34} {'bwrap':>12} {'unsafe_local':>12}")
    for name in options.only:
        figures: dict[str, dict[str, list[float]]] = {}
        for isolation in isolations:
            for what, seconds in ROWS[name](isolation, options.rounds):
                figures.setdefault(what, {}).setdefault(isolation.name, []).append(seconds)
        for what, taken in figures.items():
            shown = " ".join(f"{1000 * median(taken[one.name]):9.2f} ms" for one in isolations)
            print(f"{what:34} {shown}")


def _start(isolation: Isolation, rounds: int) -> Iterator[tuple[str, float]]:
    """`/bin/true` from its start to its end, nothing taken off."""
    for _ in range(rounds):
        began = time.perf_counter()
        isolation.run(["/bin/true"])
        yield "a program, start to end", time.perf_counter() - began


def _worker(isolation: Isolation, rounds: int) -> Iterator[tuple[str, float]]:
    for _ in range(rounds):
        began = time.perf_counter()
        worker = Worker(isolation)
        worker.start()
        yield "worker, start", time.perf_counter() - began
        for _ in range(50):
            began = time.perf_counter()
            worker.run("1 + 1")
            yield "worker, round trip", time.perf_counter() - began
        began = time.perf_counter()
        worker.close()
        yield "worker, close", time.perf_counter() - began


def _kernel(isolation: Isolation, rounds: int) -> Iterator[tuple[str, float]]:
    with TemporaryDirectory() as folder:
        interpreter = IPythonInterpreter(work_dir=Path(folder), isolation=isolation)
        for session_id in range(max(rounds // 4, 1)):
            for what in ("kernel, start and first cell", *["kernel, round trip"] * 20):
                began = time.perf_counter()
                interpreter({"command": "1 + 1"}, session_id=session_id)
                yield what, time.perf_counter() - began
            interpreter.close(session_id)


def _terminal(isolation: Isolation, rounds: int) -> Iterator[tuple[str, float]]:
    with TemporaryDirectory() as folder:
        for _ in range(max(rounds // 4, 1)):
            terminal, _ = terminal_tools(folder, isolation=isolation)
            executor = ActionExecutor([terminal])
            call = AgentMessage(content="", tool_calls=[ToolCall("terminal", {"command": "echo on"})])
            for what in ("terminal, first command", *["terminal, next command"] * 20):
                began = time.perf_counter()
                executor(call)
                yield what, time.perf_counter() - began
            terminal.close()  # type: ignore[attr-defined]  # a Terminal has it


ROWS: dict[str, Row] = {"start": _start, "worker": _worker, "kernel": _kernel, "terminal": _terminal}


if __name__ == "__main__":
    main()
