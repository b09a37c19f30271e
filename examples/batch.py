"""A batch of sums that is killed on the way, goes on where it was, and has every answer checked.

The embedded model answers with its calculator, first in worker processes, then behind a server. Run it with a number
for more sums than a dozen: `python examples/batch.py 1000`.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from lagentlike.records import read_records, records_beside

COMMAND = [sys.executable, "-m", "lagentlike.cli"]


def sums(number: int) -> Path:
    """A file of prompts, each with its answer."""
    rng, path = random.Random(1), Path("sums.jsonl")
    with path.open("w") as file:
        for _ in range(number):
            first, second, sign = rng.randrange(2, 1000), rng.randrange(2, 100), rng.choice("+-*")
            answer = {"+": first + second, "-": first - second, "*": first * second}[sign]
            row = {"prompt": f"What is the result of {first} {sign} {second}?", "answer": answer}
            file.write(json.dumps(row) + "\n")
    return path


def run_killed(run: str, kills: int, number: int, *options: str) -> None:
    """Run a batch, kill it with SIGKILL a few times after it has written something, and let it come to its end."""
    command = [*COMMAND, "batch", "--dataset_file=sums.jsonl", f"--run_name={run}", "--batch_size=4", "--resume"]
    records = Path("data", run, "records", "trajectories.jsonl")
    for kill in range(1, kills + 1):
        with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and lines(records) < kill * number // (kills + 1):
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        print(f"{run}: killed with {lines(records)} of {number} samples written")
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines(path: Path) -> int:
    """How many lines a file has."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def check(run: str, number: int) -> None:
    """Look at every answer: of each row there is one, its calculator was called, and the number is right."""
    records = list(read_records(records_beside(Path("data", run, "trajectories.jsonl"))))
    rows = sorted(record.metadata["row"] for record in records)
    called = sum(any(message.tool_results for message in record.messages) for record in records)
    right = sum(
        re.findall(r"-?\d+", str(record.messages[-1].content).replace(",", ""))[-1:]
        == [str(record.metadata["input"]["answer"])]
        for record in records
    )
    each_once = rows == list(range(number))
    print(f"{run}: each row once: {each_once}; {called} of {number} called a tool, {right} of {number} are right")


def main(number: int) -> None:
    """Both runs."""
    sums(number)
    run_killed("here", 1 if number < 100 else 3, number)
    check("here", number)
    server = subprocess.Popen(
        [*COMMAND, "serve-model", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+/v1", server.stdout.readline())
        assert found is not None
        run_killed("served", 1 if number < 100 else 3, number, "--model=tinylm", f"--base_url={found[0]}")
        check("served", number)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
