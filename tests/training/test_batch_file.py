"""From the file of a batch run to a model that has learnt from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lagentlike.cli import main
from lagentlike.llms import TinyLM
from lagentlike.records import read_records, read_sharegpt, records_beside, to_openai, to_sharegpt, to_trajectory
from lagentlike.rollouts import tokenize_trajectories
from lagentlike.training import AdamW, conversation, Policy, read_metrics, SFTTrainer

from .small_model import write_small_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch run of the embedded model on sums, with and without token ids, and an untrained model."""
    folder = tmp_path_factory.mktemp("batch")
    rows = [{"prompt": f"What is the result of {n} * {n + 3}?", "answer": str(n * (n + 3))} for n in range(10, 18)]
    rows.append({"prompt": "What is the result of 2 + 2?", "answer": "5"})  # not to be learnt from
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["batch", f"--dataset_file={folder}/prompts.jsonl", f"--data_dir={folder}", "--num_workers=0"]
    command += ["--reward", "math_equality"]
    assert main([*command, "--run_name=sums", "--token_ids"]) == 0
    assert main([*command, "--run_name=plain", "--max_samples=2"]) == 0
    (folder / "small").mkdir()
    write_small_model(folder / "small")
    return folder


def test_a_model_learns_from_the_very_tokens_of_a_batch(place: Path) -> None:
    records = list(read_records(records_beside(place / "sums" / "trajectories.jsonl")))
    lessons = [lesson for lesson in map(to_trajectory, records) if lesson.reward == 1.0]
    assert (len(records), len(lessons)) == (9, 8)
    rows = tokenize_trajectories(lessons[:1], tensors="np")
    ids, mask = rows["input_ids"][0], rows["action_mask"][0].astype(bool)
    sampled = [id_ for message in records[0].messages if message.tokens for id_ in message.tokens.ids]
    assert ids[mask].tolist() == sampled
    said = TinyLM().detokenize(sampled)
    assert '"calculator"' in said
    assert said.rstrip().endswith(records[0].messages[-1].content)
    policy = Policy(place / "small", adamw=AdamW(lr=1e-2))
    history = SFTTrainer(policy, lessons[2:], held_out=lessons[:2], batch=6, steps=8).train()
    losses = [row["loss"] for row in history if "loss" in row]
    assert losses == sorted(losses, reverse=True)
    assert history[-1]["eval/loss"] < 0.8 * history[0]["eval/loss"]


@pytest.mark.parametrize(
    ("data", "reward"),
    [("sums", 1), ("sums/records/trajectories.jsonl", 1), ("plain", 1), ("sums/trajectories.jsonl", None)],
)
def test_the_command_line_learns_from_any_of_its_files(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, reward: int | None
) -> None:
    command: list[Any] = ["train", "sft", "--data", place / data, "--model", place / "small", "--out", tmp_path / "run"]
    command += ["--steps", 3, "--lr", 0.01, "--batch", 2, "--threads", 1]
    assert main([*map(str, command), *(["--min-reward", str(reward)] if reward else [])]) == 0
    losses = [row["loss"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert losses[2] < losses[0]
    assert "held-out" not in capsys.readouterr().out


def test_what_the_template_writes_begins_with_the_tokens_as_they_were(place: Path) -> None:
    policy = Policy(place / "small")
    for record in read_records(records_beside(place / "sums" / "trajectories.jsonl")):
        told, [kept] = to_openai(record), to_trajectory(record).segments
        [written] = conversation(policy, told["messages"], told["tools"]).segments
        assert written.ids[: len(kept.ids)] == kept.ids
        assert written.mask[: len(kept.ids)] == kept.mask


def test_the_files_of_a_batch_load_as_datasets(place: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def loaded(path: Path) -> Any:
        return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))

    path = place / "sums" / "trajectories.jsonl"
    records = list(read_records(records_beside(path)))
    rows = loaded(path)
    assert [row["conversations"] for row in rows] == [to_sharegpt(record)["conversations"] for record in records]
    assert len(list(read_sharegpt(path))) == 9
    kept = loaded(records_beside(path))
    assert [row["id"] for row in kept] == [record.id for record in records]
    assert kept[0]["messages"][1]["tokens"]["ids"] == records[0].messages[1].tokens.ids  # type: ignore[union-attr]
    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps(to_openai(record)) + "\n" for record in records))
    assert [len(row["messages"]) for row in loaded(chats)] == [4] * 9
