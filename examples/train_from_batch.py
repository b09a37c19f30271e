"""What the embedded model did in a batch run teaches a smaller one: prompts, records, trajectories, a loss that falls.

The batch keeps token ids, so the smaller model learns from the very tokens, and nothing is written with a chat template
a second time. `pip install 'lagentlike[train]'`; it takes half a minute on two cores.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lagentlike.cli import main
from lagentlike.llms.tiny.engine import WEIGHTS
from lagentlike.records import read_records, records_beside, to_trajectory
from lagentlike.training import AdamW, Policy, SFTTrainer


def write_student(folder: Path) -> None:
    """A network of two layers that knows nothing yet, with the tokenizer of the embedded model."""
    for path in (*WEIGHTS.glob("*.json"), *WEIGHTS.glob("*.jinja")):
        shutil.copy(path, folder)
    config = AutoConfig.from_pretrained(WEIGHTS, num_hidden_layers=2, hidden_size=64, intermediate_size=128)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]


with tempfile.TemporaryDirectory() as name:
    place = Path(name)
    rows = [{"prompt": f"What is the result of {n} * {n + 3}?", "answer": str(n * (n + 3))} for n in range(10, 34)]
    (place / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = f"batch --dataset_file={place}/prompts.jsonl --run_name=sums --data_dir={place} --num_workers=0"
    main([*command.split(), "--token_ids", "--reward", "math_equality"])

    records = read_records(records_beside(place / "sums" / "trajectories.jsonl"))
    lessons = [lesson for lesson in map(to_trajectory, records) if lesson.reward == 1.0]
    tokens = sum(lesson.token_count for lesson in lessons)
    print(f"{len(lessons)} of {len(rows)} conversations are right; they have {tokens} tokens to learn from")

    (place / "student").mkdir()
    write_student(place / "student")
    policy = Policy(place / "student", adamw=AdamW(lr=1e-2, warmup=4))
    trainer = SFTTrainer(policy, lessons[4:], held_out=lessons[:4], batch=5, steps=40, evaluate_every=10)
    for row in trainer.train():
        if "eval/loss" in row:
            print(f"step {row['step']:.0f}: {row['eval/loss']:.2f} nats a token on conversations it has not seen")
    first, last = trainer.history[0]["eval/loss"], trainer.history[-1]["eval/loss"]
    print("it has learnt:", last < first / 2)
