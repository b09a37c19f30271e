"""Runs of environments: groups to a trainer over our own API, groups in a file, and the command line for both."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lagentlike.cli import main
from lagentlike.envs import AgentEnv, AgentEnvConfig, ScoredGroup, TrajectoryClient, TrajectoryServer
from lagentlike.envs.runs import RunSummary
from lagentlike.errors import EnvironmentFailed, InvalidArgument, TrajectoryAPIError
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.schema import Completion, TokenSpan
from lagentlike.tools import ToolRegistry

from .conftest import EXAMPLES, Notes, writes

ARITHMETIC = str(EXAMPLES / "arithmetic.py")


class Counts(AgentEnv[AgentEnvConfig]):
    """Tasks 0, 1, 2, …, of which a try is worth what `score_of(task, number)` gives; what it raises is a failure."""

    name = "counts"

    def __init__(self, score_of: Callable[[int, int], float], tasks: int = 1000, **config: Any) -> None:
        numbers = count()

        def answer(messages: Any, params: Any) -> Completion:
            number = next(numbers)
            return Completion(str(number), tokens=TokenSpan([3, number % 7], [-0.5, -0.25], prompt_ids=[1, 2]))

        settings = {"group_size": 2, "total_steps": -1, **config}
        super().__init__(AgentEnvConfig(**settings), AsyncScriptedLLM(answer))
        self.score_of = score_of
        self.left = list(range(tasks))
        self.tries: dict[int, int] = {}
        self.evaluated = 0

    def build_tools(self) -> ToolRegistry:
        return ToolRegistry()

    async def setup_agent_env(self) -> None: ...

    async def get_next_item(self) -> int | None:
        return self.left.pop(0) if self.left else None

    def build_task(self, item: int) -> str:
        return f"Task {item}"

    async def score_trajectory(self, item: int, final_response: str) -> float:
        self.tries[item] = self.tries.get(item, 0) + 1
        return self.score_of(item, self.tries[item] - 1)

    async def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self.evaluated += 1
        return {"eval/score": 0.5}


def second_is_right(item: int, number: int) -> float:
    return float(number)


async def trained(env: Counts, steps: int = 2, **trainer: Any) -> tuple[RunSummary, list[list[ScoredGroup]]]:
    """Let an environment serve a trainer of that many steps."""
    async with TrajectoryServer(port=0) as server:
        api = TrajectoryClient(server.url)
        await api.register(**{"batch_size": 4, "max_token_len": 64, "num_steps": steps, **trainer})
        assert await api.batch() is None
        serving = asyncio.create_task(env.serve(server.url))
        batches: list[list[ScoredGroup]] = []
        while len(batches) < steps:
            over = serving.done()
            batch = await api.batch()
            if batch is not None:
                batches.append(batch)
            elif over:
                break
            await asyncio.sleep(0.01)
        return await asyncio.wait_for(serving, 60), batches


async def test_it_serves_until_the_trainer_has_made_its_steps_and_no_more_than_that(no_leaks: None) -> None:
    env = Counts(second_is_right)
    summary, batches = await trained(env, steps=3)
    assert [sum(group.rows for group in batch) for batch in batches] == [4, 4, 4]
    assert all(sorted(group.scores) == [0.0, 1.0] for batch in batches for group in batch)
    assert batches[0][0].masks == [[-100, -100, 3, mask[3]] for mask in batches[0][0].masks]
    assert batches[0][0].messages is None
    assert (summary.steps, summary.failed, summary.alike, summary.mean_score) == (3, 0, 0, 0.5)
    assert 6 <= summary.groups <= 6 + 3 * 2, "at most max_batches_offpolicy batches wait"


async def test_groups_that_teach_nothing_or_do_not_fit_are_left_out() -> None:
    summary, batches = await trained(Counts(lambda item, number: float(item % 2 and number), tasks=8), steps=5)
    assert (summary.groups, summary.alike) == (4, 4)
    assert len(batches) == 2
    summary, batches = await trained(Counts(second_is_right, tasks=4), steps=1, max_token_len=3)
    assert (summary.groups, summary.too_long, batches) == (0, 4, [])


async def test_a_broken_environment_is_counted_and_the_others_are_sent() -> None:
    def score(item: int, number: int) -> float:
        if item % 2:
            raise OSError("no judge")
        return float(number)

    env = Counts(score, tasks=8)
    summary, _ = await trained(env, steps=2)
    assert summary.failed > 0
    assert len(env.failures) == summary.failed
    assert "no judge" in env.failures[0][1]


async def test_a_model_without_tokens_cannot_be_trained_and_that_is_told() -> None:
    env = Notes(writes("echo done > note.txt"), ["x"], ensure_scores_are_not_same=False, total_steps=-1)
    summary, _ = await trained(env, steps=1)  # type: ignore[arg-type]  # any environment
    assert (summary.groups, summary.failed) == (0, 1)
    assert "gives no token ids" in env.failures[0][1]


async def test_a_group_that_takes_too_long_is_given_up() -> None:
    env = Notes(writes("sleep 60"), ["x"], worker_timeout=0.5, total_steps=-1)
    summary, _ = await trained(env, steps=1)  # type: ignore[arg-type]  # any environment
    assert summary.failed == 1
    assert "worker_timeout" in env.failures[0][1]


async def test_it_evaluates_every_so_many_steps() -> None:
    env = Counts(second_is_right, steps_per_eval=1)
    summary, _ = await trained(env, steps=3)
    assert env.evaluated >= 1
    assert summary.evaluations
    assert summary.evaluations[0][1] == {"eval/score": 0.5}


async def test_an_evaluation_that_fails_does_not_end_the_run() -> None:
    class Unlucky(Counts):
        async def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            raise EnvironmentFailed("no data set")

    env = Unlucky(second_is_right, steps_per_eval=1)
    summary, _ = await trained(env, steps=3)
    assert (summary.steps, summary.evaluations) == (3, [])
    assert ("evaluate()", "EnvironmentFailed: no data set") in env.failures


async def test_an_api_that_was_killed_and_started_again_is_told_of_the_environment_again() -> None:
    env = Counts(second_is_right)
    async with TrajectoryServer(port=0) as server:
        api = TrajectoryClient(server.url)
        await api.register(batch_size=4, max_token_len=64)
        assert await api.batch() is None
        serving = asyncio.create_task(env.serve(server.url))
        assert sum(group.rows for group in await api.wait_for_batch(30)) == 4
    async with TrajectoryServer(port=server.port):  # another one, which knows nobody
        await api.register(batch_size=6, max_token_len=64, starting_step=7, num_steps=9)
        batches = [await api.wait_for_batch(60) for _ in range(2)]
        summary = await asyncio.wait_for(serving, 60)
    assert [sum(group.rows for group in batch) for batch in batches] == [6, 6]
    assert {group.env_id for batch in batches for group in batch} == {0}
    assert summary.steps == 9


async def test_a_group_that_the_api_does_not_take_is_left_out_and_the_run_goes_on() -> None:
    env = Counts(second_is_right, tasks=6)
    collect = env.collect_trajectories

    async def poisoned(item: Any) -> Any:
        group, again = await collect(item)
        assert isinstance(group, dict)
        if item == 1:
            group["masks"][0].pop()
        return group, again

    env.collect_trajectories = poisoned  # type: ignore[method-assign]
    summary, batches = await trained(env, steps=2)
    assert (summary.failed, len(batches)) == (1, 2)
    assert "masks[0] has 3 items and tokens[0] has 4" in env.failures[0][1]


async def test_what_cannot_work_is_told_at_once() -> None:
    with pytest.raises(InvalidArgument, match="make groups smaller"):
        await trained(Counts(second_is_right, group_size=8))
    async with TrajectoryServer(port=0) as server:
        url = server.url
    client_gives_up = Counts(second_is_right)
    with pytest.raises(TrajectoryAPIError, match="register-env"):
        await asyncio.wait_for(client_gives_up.serve(url), 60)


@pytest.mark.parametrize(("score", "most"), [(1.0, 64), (None, 3)])
async def test_that_nothing_can_be_sent_is_told(
    score: float | None, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    env = Counts(second_is_right if score is None else lambda item, number: score, tasks=5)
    async with TrajectoryServer(port=0) as server:
        api = TrajectoryClient(server.url)
        await api.register(batch_size=4, max_token_len=most, num_steps=3)
        await api.batch()
        summary = await env.serve(server.url)
    assert (summary.groups, summary.alike, summary.too_long) == (0, 5 * (score is not None), 5 * (score is None))
    told = "4 were left out as all" if score is not None else "and 4 as they had a row of more tokens than the 3"
    assert told in caplog.text


async def test_groups_are_written_with_a_page_beside_them(tmp_path: Path) -> None:
    def score(item: int, number: int) -> float:
        if item == 1:
            raise OSError("no judge")
        return float(number)

    path = tmp_path / "groups.jsonl"
    for expected in ("groups.jsonl", "groups_1.jsonl"):
        summary = await Counts(score).process(3, path)
        assert summary.path == tmp_path / expected, "what is there is not touched"
        assert (summary.groups, summary.failed) == (2, 1)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted(line["item"] for line in lines) == [0, 2]
    for line in lines:
        group = ScoredGroup.read(line)
        assert group.messages is not None
        assert group.messages[0][1]["content"] == f"Task {line['item']}"
    [failure] = (tmp_path / "groups.failures.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(failure)["item"] == 1
    assert "no judge" in json.loads(failure)["error"]
    page = (tmp_path / "groups.html").read_text(encoding="utf-8")
    shown = [f"<i class=none>0</i><i class=good>1</i> Task {line['item']}</summary>" for line in lines]
    assert all(group in page for group in shown), "one group for each line"


async def test_nothing_that_a_model_says_is_more_than_text_on_the_page(tmp_path: Path) -> None:
    env = Notes(["<script>alert(1)</script>"] * 2, ["<img src=x>"])
    summary = await env.process(5, tmp_path / "x.jsonl")
    assert summary.groups == 1, "there are no more tasks"
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_command_line_writes_and_evaluates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sums.jsonl"
    target = f"{ARITHMETIC}:Arithmetic"
    assert main(["env", "process", target, "--groups", "2", "--out", str(out), "--set", "group_size=2"]) == 0
    assert "2 groups of 4 rows" in capsys.readouterr().out
    assert len(out.read_text(encoding="utf-8").splitlines()) == 2
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"digits": 1, "data_dir_to_save_evals": str(tmp_path / "evals")}), encoding="utf-8")
    assert main(["env", "evaluate", target, "--config", str(config), "--temperature", "0"]) == 0
    assert "eval/right: " in capsys.readouterr().out
    saved = json.loads((tmp_path / "evals" / "metrics.json").read_text(encoding="utf-8"))
    assert saved["results"]["all"] == saved["results"]["atropos|arithmetic_eval|0"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["env", "process"], "name the environment"),
        (["env", "process", "json:dumps"], "no class derived from AgentEnv"),
        (["env", "process", f"{ARITHMETIC}:Arithmetic", "--set", "digitz=1"], "digitz"),
        (["env", "process", f"{ARITHMETIC}:Arithmetic", "--set", "digits"], "NAME=VALUE"),
        (["env", "process", f"{ARITHMETIC}:Sums"], "has no 'Sums'; its classes of AgentEnv are Arithmetic"),
        (["env", "process", f"{ARITHMETIC}:Arithmetic", "--groups", "0"], "groups=0: give how many tasks, at least 1"),
        (["env", "serve", f"{ARITHMETIC}:Arithmetic", "--trainer", "here"], "such as http://127.0.0.1:8000"),
        (["env", "serve", f"{ARITHMETIC}:Arithmetic", "--set", "group_size=1"], "ensure_scores_are_not_same=False"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) != 0
    assert told in capsys.readouterr().err


def test_an_environment_has_a_command_line_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], example: Callable[[str], ModuleType]
) -> None:
    out = tmp_path / "sums.jsonl"
    example("arithmetic").Arithmetic.cli(["process", "--groups", "1", "--out", str(out)])
    assert "1 groups of 4 rows" in capsys.readouterr().out


def test_the_trajectory_api_runs_as_a_command_until_it_is_told_to_stop() -> None:
    command = [sys.executable, "-u", "-m", "lagentlike.cli", "env", "api", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "the trajectory API at http://127.0.0.1:" in line
        url = next(word for word in line.replace(",", " ").split() if word.startswith("http"))

        assert asyncio.run(TrajectoryClient(url).status()) == {"current_step": 0, "queue_size": 0}
        process.terminate()
        assert process.wait(30) == 0
