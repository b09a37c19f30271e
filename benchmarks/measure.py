"""Run one workload with one client in this process and print what it took as a line of JSON.

Run by hand: `python -m benchmarks.measure raw W1 http://127.0.0.1:8000`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from benchmarks.workloads import Clock, Timing, warm_up, Workload, WORKLOADS

__all__ = ["measure"]


async def measure(client_name: str, workload: Workload, address: str) -> Timing:
    """CPU and wall time of `workload` done by a client, after a few calls that are not counted."""
    module = importlib.import_module(f"benchmarks.clients.{client_name}")
    path = workload.path.format(tools=module.TOOL_FORMAT)
    client = module.Client(f"{address}/{path}/v1/chat/completions")
    try:
        await warm_up(client, workload)
        gc.collect()
        clock = Clock()
        await workload.run(client, clock)
        return clock.stop()
    finally:
        await client.close()


def _peak_memory_mb() -> float:
    """The most memory this program held; `getrusage` would count the process it was forked from as well."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("client", help="a file of benchmarks/clients/, without .py")
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("address", help="of the server, as http://127.0.0.1:PORT")
    parser.add_argument("--cpu", type=int, help="run on this processor only")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop's event loop")
    arguments = parser.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    factory = importlib.import_module("uvloop").new_event_loop if arguments.uvloop else None
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),  # Lagent prints
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        timing = runner.run(measure(arguments.client, WORKLOADS[arguments.workload], arguments.address))
    print(json.dumps(asdict(timing) | {"memory_mb": round(_peak_memory_mb(), 1)}))


if __name__ == "__main__":
    main()
