"""What many kernels cost: open and close sessions one after another, and look at what is left of them.

Run by hand: `python -m benchmarks.kernel_sessions 500`
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
import time
from pathlib import Path
from statistics import median

from lagentlike.actions import IPythonInterpreter

__all__ = ["main"]

WARM_UP = 200
"""Sessions before the first look: until then modules are imported, and the allocator takes its last arena of 1 MiB."""

TOLERANCE = 0.02
"""Share by which anything may be more after all sessions than before them."""


def main() -> int:
    """Print what a session takes, and what this process holds before and after; 1 if that is more than before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sessions", type=int, nargs="?", default=500)
    sessions = parser.parse_args().sessions
    interpreter = IPythonInterpreter()
    for session_id in range(WARM_UP):
        _open_and_close(interpreter, session_id)
    before = _held()
    times = [_open_and_close(interpreter, WARM_UP + number) for number in range(sessions)]
    after = _held()
    starts, cells = (median(column) for column in zip(*times, strict=True))
    print(f"sessions {sessions}, first cell {starts:.2f} s, next cell {1000 * cells:.1f} ms (medians)")
    for name, value in after.items():
        print(f"{name:12} {before[name]:>8} -> {value:>8}  {_growth(before[name], value):+.2%}")
    return int(any(_growth(before[name], value) > TOLERANCE for name, value in after.items()))


def _open_and_close(interpreter: IPythonInterpreter, session_id: int) -> tuple[float, float]:
    """Run two cells in a new session; the seconds each took."""
    started = time.perf_counter()
    interpreter({"command": "x = 1"}, session_id=session_id)
    ready = time.perf_counter()
    interpreter({"command": "x + 1"}, session_id=session_id)
    done = time.perf_counter()
    interpreter.reset(session_id)
    interpreter.close(session_id)
    return ready - started, done - ready


def _growth(before: int, after: int) -> float:
    return (after - before) / max(before, 1)


def _held() -> dict[str, int]:
    """What this process holds: descriptors, threads, child processes, objects, resident memory in KiB."""
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
        "objects": len(gc.get_objects()),
        "memory KiB": int(memory),
    }


if __name__ == "__main__":
    sys.exit(main())
