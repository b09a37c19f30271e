"""`lagentlike batch`, in this process and in ones of its own."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.cli import main
from lagentlike.records import read_records, records_beside

COMMAND = [sys.executable, "-m", "lagentlike.cli", "batch"]

AGENT = """
from lagentlike import AsyncAgent
from lagentlike.llms import AsyncScriptedLLM

def make():
    return AsyncAgent(AsyncScriptedLLM(lambda messages, params: messages[-1]["content"], latency=0.02))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with five sums in `rows.jsonl`."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"What is the result of {n} + {n}?", "answer": 2 * n} for n in range(5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "agents.py").write_text(AGENT)
    return tmp_path


def answers(run: Path) -> dict[int, str]:
    records = read_records(records_beside(run / "trajectories.jsonl"))
    return {record.metadata["row"]: record.messages[-1].content for record in records}


@pytest.mark.parametrize("spelling", ["_", "-"])
def test_the_embedded_model_answers_with_its_calculator(
    place: Path, capsys: pytest.CaptureFixture[str], spelling: str
) -> None:
    command = ["--dataset_file=rows.jsonl", "--batch_size=3", "--num_workers=1", "--run_name=sums"]
    assert main(["batch", *(re.sub(r"(?<=\w)_(?=\w+=)", spelling, word) for word in command)]) == 0
    assert answers(place / "data" / "sums") == {n: f"The result of {n} + {n} is {2 * n}." for n in range(5)}
    told = capsys.readouterr().out
    assert "5 of 5 samples done, 0 set aside" in told
    assert (place / "data" / "sums" / "report.html").exists()


def test_a_run_goes_on_only_when_told_to(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["batch", "--dataset_file", "rows.jsonl", "--run_name", "sums", "--num_workers", "0"]
    assert main([*command, "--max_samples", "2"]) == 0
    assert main(command) == 1
    assert "has a run already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert "2 samples were there already\n5 of 5 samples done" in capsys.readouterr().out
    assert main([*command, "--resume", "--max_turns", "3"]) == 1
    assert "max_turns was 20, is 3" in capsys.readouterr().err


def test_a_model_without_native_calls_writes_them_as_text(place: Path) -> None:
    command = ["batch", "--dataset_file=rows.jsonl", "--run_name=text", "--num_workers=0", "--max_samples=2"]
    assert main([*command, "--tool_format=hermes", "--reward=math_equality"]) == 0
    records = list(read_records(records_beside(place / "data" / "text" / "trajectories.jsonl")))
    assert [record.metadata["reward"]["reward"] for record in records] == [1.0, 1.0]
    for record in records:
        assert [tool["function"]["name"] for tool in record.tools] == ["calculator"]
        assert "<tools>" in record.messages[0].content
        [call] = [call for message in record.messages for call in message.tool_calls or ()]
        [text] = [message.extra_info["text"] for message in record.messages if message.extra_info]
        assert text.startswith("<tool_call>")
        assert call.name == "calculator"


def test_a_run_in_which_nothing_can_be_done_fails(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["batch", "--dataset_file=rows.jsonl", "--run_name=none", "--num_workers=0", "--timeout=0.0001"]
    assert main([*command, "--max_attempts=1"]) == 1
    assert "0 of 5 samples done, 5 set aside" in capsys.readouterr().out
    assert main(["batch", "--dataset_file=rows.jsonl", "--run_name=none", "--num_workers=0", "--retry_failed"]) == 0
    assert "5 of 5 samples done, 0 set aside" in capsys.readouterr().out


def test_samples_draw_their_toolsets(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lagentlike.actions.toolsets import distributions

    monkeypatch.setitem(distributions, "some", {"terminal": 0.5, "file": 0.5})
    command = ["batch", "--dataset_file", "rows.jsonl", "--run_name", "drawn", "--num_workers", "0"]
    assert main([*command, "--distribution", "some", "--num_samples", "4"]) == 0
    offered = {
        tuple(tool["function"]["name"] for tool in record.tools)
        for record in read_records(records_beside(place / "data" / "drawn" / "trajectories.jsonl"))
    }
    assert len(offered) > 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--base_url", "http://127.0.0.1:1"], "--base_url needs --model"),
        (["--agent", "agents.py:make", "--toolsets", "file"], "--toolsets goes with --model"),
        (["--agent", "agents.py:none"], "has no 'none'"),
        (["--toolsets", "file", "--distribution", "x"], "give one of them"),
        (["--tool_format", "hermse"], "--tool_format is one of native, "),
        (["--price", "1"], "is not two numbers"),
    ],
)
def test_what_does_not_go_together_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    assert main(["batch", "--dataset_file", "rows.jsonl", "--run_name", "run", *options]) == 2
    assert reason in capsys.readouterr().err
    assert not (place / "data").exists()


@pytest.fixture
def running(place: Path) -> Iterator[Any]:
    """A run of a thousand samples in a process group of its own, which has appended some."""
    rows = "".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(1000))
    (place / "many.jsonl").write_text(rows)
    command = [*COMMAND, "--dataset_file=many.jsonl", "--run_name=many", "--agent=agents.py:make", "--batch_size=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        records = place / "data" / "many" / "records" / "trajectories.jsonl"
        deadline = time.monotonic() + 30
        while not records.exists() or not records.stat().st_size:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
        if process.poll() is None:
            process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_cleanly(place: Path, running: Any, number: signal.Signals, code: int) -> None:
    os.killpg(running.pid, number)
    told, _ = running.communicate(timeout=12)
    assert running.returncode == code
    assert f"stopped by {number.name}; go on with --resume" in told
    done = len(answers(place / "data" / "many"))
    assert 0 < done < 1000
    assert json.loads((place / "data" / "many" / "statistics.json").read_text())["samples"]["done"] == done


def test_a_second_runner_is_refused(place: Path, running: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["batch", "--dataset_file=many.jsonl", "--run_name=many", "--agent=agents.py:make", "--resume"]
    assert main(command) == 75
    assert f"process {running.pid} on" in capsys.readouterr().err


def test_a_full_disk_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["batch", "--dataset_file=rows.jsonl", "--run_name=sums", "--num_workers=0", "--resume"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        assert main(command) == 74
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "nothing was added" in capsys.readouterr().err
    assert main(command) == 0
    assert len(answers(place / "data" / "sums")) == 5
