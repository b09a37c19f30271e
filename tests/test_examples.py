"""Every example runs on its own, in a fresh process and an empty folder, and prints what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

SAYS: dict[str, tuple[str, ...]] = {
    "async_blogger": ("== Biotechnology", "Pop Music", "(root)", "AsyncBlogger"),
    "batch": (
        "here: each row once: True; 12 of 12 called a tool, 12 of 12 are right",
        "served: each row once: True; 12 of 12 called a tool, 12 of 12 are right",
    ),
    "budget": ("turn 2", "the budget of 2 requests is used up", "4\n"),
    "coder": ("```python", "The answer is 1275."),
    "custom_llm": ("small one of units", "'well is all'", "requests=2"),
    "few_shot_aggregator": ("【",),
    "hello": ("The result of 12 * 34 is 408.", "'ActionExecutor'"),
    "hooks": ("Who are you?\n", "Hello! Who are you?"),
    "remote_agent": ("Your name is Ann.", "{'memory': 2, '0.memory': 4, '1.memory': 2}"),
    "sequential": ("(writer)", "writer\n"),
    "sessions_and_fork": ("ann: Your name is Ann.", "bob: Your name is Bob.", "ann-2: Your name is Eve."),
    "state_save_load": ("missing_keys=[], unexpected_keys=[]", "True\n", "[] ['first.memory', 'second.memory']"),
    "streaming": ("TinyLM", "True"),
    "testing": ("Hello, Ann!", "You said 4 things."),
    "train_from_batch": ("24 of 24 conversations are right", "it has learnt: True"),
    "tools": ('"enum"', "a ok - 26.22 miles", "b failed - Error:", "c ok - ann: buy milk", "2.2 pounds"),
}


def run(*command: str, cwd: Path) -> str:
    finished = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SAYS, "real_model", "train_grpo"}


@pytest.mark.parametrize("name", SAYS)
def test_example_prints_what_it_should(name: str, tmp_path: Path) -> None:
    printed = run(str(EXAMPLES / f"{name}.py"), cwd=tmp_path)
    missing = [text for text in SAYS[name] if text not in printed]
    assert not missing, f"{name} printed no {missing}:\n{printed}"


@pytest.fixture
def served_model() -> Iterator[str]:
    """The URL of `lagentlike serve-model` in a process of its own."""
    command = [sys.executable, "-m", "lagentlike.cli", "serve-model", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+/v1", server.stdout.readline())
        assert found, "serve-model does not say where it listens"
        yield found[0]
        server.terminate()
        assert server.stdout.read() == "stopped\n"
        assert server.wait(20) == 0


def test_real_model_talks_to_a_served_model(served_model: str, tmp_path: Path) -> None:
    printed = run(str(EXAMPLES / "real_model.py"), "tinylm", served_model, cwd=tmp_path)
    assert "The result of 123 * 456 is 56088." in printed
    assert "requests=2" in printed


def test_train_grpo_goes_through_all_its_steps(tmp_path: Path) -> None:
    printed = run(str(EXAMPLES / "train_grpo.py"), "--quick", "--out", "run", cwd=tmp_path)
    said = ("cold start", "GRPO: 2 steps", "the embedded model", "after the cold start", "after GRPO", "hid the skill")
    assert [text for text in said if text not in printed] == []
    assert {"curve.png", "metrics.jsonl", "model", "cold"} <= {path.name for path in (tmp_path / "run").iterdir()}
