"""What slots of sandboxes take: commands of many trajectories at once, a slow one among them, a process that is killed.

Run by hand: `python -m benchmarks.sandbox_slots` (bubblewrap), `python -m benchmarks.sandbox_slots --backend local`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median, quantiles

from lagentlike.sandbox import create_tool_backend, ToolExecutor
from lagentlike.tools import build_tool_registry, ToolCall, ToolResult

__all__ = ["main"]


def main() -> int:
    """Print the figures; 1 if a row does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="bwrap")
    parser.add_argument("--trajectories", type=int, default=100, help="of the rows with a slot for each")
    parser.add_argument("--rounds", type=int, default=20, help="commands of each trajectory")
    parser.add_argument("--slow", type=float, default=60.0, help="seconds of the slow command")
    options = parser.parse_args()
    print(f"{options.backend}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    rows: list[Callable[[argparse.Namespace], Awaitable[bool]]] = [_throughput, _sharing, _killed]
    held = [asyncio.run(_run(row, options)) for row in rows]
    return int(not all(held))


async def _run(row: Callable[[argparse.Namespace], Awaitable[bool]], options: argparse.Namespace) -> bool:
    return await row(options)


async def _throughput(options: argparse.Namespace) -> bool:
    """Commands a second, with a slot for each trajectory."""
    many, rate = options.trajectories, 0.0
    async with _executor(options.backend, many) as executor:
        names = [f"t{number}" for number in range(many)]

        async def work(name: str, rounds: int) -> None:
            for _ in range(rounds):
                result = await executor.execute(name, _bash("echo hi"))
                assert result.output == "hi\n", result

        for what, rounds in (("first commands (a sandbox is started for each)", 1), ("commands", options.rounds)):
            began, used = time.perf_counter(), _cpu()
            await asyncio.gather(*(work(name, rounds) for name in names))
            seconds, cpu = time.perf_counter() - began, _cpu() - used
            rate = many * rounds / seconds
            print(
                f"{many} trajectories: {rate:7.0f} {what} a second, {1000 * cpu / many / rounds:.2f} ms of this process"
            )
        began = time.perf_counter()
        await asyncio.gather(*(executor.release_trajectory(name, reset_workspace=True) for name in names))
        print(f"{many} trajectories: {many / (time.perf_counter() - began):7.0f} resets a second")
    return rate >= 150


async def _sharing(options: argparse.Namespace) -> bool:
    """200 trajectories over 20 slots, one of which has a slow command: how long the others wait for theirs."""
    async with _executor(options.backend, 20, acquire_timeout_s=600) as executor:
        slow = asyncio.create_task(executor.execute("slow", _bash(f"sleep {options.slow}"), options.slow + 60))
        await asyncio.sleep(1)
        waits: list[float] = []

        async def trajectory(name: str) -> None:
            await executor.execute(name, _bash("true"))  # the lease and the start of the sandbox
            for _ in range(5):
                began = time.perf_counter()
                await executor.execute(name, _bash("echo hi"))
                waits.append(time.perf_counter() - began)
            await executor.release_trajectory(name, reset_workspace=True)

        began = time.perf_counter()
        await asyncio.gather(*(trajectory(f"t{number}") for number in range(199)))
        seconds = time.perf_counter() - began
        result: ToolResult = await slow
        print(
            f"199 trajectories over 19 slots beside a command of {options.slow:g} s: {seconds:.1f} s in all; a command "
            f"{1000 * median(waits):.0f} ms (median), {1000 * quantiles(waits, n=100)[98]:.0f} ms (99 %)"
        )
        return result.success and max(waits) < options.slow / 2


async def _killed(options: argparse.Namespace) -> bool:
    """How soon a trajectory knows that its slot's process was killed."""
    async with _executor(options.backend, 20) as executor:
        times = []
        for number in range(20):
            name = f"t{number}"
            await executor.execute(name, _bash("true"))
            began = time.perf_counter()
            result = await executor.execute(name, _bash("kill -9 $PPID; sleep 60"))
            times.append(time.perf_counter() - began)
            assert result.metadata.get("lost"), result
            await executor.release_trajectory(name)
        print(f"a process is killed: told after {1000 * median(times):.0f} ms, at most {1000 * max(times):.0f} ms")
        return max(times) < 1


def _executor(backend: str, slots: int, **settings: float) -> ToolExecutor:
    config = {"tool_pool_mode": backend, "slots_per_container": slots, "max_containers": 1, **settings}
    return ToolExecutor(create_tool_backend(config), build_tool_registry(["terminal"]), config)


def _bash(command: str) -> ToolCall:
    return ToolCall("bash", {"command": command})


def _cpu() -> float:
    times = os.times()
    return times.user + times.system


if __name__ == "__main__":
    sys.exit(main())
