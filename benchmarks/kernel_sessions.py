"""What many kernels cost: open and close sessions one after another, and look at what is left of them.

Run by hand: `python -m benchmarks.kernel_sessions 500`
"""

from __future__ import annotations

import argparse
import gc
import os
import threading
import time
from pathlib import Path
from statistics import median

from lagentlike.actions import IPythonInterpreter

__all__ = ["main"]


def main() -> None:
    """Print the seconds a session takes, and descriptors, threads, processes and memory before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sessions", type=int, nargs="?", default=500)
    sessions = parser.parse_args().sessions
    interpreter = IPythonInterpreter()
    starts, cells = [], []
    before = None
    for session_id in range(sessions):
        started = time.perf_counter()
        interpreter({"command": "x = 1"}, session_id=session_id)
        ready = time.perf_counter()
        interpreter({"command": "x + 1"}, session_id=session_id)
        starts.append(ready - started)
        cells.append(time.perf_counter() - ready)
        interpreter.reset(session_id)
        interpreter.close(session_id)
        if session_id == 4:  # what is loaded once is loaded by now
            before = _held()
    print(f"sessions {sessions}, first cell {median(starts):.2f} s, next cell {1000 * median(cells):.1f} ms (medians)")
    after = _held()
    for name, value in after.items():
        print(f"{name:12} {before[name] if before else '-':>8} -> {value:>8}")


def _held() -> dict[str, int]:
    """What this process holds: descriptors, threads, child processes, resident memory in KiB."""
    gc.collect()
    time.sleep(1)
    mine = Path("/proc/self")
    children = sum(
        stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()) for stat in Path("/proc").glob("[0-9]*/stat")
    )
    memory = next(line.split()[1] for line in (mine / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return {
        "descriptors": len(list((mine / "fd").iterdir())),
        "threads": threading.active_count(),
        "processes": children,
        "memory KiB": int(memory),
    }


if __name__ == "__main__":
    main()
