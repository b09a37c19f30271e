"""LMDeploy's API server, which a small program on the path stands for: its wire is that of `ModelServer`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lagentlike.errors import MissingExtra, ServerError
from lagentlike.llms import (
    AsyncLMDeployClient,
    AsyncLMDeployServer,
    LMDeployClient,
    LMDeployServer,
    TinyLM,
)

HELLO = [{"role": "user", "content": "Hello"}]
ROOT = Path(__file__).parents[2]

PROGRAM = f"""#!{sys.executable}
import argparse, asyncio, os, sys
sys.path.insert(0, {str(ROOT)!r})
from lagentlike.llms import AsyncTinyLM
from lagentlike.serving import ModelServer

words = argparse.ArgumentParser()
words.add_argument("words", nargs=3)
for name in ("server-name", "model-name", "log-level"):
    words.add_argument("--" + name)
words.add_argument("--server-port", type=int)
words.add_argument("--tp", type=int)
words.add_argument("--fail", action="store_true")
words.add_argument("--hang", action="store_true")
given = words.parse_args()
print("loading", given.words, flush=True)
if given.fail:
    sys.exit("CUDA out of memory")

async def main():
    if not given.hang:
        async with ModelServer(AsyncTinyLM(), host=given.server_name, port=given.server_port):
            print("pid", os.getpid(), flush=True)
            await asyncio.Event().wait()
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bin") / "lmdeploy"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def server(program: str) -> Iterator[LMDeployServer]:
    with LMDeployServer("org/model", "tinylm", program=program, start_timeout=60) as server:
        yield server


def pid_of(server: LMDeployServer) -> int:
    deadline = time.monotonic() + 20
    while "pid " not in server.log and time.monotonic() < deadline:
        time.sleep(0.02)
    return int(server.log.rpartition("pid ")[2])


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def test_it_starts_answers_streams_dies_and_starts_again(server: LMDeployServer) -> None:
    expected = TinyLM().chat(HELLO)
    assert server.chat(HELLO) == expected
    assert "".join(chunk for _, chunk, _ in server.stream_chat(HELLO)) == expected
    assert LMDeployClient(str(server.url), "tinylm").chat(HELLO) == expected
    assert asyncio.run(AsyncLMDeployClient(str(server.url), "tinylm").chat(HELLO)) == expected

    os.kill(pid_of(server), signal.SIGKILL)
    server.process.wait(20)
    with pytest.raises(ServerError, match=r"ended with 137: call start\(\)") as raised:
        server.chat(HELLO)
    assert "loading ['serve', 'api_server', 'org/model']" in str(raised.value)

    server.start()
    assert server.chat(HELLO) == expected
    pid = pid_of(server)
    server.shutdown()
    assert_gone(pid)


def test_the_async_form_awaits_its_calls(program: str) -> None:
    with AsyncLMDeployServer("org/model", "tinylm", program=program, start_timeout=60) as server:
        assert asyncio.run(server.chat(HELLO)) == TinyLM().chat(HELLO)


def test_a_server_that_does_not_start_shows_its_log(program: str) -> None:
    with pytest.raises(ServerError, match=r"(?s)ended with 1: .*CUDA out of memory"):
        LMDeployServer("org/model", program=program, serve_cfg={"fail": True}, start_timeout=60)
    with pytest.raises(ServerError, match=r"was not there within 0\.5 s"):
        LMDeployServer("org/model", program=program, serve_cfg={"hang": True}, start_timeout=0.5)


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match=r"lagentlike\[lmdeploy\]"):
        LMDeployServer("org/model")


def test_the_server_ends_when_its_parent_is_killed(program: str) -> None:
    code = (
        "import sys, time; from lagentlike.llms import LMDeployServer\n"
        f"server = LMDeployServer('org/model', program={program!r}, start_timeout=60)\n"
        "while 'pid ' not in server.log: time.sleep(0.02)\n"
        "print(server.log.rpartition('pid ')[2], flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert_gone(pid)
