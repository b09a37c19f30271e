"""`lagentlike train`, called in this process on a small untrained model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lagentlike.cli import main
from lagentlike.training import read_metrics

from ..training.small_model import write_small_model

FILES = {
    "questions.jsonl": "".join(
        json.dumps({"prompt": f"What is {n} + {n}?", "answer": str(2 * n)}) + "\n" for n in range(6)
    ),
    "chats.jsonl": json.dumps(
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], "reward": 0.5}
    )
    + "\n\n",
    "broken.jsonl": '{"messages": []}\nno json\n',
    "my_rewards.py": "def even(trajectory):\n    return float(trajectory.segments[0].ids[-1] % 2 == 0)\n\n\n"
    "def same(trajectory):\n    return 0.0\n\n\n"
    "def by_question(trajectory):\n    return float(trajectory.query % 2)\n",
    "my_agents.py": "from lagentlike import AsyncAgent, AsyncTinyLM\n"
    "agent = AsyncAgent(AsyncTinyLM('small', max_new_tokens=3))\n"
    "other = AsyncAgent(AsyncTinyLM())\n",
}

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def train(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call `lagentlike train` in a folder with a model, `small`, and the files above."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "small").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_agents", "my_rewards"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def call(*words: Any) -> tuple[int, str, str]:
        code = main(["train", *map(str, words)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


GRPO = (
    "grpo",
    "--model",
    "small",
    "--data",
    "questions.jsonl",
    "--reward",
    "my_rewards.py:even",
    "--batch",
    2,
    "--group",
    3,
)


def test_grpo_trains_tells_where_everything_is_and_goes_on(train: Call, tmp_path: Path) -> None:
    short = ("--max-new-tokens", 4, "--out", "run", "--held-out", "questions.jsonl", "--eval-every", 2)
    code, out, err = train(*GRPO, *short, "--steps", 2)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["step 0/2", "step 1/2", "step 2/2"]
    assert "tokens/s, 0 failed" in lines[1]
    assert lines[1].endswith("left")
    assert lines[3].startswith("reward, held out: 0.")
    for name in ("model", "metrics.jsonl", "curve.png"):
        assert str(Path("run") / name) in out
        assert (tmp_path / "run" / name).exists()
    code, out, err = train(*GRPO, *short, "--steps", 3, "--resume")
    assert (code, err) == (0, "")
    assert out.startswith("step 3/3")
    assert [row["step"] for row in read_metrics("run/metrics.jsonl")] == [0, 1, 2, 3]
    code, out, err = train(*GRPO, *short)
    assert (code, out) == (2, "")
    assert "'run' holds a run: --resume goes on with it" in err


def test_ppo_with_a_critic_trains_and_goes_on(train: Call) -> None:
    words = ["ppo", *GRPO[1:], "--critic", "--updates", 2, "--max-new-tokens", 2]
    code, _, err = train(*words, "--steps", 1, "--out", "run")
    assert (code, err) == (0, "")
    code, _, err = train(*words, "--steps", 2, "--out", "run", "--resume")
    assert (code, err) == (0, "")
    assert [sorted(row) for row in read_metrics("run/metrics.jsonl")[1:]] == 2 * [
        sorted(read_metrics("run/metrics.jsonl")[1])
    ]
    assert {"value_loss", "value_explained", "clip_fraction"} <= set(read_metrics("run/metrics.jsonl")[2])


def test_a_reward_that_tells_no_chain_from_another_is_said_at_the_end(train: Call) -> None:
    words = [*GRPO[:6], "my_rewards.py:same", *GRPO[7:], "--max-new-tokens", 2, "--steps", 1]
    code, out, _ = train(*words)
    assert code == 0
    assert "nothing was learnt: in every step, all chains of a question were worth the same" in out
    assert "step 0/1" not in out


@pytest.mark.parametrize("method", ["reinforce", "ppo"])
def test_methods_that_compare_no_chains_of_a_question_learn_from_questions_that_differ(
    train: Call, method: str
) -> None:
    words = [method, *GRPO[1:6], "my_rewards.py:by_question", *GRPO[7:], "--max-new-tokens", 2, "--steps", 1]
    code, out, _ = train(*words, "--out", "some")
    assert (code, "nothing was learnt" in out) == (0, False)
    words[6] = "my_rewards.py:same"
    code, out, _ = train(*words, "--out", "none")
    assert code == 0
    assert "nothing was learnt: in every step, all chains were worth what was expected of them" in out


def test_a_critic_learns_from_chains_that_are_all_alike(train: Call) -> None:
    words = ["ppo", *GRPO[1:6], "my_rewards.py:same", *GRPO[7:], "--critic", "--max-new-tokens", 2, "--steps", 1]
    code, out, _ = train(*words)
    assert (code, "nothing was learnt" in out) == (0, False)


def test_an_agent_of_ones_own_and_lora(train: Call) -> None:
    code, out, err = train(
        *GRPO[:-4], "--agent", "my_agents.py:agent", "--lora", 2, "--steps", 1, "--kl", 0.1, "--batch", 2, "--group", 2
    )
    assert (code, err) == (0, "")
    assert "step 1/1" in out


def test_sft_learns_from_chats_and_from_what_a_rollout_wrote(train: Call, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = train("sft", "--model", "small", "--data", "chats.jsonl", "--steps", 2, "--min-reward", 0.5)
    assert code == 0
    assert "loss" in out
    wrote = main(["rollout", "Hello", "--agent", "my_agents.py:agent", "--out", "done.jsonl"])
    capsys.readouterr()
    assert wrote == 0
    code, out, _ = train("sft", "--model", "small", "--data", "done.jsonl", "--steps", 1, "--out", "other")
    assert code == 0
    assert "step 1/1" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("grpo", "--data", "questions.jsonl"), "grpo needs --reward"),
        (("sft", "--data", "chats.jsonl", "--reward", "exact_match"), "--reward is for methods with chains"),
        (("sft", "--data", "broken.jsonl", "--model", "small"), "broken.jsonl, line 1"),
        (("sft", "--data", "nowhere.jsonl", "--model", "small"), "'nowhere.jsonl' cannot be read"),
        (
            ("sft", "--data", "chats.jsonl", "--model", "small", "--min-reward", 1),
            "nothing to learn from above --min-reward",
        ),
        ((*GRPO, "--critic"), "--critic is for ppo: grpo has no value network"),
        (("sft", "--data", "chats.jsonl", "--critic"), "--critic is for ppo: sft learns"),
        ((*GRPO, "--resume"), "there is no checkpoint"),
        ((*GRPO, "--min-reward", 1), "--min-reward is for sft"),
        ((*GRPO, "--agent", "my_agents.py:other"), "no unit of it asks the model"),
        ((*GRPO, "--steps", 0), "steps=0"),
        (("grpo", "--data", "questions.jsonl", "--reward", "no_such", "--model", "small"), "no_such"),
        (("grpo", "--data", "questions.jsonl", "--reward", "exact_match", "--model", "nowhere"), "nowhere"),
        (("gpro", "--data", "questions.jsonl"), "invalid choice: 'gpro'"),
    ],
)
def test_mistakes_are_told_in_one_line(train: Call, words: tuple[Any, ...], said: str) -> None:
    code, out, err = train(*words)
    assert code in (1, 2)
    assert out == ""
    assert err.startswith("lagentlike: error: ")
    assert err.count("\n") == 1
    assert said in err
