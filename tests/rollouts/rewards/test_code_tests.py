"""Programs in answers are run against tests, in a sandbox and within limits."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

from lagentlike.errors import InvalidArgument, RewardError
from lagentlike.rollouts.rewards import code_tests, get_reward, score
from lagentlike.rollouts.rewards.code import program_in
from lagentlike.sandbox import Bwrap, sandbox_unavailable
from lagentlike.sandbox.process import Process
from lagentlike.trajectory import Trajectory

pytestmark = pytest.mark.skipif(sandbox_unavailable() is not None, reason="no sandbox here")

ADD = "Like this:\n```python\ndef add(a, b):\n    return a + b\n```\nDone."


def test_the_share_of_tests_that_pass() -> None:
    tests = ["assert add(1, 2) == 3", "assert add(1, 1) == 3", "assert add('a', 'b') == 'ab'"]
    told = code_tests()(ADD, tests)
    assert told == {"reward": 2 / 3, "passed": 2, "tests": 3, "problem": "test 1: exit code 1: AssertionError"}
    assert code_tests(binary=True)(ADD, tests)["reward"] == 0.0


def test_programs_read_and_write() -> None:
    program = "```\nimport sys\nfor line in sys.stdin:\n    print(int(line) * 2, ' ')\n```"
    tests = [{"input": "1\n2\n", "output": "2\n4"}, {"input": "3", "output": "7"}]
    told = code_tests()(program, tests)
    assert (told["reward"], told["problem"]) == (0.5, "test 1: it wrote something else")


def test_what_a_program_writes_to_standard_error_is_no_output() -> None:
    program = "import sys, warnings\nwarnings.warn('slow')\nprint(sys.stdin.read())"
    assert code_tests()(program, [{"input": "7", "output": "7"}])["reward"] == 1.0
    program += "\nsys.exit('no more')"
    told = code_tests()(program, [{"input": "7", "output": "7"}])
    assert (told["reward"], told["problem"]) == (0.0, "test 0: exit code 1: no more")


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n",
        "```\nx = 1\n```",
        "```python\r\nx = 1\n```",
        "```python\nx = 1\n```\nwith\n```bash\npython x.py\n```\nwrites\n```\n1\n```\nDone.",
        "```Python 3\nx = 2\n```\nor better\n```py\nx = 1\n",
    ],
)
def test_the_program_in_an_answer(text: str) -> None:
    assert program_in(text) == "x = 1\n"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("while True: pass", "1 second"),
        ("import os; os._exit(0)", "ended early"),
        ("raise SystemExit", "ended early"),
        ("x = b'x' * (1 << 30)", "memory"),
        ("import socket; socket.create_connection(('127.0.0.1', 1))", "OSError|refused|unreachable"),
        ("open('/etc/shadow')", "No such file"),
        ("def add(", "SyntaxError"),
        ("'" + "x" * 70_000 + "'", "longer than"),
        ("'" + "\U0001f600" * 20_000 + "'", "longer than"),
        ("'\0'", "NUL"),
        ("\ud800", "exit code 1"),
        ("", "NameError"),
    ],
)
def test_what_a_program_should_not_do_fails_its_test_alone(code: str, problem: str) -> None:
    began = time.monotonic()
    rewarded = code_tests(timeout=1.0 if "while True" in code else 60.0, memory=64 * 2**20)
    told = rewarded(f"```python\n{code}\n```", ["assert add(1, 2) == 3"])
    assert told["reward"] == 0.0
    assert re.search(problem, told["problem"])
    assert rewarded(f"```python\n{code}\n```", [{"input": "1", "output": "3"}])["reward"] == 0.0
    assert time.monotonic() - began < 60


def test_nothing_is_left_on_this_machine(tmp_path: Path) -> None:
    place = tmp_path / "owned"
    told = code_tests()(f"open({str(place)!r}, 'w').write('x')", ["pass"])
    assert told["reward"] == 0.0
    assert not place.exists()


async def test_where_nothing_can_be_isolated_it_is_the_reward_that_fails() -> None:
    class Broken(Bwrap):
        async def run_async(self, *args: object, **options: object) -> None:  # type: ignore[override]
            raise OSError("no bubblewrap")

    chain = Trajectory([{"role": "assistant", "content": ADD}], metadata={"tests": ["pass"]})
    with pytest.raises(RewardError, match="no bubblewrap"):
        await score(code_tests(isolation=Broken()), chain)


async def test_a_program_is_killed_when_nobody_waits_for_its_reward_any_more() -> None:
    begun: asyncio.Queue[Process] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    class Watched(Bwrap):
        async def start_async(self, argv: Any, **options: Any) -> Process:
            process = await super().start_async(argv, **options)
            loop.call_soon_threadsafe(begun.put_nowait, process)
            return process

    loops = Trajectory([{"role": "assistant", "content": "while True: pass"}], metadata={"tests": ["pass"] * 9})
    scoring = asyncio.create_task(score(code_tests(isolation=Watched(), timeout=600), loops))
    process = await begun.get()
    scoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scoring
    await asyncio.to_thread(process.popen.wait, 60)
    assert begun.empty()


@pytest.mark.parametrize("tests", [[], None, [3], [{"input": "1"}]])
def test_tests_that_are_none_are_refused(tests: object) -> None:
    with pytest.raises(InvalidArgument, match="tests="):
        code_tests()(ADD, tests)


async def test_it_can_be_had_by_name() -> None:
    chain = Trajectory([{"role": "assistant", "content": ADD}], metadata={"tests": "assert add(2, 2) == 4"})
    assert (await score(get_reward("code_tests", timeout=5), chain)).reward == 1.0
