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

from lagentlike.training import read_metrics

RUN = """
from lagentlike import AsyncAgent
from lagentlike.rollouts import reward
from lagentlike.training import AdamW, Policy, RLTrainer


@reward
def even(trajectory):
    [segment] = trajectory.segments
    return sum(i % 2 == 0 for i in segment.ids[-4:]) / 4


def run(small, out, on_step=None):
    policy = Policy(small, adamw=AdamW(lr=1e-2))
    agent = AsyncAgent(policy.llm(max_new_tokens=4))
    queries = ["one?", "two?", "three?"]
    trainer = RLTrainer(
        policy, agent, queries, even, "reinforce", held_out=["four?"], batch=2, group=3, evaluate_every=2,
        checkpoint_every=2, steps=8, out=out, resume=True, rollout_options={"max_concurrency": 1}, on_step=on_step,
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


def test_a_run_killed_in_the_middle_goes_on_as_if_nothing_had_been(small: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN + TELL_AND_WAIT, str(small), str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if line == "step 5\n":
                os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait(60) == -signal.SIGKILL
    assert not (tmp_path / "killed/model").exists()
    assert len(read_metrics(tmp_path / "killed/metrics.jsonl")) == 6  # one more than the last checkpoint knows of

    program: dict[str, Any] = {}
    exec(RUN, program)
    told: list[float] = []
    program["run"](small, tmp_path / "killed", lambda metrics: told.append(metrics["step"]))
    program["run"](small, tmp_path / "whole")
    assert told == [5, 6, 7, 8]  # from the last checkpoint on
    runs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "killed")]
    timeless = [[{k: v for k, v in row.items() if "second" not in k} for row in run] for run in runs]
    assert [row["step"] for row in runs[1]] == list(range(9))
    assert timeless[0] == timeless[1]
    states = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["policy"] for name in ("whole", "killed")
    ]
    for name, value in states[0]["trained"].items():
        assert torch.equal(value, states[1]["trained"][name])


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
