"""A run that is killed at any moment goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lagentlike.errors import StateError
from lagentlike.training import Objective, read_metrics

RUN = """
import asyncio
import random

from lagentlike import AsyncAgent
from lagentlike.rollouts import reward
from lagentlike.training import AdamW, Critic, Policy, RLTrainer


@reward
def even(trajectory):
    [segment] = trajectory.segments
    return sum(i % 2 == 0 for i in segment.ids[-4:]) / 4


class Uneven(AsyncAgent):
    # takes now more, now less time before it asks, so that other chains are decoded together each time

    async def forward(self, *message, session_id=0, **kwargs):
        await asyncio.sleep(random.SystemRandom().random() * 0.01)
        return await super().forward(*message, session_id=session_id, **kwargs)


def run(small, out, objective, at_once, on_step=None, critic=False):
    policy = Policy(small, adamw=AdamW(lr=1e-2))
    agent = Uneven(policy.llm(max_new_tokens=4))
    queries = ["one?", "two?", "three?"]
    trainer = RLTrainer(
        policy, agent, queries, even, objective, held_out=["four?"], batch=2, group=3, evaluate_every=2,
        checkpoint_every=2, steps=8, out=out, resume=True, rollout_options={"max_concurrency": int(at_once)},
        on_step=on_step, critic=Critic(policy) if critic else None,
    )
    trainer.train()
"""

TELL_AND_WAIT = """
import sys, time

def tell(metrics):
    print("step", metrics["step"], flush=True)
    time.sleep(metrics["step"] >= 5 and 60)

run(*sys.argv[1:], tell)
"""


def states(*runs: Path) -> list[dict[str, torch.Tensor]]:
    """The trained weights of runs."""
    return [torch.load(run / "checkpoint.pt", weights_only=True)["policy"]["trained"] for run in runs]


@pytest.mark.parametrize(
    ("model", "algorithm", "at_once"),
    [("small", "grpo", 64), ("small", "reinforce", 64), ("foreign", "ppo", 64)],
)
def test_a_run_killed_in_the_middle_goes_on_as_if_nothing_had_been(
    model: str, algorithm: str, at_once: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder, killed_at = request.getfixturevalue(model), tmp_path / "killed"
    words = [str(folder), str(killed_at), algorithm, str(at_once)]
    with subprocess.Popen(
        [sys.executable, "-c", RUN + TELL_AND_WAIT, *words], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if line == "step 5\n":
                os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait(60) == -signal.SIGKILL
    assert not (killed_at / "model").exists()
    assert len(read_metrics(killed_at / "metrics.jsonl")) == 6  # one more than the last checkpoint knows of

    program: dict[str, Any] = {}
    exec(RUN, program)
    told: list[float] = []
    program["run"](folder, killed_at, algorithm, at_once, lambda metrics: told.append(metrics["step"]))
    program["run"](folder, tmp_path / "whole", algorithm, at_once)
    assert told == [5, 6, 7, 8]  # from the last checkpoint on
    runs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "killed")]
    inexact = ("second", "ratio") if at_once > 1 else ("second",)  # the ratio told is to what was stored when sampling
    same = [[{k: v for k, v in row.items() if not any(part in k for part in inexact)} for row in run] for run in runs]
    assert [row["step"] for row in runs[1]] == list(range(9))
    assert same[0] == same[1]
    whole, went_on = states(tmp_path / "whole", killed_at)
    for name, value in whole.items():
        assert torch.equal(value, went_on[name]), name


@pytest.mark.parametrize("critic", [False, True])
def test_runs_with_chains_side_by_side_are_the_same_to_the_bit(small: Path, tmp_path: Path, critic: bool) -> None:
    program: dict[str, Any] = {}
    exec(RUN, program)
    for name in ("one", "other"):
        program["run"](small, tmp_path / name, Objective("ppo", updates=2, kl=0.01), 64, critic=critic)
    one, other = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "other"))
    for name in ("reward", "eval/reward", "turns", "tokens", "loss", "grad_norm", "kl", "value_loss"):
        assert [row.get(name) for row in one] == [row.get(name) for row in other]
    assert max(row["ratio_off"] for row in one[1:]) > 0  # what was stored differs by rounding all the same
    mine, others = states(tmp_path / "one", tmp_path / "other")
    for name, value in mine.items():
        assert torch.equal(value, others[name]), name


def test_a_checkpoint_is_written_whole_or_not_at_all(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lagentlike.training import conversation, Policy, SFTTrainer

    policy = Policy(small)
    shown = [conversation(policy, [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}])]
    trainer = SFTTrainer(policy, shown, out=tmp_path, steps=1)
    trainer.train()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    real = torch.save

    def full_disk(state: object, file: object) -> None:
        real({"half": 1}, file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        trainer.save_checkpoint(tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_a_file_that_is_no_checkpoint_is_refused_without_bad_advice(small: Path, tmp_path: Path) -> None:
    from lagentlike.training import conversation, Policy, SFTTrainer

    (tmp_path / "checkpoint.pt").write_bytes(b"garbage")
    policy = Policy(small)
    lesson = conversation(policy, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    with pytest.raises(StateError, match="no checkpoint of a trainer") as refused:
        SFTTrainer(policy, [lesson], steps=1, out=tmp_path, resume=True).train()
    assert "weights_only" not in str(refused.value)
