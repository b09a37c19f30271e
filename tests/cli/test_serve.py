"""`lagentlike serve`, in a process of its own and as a function."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lagentlike.cli import main
from lagentlike.errors import AuthenticationFailed
from lagentlike.serving import HTTPAgentClient

AGENTS = """
from lagentlike import Agent, TinyLM

def make():
    return Agent(TinyLM(), name="made")
"""


@pytest.fixture
def agents(tmp_path: Path) -> str:
    (tmp_path / "agents.py").write_text(AGENTS)
    return f"{tmp_path / 'agents.py'}:make"


def test_it_serves_an_agent_and_keeps_its_sessions(agents: str, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"ann": "token-of-ann", "bob": "token-of-bob"}))
    options = ["--port", "0", "--tokens", str(tokens), "--store", str(tmp_path / "s.db")]
    command = [sys.executable, "-m", "lagentlike.cli", "serve", agents, *options]
    for question, answer in (("My name is Ann.", "Nice to meet you, Ann."), ("What is my name?", "Your name is Ann.")):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line.startswith("serving made at http://127.0.0.1:")
            url = line.split(" at ")[1].split(",")[0]
            assert HTTPAgentClient(url=url, token="token-of-ann")(question, session_id="s").content == answer
            assert HTTPAgentClient(url=url, token="token-of-bob").session_ids() == []
            with pytest.raises(AuthenticationFailed):
                HTTPAgentClient(url=url)("x")
            server.send_signal(signal.SIGTERM)
            assert server.stdout.read() == "stopped\n"
        assert server.returncode == 0
    assert (tmp_path / "s.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--host", "0.0.0.0"], 1, "set a token as well"),
        (["--tokens", "nowhere.json"], 2, "cannot be read"),
        (["--tokens", "list.json"], 2, "no JSON object"),
        (["--tokens", "list.json", "--token", "x"], 2, "not both"),
        (["--store", "list.json"], 1, "holds no sessions"),
        (["--store", "redis://:secret@127.0.0.1:9/0"], 1, "RedisStore('redis://***@127.0.0.1:9/0') failed"),
        (["--store", "mysql://ann:secret@db/x"], 1, "store='mysql://***@db/x': give the path of an SQLite file"),
        (["--grace", "0"], 1, "grace"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    agents: str,
    options: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAGENTLIKE_TOKEN", raising=False)
    Path("list.json").write_text("[1]" + " " * 4096)
    assert main(["serve", agents, "--port", "0", *options]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
