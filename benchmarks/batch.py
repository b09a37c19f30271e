"""Measure what a batch run costs besides waiting: `python -m benchmarks.batch`.

Prompts are sent to a local server that takes 50 ms for an answer, 500 at once. The ideal wall time is that of the
waiting alone; CPU time is compared with a bare `aiohttp` loop that puts lines of the same length on the disk, three for
each sample, and waits for the disk once for all that came in meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

from lagentlike.agents import AsyncAgent
from lagentlike.llms import AsyncGPTAPI
from lagentlike.llms.transport import TransportOptions
from lagentlike.records import LineFile, read_records, records_beside
from lagentlike.records.files import sharegpt_line
from lagentlike.rollouts.batch import run_batch
from lagentlike.rollouts.batch.dataset import Dataset
from lagentlike.rollouts.batch.journal import journal_line
from lagentlike.rollouts.batch.keys import content_hash

__all__ = ["main"]

LATENCY_S = 0.05


def agent(url: str, at_once: int) -> AsyncAgent:
    """What a worker runs."""
    llm = AsyncGPTAPI("fake", key=None, api_base=url, transport=TransportOptions(max_connections=at_once))
    return AsyncAgent(llm, "Be brief.")


def batch(folder: Path, url: str, at_once: int, workers: int, max_samples: int | None = None) -> None:
    """The run that is measured."""
    run_batch(
        partial(agent, url, at_once // max(1, workers)),
        folder / "rows.jsonl",
        "run",
        folder=folder,
        num_workers=workers,
        batch_size=at_once // max(1, workers),
        max_samples=max_samples,
        resume=True,
    )


async def raw(folder: Path, url: str, at_once: int) -> None:
    """The same requests, and lines of the same length, without anything else."""
    prompts = iter((folder / "rows.jsonl").read_text().splitlines())
    lengths = json.loads((folder / "lengths.json").read_text())
    pads = [b"x" * length for length in lengths]
    waiting: list[bytes] = []
    over = asyncio.Event()
    files = [LineFile(folder / f"raw-{name}") for name in ("records", "derived", "journal")]

    async def ask(session: aiohttp.ClientSession) -> None:
        for line in prompts:
            messages = [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": json.loads(line)["prompt"]},
            ]
            async with session.post(url, json={"model": "fake", "messages": messages}) as response:
                answer = json.loads(await response.read())
            waiting.append(json.dumps({**answer, "messages": messages}).encode())

    async def write() -> None:
        while not (over.is_set() and not waiting):
            group = waiting[:]
            waiting.clear()
            for file, pad in zip(files, pads, strict=True):
                await asyncio.to_thread(file.append, [(line + pad)[: len(pad)] for line in group])
            await asyncio.sleep(0.002)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:
        writing = asyncio.create_task(write())
        await asyncio.gather(*(ask(session) for _ in range(at_once)))
        over.set()
        await writing
    for file in files:
        file.close()


def measured(command: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of a process with its children, and the most memory one of them held, in MB."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, start_new_session=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _held(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": time.perf_counter() - began, "cpu": cpu, "peak_mb": peak / 1024}


def _held(session: int) -> int:
    """KiB of memory that the processes of a session hold."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    found = re.search(r"VmRSS:\s+(\d+)", (entry / "status").read_text())
                    total += int(found[1]) if found else 0
            except (OSError, ProcessLookupError):
                continue
    return total


def compare(number: int, at_once: int, workers: int) -> dict[str, Any]:
    """One round of both; the time that a program takes for a handful of prompts is taken off."""
    with tempfile.TemporaryDirectory() as place, _server() as url:
        figures: dict[str, dict[str, float]] = {}
        lengths: list[int] = []
        for count in (10, number):
            folder = Path(place) / str(count)
            folder.mkdir()
            _write_rows(folder, count)
            arguments = [str(folder), url, str(at_once), str(workers)]
            program = [sys.executable, "-m", "benchmarks.batch"]
            figures[f"batch-{count}"] = measured([*program, "--part", "batch", *arguments])
            lengths = [path.stat().st_size // count for path in _files(folder)]
            (folder / "lengths.json").write_text(json.dumps(lengths))
            figures[f"raw-{count}"] = measured([*program, "--part", "raw", *arguments])
    few, many = figures["batch-10"], figures[f"batch-{number}"]
    raw_few, raw_many = figures["raw-10"], figures[f"raw-{number}"]
    ideal = number / at_once * LATENCY_S
    return {
        "ideal_s": ideal,
        "wall_s": many["wall"] - few["wall"],
        "raw_wall_s": raw_many["wall"] - raw_few["wall"],
        "cpu_ms_a_sample": 1000 * (many["cpu"] - few["cpu"]) / number,
        "raw_cpu_ms_a_sample": 1000 * (raw_many["cpu"] - raw_few["cpu"]) / number,
        "cpu_ratio": (many["cpu"] - few["cpu"]) / (raw_many["cpu"] - raw_few["cpu"]),
        "peak_mb": many["peak_mb"],
        "peak_mb_of_10": few["peak_mb"],
        "bytes_a_sample": sum(lengths),
    }


def resume(number: int, left: int) -> dict[str, Any]:
    """What it takes to go on with a run of so many rows, of which all but a few are done."""
    with tempfile.TemporaryDirectory() as place, _server() as url:
        folder = Path(place)
        _write_rows(folder, number)
        _write_run(folder, url, number - left)
        program = [sys.executable, "-m", "benchmarks.batch", "--part", "batch", place, url, str(left), "1"]
        figures = measured(program)
        told = json.loads((folder / "run" / "statistics.json").read_text())
        if told["samples"]["done"] != number or told["resumed"]["done"] != number - left:
            raise RuntimeError(f"the run did not go on where it was: {told['samples']}, {told['resumed']}")
    return {"rows": number, "done_before": number - left, **figures, "cpu_us_a_row": 1e6 * figures["cpu"] / number}


def _write_rows(folder: Path, count: int) -> None:
    with (folder / "rows.jsonl").open("w") as file:
        file.writelines(json.dumps({"prompt": f"What do you say to number {n}?", "n": n}) + "\n" for n in range(count))


def _write_run(folder: Path, url: str, count: int) -> None:
    """A run of which so many samples are done, with the record of a real one for each."""
    batch(folder, url, 1, 1, max_samples=1)
    [record] = read_records(folder / "run" / "records" / "trajectories.jsonl")
    dataset = Dataset(folder / "rows.jsonl")
    files = [LineFile(path) for path in _files(folder)]
    samples = islice(dataset.samples(content_hash({"agent": "agent"}), 1, count), 1, None)
    while group := list(islice(samples, 10_000)):
        lines: list[list[bytes]] = [[], [], []]
        for sample in group:
            record.id = sample.key
            for made, line in zip(
                lines, (record.to_line(), sharegpt_line(record), journal_line("done", key=sample.key)), strict=True
            ):
                made.append(line)
        for file, made in zip(files, lines, strict=True):
            file.append(made)
    for file in files:
        file.close()


def _files(folder: Path) -> list[Path]:
    derived = folder / "run" / "trajectories.jsonl"
    return [records_beside(derived), derived, folder / "run" / "journal.log"]


class _server:  # noqa: N801  # it is used as a function
    """The local server in a process of its own."""

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server"], stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        return f"http://127.0.0.1:{port}/{LATENCY_S * 1000:g}ms/plain/v1/chat/completions"

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=10_000, help="prompts")
    parser.add_argument("--at-once", type=int, default=500, help="concurrency")
    parser.add_argument("--workers", type=int, default=1, help="worker processes; 0 for a thread")
    parser.add_argument("--resume", type=int, help="go on with a run of so many rows, all but ten of them done")
    parser.add_argument("--part", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.resume is not None:
        print(json.dumps(resume(options.resume, 10), indent=2))
        return
    if options.part is None:
        print(json.dumps(compare(options.number, options.at_once, options.workers), indent=2))
        return
    part, folder, url, at_once, workers = options.part
    if part == "batch":
        batch(Path(folder), url, int(at_once), int(workers))
    else:
        asyncio.run(raw(Path(folder), url, int(at_once)))


if __name__ == "__main__":
    main()
