"""Kill workers, nodes and the head of a Ray cluster under a batch run, and count what is lost and what is doubled.

    python -m benchmarks.ray_chaos 20        # minutes
    python -m benchmarks.ray_chaos 5 --every 3
    python -m benchmarks.ray_chaos 2 --agents       # actors of an `AgentRayActor` instead, under conversations

A real cluster of several node processes runs `lagentlike batch --engine ray`, again and again, each run in a folder of
its own. Every few seconds a worker or a whole node gets SIGKILL, seldom the runner itself; every tenth time the head,
after which a new cluster is started and the run goes on with `--resume`. Whenever a run ends, its files are checked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from lagentlike.agents import Agent
from lagentlike.errors import ActorLost
from lagentlike.llms import ScriptedLLM
from lagentlike.records import read_records, records_beside
from lagentlike.serving import AsyncAgentRayActor
from tests.ray_cluster import ray_nodes, RayNodes

ROWS, SAMPLES = 1500, 2
NODES = 2

AGENT = """
from lagentlike.agents import AsyncAgent
from lagentlike.llms import AsyncScriptedLLM

def make():
    return AsyncAgent(AsyncScriptedLLM(lambda messages, params: "echo " + messages[-1]["content"], latency=0.1))
"""


class Chaos:
    """Runs and the kills they suffer."""

    def __init__(self, folder: Path, every: float, seed: int) -> None:
        self._folder, self._every, self._random = folder, every, random.Random(seed)
        self._rounds = self._done = 0
        self.counts: Counter[str] = Counter()
        (folder / "agents.py").write_text(AGENT)
        (folder / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(ROWS)))
        self._cluster = RayNodes(NODES, cpus=2)
        self._process = self._start()

    def run(self, seconds: float) -> None:
        """Kill for so long, and then let the last run come to its end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._ends_within(self._every):
                self._finish()
                self._process = self._start()
            else:
                self._kill()
        if not self._ends_within(600):
            raise SystemExit("the last run does not end")
        self._finish()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._cluster.close()

    @property
    def _run(self) -> Path:
        return self._folder / "data" / f"run-{self._rounds}"

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lagentlike.cli", "batch", "--dataset_file=rows.jsonl", "--resume"]
        command += ["--agent=agents.py:make", f"--run_name={self._run.name}", f"--num_samples={SAMPLES}"]
        command += ["--engine=ray", f"--ray_address={self._cluster.address}", "--num_workers=3", "--batch_size=4"]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)

    def _ends_within(self, seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def _finish(self) -> None:
        """Check a run that came to its end, and make room for the next one."""
        if self._process.returncode:
            raise SystemExit(f"the run ended with {self._process.returncode}:\n{self._log()}")
        found = Counter(
            record.messages[-1].content for record in read_records(records_beside(self._run / "trajectories.jsonl"))
        )
        statistics = json.loads((self._run / "statistics.json").read_text())
        self.counts["runs"] += 1
        self.counts["samples"] += sum(found.values())
        self.counts["lost"] += sum(max(0, SAMPLES - found[f"echo say {place}"]) for place in range(ROWS))
        self.counts["doubled"] += sum(max(0, number - SAMPLES) for number in found.values())
        self.counts["set aside"] += statistics["samples"]["set_aside"]
        self._rounds, self._done = self._rounds + 1, 0

    def _log(self) -> str:
        return (self._folder / "log").read_text()[-3000:]

    def _kill(self) -> None:
        """Kill something, and note whether the run had made samples since the last time."""
        journal = self._run / "journal.log"
        size = journal.stat().st_size if journal.exists() else 0
        self.counts["kills after an append" if size > self._done else "kills before any append"] += 1
        self._done = size
        number = self.counts["kills"] = self.counts["kills"] + 1
        if number % 10 == 0:
            self._kill_head()
        elif number % 10 == 5:
            self.counts["runners killed"] += 1
            self._process.kill()
            self._process.wait()
            self._process = self._start()
        elif number % 3 == 0:
            self.counts["nodes killed"] += 1
            self._cluster.kill_node(self._random.choice(self._cluster.nodes))
            self._cluster.add_node()
        elif workers := self._cluster.workers("ray::_RayWorker"):
            self.counts["workers killed"] += 1
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(workers), signal.SIGKILL)

    def _kill_head(self) -> None:
        self.counts["heads killed"] += 1
        began = time.monotonic()
        self._cluster.kill_head()
        if not self._ends_within(90):
            raise SystemExit("the run outlives the head")
        self.counts[f"runs stopped by the loss of the head, exit code {self._process.returncode}"] += 1
        if self._process.returncode != 69:
            sys.stderr.write(self._log())
        self.counts["seconds until they stopped, in all"] += round(time.monotonic() - began)
        self._cluster.close()
        self._cluster = RayNodes(NODES, cpus=2)
        self._process = self._start()


SESSIONS = 12


def talker() -> Agent:
    """An agent that says how many messages it was shown."""
    return Agent(ScriptedLLM(lambda messages, params: str(len(messages))), name="talker")


async def talk(cluster: RayNodes, seconds: float, every: float, seed: int) -> Counter[str]:
    """Kill actors under conversations; every reply and, at the end, every session is checked."""
    counts: Counter[str] = Counter()
    end, rng = time.monotonic() + seconds, random.Random(seed)
    said: dict[int, list[str]] = {session: [] for session in range(SESSIONS)}

    async def converse(session: int) -> None:
        while time.monotonic() < end:
            text, expected = f"{session}, {len(said[session])}", str(2 * len(said[session]) + 1)
            try:
                reply = await agent(text, session_id=session)
            except ActorLost:
                counts["turns that failed with ActorLost, and were taken back"] += 1
                continue
            counts["replies that do not fit the session"] += reply.content != expected
            said[session].append(text)

    async def kill() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(every)
            if actors := cluster.workers("ray::AgentHost"):
                counts["actors killed"] += 1
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(actors), signal.SIGKILL)

    with AsyncAgentRayActor(talker, address=cluster.address, min_size=2, max_size=3) as agent:
        await asyncio.gather(kill(), *map(converse, said))
        for session, texts in said.items():
            kept = [message["content"] for message in agent.state_dict(session)["memory"]][::2]
            counts["turns"] += len(texts)
            counts["lost"] += len(set(texts) - set(kept))
            counts["doubled"] += len(kept) - len(set(kept))
    return counts


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="seconds between two kills (5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agents", action="store_true", help="kill the actors of agents, not those of a batch")
    options = parser.parse_args()
    if options.agents:
        with ray_nodes(NODES, cpus=2) as cluster:
            counts = asyncio.run(talk(cluster, options.minutes * 60, options.every, options.seed))
        sys.exit(_told(counts))
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder), options.every, options.seed)
        try:
            chaos.run(options.minutes * 60)
        finally:
            chaos.close()
            code = _told(chaos.counts)
    sys.exit(code)


def _told(counts: Counter[str]) -> int:
    """Print what was counted; 1 if it is not as it should be."""
    for name, count in sorted(counts.items()):
        sys.stdout.write(f"{count:8,} {name}\n")
    return int(any(counts[name] for name in ("lost", "doubled", "set aside", "replies that do not fit the session")))


if __name__ == "__main__":
    main()
