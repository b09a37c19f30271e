"""Code in shells: in this process, in worker processes, and as whole programs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import (
    ActionExecutor,
    AsyncActionExecutor,
    AsyncIPythonInteractive,
    AsyncPythonInterpreter,
    IPythonInteractive,
    IPythonInteractiveManager,
    PythonInterpreter,
    UnsafeIPythonInteractive,
)
from lagentlike.errors import InvalidArgument
from lagentlike.schema import ActionStatusCode, AgentMessage


@pytest.fixture(scope="module")
def manager() -> Iterator[IPythonInteractiveManager]:
    manager = IPythonInteractiveManager(max_workers=2, timeout=20)
    yield manager
    manager.close()


Shell = IPythonInteractive | IPythonInteractiveManager | UnsafeIPythonInteractive


@pytest.fixture(scope="module", params=["interactive", "manager", "in this process"])
def shell(request: pytest.FixtureRequest, manager: IPythonInteractiveManager) -> Iterator[Shell]:
    if request.param == "manager":
        yield manager
    elif request.param == "interactive":
        shell = IPythonInteractive()
        yield shell
        shell.close()
    else:
        yield UnsafeIPythonInteractive()


def text(shell: Shell, code: str, session_id: Any = 0) -> str:
    return str(shell({"command": code}, session_id=session_id).text)


def test_variables_are_kept_and_the_last_value_is_shown(shell: Shell) -> None:
    assert text(shell, "x = 20") == "(no output)"
    assert text(shell, "print('y')\nx + 1") == "y\n21"
    assert text(shell, "```python\nx\n```") == "20"


def test_sessions_do_not_see_each_other(shell: Shell) -> None:
    text(shell, "mine = 1", "a")
    assert "NameError: name 'mine' is not defined" in text(shell, "mine", "b")
    assert text(shell, "mine", "a") == "1"


def test_resetting_a_session_forgets_its_variables(shell: Shell) -> None:
    executor = ActionExecutor([shell])
    text(shell, "kept = 1", "r")
    assert "r" in executor.session_ids()
    executor.reset("r", recursive=True)
    assert "NameError" in text(shell, "kept", "r")


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit", "SystemExit"),
        ("input('?')", "there is nobody to answer input() here"),
    ],
)
def test_errors_come_back_as_text(shell: Shell, code: str, shown: str) -> None:
    returned = shell({"command": code})
    assert returned.state == ActionStatusCode.API_ERROR
    assert shown in returned.text
    assert "\x1b" not in returned.text


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("import sys; print('out'); print('err', file=sys.stderr)", "out\nerr"),
        ("!echo hi", "hi"),
        ("exit()", "(no output)"),
        ("__name__", "'__main__'"),
        ("import asyncio; await asyncio.sleep(0, 3)", "3"),
        ("print('\\ud800')", "\ufffd"),
    ],
)
def test_what_is_written_is_shown(shell: Shell, code: str, shown: str) -> None:
    message = AgentMessage(content={"name": shell.name, "parameters": {"code": code}})
    assert ActionExecutor([shell])(message).content.text == shown


def test_of_a_flood_the_head_and_the_tail_are_kept(shell: Shell) -> None:
    code = "for n in range(300):\n    print(f'{n:06}' + 'x' * 1_000_000)"
    shown = text(shell, code)
    assert len(shown) <= 8192
    assert shown.startswith("000000xxx")
    assert shown.endswith("xxx")
    assert "characters are left out here" in shown
    assert text(shell, "n") == "299"


def test_a_traceback_without_end_has_its_ends_only(shell: Shell) -> None:
    told = text(shell, "def f():\n    f()\nf()")
    assert "RecursionError: maximum recursion depth exceeded" in told
    assert told.count("in f()") < 25


def test_the_own_streams_and_main_module_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    shell = UnsafeIPythonInteractive()
    out, err, main = sys.stdout, sys.stderr, sys.modules["__main__"]
    other = threading.Thread(target=lambda: [(sys.stdout.write("mine\n"), time.sleep(0.01)) for _ in range(20)])
    other.start()
    assert text(shell, "import time\nfor i in range(10): print('theirs'); time.sleep(0.01)") == "\n".join(
        ["theirs"] * 10
    )
    other.join()
    assert (sys.stdout, sys.stderr, sys.modules["__main__"]) == (out, err, main)
    assert capsys.readouterr().out == "mine\n" * 20


def test_sessions_in_one_process_run_at_once_and_keep_their_output() -> None:
    shell = UnsafeIPythonInteractive()
    code = "import time\nfor i in range(20): print({0}); time.sleep(0.001)"

    async def main() -> list[str]:
        executor = AsyncActionExecutor([shell])
        calls = [
            AgentMessage(content={"name": shell.name, "parameters": {"command": code.format(n)}}) for n in range(5)
        ]
        return [str(reply.content.text) for reply in await executor.map(calls)]  # type: ignore[union-attr]

    assert asyncio.run(main()) == ["\n".join([str(n)] * 20) for n in range(5)]


def test_code_in_this_process_that_takes_too_long_is_stopped() -> None:
    shell = UnsafeIPythonInteractive(timeout=0.3)
    text(shell, "x = 3")
    started = time.monotonic()
    assert "was stopped" in text(shell, "while True: pass")
    assert "was stopped" in text(shell, "while True:\n  try:\n    while True: pass\n  except Exception: pass")
    assert time.monotonic() - started < 10
    assert text(shell, "x") == "3"


def test_code_that_cannot_be_stopped_is_left_running() -> None:
    shell = UnsafeIPythonInteractive(timeout=0.1)
    assert "is still running" in text(shell, "import time; time.sleep(2)")
    assert text(shell, "1", "other") == "1"


def test_several_pieces_of_code_run_at_once_in_workers(manager: IPythonInteractiveManager) -> None:
    returned = manager(["x = 1", "x = 2"], ["p", "q"])
    assert [one.text for one in returned] == ["(no output)"] * 2
    returned = manager(["import os; (x, os.readlink('/proc/self/ns/pid'))"] * 2, ["p", "q"])
    (first, one), (second, other) = (eval(item.text) for item in returned)
    assert (first, second) == (1, 2)
    assert len({one, other, str(Path("/proc/self/ns/pid").readlink())}) == 3, "each in a sandbox of its own"
    with pytest.raises(InvalidArgument, match="indexes"):
        manager(["1", "2"], [0])


def test_a_worker_is_interrupted_and_if_need_be_killed() -> None:
    manager = IPythonInteractiveManager(max_workers=1, timeout=0.5)
    text(manager, "x = 3")
    assert "was interrupted; variables are kept" in text(manager, "while True: pass")
    assert text(manager, "x") == "3"
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    assert "was killed: all variables are gone" in text(manager, code)
    assert "NameError" in text(manager, "x")
    assert "the process died" in text(manager, "import os; os._exit(1)")
    assert text(manager, "1") == "1"
    manager.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_children_leave_the_workers_alone(manager: IPythonInteractiveManager) -> None:
    text(manager, "x = 1", session_id="forked")
    child = os.fork()
    if child == 0:
        os._exit("NameError" not in text(manager, "x", session_id="forked") or text(manager, "x = 2\nx") != "2")
    assert os.waitpid(child, 0)[1] == 0
    assert text(manager, "x", session_id="forked") == "1"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("action", ["reset", "close"])
def test_a_forked_child_does_not_wait_for_what_its_parent_does(manager: IPythonInteractiveManager, action: str) -> None:
    text(manager, "x = 1", session_id="forked")
    manager.workers._guard.acquire()  # as while another thread of the parent starts a session
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        manager.workers.reset("forked") if action == "reset" else manager.close()
        os._exit(0)
    manager.workers._guard.release()
    assert os.waitpid(child, 0)[1] == 0
    assert text(manager, "x", session_id="forked") == "1"


def test_a_worker_ends_with_its_parent() -> None:
    code = (
        "import os, sys\n"
        "from lagentlike.actions import IPythonInteractiveManager\n"
        "manager = IPythonInteractiveManager(max_workers=1)\n"
        "manager('1')\n"
        "print(manager.workers._workers[0]._process.first_process(), flush=True)\n"
        "os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not Path(f"/proc/{int(done.stdout)}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the worker is still there")


# Whole programs


@pytest.mark.parametrize(
    ("options", "code", "answer"),
    [
        ({}, "def solution():\n    return 6 * 7", "42"),
        ({}, "```python\ndef solution():\n    return 6 * 7\n```", "42"),
        ({"answer_symbol": "y"}, "y = 3", "3"),
        ({"answer_expr": None}, "x = 1\nx + 1", "2"),
        ({"answer_expr": "f(2)"}, "def f(n): return n * n", "4"),
        ({"answer_from_stdout": True}, "print(3)\nprint(4)", "4"),
        ({}, "print(17 * 25)", "425"),
        ({}, "x = 17\nx * 25", "425"),
    ],
)
def test_a_programs_answer_comes_back(options: dict[str, Any], code: str, answer: str) -> None:
    assert PythonInterpreter(**options)(code).format_result() == answer


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({}, "def solution():\n    return 1/0", "ZeroDivisionError: division by zero"),
        ({}, "x = 1", "the code must define what gives the answer, solution(), or print it"),
        ({}, "def solution(): return nothing", "NameError: name 'nothing' is not defined"),
        ({}, "def solution(:", "SyntaxError"),
        ({}, "import sys; sys.exit(2)", "SystemExit: 2"),
        ({"timeout": 0.2}, "while True: pass", "was stopped"),
        ({"answer_symbol": "y"}, "x = 3", "must set the variable 'y'"),
        ({"answer_expr": None}, "x = 3", "must be an expression"),
        ({"answer_from_stdout": True}, "x = 3", "must print the answer"),
    ],
)
def test_what_is_wrong_with_a_program_is_said(options: dict[str, Any], code: str, said: str) -> None:
    returned = PythonInterpreter(**options)({"command": code})
    assert returned.state != ActionStatusCode.SUCCESS
    assert said in returned.text


@pytest.mark.parametrize("timeout", [None, math.inf])
def test_a_program_may_take_as_long_as_it_likes(timeout: Any) -> None:
    assert PythonInterpreter(timeout=timeout)("def solution(): return 7").text == "7"


def test_programs_begin_from_nothing() -> None:
    interpreter = PythonInterpreter()
    interpreter("left = 1\ndef solution(): return 1")
    assert "NameError" in interpreter("def solution(): return left").text


@pytest.mark.parametrize(
    ("make", "blocking", "code"),
    [
        (AsyncIPythonInteractive, IPythonInteractive, "import time\ntime.sleep({0})\n{0} + 1"),
        (
            AsyncPythonInterpreter,
            PythonInterpreter,
            "import time\ndef solution():\n    time.sleep({0})\n    return {0} + 1",
        ),
    ],
)
async def test_async_forms_are_awaited_and_given_up(make: Any, blocking: Any, code: str) -> None:
    shell = make()
    assert shell.description == blocking(name=shell.name).description
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(shell({"command": code.format(200)}), 1)
    results = await asyncio.gather(*(shell({"command": code.format(0)}, session_id=number) for number in range(2)))
    assert [result.text for result in results] == ["1", "1"]
    assert time.monotonic() - began < 60
    call = AgentMessage(content={"name": shell.name, "parameters": {"command": code.format(0)}})
    replies = ActionExecutor([shell])(call), await AsyncActionExecutor([shell])(call)
    assert [reply.content.text for reply in replies] == ["1", "1"]


def test_bad_options_are_refused() -> None:
    for make in (
        lambda: PythonInterpreter(answer_expr="f("),
        lambda: IPythonInteractive(timeout=-1),
        lambda: IPythonInteractiveManager(max_workers=0),
        lambda: IPythonInteractiveManager(timeout=None),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgument):
            make()


def test_stdout_of_a_program_is_not_mixed_with_ours() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as ours:
        assert PythonInterpreter(answer_from_stdout=True)("print('theirs')").text == "theirs"
    assert ours.getvalue() == ""
