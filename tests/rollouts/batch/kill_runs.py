"""Kill a batch run with SIGKILL again and again, resume it, and check that no sample is lost or there twice.

`python tests/rollouts/batch/kill_runs.py 100` kills a hundred times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent

RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import making
from lagentlike.rollouts.batch import run_batch
if __name__ == "__main__":
    workers = int(sys.argv[4])
    run_batch(making.make, sys.argv[2], "run", folder=sys.argv[3], num_workers=workers, batch_size=4,
              num_samples=2, resume=True)
"""


def command(dataset: Path, folder: Path, workers: int) -> list[str]:
    script = folder / "run.py"
    script.write_text(RUN)
    return [sys.executable, str(script), str(HERE), str(dataset), str(folder), str(workers)]


def acknowledged(journal: Path) -> set[bytes]:
    """The done lines that are whole."""
    if not journal.exists():
        return set()
    return {line[17:] for line in journal.read_bytes().splitlines(keepends=True) if b"done" in line and line[-1] == 10}


def kill_runs(folder: Path, kills: int, rows: int, workers: int, seed: int = 0) -> dict[str, int]:
    """Kill runs until so many were killed after they had appended; a run that comes to its end is begun anew.

    Returns:
        How many were killed after an append, how many before, and how many runs came to their end.
    """
    sys.path.insert(0, str(HERE))
    import making

    rng = random.Random(seed)
    counts = {"after": 0, "before": 0, "ended": 0, "acknowledged": 0}
    expected = Counter({f"echo say {place}": 2 for place in range(rows)})
    ids: list[str] | None = None
    while counts["after"] < kills:
        round_folder = folder / f"round-{counts['ended']}"
        round_folder.mkdir(exist_ok=True)
        dataset = making.prompts(round_folder / "rows.jsonl", rows)
        run = round_folder / "run"
        journal, records = run / "journal.log", run / "records" / "trajectories.jsonl"
        before, known = records.stat().st_size if records.exists() else 0, acknowledged(journal)
        with subprocess.Popen(command(dataset, round_folder, workers)) as process:
            delay = rng.uniform(0, 0.15)
            while process.poll() is None:
                if records.exists() and records.stat().st_size > before:
                    time.sleep(delay)
                    break
                time.sleep(0.001)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            code = process.wait()
        lost = known - acknowledged(journal)
        assert not lost, f"{len(lost)} acknowledged samples are gone"
        if code == -signal.SIGKILL:
            counts["after" if records.exists() and records.stat().st_size > before else "before"] += 1
            continue
        assert code == 0, f"the run ended with {code}"
        found = making.check_run(run, expected)
        assert ids in (None, found), "ids differ from run to run"
        ids = found
        counts["ended"] += 1
        counts["acknowledged"] += len(found)
    return counts


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        kills, workers = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
        began = time.time()
        sys.stdout.write(f"{kill_runs(Path(place), kills, 150, workers, os.getpid())} in {time.time() - began:.0f} s\n")
