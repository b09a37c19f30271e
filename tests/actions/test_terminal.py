"""Shell commands as tools: real processes, of which none is left."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, AsyncActionExecutor
from lagentlike.actions.terminal import MAX_PROCESSES, terminal_tools
from lagentlike.sandbox import Bwrap, Limits
from lagentlike.sandbox.limits import MIB
from lagentlike.schema import AgentMessage, ToolCall, ToolResult

from .. import processes
from ..processes import await_death, is_alive


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[ActionExecutor]:
    """A terminal in an empty folder, with the tool for its programs."""
    executor = ActionExecutor(terminal_tools(tmp_path, timeout=20))
    yield executor
    executor["terminal"].close()  # type: ignore[attr-defined]


def do(executor: ActionExecutor, command: str, session_id: Any = 0, **options: Any) -> ToolResult:
    return call(executor, "terminal", session_id, command=command, **options)


def call(executor: ActionExecutor, name: str, session_id: Any = 0, **arguments: Any) -> ToolResult:
    message = AgentMessage(content="", tool_calls=[ToolCall(name, arguments)])
    results = executor(message, session_id=session_id).tool_results
    assert results is not None
    return results[0]


def outside(executor: Any, inner: int, session_id: Any = 0) -> int:
    """The number here of a process that has another in the session's sandbox."""
    room = executor["terminal"].processes._rooms[session_id]
    return processes.outside(room._process.first_process(), [inner])[0]


def test_keeps_directory_and_exported_variables_of_each_session(shell: ActionExecutor, tmp_path: Path) -> None:
    do(shell, "mkdir in; cd in; export COLOUR='dark blue'; unset HOME")
    assert do(shell, "pwd; echo $COLOUR; echo ${HOME-none}").text == f"{tmp_path}/in\ndark blue\nnone"
    assert do(shell, "pwd; echo $COLOUR", session_id="b").text == str(tmp_path)


def test_state_survives_json_and_forks(shell: ActionExecutor, tmp_path: Path) -> None:
    do(shell, "mkdir in; cd in; export COLOUR=blue; export MY_TOKEN=hush")
    state = shell.state_dict(0)
    assert state == {"terminal.places": {"cwd": f"{tmp_path}/in", "set": {"COLOUR": "blue"}, "unset": []}}
    other = ActionExecutor(terminal_tools(tmp_path))
    other.load_state_dict(state, 7)
    assert do(other, "pwd; echo $COLOUR", 7).text == f"{tmp_path}/in\nblue"
    shell.fork(0, 1)
    assert do(shell, "echo $COLOUR; export COLOUR=red", 1).text == "blue"
    assert do(shell, "echo $COLOUR", 0).text == "blue"


def test_a_failing_command_says_so_with_its_output(shell: ActionExecutor) -> None:
    result = do(shell, "echo before; exit 3")
    assert not result.success
    assert result.text.endswith("before\n(exit code 3)")
    assert "killed by signal 15" in do(shell, "kill -TERM $$").text
    assert do(shell, "cd /tmp; false; true").success


def test_output_of_both_streams_is_in_order(shell: ActionExecutor) -> None:
    assert do(shell, "echo 1; echo 2 >&2; echo 3").text == "1\n2\n3"


def test_a_command_that_takes_too_long_is_killed_with_its_children(shell: ActionExecutor, tmp_path: Path) -> None:
    result = do(shell, "echo begun; sleep 600 & echo $! > pid; wait", timeout=1)
    assert not result.success
    assert "begun" in result.text
    assert "took longer than 1 seconds and was killed" in result.text
    assert "No such process" in do(shell, "kill -0 $(cat pid)").text
    assert do(shell, "echo again").text == "again"


def test_a_flood_is_killed_and_its_head_and_tail_kept(shell: ActionExecutor) -> None:
    result = do(shell, "echo first; yes")
    assert "first" in result.text
    assert "are left out" in result.text
    assert "wrote more than 64 MiB and was killed" in result.text
    assert len(result.text) < 20_000


def test_binary_output_and_odd_arguments_are_text(shell: ActionExecutor) -> None:
    assert do(shell, r"printf '\377\000\033[31mred\033[0m'").text == "�\0red"
    assert do(shell, "echo 'Käse 🧀'").text == "Käse 🧀"
    assert "NUL" in do(shell, "echo \0").text
    assert do(shell, "echo \ud800").text == "�"


def test_asking_for_input_fails_at_once(shell: ActionExecutor) -> None:
    assert do(shell, f"{sys.executable} -c 'input()' 2>&1 | tail -1").text == "EOFError: EOF when reading a line"


def test_secrets_of_this_process_are_not_given(shell: ActionExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hush")
    assert do(shell, "echo ${SOME_API_KEY-nothing}").text == "nothing"


def test_what_a_command_leaves_behind_lives_until_the_session_ends(shell: ActionExecutor, tmp_path: Path) -> None:
    script = "import os, time\nos.setsid() if os.fork() == 0 else os._exit(0)\nopen('pid', 'w').write(str(os.getpid()))"
    (tmp_path / "daemon.py").write_text(script + "\ntime.sleep(600)\n")
    assert do(shell, f"{sys.executable} daemon.py; while [ ! -s pid ]; do sleep 0.05; done; echo on").text == "on"
    pid = outside(shell, int((tmp_path / "pid").read_text()))
    assert is_alive(pid)
    shell.reset(0, recursive=True)
    assert await_death(pid)


def test_not_even_a_program_that_is_just_starting_outlives_its_session(shell: ActionExecutor) -> None:
    pids = []
    for session_id in range(20):
        inner = int(do(shell, "sleep 600 >/dev/null 2>&1 & echo $!", session_id).text)
        pids.append(outside(shell, inner, session_id))
        shell.reset(session_id, recursive=True)
    assert all(await_death(pid) for pid in pids)


def test_programs_in_the_background_are_polled_written_to_awaited_and_killed(shell: ActionExecutor) -> None:
    assert do(shell, "while read line; do echo got $line; done; echo bye", background=True).text == "started as p1"
    assert "p1: running" in call(shell, "process", action="list").text
    seen = call(shell, "process", action="write", process_id="p1", text="this").text  # what came already is in it
    while "got this" not in seen:
        seen += call(shell, "process", action="poll", process_id="p1").text
    assert "got this" not in call(shell, "process", action="poll", process_id="p1").text
    assert "ended with exit code -9" in call(shell, "process", action="kill", process_id="p1").text
    do(shell, "sleep 0.2; echo done; exit 5", background=True)
    assert call(shell, "process", action="wait", process_id="p2").text == "(ended with exit code 5)\ndone"
    assert "there are p1, p2" in call(shell, "process", action="poll", process_id="p3").text
    assert "none runs" in call(shell, "process", session_id=1, action="poll", process_id="p1").text
    assert call(shell, "process", session_id=1, action="list").text == "nothing runs in the background"


def test_programs_in_the_background_are_bounded_in_number(shell: ActionExecutor) -> None:
    for _ in range(MAX_PROCESSES):
        assert do(shell, "sleep 600", background=True).success
    assert "kill one first" in do(shell, "sleep 600", background=True).text


def test_nothing_runs_when_the_terminal_is_no_longer_used(tmp_path: Path) -> None:
    executor = ActionExecutor(terminal_tools(tmp_path))
    do(executor, "echo $$ > pid; sleep 600", background=True)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    pid = outside(executor, int((tmp_path / "pid").read_text()))
    assert is_alive(pid)
    del executor
    for _ in range(100):  # a thread may hold the last call for a moment
        gc.collect()
        if not is_alive(pid):
            return
        time.sleep(0.1)
    pytest.fail("the program still runs")


def test_a_missing_directory_is_an_error_that_says_so(shell: ActionExecutor, tmp_path: Path) -> None:
    do(shell, "mkdir in; cd in; rmdir ../in")
    assert "is gone" in do(shell, "pwd").text


async def test_a_cancelled_call_kills_its_command(tmp_path: Path) -> None:
    executor = AsyncActionExecutor(terminal_tools(tmp_path))
    message = AgentMessage(content="", tool_calls=[ToolCall("terminal", {"command": "echo $$ > pid; sleep 600"})])
    task = asyncio.create_task(executor(message))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        await asyncio.sleep(0.01)
    pid = outside(executor, int((tmp_path / "pid").read_text()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(await_death, pid)


async def test_commands_of_one_session_run_one_after_another(tmp_path: Path) -> None:
    executor = AsyncActionExecutor(terminal_tools(tmp_path))
    commands = [f"x=$(cat n 2>/dev/null || echo 0); sleep 0.05; echo $((x + 1)) > n; export V{i}=1" for i in range(5)]
    await executor(AgentMessage(content="", tool_calls=[ToolCall("terminal", {"command": one}) for one in commands]))
    message = AgentMessage(content="", tool_calls=[ToolCall("terminal", {"command": "cat n; echo $V0$V1$V2$V3$V4"})])
    results = (await executor(message)).tool_results
    assert results is not None
    assert results[0].text == "5\n11111"


def test_says_when_to_ask(shell: ActionExecutor) -> None:
    terminal = shell.find("terminal")
    assert terminal is not None
    assert not terminal.read_only
    assert terminal.approval({"command": "ls"}) is None
    assert terminal.approval({"command": "rm -rf /"}) == "it deletes / with all that is in it"


def test_a_shell_that_is_killed_keeps_the_state_from_before(shell: ActionExecutor, tmp_path: Path) -> None:
    do(shell, "export A=1")
    do(shell, "export A=2; kill -9 $$")
    assert do(shell, "echo $A; pwd").text == f"1\n{tmp_path}"


def test_a_program_in_the_background_is_reached_by_the_next_command(shell: ActionExecutor) -> None:
    do(shell, f"{sys.executable} -m http.server 8123 --bind 127.0.0.1", background=True)
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8123').status)"
    assert do(shell, f'until {sys.executable} -c "{fetch}" 2>/dev/null; do sleep 0.1; done').text == "200"
    assert "refused" in do(shell, f'{sys.executable} -c "{fetch}"', session_id="another").text


def test_a_session_that_is_full_of_processes_starts_again(shell: ActionExecutor) -> None:
    do(shell, "for i in $(seq 100); do setsid sleep 600 & done", timeout=1)
    assert "too many processes: all programs of this session were ended" in do(shell, "echo on").text
    assert do(shell, "echo on").text == "on"


def test_a_full_disk_is_told_and_the_session_goes_on(tmp_path: Path) -> None:
    isolation = Bwrap(Limits(disk=16 * MIB))
    place = isolation.scratch_folder(tmp_path / "place")
    shell = ActionExecutor(terminal_tools(place, isolation=isolation))
    fill = "for n in $(seq 40); do head -c 1M /dev/zero > $n || exit 3; sleep 0.02; done"
    filled = do(shell, f"mkdir deep; cd deep; export LEVEL=1; {fill}").text
    assert "(exit code 3; the disk was full, since no more than 16 MiB may be written to it" in filled
    assert do(shell, "pwd; echo $LEVEL").text == f"{place}/deep\n1", "where it is was kept"
    refused = do(shell, "export LEVEL=2; echo x > more || cp 1 more; exit 5").text
    assert refused.count("File too large") == 2
    assert "(exit code 5; the disk was full" in refused
    assert do(shell, "echo $LEVEL").text == "2", "the shell itself was refused, and lived"
    try_to_write = "for n in $(seq 200); do sleep 0.05; (echo x > more) 2>/dev/null && break; done"
    assert do(shell, f"rm *; {try_to_write}; cat more").text.endswith("x")
    assert do(shell, "exit 4").text.endswith("(exit code 4)"), "that is over"
    shell["terminal"].close()  # type: ignore[attr-defined]


def test_what_nobody_reads_any_more_ends(shell: ActionExecutor) -> None:
    assert do(shell, 'yes | head -n 1; echo "${PIPESTATUS[0]}"').text == "y\n141"


def test_the_end_of_its_sandbox_is_told(shell: ActionExecutor) -> None:
    ended = do(shell, "kill -9 -1; sleep 10")
    assert "the sandbox of this session has ended (killed by signal 9), and all that ran in it" in ended.text
    assert do(shell, "echo again").text == "again"


def test_only_the_working_directory_can_be_changed(shell: ActionExecutor, tmp_path: Path) -> None:
    other = tmp_path.parent / "other"
    other.mkdir(exist_ok=True)
    (other / "file").write_text("private")
    assert "No such file" in do(shell, f"cat {other}/file").text
    assert "Read-only" in do(shell, f"touch {sys.prefix}/x").text
    assert do(shell, "touch here && ls").text == "here"


def test_no_isolation_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hush")
    monkeypatch.setenv("PLAIN", "seen")
    executor = ActionExecutor(terminal_tools(tmp_path, isolation="unsafe_local"))
    assert do(executor, "echo ${SOME_API_KEY-nothing} $PLAIN; cd /").text == "nothing seen"
    pid = int(do(executor, "pwd > /dev/null; setsid sleep 600 >/dev/null 2>&1 & echo $!").text)
    executor["terminal"].close()  # type: ignore[attr-defined]
    assert await_death(pid)
