"""`lagentlike rollout`, called in this process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lagentlike.cli import main
from lagentlike.concurrency import run_in_background
from lagentlike.llms import AsyncTinyLM
from lagentlike.rollouts import Trajectory
from lagentlike.serving import ModelServer

QUERIES = [
    {"prompt": "What is the result of 1 + 1?", "answer": "The result of 1 + 1 is 2."},
    {"messages": [{"role": "user", "content": "What is 5 * 5?"}], "answer": "no"},
]

MAIN = "import sys; from lagentlike.cli import main; sys.exit(main())"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps(query) for query in QUERIES) + "\n\n")
    return path


def test_trajectories_go_to_a_file_with_their_rewards(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "trajectories.jsonl"
    command = ["rollout", "--data", str(data), "--chains", "2", "--reward", "exact_match", "--out", str(out)]
    assert main(command) == 0
    kept = [Trajectory.from_dict(json.loads(line)) for line in out.read_text().splitlines()]
    assert sorted((one.query, one.chain, one.reward) for one in kept) == [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (1, 0, 0.0),
        (1, 1, 0.0),
    ]
    assert all(one.segments[0].logprobs for one in kept)
    told = capsys.readouterr()
    assert "4 trajectories: 4 no_tool_calls, mean reward 0.500" in told.out


def test_questions_of_the_command_line_are_answered_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "What is the result of 2 + 3?", "Hello"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["The result of 2 + 3 is 5.", "Hello! How can I help you?"]


def test_an_agent_of_ones_own_rolls_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = tmp_path / "my_team.py"
    module.write_text(
        "from lagentlike import AsyncAgent\n"
        "from lagentlike.llms import AsyncScriptedLLM\n"
        "def reply(messages, params):\n"
        "    if 'bad' in messages[-1]['content']:\n"
        "        raise RuntimeError('no luck')\n"
        "    return 'fine'\n"
        "team = AsyncAgent(AsyncScriptedLLM(reply))\n"
    )
    assert main(["rollout", "--agent", f"{module}:team", "good", "bad"]) == 0
    told = capsys.readouterr().out
    assert "query 1, chain 0: RuntimeError: no luck" in told
    assert main(["rollout", "--agent", f"{module}:team", "bad"]) == 1


def test_a_file_is_not_overwritten_unless_forced(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept.jsonl"
    out.write_text("precious")
    assert main(["rollout", "--data", str(data), "--out", str(out)]) == 2
    assert out.read_text() == "precious"
    assert "--force" in capsys.readouterr().err
    assert main(["rollout", "--data", str(data), "--out", str(out), "--force"]) == 0
    assert len(out.read_text().splitlines()) == 2


def test_a_run_that_fails_at_once_leaves_no_file(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept.jsonl"
    assert main(["rollout", "--data", str(data), "--chains", "0", "--out", str(out)]) == 1
    assert "num_chains=0" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [data]
    out.write_text("precious")
    assert main(["rollout", "--data", str(data), "--chains", "0", "--out", str(out), "--force"]) == 1
    assert out.read_text() == "precious"


def test_of_a_run_that_is_interrupted_the_chains_that_ended_are_kept_beside(tmp_path: Path) -> None:
    module = tmp_path / "slow.py"
    module.write_text(
        "import asyncio\n"
        "from lagentlike import AsyncAgent\n"
        "class Slow(AsyncAgent):\n"
        "    async def forward(self, message, session_id=0):\n"
        "        await asyncio.sleep(600 if 'slow' in message.content else 0)\n"
        "        return await super().forward(message, session_id=session_id)\n"
        "from lagentlike.llms import AsyncScriptedLLM\n"
        "agent = Slow(AsyncScriptedLLM(lambda messages, params: 'fine'))\n"
    )
    out, part = tmp_path / "kept.jsonl", tmp_path / "kept.jsonl.part"
    words = ["rollout", "quick", "slow", "--agent", f"{module}:agent", "--out", str(out)]
    with subprocess.Popen([sys.executable, "-c", MAIN, *words], stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        told = running.stderr.read()
        assert running.wait(60) == 130
    assert f"the chains that ended are in {part}" in told
    assert not out.exists()
    assert json.loads(part.read_text().splitlines()[0])["messages"][0]["content"][0]["text"] == "quick"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: this is no JSON"),
        ("[]", "line 1: give an object with 'messages' or 'prompt'"),
        ('{"question": "x"}', "line 1: give an object with 'messages' or 'prompt'"),
        ("", "holds no conversation"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "the last message is for the agent to answer"),
    ],
)
def test_what_is_no_conversation_is_named_in_one_line(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(line)
    assert main(["rollout", "--data", str(path)]) in (1, 2)
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rollout"], "give questions, or --data"),
        (["rollout", "hi", "--reward", "niceness"], "give one of code_tests, exact_match"),
        (["rollout", "hi", "--backend", "magic"], "the backends are tiny, transformers"),
        (["rollout", "hi", "--agent", "x.py:y", "--system", "be nice"], "--system goes with --model"),
        (["rollout", "hi", "--chains", "0"], "num_chains=0"),
        (["rollout", "hi", "--reward", "exact_match"], "nobody can fill its parameter 'answer'"),
    ],
)
def test_wrong_options_are_named_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) in (1, 2)
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_server_that_takes_ids_is_named_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "trajectories.jsonl"
    server = ModelServer(AsyncTinyLM(), "tinylm", port=0)
    run_in_background(server.start())
    try:
        address = ["--api-base", server.url, "--server", "lagentlike", "--out", str(out)]
        assert main(["rollout", "What is the result of 1 + 1?", "--model", "tinylm", *address]) == 0
    finally:
        run_in_background(server.stop())
    assert "The result of 1 + 1 is 2." in capsys.readouterr().out
    [kept] = [Trajectory.from_dict(json.loads(line)) for line in out.read_text().splitlines()]
    assert (kept.counts.turns, kept.counts.extended, kept.counts.missing) == (2, 1, 0)
