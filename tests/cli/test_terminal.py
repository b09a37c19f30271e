"""The command line at a real terminal, and in processes of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-m", "lagentlike.cli"]
ENVIRONMENT = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}


SLOW_TOOL = '''
import time
from lagentlike import tool


@tool
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    time.sleep(60)
    return "0"
'''


class Terminal:
    """A process whose standard streams are a terminal."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self.screen = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str, seconds: float = 30) -> str:
        """Read until the text shows; what came since the last time."""
        deadline = time.monotonic() + seconds
        seen = ""
        while text not in seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not show within {seconds} s:\n{seen}"
            if select.select([self._descriptor], [], [], left)[0]:
                seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(self._descriptor, 65536).decode(errors="replace"))
        self.screen += seen
        return seen


@contextmanager
def terminal(*arguments: str, cwd: Path) -> Iterator[Terminal]:
    controller, follower = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=cwd,
        env=ENVIRONMENT,
        start_new_session=True,
    ) as process:
        os.close(follower)
        try:
            yield Terminal(process, controller)
        finally:
            process.kill()
            os.close(controller)


def test_chat_shows_tool_calls_streams_and_leaves_at_the_end_of_input(tmp_path: Path) -> None:
    with terminal("chat", cwd=tmp_path) as chat:
        assert "TinyLM('tinylm')  tools: calculator" in chat.wait_for("you>")
        chat.type("What is the result of 12 * 34?\n")
        shown = chat.wait_for("you>")
        assert "→ calculator(expression='12 * 34')" in shown
        assert "← 408" in shown
        assert "The result of 12 * 34 is 408." in shown
        chat.type("/fork b\n")
        assert "[b] you>" in chat.wait_for("you>")
        chat.type("\x04")
        assert chat.process.wait(20) == 0


def test_an_interrupt_stops_the_answer_and_forgets_the_turn(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_TOOL)
    with terminal("chat", "--tool", "slow.py:calculator", cwd=tmp_path) as chat:
        chat.wait_for("you>")
        chat.type("What is the result of 12 * 34?\n")
        chat.wait_for("→ calculator(")
        chat.process.send_signal(signal.SIGINT)
        assert "stopped; this turn is forgotten" in chat.wait_for("you>")
        chat.type("/session\n")
        assert "0 messages" in chat.wait_for("you>")


def test_no_style_without_a_terminal(tmp_path: Path) -> None:
    finished = subprocess.run(
        [*COMMAND, "chat"], input="/help\n", capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True
    )
    assert "\x1b" not in finished.stdout


def test_what_a_terminal_cannot_show_is_replaced(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "rollout", "--help"],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=60,
        check=True,
    )
    assert b"lmdeploy, llamacpp" in b" ".join(done.stdout.split())


def test_whoever_reads_the_output_may_leave(tmp_path: Path) -> None:
    command = " ".join([*COMMAND, "--help"])
    finished = subprocess.run(
        ["bash", "-c", f"{command} | true"], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert finished.stderr == ""


def test_start_up_loads_no_engine(tmp_path: Path) -> None:
    code = "import sys; from lagentlike.cli import main; main(['--help']); sys.stderr.write(' '.join(sys.modules))"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True
    )
    heavy = {"numpy", "pydantic", "aiohttp", "IPython", "tokenizers"} & set(finished.stderr.split())
    assert not heavy


def test_the_demo_shows_everything_and_its_checks_pass(tmp_path: Path) -> None:
    finished = subprocess.run(
        [*COMMAND, "demo", "--out", "plots"], capture_output=True, text=True, cwd=tmp_path, timeout=110, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "✗" not in finished.stdout
    assert "checks passed" in finished.stdout
    (picture,) = (tmp_path / "plots").rglob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.name in finished.stdout
