"""Jupyter kernels as tools: one for each session, and none left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, AsyncActionExecutor, AsyncIPythonInterpreter, IPythonInterpreter
from lagentlike.actions.code import extract_code
from lagentlike.actions.ipython_interpreter import _folder_name
from lagentlike.errors import InvalidArgument, StateError
from lagentlike.sandbox import Bwrap, Limits
from lagentlike.sandbox.cgroups import controllers
from lagentlike.schema import ActionStatusCode, AgentMessage, ToolCall

from .. import processes
from ..processes import await_death, is_alive

GONE = "earlier variables are gone"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IPythonInterpreter]:
    """Kernels that the quick tests have together, each test in a session of its own or with names of its own."""
    interpreter = IPythonInterpreter(timeout=30, work_dir=tmp_path_factory.mktemp("work"))
    yield interpreter
    interpreter.close()


@pytest.fixture
def interpreter(tmp_path: Path) -> Iterator[IPythonInterpreter]:
    """Kernels with a short patience."""
    interpreter = IPythonInterpreter(timeout=1, work_dir=tmp_path)
    yield interpreter
    interpreter.close()


def text(interpreter: IPythonInterpreter, code: str, session_id: Any = 0) -> str:
    return str(interpreter({"command": code}, session_id=session_id).text)


def pid(interpreter: IPythonInterpreter, session_id: Any = 0) -> int:
    """The number here of the session's kernel."""
    inner = int(text(interpreter, "import os; os.getpid()", session_id).splitlines()[-1])
    return outside(interpreter, [inner], session_id)[0]


def outside(interpreter: IPythonInterpreter, inner: list[int], session_id: Any = 0) -> list[int]:
    """The numbers here of processes that have others in the kernel's sandbox."""
    kernel: Any = interpreter.kernels._slots[session_id].kernel
    return processes.outside(kernel.process.first_process(), inner)


def test_variables_are_kept_and_the_last_value_is_shown(shared: IPythonInterpreter) -> None:
    assert text(shared, "x = 20") == "(no output)"
    assert text(shared, "print('y')\nx + 1") == "y\n21"


@pytest.mark.parametrize(
    "given", ["```python\nz = 5\nz\n```", "Let me see.\n```py\nz = 5\nz\n```\nDone.", "```\nz = 5\nz", "z = 5\nz"]
)
def test_code_fences_are_taken_off(shared: IPythonInterpreter, given: str) -> None:
    assert text(shared, given) == "5"
    assert extract_code("a = '```'") == "a = '```'"


def test_code_is_another_name_for_command(shared: IPythonInterpreter) -> None:
    executor = ActionExecutor([shared])
    assert executor.description()[0]["required"] == ["command"]
    message = AgentMessage(content={"name": "IPythonInterpreter", "parameters": {"code": "6 * 7"}})
    assert executor(message).content.text == "42"


def test_an_error_is_a_clean_traceback_after_the_output(shared: IPythonInterpreter) -> None:
    returned = shared("print('before')\n1/0")
    assert returned.state == ActionStatusCode.API_ERROR
    assert returned.text.startswith("before\nZeroDivisionError")
    assert returned.text.endswith("ZeroDivisionError: division by zero")
    assert "\x1b" not in returned.text
    assert "site-packages" not in returned.text
    assert text(shared, "def f(:").endswith("SyntaxError: invalid syntax")


@pytest.mark.parametrize(
    "code", ["input()", "import sys; sys.stdin.readline() or 1/0", "import getpass; getpass.getpass()"]
)
def test_nobody_waits_for_input(shared: IPythonInterpreter, code: str) -> None:
    started = time.monotonic()
    assert shared(code).state == ActionStatusCode.API_ERROR
    assert time.monotonic() - started < 10


def test_closed_streams_do_no_harm(interpreter: IPythonInterpreter) -> None:
    interpreter("import os\nfor fd in (0, 1, 2): os.close(fd)")
    assert text(interpreter, "print(6 * 7)") == "42"


def test_figures_are_files_in_the_sessions_folder(shared: IPythonInterpreter) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint('drawn')"
    first, second = shared(code, session_id="plots"), shared(code, session_id="plots")
    items = [*first.result, *second.result]
    assert [item["type"] for item in items] == ["image", "text"] * 2
    paths = [Path(item["content"]) for item in items if item["type"] == "image"]
    assert [path.name for path in paths] == ["figure_1.png", "figure_2.png"]
    for path in paths:
        assert path.parent == shared.session_dir("plots")
        assert path.read_bytes().startswith(b"\x89PNG")
    assert "[image](" in first.text


def test_images_travel_with_the_results_of_native_calls(shared: IPythonInterpreter) -> None:
    code = "from IPython.display import SVG, display; display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))"
    call = ToolCall("IPythonInterpreter", {"command": code}, id="a")
    reply = ActionExecutor([shared])(AgentMessage(content="", tool_calls=[call]))
    (item,) = reply.tool_results[0].metadata["items"]
    assert item["content"].endswith(".svg")


def test_images_are_not_written_through_links_of_the_code(shared: IPythonInterpreter, tmp_path: Path) -> None:
    target = tmp_path / "precious.svg"
    code = f"""
import os
from IPython.display import SVG, display, publish_display_data
os.symlink({str(target)!r}, 'figure_1.svg')
display(SVG('<svg xmlns="http://www.w3.org/2000/svg"/>'))
publish_display_data({{'image/png': 'no base64!'}})
"""
    returned = shared(code, session_id="links")
    assert [Path(item["content"]).name for item in returned.result] == ["figure_2.svg", "figure_3.png"]
    assert not target.exists()


def test_each_session_has_its_kernel_and_its_folder(shared: IPythonInterpreter) -> None:
    text(shared, "mine = 1; open('file.txt', 'w').close()", "a")
    assert "NameError" in text(shared, "mine", "b")
    assert text(shared, "import os; os.listdir()", "a") == "['file.txt']"
    assert text(shared, "import os; os.listdir()", "b") == "[]"
    assert pid(shared, "a") != pid(shared, "b")


@pytest.mark.parametrize("session_id", ["../x", "a/b", "\x00", "x" * 300, ("a", 1), "7", "é", "", "-", "\ud800"])
def test_session_ids_never_form_a_path(session_id: Any) -> None:
    name = _folder_name(session_id)
    assert name.startswith("session-")
    assert "/" not in name
    assert len(name) < 80
    assert name != _folder_name(7)


def test_keys_do_not_reach_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-123")
    monkeypatch.setenv("PLAIN", "seen")
    interpreter = IPythonInterpreter(work_dir=tmp_path, env={"MORE": "given"})
    code = "import os; [os.environ.get(name) for name in ('SOME_API_KEY', 'PLAIN', 'MORE')]"
    assert text(interpreter, code) == "[None, None, 'given']"
    interpreter.close()
    trusted = IPythonInterpreter(work_dir=tmp_path, env={"MORE": "given"}, isolation="unsafe_local")
    assert text(trusted, code) == "[None, 'seen', 'given']"
    trusted.close()


def test_the_users_folder_is_linked(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.csv").write_text("1,2")
    interpreter = IPythonInterpreter(work_dir=tmp_path / "work", user_data_dir=tmp_path / "mine")
    assert text(interpreter, "print(open('data/table.csv').read())") == "1,2"
    interpreter.close()


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("print('a\\ud800b 😀 \\u202e')", "a\ufffdb 😀 \u202e"),
        ("import os; os.write(1, b'raw \\xff') and None", "raw \ufffd"),
        ("import subprocess; subprocess.run(['echo', 'hi']) and None", "hi"),
        ("l = []; l.append(l); l", "[[...]]"),
        ("'\\ud800'", "'\\ud800'"),
        ("float('nan'), {1}, b'x'", "(nan, {1}, b'x')"),
    ],
)
def test_whatever_code_writes_is_valid_text(shared: IPythonInterpreter, code: str, shown: str) -> None:
    assert text(shared, code).strip() == shown


@pytest.mark.parametrize("code", ["raise ValueError('\\ud800 no')", "x = []\nfor i in range(100_000): x = [x]\nx"])
def test_strange_errors_are_valid_text(shared: IPythonInterpreter, code: str) -> None:
    shown = text(shared, code)
    assert "Error" in shown
    shown.encode()


def test_output_is_bounded(tmp_path: Path) -> None:
    interpreter = IPythonInterpreter(work_dir=tmp_path, max_out_len=1000)
    shown = text(interpreter, "for i in range(200_000): print(i)")
    assert len(shown) <= 1000
    assert shown.startswith("0\n1\n")
    assert shown.endswith("199999")
    assert "characters are left out here" in shown
    interpreter.close()


# When code misbehaves


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("for n in range(40):\n    clear_output(wait=True)\n    display(Image(data=PNG))", "image"),
        ("print('a'); clear_output(wait=True); print('b')", "b"),
        ("print('a'); clear_output(wait=True)", "a"),
        ("print('a'); clear_output()", "(no output)"),
        ("print('<'); h = display('first', display_id=True); print('>'); h.update('last')", "<\n'last'\n>"),
        ("h = display('first', display_id=True); h.update(Image(data=PNG))", "image"),
        ("h = display('first', display_id=True); clear_output(); h.update('last')", "(no output)"),
        ("display(Markdown('# Result')); display(HTML('<b>7</b>')); display(Math('x^2'))", None),
        ("display(JSON({'a': 'é'}))", '{"a": "é"}'),
    ],
)
def test_what_is_displayed_is_shown_as_a_notebook_shows_it_in_the_end(
    shared: IPythonInterpreter, code: str, shown: str | None
) -> None:
    setting = """
import base64
from IPython.display import clear_output, display, HTML, Image, JSON, Markdown, Math
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
"""
    result = shared({"command": setting + code})
    if shown == "image":
        [item] = result.result
        assert item["type"] == "image"
        assert Path(item["content"]).read_bytes().startswith(b"\x89PNG")
    else:
        assert result.text == (shown or "# Result\n<b>7</b>\n$\\displaystyle x^2$")


@pytest.mark.parametrize(
    "message",
    [
        '"stream", {}',
        '"stream", [1]',
        '"display_data", {"data": ["a"], "transient": 3}',
        '"update_display_data", {"data": {}, "transient": {"display_id": [1]}}',
        '"status", {}',
        '"error", {"traceback": 7}',
    ],
)
def test_messages_that_code_makes_up_do_no_harm(shared: IPythonInterpreter, message: str) -> None:
    code = f"kernel = get_ipython().kernel\nkernel.session.send(kernel.iopub_socket, {message}, kernel.get_parent())"
    assert "here" in text(shared, f"{code}\nprint('here')")
    garbage = "kernel.iopub_socket.send_multipart([b'a', b'<IDS|MSG>', b'bad', b'{}', b'{', b'[]', b'7'])"
    assert text(shared, f"{garbage}\nprint('there')") == "there"


@pytest.mark.parametrize("code", ["print('a' * 70_000_000)", "'a' * 70_000_000", "raise ValueError('a' * 70_000_000)"])
def test_a_text_larger_than_any_message_is_shortened(shared: IPythonInterpreter, code: str) -> None:
    text(shared, "kept = 7")
    assert "aaa\n… " in text(shared, code)
    assert text(shared, "kept") == "7"


def test_code_that_calls_itself_without_end_is_told_so_shortly(shared: IPythonInterpreter) -> None:
    told = text(shared, "def f():\n    f()\nf()")
    assert "RecursionError: maximum recursion depth exceeded" in told
    assert told.count("Cell In") < 25


def test_a_forked_child_that_runs_on_ends_with_its_cell(shared: IPythonInterpreter) -> None:
    told = text(shared, "import os\nif child := os.fork():\n    os.waitpid(child, 0)\nprint('both')")
    assert told.split() == ["both", "both"]
    assert text(shared, "child > 0") == "True"


def test_code_that_takes_too_long_is_interrupted_and_variables_are_kept(interpreter: IPythonInterpreter) -> None:
    text(interpreter, "x = 3")
    started = time.monotonic()
    returned = interpreter("print('begun')\nimport time; time.sleep(60)")
    assert time.monotonic() - started < 1 + 3
    assert returned.state == ActionStatusCode.API_ERROR
    assert returned.text == "begun\nthe code took longer than 1 seconds and was interrupted; variables are kept"
    assert text(interpreter, "x") == "3"


def test_code_that_ignores_the_interrupt_is_killed(interpreter: IPythonInterpreter) -> None:
    interpreter("x = 3")
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    started = time.monotonic()
    assert "its kernel was killed: all variables are gone" in text(interpreter, code)
    assert time.monotonic() - started < 1 + 3 + 1
    shown = text(interpreter, "print('x' in globals())")
    assert GONE in shown
    assert shown.endswith("False")
    assert text(interpreter, "1") == "1"


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("import os; os._exit(7)", "exit code 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
        ("import ctypes; ctypes.string_at(0)", "killed by signal 11"),
    ],
)
def test_a_dead_kernel_is_noticed_and_replaced(interpreter: IPythonInterpreter, code: str, ending: str) -> None:
    text(interpreter, "x = 1")
    started = time.monotonic()
    assert f"the kernel died ({ending})" in text(interpreter, code)
    assert time.monotonic() - started < 2
    assert GONE in text(interpreter, "2")


@pytest.mark.skipif("memory" not in controllers().parents, reason="no control group for memory")
def test_a_kernel_that_memory_runs_out_for_says_so(tmp_path: Path) -> None:
    interpreter = IPythonInterpreter(timeout=20, work_dir=tmp_path, isolation=Bwrap(Limits(memory=160 * 2**20)))
    bomb = "x = b'x' * (400 << 20)"
    below = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {bomb!r}]).returncode"
    assert text(interpreter, below) == "-9"
    assert "the kernel died (killed by signal 9)" in text(interpreter, "import os; os.kill(os.getpid(), 9)")
    assert text(interpreter, "1 + 1").endswith("2")
    said = "the kernel died (it used more than 160 MiB of memory and was killed): all variables are gone"
    assert said in text(interpreter, bomb)
    interpreter.close()


def test_a_kernel_whose_folder_is_full_says_so_and_goes_on(tmp_path: Path) -> None:
    interpreter = IPythonInterpreter(timeout=30, work_dir=tmp_path, isolation=Bwrap(Limits(disk=16 * 2**20)))
    fill = """
import time
x = 7
for number in range(40):
    with open(str(number), "wb", 0) as file:
        file.write(bytes(1 << 20))
    time.sleep(0.02)
"""
    filled = text(interpreter, fill)
    assert "OSError: [Errno 27] File too large" in filled
    assert "(the disk was full, since no more than 16 MiB may be written to it: remove something)" in filled
    emptied = """
!rm *
for _ in range(200):
    time.sleep(0.05)
    try:
        with open("more", "w") as file:
            print(file.write("it fits"), x)
        break
    except OSError: continue
"""
    assert text(interpreter, emptied).endswith("7 7")
    assert text(interpreter, "1 / 0").endswith("ZeroDivisionError: division by zero"), "that is over"
    interpreter.close()


def test_a_kernel_that_dies_between_calls_is_replaced(interpreter: IPythonInterpreter) -> None:
    os.kill(pid(interpreter), signal.SIGKILL)
    time.sleep(0.1)
    shown = text(interpreter, "1 + 1")
    assert "the kernel died (killed by signal 9)" in shown
    assert GONE in shown
    assert shown.endswith("2")


def test_code_after_a_failed_one_really_runs(shared: IPythonInterpreter) -> None:
    text(shared, "count = 0", "order")
    for _ in range(25):
        assert "ZeroDivisionError" in text(shared, "1/0", "order")
        text(shared, "count += 1", "order")
    assert text(shared, "count", "order") == "25"


async def test_code_after_a_cancelled_one_really_runs(tmp_path: Path) -> None:
    interpreter = AsyncIPythonInterpreter(work_dir=tmp_path, timeout=30)
    await interpreter("count = 0")
    for _ in range(3):
        task = asyncio.ensure_future(interpreter("import time; time.sleep(30)"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await interpreter("count += 1")
    assert (await interpreter("count")).text == "3"
    await interpreter.aclose()


GRANDCHILDREN = """
import os, subprocess, sys
plain = subprocess.Popen(["sleep", "300"])
away = subprocess.Popen(["sleep", "300"], start_new_session=True)
bare = subprocess.Popen(["sleep", "300"], start_new_session=True, env={})
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    grandchild = os.fork()
    if grandchild == 0:
        os.execvpe("sleep", ["sleep", "300"], {"PATH": os.environ["PATH"]})
    os.write(write, str(grandchild).encode())
    os._exit(0)
print(plain.pid, away.pid, bare.pid, int(os.read(read, 100)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ending", ["close", "reset", "death", "garbage"])
def test_what_a_kernel_started_ends_with_it(tmp_path: Path, ending: str) -> None:
    interpreter = IPythonInterpreter(work_dir=tmp_path)
    kernel = pid(interpreter)
    children = outside(interpreter, [int(number) for number in text(interpreter, GRANDCHILDREN).split()])
    assert all(map(is_alive, children))
    if ending == "close":
        interpreter.close()
    elif ending == "reset":
        interpreter.reset(0)
    elif ending == "death":
        text(interpreter, "os._exit(1)")
    else:
        del interpreter
        gc.collect()
    assert await_death(kernel)
    assert all(map(await_death, children))


PARENT = """
import os, sys, time
from lagentlike.actions import IPythonInterpreter
interpreter = IPythonInterpreter(work_dir=sys.argv[1])
interpreter("1")
print(interpreter.kernels._slots[0].kernel.process.first_process(), flush=True)
{ending}
"""


@pytest.mark.parametrize("ending", ["pass", "os.kill(os.getpid(), 9)", "os._exit(0)", "raise SystemExit(3)", "1/0"])
def test_no_kernel_outlives_its_process(tmp_path: Path, ending: str) -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="k"))
    done = subprocess.run(
        [sys.executable, "-c", PARENT.format(ending=ending), str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    assert await_death(int(done.stdout))
    if ending == "pass":
        assert done.stderr == ""
    if ending in ("pass", "raise SystemExit(3)", "1/0"):
        assert list(folder.iterdir()) == []
    shutil.rmtree(folder)


def test_a_temporary_folder_goes_with_its_process(tmp_path: Path) -> None:
    program = "import os; from lagentlike.actions import IPythonInterpreter as Tool; print(Tool().work_dir, flush=True)"

    def left_after(ending: str) -> bool:
        done = subprocess.run(
            [sys.executable, "-c", f"{program}\n{ending}"],
            capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "TMPDIR": str(tmp_path)},
        )  # fmt: skip
        folder = Path(done.stdout.strip())
        assert folder.parent == tmp_path
        return folder.exists()

    assert left_after("os.kill(os.getpid(), 9)")
    assert not left_after("os.fork()")  # nor does a child disturb it, but it removes what the first has left
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_children_leave_the_kernels_alone(interpreter: IPythonInterpreter) -> None:
    kernel = pid(interpreter)
    child = os.fork()
    if child == 0:
        try:
            import atexit

            atexit._run_exitfuncs()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert is_alive(kernel)
    assert pid(interpreter) == kernel


# Many sessions


def test_sessions_leave_nothing_behind(tmp_path: Path, no_leaks: None) -> None:
    interpreter = IPythonInterpreter(work_dir=tmp_path)
    kernels = []
    for session_id in range(4):
        kernels.append(pid(interpreter, session_id))
        interpreter.close(session_id)
    assert not any(map(is_alive, kernels))
    assert interpreter.session_ids() == []


OBJECTS = """
import gc, sys, time
from lagentlike.actions import IPythonInterpreter

interpreter = IPythonInterpreter(work_dir=sys.argv[1])

def objects_after(sessions):
    for session_id in range(sessions):
        interpreter("x = 1", session_id=session_id)
        interpreter.reset(session_id)
        interpreter.close(session_id)
    counts = []
    for _ in range(20):  # until the background loop and the worker thread have put down what they last held
        time.sleep(0.05)
        gc.collect()
        counts.append(len(gc.get_objects()))
    return min(counts)

before = objects_after(3)  # what is made once is there by now
print(objects_after(12) - before)
"""


def test_sessions_leave_no_object_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OBJECTS, str(tmp_path)], capture_output=True, text=True, timeout=110, check=True
    )
    assert int(done.stdout) < 12, "less than one a session; benchmarks/kernel_sessions.py measures memory"


def test_idle_kernels_are_closed(tmp_path: Path) -> None:
    interpreter = IPythonInterpreter(work_dir=tmp_path, idle_timeout=0.2)
    kernel = pid(interpreter)
    assert await_death(kernel)
    shown = text(interpreter, "1")
    assert "not used for long" in shown
    assert GONE in shown
    interpreter.close()


async def test_kernels_are_bounded_and_the_one_unused_longest_goes(tmp_path: Path) -> None:
    interpreter = AsyncIPythonInterpreter(max_kernels=2, work_dir=tmp_path)
    for session_id in (1, 2):
        await interpreter("x = 1", session_id=session_id)
    await interpreter("x", session_id=1)
    await interpreter("x = 1", session_id=3)
    assert (await interpreter("x", session_id=1)).text == "1"
    assert GONE in (await interpreter("2", session_id=2)).text
    await interpreter.aclose()


async def test_more_calls_than_kernels_wait_for_their_turn(tmp_path: Path) -> None:
    interpreter = AsyncIPythonInterpreter(max_kernels=1, work_dir=tmp_path)
    done = await asyncio.gather(*(interpreter(f"{n} + 1", session_id=n) for n in range(3)))
    assert [returned.text for returned in done] == ["1", "2", "3"]
    await interpreter.aclose()


async def test_a_kernel_that_does_not_start_lets_others_have_its_place() -> None:
    interpreter = AsyncIPythonInterpreter(max_kernels=1, env={"PYTHONHOME": "/nowhere"})
    async with asyncio.timeout(30):
        results = await asyncio.gather(*(interpreter.run("1", session_id=number) for number in range(3)))
    assert all(result.errmsg.startswith("the kernel did not start") for result in results)


async def test_a_session_that_is_reset_while_code_runs_ends_it(tmp_path: Path) -> None:
    interpreter = AsyncIPythonInterpreter(work_dir=tmp_path)
    await interpreter.run("kept = 7")
    running = asyncio.create_task(interpreter.run("import time; open('begun', 'w'); time.sleep(15)"))
    while not (interpreter.session_dir() / "begun").exists():
        await asyncio.sleep(0.02)
    interpreter.kernels.reset(0)
    assert "the kernel died" in (await running).errmsg
    assert "NameError" in (await interpreter.run("kept")).errmsg
    await interpreter.aclose()


def test_async_kernels_outlive_the_loop_that_made_them(tmp_path: Path) -> None:
    executor = AsyncActionExecutor([AsyncIPythonInterpreter(work_dir=tmp_path)])

    def ask(code: str) -> str:
        message = AgentMessage(content={"name": "AsyncIPythonInterpreter", "parameters": {"command": code}})
        return str(asyncio.run(executor(message, session_id="s")).content.text)

    ask("x = 5")
    assert ask("x") == "5"
    executor["AsyncIPythonInterpreter"].close()  # type: ignore[attr-defined]


def test_blocking_and_async_kernels_work_under_either_executor(tmp_path: Path) -> None:
    actions = [IPythonInterpreter(work_dir=tmp_path), AsyncIPythonInterpreter(work_dir=tmp_path)]
    for executor in (ActionExecutor(actions), AsyncActionExecutor(actions)):
        for action in actions:
            reply = executor(AgentMessage(content={"name": action.name, "parameters": {"command": "6 * 7"}}))
            reply = asyncio.run(reply) if asyncio.iscoroutine(reply) else reply
            assert reply.content.text == "42"
    for action in actions:
        action.close()


def test_resetting_an_agents_session_closes_its_kernel(tmp_path: Path) -> None:
    executor = ActionExecutor([IPythonInterpreter(work_dir=tmp_path)])
    interpreter: Any = executor["IPythonInterpreter"]
    kernel = pid(interpreter, 5)
    assert executor.session_ids() == [5]
    assert executor.state_dict(5) == {}, "a kernel cannot be saved"
    executor.reset(5, recursive=True)
    assert await_death(kernel)


def test_a_session_that_is_loaded_begins_with_a_fresh_kernel(tmp_path: Path) -> None:
    executor = ActionExecutor([IPythonInterpreter(work_dir=tmp_path)])
    interpreter: Any = executor["IPythonInterpreter"]
    kernel = pid(interpreter, 5)
    executor.load_state_dict(executor.state_dict(5), 5)
    assert await_death(kernel)
    with pytest.raises(StateError):
        executor.load_state_dict({"IPythonInterpreter.kernels": 3})


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": None}, {"max_kernels": 0}, {"max_out_len": 0}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        IPythonInterpreter(**options)


def test_nothing_is_imported_before_a_kernel_is_needed() -> None:
    code = (
        "import sys; from lagentlike.actions import IPythonInterpreter; IPythonInterpreter()\n"
        "assert not {'jupyter_client', 'zmq', 'IPython'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
