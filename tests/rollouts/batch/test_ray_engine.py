"""Batches on a real Ray cluster of several node processes: the files of a local run, whatever dies on the way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.agents import Agent
from lagentlike.errors import ClusterLost, InvalidArgument
from lagentlike.records import read_records, records_beside
from lagentlike.rollouts.batch import BatchSettings, RayEngine, run_batch
from lagentlike.rollouts.batch.journal import read_journal
from lagentlike.rollouts.batch.pool import WorkersFailed

from ...ray_cluster import ray_nodes, RayNodes
from .making import broken, check_run, make, placed, prompts, steady, write_rows

pytest.importorskip("ray", reason="needs the extra 'ray'")

WORKER = "ray::_RayWorker"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    with ray_nodes(2) as nodes:
        yield nodes


def test_the_files_are_those_of_a_local_run(cluster: RayNodes, tmp_path: Path) -> None:
    rows = prompts(tmp_path / "rows.jsonl", 40)
    expected = Counter({f"echo say {place}": 2 for place in range(40)})
    engine = RayEngine(cluster.address)
    run_batch(make, rows, "local", folder=tmp_path, num_samples=2)
    result = run_batch(make, rows, "ray", folder=tmp_path, num_samples=2, engine=engine, num_workers=2)
    assert (result.done, result.set_aside, result.stopped_by) == (80, 0, None)
    assert check_run(tmp_path / "ray", expected) == check_run(tmp_path / "local", expected)


def test_workers_are_on_several_nodes(cluster: RayNodes, tmp_path: Path) -> None:
    rows = prompts(tmp_path / "rows.jsonl", 40)
    engine = RayEngine(cluster.address)
    run_batch(placed, rows, "run", folder=tmp_path, engine=engine, num_workers=2, batch_size=2)
    records = read_records(records_beside(tmp_path / "run" / "trajectories.jsonl"))
    assert {record.messages[-1].content for record in records} == {node.node_id for node in cluster.nodes}


def test_failures_are_told_as_on_this_machine(cluster: RayNodes, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": text} for text in ("fail", "die", "say 1", "say 2")])
    engine = RayEngine(cluster.address)
    result = run_batch(make, rows, "run", folder=tmp_path, engine=engine, num_workers=2, max_attempts=1)
    told = {entry["row"]: entry["error"] for entry in result.statistics["set_aside"]}
    assert (result.done, sorted(told)) == (2, [0, 1])
    assert told[0] == "RuntimeError: no luck with fail"
    assert told[1].startswith("WorkerDied: the worker that ran it alone ended (Worker")
    with pytest.raises(WorkersFailed, match="there is no model here"):
        run_batch(broken, rows, "broken", folder=tmp_path, engine=engine, num_workers=2)


def test_nothing_is_lost_or_doubled_while_workers_and_nodes_are_killed(cluster: RayNodes, tmp_path: Path) -> None:
    rows = prompts(tmp_path / "rows.jsonl", 600)
    ended: list[Any] = []
    options = {"folder": tmp_path, "engine": RayEngine(cluster.address), "num_workers": 2, "batch_size": 4}
    run = threading.Thread(target=lambda: ended.append(run_batch(steady, rows, "run", **options)))  # type: ignore[arg-type]
    run.start()
    records = tmp_path / "run" / "records" / "trajectories.jsonl"
    rng, kills = random.Random(0), 0
    while run.is_alive() and kills < 4:
        size = records.stat().st_size if records.exists() else 0
        run.join(1.5)
        workers = cluster.workers(WORKER)
        if not workers or not records.exists() or records.stat().st_size == size:
            continue  # a kill before the first samples proves nothing
        if kills == 2:
            cluster.kill_node(rng.choice(cluster.nodes))
            cluster.add_node()
        else:
            os.kill(rng.choice(workers), signal.SIGKILL)
        kills += 1
    run.join(90)
    assert not run.is_alive(), "the run hangs"
    (result,) = ended
    assert kills == 4
    assert (result.done, result.set_aside) == (600, 0)
    assert result.statistics["worker_restarts"] >= 3
    check_run(tmp_path / "run", Counter(f"echo say {place}" for place in range(600)))


SCRIPT = """
import sys
from lagentlike import cluster
from lagentlike.cli import main

cluster.LOST_AFTER = 3.0
if __name__ == "__main__":
    sys.exit(main(["batch", *sys.argv[1:]]))
"""

AGENT = """
from lagentlike.agents import AsyncAgent
from lagentlike.llms import AsyncScriptedLLM

def make():
    return AsyncAgent(AsyncScriptedLLM(lambda messages, params: messages[-1]["content"], latency=0.1))
"""


def command(place: Path, *more: str) -> list[str]:
    (place / "script.py").write_text(SCRIPT)
    (place / "agents.py").write_text(AGENT)
    options = ["--dataset_file=rows.jsonl", "--run_name=run", "--agent=agents.py:make", "--batch_size=4", "--resume"]
    return [sys.executable, "script.py", *options, *more]


def done(place: Path) -> set[str]:
    journal = place / "data" / "run" / "journal.log"
    return {entry["key"] for entry in read_journal(journal, []) if entry["kind"] == "done"}


def started(place: Path, *more: str) -> subprocess.Popen[str]:
    """A run in a process of its own that has made its first samples."""
    known = len(done(place))
    process = subprocess.Popen(command(place, *more), cwd=place, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and len(done(place)) == known:
        assert time.monotonic() < deadline, "nothing is done"
        time.sleep(0.05)
    return process


def test_the_command_stops_in_good_order_and_says_when_the_head_is_gone(cluster: RayNodes, tmp_path: Path) -> None:
    prompts(tmp_path / "rows.jsonl", 400)
    on_ray = ("--engine=ray", f"--ray_address={cluster.address}", "--num_workers=2")
    with started(tmp_path, *on_ray) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    stopped = done(tmp_path)

    with started(tmp_path, *on_ray) as process:
        cluster.kill_head()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 69
    assert "the head of the Ray cluster" in told
    assert "run the same command with --resume" in told
    interrupted = done(tmp_path)
    assert stopped < interrupted

    assert subprocess.run(command(tmp_path, "--batch_size=100"), cwd=tmp_path, timeout=60).returncode == 0
    assert interrupted < done(tmp_path)
    check_run(tmp_path / "data" / "run", Counter(f"say {place}" for place in range(400)))


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"engine": "slurm"}, InvalidArgument, "engine='slurm': give 'local', 'ray', or a RayEngine"),
        ({"engine": "ray", "num_workers": 0}, InvalidArgument, "num_workers=0: on a cluster give"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        BatchSettings("rows.jsonl", "run", **options)


@pytest.mark.parametrize(
    ("address", "error"),
    [("127.0.0.1:1", ClusterLost), ("ray://127.0.0.1:1", InvalidArgument), ("head", InvalidArgument)],
)
def test_an_address_without_a_cluster_is_told_at_once(tmp_path: Path, address: str, error: type[Exception]) -> None:
    rows = prompts(tmp_path / "rows.jsonl", 1)
    with pytest.raises(error, match="address="):
        run_batch(make, rows, "run", folder=tmp_path, engine=RayEngine(address), num_workers=1)
    with pytest.raises(InvalidArgument, match="num_gpus=-1"):
        RayEngine(num_gpus=-1)


def test_an_agent_object_cannot_go_to_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="give a function that makes agents"):
        run_batch(Agent(), prompts(tmp_path / "rows.jsonl", 1), "run", folder=tmp_path, engine="ray", num_workers=1)
