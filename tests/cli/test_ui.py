"""`lagentlike ui`, in a process of its own and as a function."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lagentlike.agents import Agent
from lagentlike.cli import main
from lagentlike.llms import ScriptedLLM
from lagentlike.tracing import JSONLTracer


async def asked(url: str, *paths: str) -> list[Any]:
    """What the server of a page answers, while the page hears its events."""
    address, _, token = url.partition("/#token=")
    async with (
        aiohttp.ClientSession(address, headers={"Authorization": f"Bearer {token}"}) as http,
        http.get("/ui/events") as events,
    ):
        assert b"hello" in await events.content.readline()
        answers = []
        for path in paths:
            async with http.get(path) as response:
                answers.append(await response.json())
        return answers


def run(*options: str, paths: tuple[str, ...]) -> list[Any]:
    """What the server answers that the command starts; it must end at once when it is told to."""
    command = [sys.executable, "-m", "lagentlike.cli", "ui", "--no-browser", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.endswith(", Ctrl-C stops it\n"), line
        answers = asyncio.run(asked(line.split(" is at ")[1].split(",")[0], *paths))
        server.send_signal(signal.SIGINT)
        assert server.stdout.read() == "stopped\n"
    assert server.returncode == 0
    return answers


def test_without_an_agent_it_is_an_assistant_on_the_embedded_model() -> None:
    (agent,) = run(paths=("/ui/agent",))
    assert (agent["name"], agent["live"]) == ("assistant", True)
    assert [unit["model"] for unit in agent["units"] if unit["model"]] == ["tinylm"]
    assert [unit["path"] for unit in agent["units"] if unit["is_tool"]] == ["actions.calculator"]


def test_it_shows_any_agent(tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text("from lagentlike import Agent, TinyLM\nmine = Agent(TinyLM(), name='mine')\n")
    (agent,) = run(f"{tmp_path / 'agents.py'}:mine", "--store", str(tmp_path / "s.db"), paths=("/ui/agent",))
    assert agent["name"] == "mine"
    assert (tmp_path / "s.db").exists()


def test_it_shows_a_trace(tmp_path: Path) -> None:
    with JSONLTracer(tmp_path / "trace.jsonl"):
        Agent(ScriptedLLM(["Hello!"]), name="greeter")("Hi", session_id="ann")
    agent, told = run("--show", str(tmp_path / "trace.jsonl"), paths=("/ui/agent", "/ui/sessions"))
    assert (agent["name"], agent["live"]) == ("trace.jsonl", False)
    assert [session["key"] for session in told["sessions"]] == ['"ann"']


def test_it_opens_a_browser_and_does_not_wait_for_it(tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.new && mv {opened}.new {opened} && exec sleep 600\n')
    browser.chmod(0o700)
    with JSONLTracer(tmp_path / "trace.jsonl"):
        Agent(ScriptedLLM(["Hello!"]))("Hi")
    command = [sys.executable, "-m", "lagentlike.cli", "ui", "--show", str(tmp_path / "trace.jsonl")]
    environment = {**os.environ, "BROWSER": str(browser)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split(" is at ")[1].split(",")[0]
            deadline = time.monotonic() + 60
            while not opened.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert opened.read_text() == f"{url}\n"
            assert asyncio.run(asked(url, "/ui/agent"))[0]["live"] is False
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # the browser too


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["nowhere:agent"], 2, "no module 'nowhere'"),
        (["--show", "nothing.jsonl"], 1, "cannot be read"),
        (["--show", "nothing.jsonl", "--store", "s.db"], 2, "without --store"),
        (["agents.py:mine", "--model", "qwen3"], 2, "--model is for the assistant"),
        (["agents.py:mine", "--no-tools"], 2, "--no-tools is for the assistant"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ui", "--no-browser", *options]) == code
    assert message in capsys.readouterr().err
