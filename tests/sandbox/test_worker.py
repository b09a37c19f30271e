"""Light Python sessions in a sandbox."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.errors import InvalidArgument, KernelDied, SandboxUnavailable
from lagentlike.sandbox import Bwrap, Limits, UnsafeLocal, Worker
from lagentlike.sandbox.cgroups import controllers
from lagentlike.sandbox.worker import CellResult


@pytest.fixture(scope="module")
def shared() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(limits=Limits(seconds=0.5)) as worker:
        yield worker


def test_variables_are_kept_and_the_last_value_is_shown(shared: Worker) -> None:
    assert shared.run("x = 20").value is None
    done = shared.run("print('y')\nx + 1")
    assert (done.ok, done.value, done.output, done.error, done.ending) == (True, "21", "y\n", "", "done")
    assert shared.run("None").value is None
    assert shared.run("'a'", show="str").value == "a"
    assert shared.run("import json\ndef f(n):\n    return json.dumps(n)\nf([1])").value == "'[1]'"


def test_definitions_see_each_other_and_modules(shared: Worker) -> None:
    shared.run("from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int = 3")
    assert shared.run("Point()").value == "Point(x=3)"
    assert shared.run("__name__").value == "'__main__'"
    assert shared.run("import pickle; pickle.loads(pickle.dumps(Point())).x").value == "3"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def f():\n    raise ValueError('no')\nf()", 'File "<cell'),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("input()", "EOFError"),
        ("x = []\nfor i in range(100_000): x = [x]\nx", "RecursionError"),
        ("class E(Exception):\n    def __str__(self): 1/0\nraise E", "E"),
    ],
)
def test_errors_come_back_as_text(shared: Worker, code: str, said: str) -> None:
    done = shared.run(code)
    assert not done.ok
    assert said in done.error
    assert "worker_program" not in done.error
    assert shared.run("1").value == "1"


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("import os; print(1); os.system('echo 2'); print(3)", "1\n2\n3\n"),
        ("import sys; print('e', file=sys.stderr)", "e\n"),
        ("print('a\\ud800b 😀')", "a\ufffdb 😀\n"),
        ("os.write(1, b'\\xff\\x00') and None", "\ufffd\0"),
    ],
)
def test_all_that_is_written_is_text(shared: Worker, code: str, output: str) -> None:
    assert shared.run(code).output == output


def test_a_value_is_valid_text(shared: Worker) -> None:
    assert shared.run("'\\ud800'", show="str").value == "\ufffd"
    value = shared.run("'x' * 50_000_000").value
    assert value is not None
    assert len(value) == 1 << 20


def test_streams_that_code_closed_are_there_again(shared: Worker) -> None:
    shared.run("import os\nfor number in (0, 1, 2): os.close(number)")
    assert shared.run("print(5)").output == "5\n"


def test_code_that_takes_too_long_is_interrupted_and_variables_are_kept(worker: Worker) -> None:
    worker.run("x = 3")
    done = worker.run("print('begun')\nwhile True: pass")
    assert (done.ending, done.output) == ("interrupted", "begun\n")
    assert "longer than 0.5 seconds and was interrupted" in done.error
    assert worker.run("import time; time.sleep(60)").ending == "interrupted"
    assert worker.run("x").value == "3"


def test_code_that_ignores_the_interrupt_is_killed(worker: Worker) -> None:
    worker.run("x = 3")
    done = worker.run("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass")
    assert (done.ending, done.returncode) == ("killed", -9)
    assert done.seconds < 0.5 + 2 + 5
    assert worker.run("'x' in globals()").value == "False"


@pytest.mark.parametrize(
    ("code", "returncode", "said"),
    [
        ("import os; os._exit(7)", 7, "exit code 7"),
        ("import os; os.kill(os.getpid(), 9)", -9, "killed by signal 9"),
        ("import ctypes; ctypes.string_at(0)", -11, "killed by signal 11"),
    ],
)
def test_a_process_that_dies_is_noticed_and_replaced(worker: Worker, code: str, returncode: int, said: str) -> None:
    done = worker.run(code)
    assert (done.ending, done.returncode) == ("died", returncode)
    assert f"the process died ({said})" in done.error
    assert worker.run("1").value == "1"


def test_code_that_its_user_interrupts_leaves_no_answer_behind(worker: Worker) -> None:
    """Ctrl-C while the answer is waited for."""
    worker.run("x = 3")
    me = threading.main_thread().ident
    assert me is not None
    threading.Timer(0.3, signal.pthread_kill, (me, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        worker.run("import time; time.sleep(5); 'late'", timeout=30)
    assert not worker.is_alive
    assert worker.run("1 + 1").value == "2"


@pytest.mark.skipif("memory" not in controllers().parents, reason="no control group for memory")
def test_a_process_that_memory_runs_out_for_says_so() -> None:
    with Worker(limits=Limits(memory=64 * 2**20)) as worker:
        done = worker.run("x = b'x' * (200 << 20)")
    assert (done.ending, done.returncode) == ("died", -9)
    assert done.error.startswith("the process died (it used more than 64 MiB of memory and was killed)")


def test_a_flood_of_output_is_killed(worker: Worker) -> None:
    done = worker.run("print('first')\nwhile True: print('x' * 100_000)", timeout=30)
    assert done.ending == "killed"
    assert "wrote more than 64 MiB" in done.error
    assert done.output.startswith("first\n")
    assert len(done.output) < 1.1 * (1 << 20)


def test_code_can_be_interrupted_and_killed_from_another_thread(shared: Worker) -> None:
    threading.Timer(0.3, shared.interrupt).start()
    done = shared.run("import time; time.sleep(60)")
    assert (done.ending, done.error.splitlines()[-1]) == ("done", "KeyboardInterrupt")
    threading.Timer(0.3, shared.kill).start()
    assert shared.run("time.sleep(60)").ending == "died"


def test_a_restart_forgets_all(shared: Worker) -> None:
    shared.run("kept = 1")
    shared.restart()
    assert "NameError" in shared.run("kept").error


async def test_awaited_calls_do_the_same(no_leaks: None) -> None:
    async with Worker() as worker:
        await worker.run_async("x = 20")
        assert (await worker.run_async("x + 1")).value == "21"
        assert (await worker.run_async("while True: pass", 0.3)).ending == "interrupted"
        task = asyncio.create_task(worker.run_async("import time; time.sleep(60)"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "NameError" in (await worker.run_async("x")).error


async def test_many_workers_run_at_once(no_leaks: None) -> None:
    async def one(number: int) -> str | None:
        async with Worker() as worker:
            return (await worker.run_async(f"{number} * 2")).value

    assert await asyncio.gather(*map(one, range(8))) == [str(2 * number) for number in range(8)]


def test_workers_do_not_see_each_others_files(tmp_path: Path) -> None:
    with Worker() as first, Worker() as second:
        first.run("open('/workspace/file', 'w').write('mine'); open('/tmp/file', 'w').write('mine')")
        assert first.run("open('file').read()").value == "'mine'"
        seen = "[entry.name for entry in os.scandir('/tmp') if entry.is_file()]"  # this package may lie below /tmp
        assert second.run(f"import os; os.listdir(), {seen}").value == "([], [])"


def test_a_workspace_and_more_can_be_given(tmp_path: Path) -> None:
    workspace = Bwrap().scratch_folder(tmp_path / "work")
    (workspace / "mine.py").write_text("answer = 42")
    with Worker(workspace=workspace, env={"GIVEN": "1"}) as worker:
        assert worker.run("import mine, os; mine.answer, os.environ['GIVEN']").value == "(42, '1')"


def test_it_can_run_without_isolation_by_name() -> None:
    with Worker("unsafe_local") as worker:
        assert isinstance(worker.isolation, UnsafeLocal)
        assert worker.run("import os; os.getppid()").value == str(os.getpid())


def test_without_a_sandbox_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable):
        Worker().run("1")


def test_a_worker_that_does_not_come_up_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lagentlike.sandbox.worker._ARGV", (sys.executable, "-c", "raise SystemExit('no')"))
    with pytest.raises(KernelDied, match="no"):
        Worker().run("1")


# Answers that code forged

FORGED = """
import os, stat
number = 3
while not stat.S_ISSOCK(os.fstat(number).st_mode):
    number += 1
os.write(number, bytes.fromhex({content!r}))
"""


def forged(worker: Worker, content: bytes) -> CellResult:
    return worker.run(FORGED.format(content=content.hex()))


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"id": 99}', b'{"id": true}', b"\x80\x04N.", b"[" * 50_000, b'{"id": "1"}']
)
def test_an_answer_that_code_forged_ends_the_worker(worker: Worker, body: bytes) -> None:
    done = forged(worker, len(body).to_bytes(4, "big") + body)
    assert done.ending in ("killed", "died")
    assert "broke the protocol" in done.error
    assert worker.run("1").value == "1"


def test_strange_fields_of_an_answer_are_left_out(worker: Worker) -> None:
    body = b'{"id": 1, "ok": "yes", "value": {"a": 1}, "error": 3}'
    content = len(body).to_bytes(4, "big") + body
    done = worker.run(FORGED.format(content=content.hex()) + "import time; time.sleep(60)")
    assert (done.ok, done.value, done.error) == (False, None, "")


def test_random_bytes_never_raise(worker: Worker) -> None:
    rng = random.Random(3)
    for _ in range(10):
        done = forged(worker, rng.randbytes(rng.randrange(1, 200)))
        assert done.ending in ("done", "killed", "died", "interrupted")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((5,), "code=5"),
        ((None,), "code=None"),
        (("1", float("inf")), "timeout=inf"),
        (("1", float("nan")), "timeout=nan"),
        (("1", -1), "timeout=-1"),
    ],
)
def test_what_is_no_code_or_no_time_costs_no_variables(shared: Worker, arguments: tuple[Any, ...], said: str) -> None:
    shared.run("kept = 5")
    with pytest.raises(InvalidArgument, match=said):
        shared.run(*arguments)
    assert shared.run("kept").value == "5"


def test_a_child_that_code_lets_run_on_does_not_answer(worker: Worker) -> None:
    assert worker.run("import os; x = 3; pid = os.fork()", 10).ok
    assert worker.run("x + 1", 10).value == "4"
    assert worker.run("os.waitpid(pid, 0)[1]", 10).value == "0"
