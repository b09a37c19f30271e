"""Programs that run isolated: what they see, what they get, and what happens where they cannot be isolated."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lagentlike.errors import InvalidArgument, SandboxUnavailable
from lagentlike.sandbox import (
    Bwrap,
    default_isolation,
    Isolation,
    isolation_of,
    Limits,
    Mount,
    sandbox_unavailable,
    set_default_isolation,
    UnsafeLocal,
)
from lagentlike.sandbox.isolation import Launch
from lagentlike.sandbox.process import Completed, Process

from ..processes import await_death


@pytest.fixture(params=["bwrap", "unsafe_local"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    return isolation_of(str(request.param))


def text(done: Completed) -> str:
    return done.stdout.text().strip()


def test_a_program_runs_to_its_end(isolation: Isolation) -> None:
    done = isolation.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.returncode, done.ending, done.ok) == (3, "ended", False)
    assert text(done) == "out\nerr"
    assert done.problem(isolation.limits) == "exit code 3"
    assert isolation.run(["sh", "-c", "kill -TERM $$"]).returncode == -15


def test_both_outputs_can_be_kept_apart(isolation: Isolation) -> None:
    done = isolation.run(["sh", "-c", "echo out; echo err >&2"], stderr=subprocess.PIPE)
    assert (done.stdout.text(), done.stderr.text()) == ("out\n", "err\n")


def test_input_is_given_and_ends(isolation: Isolation) -> None:
    content = b"x" * 300_000
    assert isolation.run(["wc", "-c"], input=content).stdout.text().strip() == "300000"
    assert isolation.run(["true"], input=content).ok, "one that reads nothing is no error"


def test_a_program_that_takes_too_long_is_killed(isolation: Isolation) -> None:
    done = isolation.run(["sh", "-c", "echo begun; trap '' INT TERM; sleep 60 & wait"], limits=Limits(seconds=0.3))
    assert (done.ending, done.returncode, text(done)) == ("timeout", -9, "begun")
    assert done.seconds < 5


def test_a_caller_can_stop_a_program(isolation: Isolation) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    assert isolation.run(["sleep", "60"], stop=stop).ending == "stopped"


async def test_programs_run_at_once(isolation: Isolation) -> None:
    done = await asyncio.gather(*(isolation.run_async(["sh", "-c", f"sleep 0.2; echo {n}"]) for n in range(10)))
    assert [text(one) for one in done] == [str(n) for n in range(10)]


@pytest.mark.parametrize("again", [False, True])
async def test_a_program_that_is_given_up_while_it_starts_is_ended(again: bool) -> None:
    begun, go = threading.Event(), threading.Event()
    made: list[Process] = []

    class Slow(UnsafeLocal):
        def _start(self, launch: Launch) -> Process:
            begun.set()
            assert go.wait(20)
            made.append(super()._start(launch))
            return made[-1]

    starting = asyncio.create_task(Slow().run_async(["sleep", "300"]))
    await asyncio.to_thread(begun.wait, 20)
    starting.cancel()
    await asyncio.sleep(0)
    assert not starting.done(), "the caller must not close what it has given away"
    if again:
        starting.cancel()
        await asyncio.wait([starting])
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with asyncio.timeout(20):
        while not made or made[0].poll() is None:
            await asyncio.sleep(0.01)


async def test_a_cancelled_program_is_killed(isolation: Isolation, tmp_path: Path) -> None:
    workspace = isolation.scratch_folder(tmp_path / "work")
    command = ["sh", "-c", "while :; do echo x >> alive; sleep 0.02; done"]
    task = asyncio.create_task(isolation.run_async(command, workspace=workspace))
    while not (workspace / "alive").exists():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    size = (workspace / "alive").stat().st_size
    await asyncio.sleep(0.2)
    assert (workspace / "alive").stat().st_size == size


def test_a_running_program_is_interrupted_and_killed(isolation: Isolation) -> None:
    with isolation.start(["sh", "-c", "trap 'echo heard' INT; echo on; while :; do sleep 0.05; done"]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        process.interrupt()
        assert process.stdout.readline() == b"heard\n"
        assert process.poll() is None
    assert process.returncode == -9


def test_sandboxes_leave_nothing_behind(isolation: Isolation, no_leaks: None) -> None:
    for _ in range(5):
        isolation.run(["true"])
        isolation.start(["sleep", "60"]).close()


def test_the_workspace_is_where_it_is_here(isolation: Isolation, tmp_path: Path) -> None:
    workspace = isolation.scratch_folder(tmp_path / "work")
    assert text(isolation.run(["sh", "-c", "pwd; echo 1 > file"], workspace=workspace)) == str(workspace)
    assert (workspace / "file").read_text() == "1\n"
    (workspace / "in").mkdir()
    assert text(isolation.run(["pwd"], workspace=workspace, cwd=workspace / "in")) == f"{workspace}/in"


def test_without_a_workspace_there_is_one_in_memory() -> None:
    assert text(Bwrap().run(["sh", "-c", "pwd; echo $HOME; touch file; ls"])) == "/workspace\n/workspace\nfile"


def test_a_workspace_of_this_user_can_be_written_to(tmp_path: Path) -> None:
    assert Bwrap().run(["sh", "-c", "echo 1 > file"], workspace=tmp_path).ok
    assert (tmp_path / "file").stat().st_uid == os.getuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize(
    ("owner", "usable", "shown"),
    [(0, "0", {"65534"}), (65534, "65534", {"0", "65534"}), (1000, "1000", {"0", "65534"})],
    ids=["root", "nobody", "a user"],
)
def test_code_has_the_rights_of_whom_its_workspace_belongs_to(
    owner: int, usable: str, shown: set[str], tmp_path: Path
) -> None:
    """Inside it is 65534 always, and so seems to be whoever is not known there."""
    for file in ("0", "1000", "65534"):
        (tmp_path / file).write_text("private")
        (tmp_path / file).chmod(0o600)
        os.chown(tmp_path / file, int(file), int(file))
    os.chown(tmp_path, owner, owner)
    look = "stat -c %u $file; cat $file >/dev/null && echo reads $file"
    command = f"touch made; id -u; for file in 0 1000 65534; do {look}; done"
    said = text(Bwrap().run(["sh", "-c", f"{{ {command}; }} 2>/dev/null"], workspace=tmp_path)).splitlines()
    assert said[0] == "65534"
    assert [line for line in said if line.startswith("reads")] == [f"reads {usable}"]
    assert {line for line in said[1:] if line.isdigit()} == shown
    assert (tmp_path / "made").stat().st_uid == owner


def test_code_leaves_no_program_that_runs_as_its_owner(tmp_path: Path) -> None:
    command = "cp /bin/true left; chmod u+s left; chmod g+s left; install -m 4755 /bin/true other; cp /bin/true third"
    Bwrap().run(["sh", "-c", command], workspace=tmp_path)
    assert (tmp_path / "third").exists()
    assert not any(file.stat().st_mode & 0o6000 for file in tmp_path.iterdir())


def test_more_can_be_shown(tmp_path: Path) -> None:
    bwrap = Bwrap()
    shown = tmp_path / "shown"
    shown.mkdir(mode=0o755)
    (shown / "table").write_text("1,2")
    mine = bwrap.scratch_folder(tmp_path / "mine")
    command = f"cat {shown}/table; touch {shown}/x 2>&1; touch {mine}/y"
    done = bwrap.run(["sh", "-c", command], mounts=[Mount(shown), Mount(mine, writable=True)])
    assert "1,2" in text(done)
    assert "Read-only" in text(done)
    assert (mine / "y").exists()


def test_this_python_and_its_packages_are_there() -> None:
    code = "import numpy, lagentlike; print(numpy.arange(3).sum())"
    assert text(Bwrap().run([sys.executable, "-c", code])) == "3"


def test_a_python_whose_prefix_is_a_home_does_not_show_that_home(monkeypatch: pytest.MonkeyPatch) -> None:
    from lagentlike.sandbox import bubblewrap

    home = Path(sys.base_prefix).parent
    monkeypatch.setattr("pathlib.Path.home", lambda: home)
    for name in ("prefix", "base_prefix", "exec_prefix"):
        monkeypatch.setattr(sys, name, str(home))
    shown = list(bubblewrap._python())
    assert not any(home.is_relative_to(folder) for folder in shown)
    assert any(folder.name.startswith("python3") for folder in shown)


def test_only_chosen_variables_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE", "hush")
    names = text(Bwrap().run(["sh", "-c", "env | sed s/=.*//"], env={"GIVEN": "1"})).split()
    assert "GIVEN" in names
    assert not {"PRIVATE", "LAGENTLIKE_RUN", "PYTEST_CURRENT_TEST"} & set(names)


def test_variables_of_code_do_not_reach_bwrap(tmp_path: Path) -> None:
    """`LD_PRELOAD` that code has exported would otherwise run in bwrap, outside of the sandbox."""
    done = Bwrap().run(["sh", "-c", "cat /proc/1/environ | tr '\\0' '\\n'; echo on"], env={"LD_PRELOAD": "/x.so"})
    assert "on" in text(done)
    with Bwrap().start(["sleep", "60"], env={"LD_PRELOAD": "/x.so"}) as process:
        assert b"LD_PRELOAD" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_no_variable_acts_before_code_is_nobody() -> None:
    """The loader writes a line for each program that it loads, also those that make code somebody else."""
    shown = text(Bwrap().run(["true"], env={"LD_SHOW_AUXV": "1", "GIVEN": "1"}))
    assert {line.split()[1] for line in shown.splitlines() if line.startswith("AT_UID:")} == {"65534"}


def test_a_workspace_in_memory_belongs_to_the_code() -> None:
    done = Bwrap().run(["sh", "-c", "stat -c '%u %a' . && chmod 700 . && touch -d @0 ."])
    assert (done.ok, text(done)) == (True, "65534 755")


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="no scheduling in real time")
def test_a_priority_in_real_time_is_not_passed_on() -> None:
    """Control groups for processor time take in no such process, and code with one could hold a core."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pytest.skip("no scheduling in real time for this user")
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    code = """
import os
os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
from lagentlike.sandbox import Bwrap
print(Bwrap().run(["python3", "-c", "import os; print(os.sched_getscheduler(0))"]).stdout.text())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str(os.SCHED_OTHER), done.stderr


def test_the_network_is_there_only_when_asked_for() -> None:
    command = ["sh", "-c", "ls /sys/class/net /etc/resolv.conf 2>&1; cat /proc/net/dev | wc -l"]
    offline = text(Bwrap().run(command))
    online = text(Bwrap(Limits(network=True)).run(command))
    assert "/etc/resolv.conf" in offline
    assert offline.splitlines()[-1] == "3", "the loopback below two lines of heading"
    assert Path("/proc/net/dev").read_text().count("\n") == int(online.splitlines()[-1])


@pytest.mark.parametrize("workspace", ["/", "/usr", "/usr/lib", "/etc", "/tmp", "/nowhere", "/var", sys.prefix])
def test_a_workspace_of_the_system_is_refused(workspace: str) -> None:
    with pytest.raises(InvalidArgument, match="workspace"):
        Bwrap().run(["true"], workspace=workspace)


@pytest.mark.parametrize(
    "options", [{"argv": []}, {"argv": "true"}, {"argv": ["a\0b"]}, {"env": {"A=B": "c"}}, {"env": {"A": "\0"}}]
)
def test_what_cannot_be_passed_on_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Bwrap().start(**{"argv": ["true"], **options})


@pytest.mark.parametrize("limit", [{"memory": 0}, {"processes": 1.5}, {"seconds": -1}, {"network": 1}, {"cpus": True}])
def test_limits_are_positive_numbers(limit: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Limits(**limit)


def test_the_default_is_chosen_in_one_place() -> None:
    assert isinstance(default_isolation(), Bwrap)
    set_default_isolation("unsafe_local")
    try:
        assert isinstance(isolation_of(None), UnsafeLocal)
    finally:
        set_default_isolation(None)
    assert isinstance(isolation_of(None), Bwrap)
    with pytest.raises(InvalidArgument, match="unsafe_local"):
        isolation_of("none")


# Where there is no sandbox


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not started a sandbox yet."""
    monkeypatch.setattr("lagentlike.sandbox.bubblewrap._checked", set())


def test_without_bwrap_nothing_is_run_and_the_cure_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        Bwrap().run(["true"])
    assert "bwrap is not installed" in str(sandbox_unavailable())


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'bwrap: No permissions to create a new namespace' >&2; exit 1", "No permissions"),
        ("exit 0", "could not be run"),
        # one that isolates nothing: it runs the program as it is
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', "self-checks"),
    ],
)
def test_a_bwrap_that_does_not_isolate_is_not_trusted(
    script: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unchecked: None
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    marker = tmp_path / "ran"
    with pytest.raises(SandboxUnavailable, match=said):
        Bwrap().run(["touch", str(marker)], workspace=None)
    assert not marker.exists()


def test_nothing_that_a_program_writes_turns_the_sandbox_off(tmp_path: Path) -> None:
    bwrap = Bwrap()
    said = "bwrap: No permissions to create new namespace, likely because the kernel does not allow"
    done = bwrap.run(["sh", "-c", f"echo '{said}' >&2; echo '{said}'; exit 1"], stderr=subprocess.PIPE)
    assert (done.returncode, done.ending) == (1, "ended")
    secret = tmp_path / "secret"
    secret.write_text("private")
    assert not bwrap.run(["cat", str(secret)]).ok


def test_a_failure_after_the_check_is_no_local_run(monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap = Bwrap()
    bwrap.check()
    monkeypatch.setattr("lagentlike.sandbox.bubblewrap._FIXED", ("--no-such-option",))
    with pytest.raises(SandboxUnavailable, match="no-such-option"):
        bwrap.run(["true"])


# What ends with what


PARENT = """
import os, sys, time
from lagentlike.sandbox import isolation_of
process = isolation_of(sys.argv[1]).start(["sh", "-c", "setsid sleep 600 & exec sleep 600"])
first = process.first_process() if sys.argv[1] == "bwrap" else process.pid
time.sleep(float(sys.argv[2]))
print(first, flush=True)
{ending}
"""


@pytest.mark.parametrize("name", ["bwrap", "unsafe_local"])
@pytest.mark.parametrize("ending", ["pass", "os.kill(os.getpid(), 9)", "os._exit(0)"])
@pytest.mark.parametrize("wait", ["0", "0.3"], ids=["at once", "later"])
def test_no_process_outlives_this_one(name: str, ending: str, wait: str) -> None:
    """`at once` kills it while bwrap still sets up its namespaces, where `--die-with-parent` does not hold yet."""
    code = PARENT.format(ending=ending)
    done = subprocess.run([sys.executable, "-c", code, name, wait], capture_output=True, text=True, timeout=60)
    assert await_death(int(done.stdout)), done.stderr


def test_a_sandbox_outlives_the_thread_that_asked_for_it() -> None:
    """bwrap ends with the thread that started it: that one must live on."""
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(Bwrap().start(["sleep", "60"])))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert made[0].poll() is None
    made[0].close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_children_leave_sandboxes_alone_and_start_their_own() -> None:
    with Bwrap().start(["sleep", "60"]) as process:
        child = os.fork()
        if child == 0:
            try:
                process.close()
                os._exit(0 if Bwrap().run(["true"]).ok else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert process.poll() is None
