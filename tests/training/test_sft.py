"""Supervised training: what is taught is what is said, and a run leaves behind what it should."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lagentlike.actions import ActionExecutor, calculator
from lagentlike.errors import InvalidArgument, StateError
from lagentlike.llms import TinyLM
from lagentlike.training import AdamW, conversation, Policy, read_metrics, SFTTrainer
from lagentlike.training.sft import shuffled
from lagentlike.trajectory import Trajectory


def lessons(policy: Policy, count: int = 8) -> list[Trajectory]:
    return [
        conversation(
            policy,
            [{"role": "user", "content": f"Say {number}."}, {"role": "assistant", "content": f"{number} it is."}],
        )
        for number in range(count)
    ]


def test_it_learns_to_say_what_it_is_shown(small: Path) -> None:
    policy = Policy(small, adamw=AdamW(lr=1e-2))
    shown = lessons(policy)
    history = SFTTrainer(policy, shown, held_out=shown, batch=8, steps=60, evaluate_every=60).train()
    assert history[-1]["eval/loss"] < 0.1 < 1 < history[0]["eval/loss"]
    assert [row["step"] for row in history] == list(range(61))


def test_the_loss_is_the_cross_entropy_of_the_labels_of_transformers(small: Path) -> None:
    policy = Policy(small)
    shown = lessons(policy, 3)
    [first, *_] = SFTTrainer(policy, shown, held_out=shown, steps=1).train()
    total, count = 0.0, 0
    for one in shown:
        [segment] = one.segments
        ids = torch.tensor([segment.ids])
        labels = torch.where(torch.tensor([segment.mask]), ids, -100)
        fresh = Policy(small).model(input_ids=ids, labels=labels)
        trained = sum(segment.mask)
        total, count = total + fresh.loss.item() * trained, count + trained
    assert first["eval/loss"] == pytest.approx(total / count, rel=1e-4)


def test_only_what_the_assistant_says_is_taught(small: Path) -> None:
    policy = Policy(small)
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "1 + 1"}}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is 2."},
    ]
    tools = ActionExecutor([calculator]).tools()
    [segment] = conversation(policy, messages, tools).segments
    lm = TinyLM(small)
    assert segment.ids[: segment.mask.index(True)] == lm.engine.render(messages[:1], tools)
    taught = [i for i, trained in zip(segment.ids, segment.mask, strict=True) if trained]
    end = lm.engine.end_of_turn
    assert taught.count(end) == 2
    assert taught[-1] == end
    text = lm.detokenize(taught)
    assert text.startswith("<tool_call>")
    assert text.endswith("It is 2.")
    assert "<tool_response>" not in text


def test_a_run_leaves_metrics_a_checkpoint_a_model_and_a_picture(small: Path, tmp_path: Path) -> None:
    policy = Policy(small)
    trainer = SFTTrainer(policy, lessons(policy), out=tmp_path / "run", steps=3, batch=2, held_out=lessons(policy, 2))
    history = trainer.train()
    assert read_metrics(tmp_path / "run/metrics.jsonl") == history
    assert {"loss", "tokens", "grad_norm", "lr", "seconds", "skipped"} <= set(history[1])
    assert (tmp_path / "run/checkpoint.pt").is_file()
    assert (tmp_path / "run/curve.png").read_bytes().startswith(b"\x89PNG")
    assert TinyLM(tmp_path / "run/model", max_new_tokens=2).chat([{"role": "user", "content": "Hi"}]) is not None


def test_what_cannot_be_learnt_from_is_refused(small: Path) -> None:
    policy = Policy(small)
    with pytest.raises(InvalidArgument, match="none of them has a token to learn from"):
        SFTTrainer(policy, [Trajectory([])])
    with pytest.raises(InvalidArgument, match="steps=0"):
        SFTTrainer(policy, lessons(policy), steps=0)
    with pytest.raises(InvalidArgument, match="batch="):
        SFTTrainer(policy, lessons(policy), batch=True)


def test_every_epoch_takes_every_item_once_in_another_order() -> None:
    taken = [number for step in range(10) for number in shuffled(8, 4, seed=3, step=step)]
    epochs = [taken[begin : begin + 8] for begin in range(0, 40, 8)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert sorted(shuffled(3, 7, seed=0, step=0) + shuffled(3, 7, seed=0, step=1)) == sorted(
        [0, 1, 2] * 4 + shuffled(3, 7, 0, 1)[-2:]
    )


def test_a_resumed_run_is_the_run_that_was_never_stopped(small: Path, tmp_path: Path) -> None:
    def trainer(out: str, steps: int, **options: Any) -> SFTTrainer:
        policy = Policy(small, adamw=AdamW(lr=1e-3, warmup=4))
        return SFTTrainer(
            policy, lessons(policy), batch=3, steps=steps, checkpoint_every=1, out=tmp_path / out, **options
        )

    whole, first = trainer("whole", 7), trainer("parts", 4)
    whole.train()
    first.train()
    second = trainer("parts", 7, resume=True)
    second.train()
    assert [row["loss"] for row in second.history[1:]] == [row["loss"] for row in whole.history[1:]]
    assert read_metrics(tmp_path / "parts/metrics.jsonl") == second.history
    for name, value in whole.policy.state_dict()["trained"].items():
        assert torch.equal(value, second.policy.state_dict()["trained"][name])


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(small: Path, tmp_path: Path) -> None:
    policy = Policy(small)
    SFTTrainer(policy, lessons(policy), out=tmp_path, steps=1, batch=2).train()
    other = SFTTrainer(policy, lessons(policy), out=tmp_path, steps=2, batch=3, resume=True)
    with pytest.raises(StateError, match=r"batch=2 and this one has 3"):
        other.train()
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(StateError, match="no checkpoint"):
        SFTTrainer(policy, lessons(policy), out=tmp_path, steps=2, batch=2, resume=True).train()


def test_a_line_of_metrics_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 0, "loss": 1.5}) + '\n{"step": 1, "lo')
    assert read_metrics(path) == [{"step": 0, "loss": 1.5}]


def test_a_trainer_also_runs_inside_an_event_loop(small: Path) -> None:
    import asyncio

    async def notebook() -> float:
        policy = Policy(small)
        return SFTTrainer(policy, lessons(policy), steps=1).train()[-1]["loss"]

    assert math.isfinite(asyncio.run(notebook()))
