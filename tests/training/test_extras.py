"""What training needs is loaded when it is used, and missing extras are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lagentlike.training import conversation, draw_curve, Policy, read_metrics, SFTTrainer


def run(program: str) -> str:
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    return finished.stdout + finished.stderr


def test_importing_the_package_and_the_command_loads_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'matplotlib'}"
    assert run(f"import sys, lagentlike.training, lagentlike.cli\nprint({heavy} & set(sys.modules))") == "set()\n"


def test_without_torch_the_error_names_the_extra() -> None:
    printed = run("import sys\nsys.modules['torch'] = None\nfrom lagentlike.training import Policy")
    assert "MissingExtra: torch is not installed: pip install 'lagentlike[train]'" in printed


def test_a_curve_shows_the_metrics_that_there_are(tmp_path: Path) -> None:
    history = [
        {"step": 0, "eval/reward": 0.1},
        {"step": 1, "reward": 0.2},
        {"step": 2, "reward": 0.4, "eval/reward": 0.3},
    ]
    drawn = draw_curve(history, tmp_path / "curve.svg", ["reward", "eval/reward", "absent"], "grpo")
    assert drawn == tmp_path / "curve.svg"
    assert drawn.read_text().startswith("<?xml")
    assert draw_curve(history, tmp_path / "none.svg", ["absent"]) is None
    assert not (tmp_path / "none.svg").exists()


def events(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: the steps and values of each metric."""
    shown = EventAccumulator(str(out / "tensorboard"))
    shown.Reload()
    return {name: [(one.step, one.value) for one in shown.Scalars(name)] for name in shown.Tags()["scalars"]}


def test_tensorboard_shows_the_metrics_and_those_after_a_checkpoint_once(small: Path, tmp_path: Path) -> None:
    policy = Policy(small)
    lesson = conversation(policy, [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}])

    def trainer(policy: Policy, resume: bool, on_step: object = None) -> SFTTrainer:
        return SFTTrainer(
            policy,
            [lesson],
            held_out=[lesson],
            out=tmp_path,
            steps=6,
            checkpoint_every=2,
            evaluate_every=3,
            resume=resume,
            on_step=on_step,  # type: ignore[arg-type]
        )

    def stop_after_five(metrics: dict[str, float]) -> None:
        if metrics["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(policy, resume=False, on_step=stop_after_five).train()
    assert [step for step, _ in events(tmp_path)["loss"]] == [1, 2, 3, 4, 5]
    trainer(Policy(small), resume=True).train()
    kept = read_metrics(tmp_path / "metrics.jsonl")
    shown = events(tmp_path)
    assert set(shown) == set().union(*kept)
    for name, points in shown.items():
        wanted = [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in kept if name in row]
        assert points == wanted, name
