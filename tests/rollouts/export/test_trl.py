"""TRL trains on what is exported to it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoModelForCausalLM, AutoTokenizer

from lagentlike.agents import HFAgent
from lagentlike.rollouts import RunResult
from lagentlike.rollouts.export import to_trl
from lagentlike.tools import calculator
from tests.training.small_model import write_small_model

pytestmark = pytest.mark.filterwarnings("ignore")  # what TRL and transformers tell each other
COMMON: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "max_length": 512,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def result() -> RunResult:
    """Chains with calls of a tool, those of a question of different worth."""
    found = HFAgent("tiny", tools=[calculator]).run_sync([f"What is {n} + 1?" for n in (1, 2)], num_chains=2)
    for one in found:
        one.reward = float(one.chain)
        if one.chain == 0:
            one.messages[-1]["content"] = [{"type": "text", "text": "I do not know."}]
    return found


@pytest.mark.parametrize("kind", ["sft", "prompt_completion", "preference"])
def test_trl_takes_steps_on_exported_rows(kind: Any, result: RunResult, tmp_path: Path) -> None:
    folder = write_small_model(tmp_path)
    trainer_of, config = (trl.DPOTrainer, trl.DPOConfig) if kind == "preference" else (trl.SFTTrainer, trl.SFTConfig)
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = trainer_of(
        model=model,
        args=config(output_dir=str(tmp_path / "out"), **COMMON),
        train_dataset=to_trl(result, kind),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert any(not value.equal(before[name]) for name, value in trainer.model.state_dict().items())
