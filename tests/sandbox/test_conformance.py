"""What every backend does, whatever its slots are made of."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.errors import ArtifactError, InvalidArgument, SandboxError, SlotLost, SlotTimeout
from lagentlike.sandbox import ExecutionResult, Slot, SlotRequest

from .places import KINDS, Place

PATIENCE = 30.0  # seconds; a busy machine is slow


class Here:
    """A place, with its event loop, for tests that are no coroutines: the loop lives as long as the backend."""

    def __init__(self, place: Place, runner: asyncio.Runner) -> None:
        self.place = place
        self.backend = place.backend
        self._run = runner.run
        self._slots: list[Slot] = []

    def __call__(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test, and give back the slots that it took."""

        async def run() -> None:
            try:
                await test()
            finally:
                for slot in self._slots:
                    await self.backend.release(slot, reset_workspace=True)
                self._slots.clear()

        self._run(run())

    async def slot(self, name: str | None = None, timeout_s: float = PATIENCE) -> Slot:
        """A slot of a trajectory, of a new one by default."""
        slot = await self.backend.acquire(name or uuid.uuid4().hex, timeout_s)
        self._slots.append(slot)
        return slot

    async def do(self, slot: Slot, tool: str, timeout_s: float = PATIENCE, **arguments: Any) -> ExecutionResult:
        (result,) = await self.backend.execute_batch([(slot, tool, arguments)], timeout_s)
        return result

    async def bash(self, slot: Slot, command: str, timeout_s: float = PATIENCE) -> ExecutionResult:
        return await self.do(slot, "bash", timeout_s, command=command)


@pytest.fixture(scope="module", params=KINDS)
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    place = Place(request.param, tmp_path_factory.mktemp(request.param))
    with asyncio.Runner() as runner:
        runner.run(place.start())
        try:
            yield Here(place, runner)
        finally:
            runner.run(place.stop())


def test_a_command_gives_its_output_and_its_exit_code(here: Here) -> None:
    async def test() -> None:
        slot = await here.slot()
        good = await here.bash(slot, "echo out; echo err >&2; cat")  # there is no input
        assert (good.success, good.output, good.exit_code) == (True, "out\nerr\n", 0)
        bad = await here.bash(slot, "echo half; exit 3")
        assert (bad.success, bad.output, bad.error, bad.exit_code) == (False, "half\n", "exit code 3", 3)
        unknown = await here.bash(slot, "no-such-program")
        assert unknown.exit_code == 127
        assert "no-such-program" in unknown.output

    here(test)


def test_a_batch_gives_results_in_order_and_each_as_soon_as_it_is_there(here: Here) -> None:
    async def test() -> None:
        slots = [await here.slot() for _ in range(3)]
        waits = zip(slots, (0.8, 0, 0.4), strict=True)
        calls = [SlotRequest(slot, "bash", {"command": f"sleep {wait}; echo {wait}"}) for slot, wait in waits]
        arrived = []
        async for index, result in here.backend.run_batch(calls, PATIENCE):
            arrived.append((index, result.output))
        assert arrived == [(1, "0\n"), (2, "0.4\n"), (0, "0.8\n")]
        results = await here.backend.execute_batch(
            [(slot, "bash", {"command": f"echo {n}"}) for n, slot in enumerate(slots)], PATIENCE
        )
        assert [result.output for result in results] == ["0\n", "1\n", "2\n"]

    here(test)


def test_a_command_that_takes_too_long_is_stopped_and_its_slot_goes_on(here: Here) -> None:
    async def test() -> None:
        slot = await here.slot()
        began = time.monotonic()
        late = await here.bash(slot, "echo begun; sleep 60 & sleep 60", timeout_s=1.0)
        assert time.monotonic() - began < PATIENCE
        assert (late.success, late.timed_out, late.output) == (False, True, "begun\n")
        assert (await here.bash(slot, "echo on")).output == "on\n"

    here(test)


def test_of_long_output_the_head_and_the_tail_are_kept(here: Here) -> None:
    async def test() -> None:
        slot = await here.slot()
        long = await here.bash(slot, "echo first; yes | head -c 1000000; echo last")
        assert long.output.startswith("first\n")
        assert long.output.endswith("last\n")
        assert len(long.output) < 40_000
        assert (await here.bash(slot, r"printf '\xff\x00ok'")).output == "�\0ok"

    here(test)


def test_a_command_that_writes_without_end_is_stopped(here: Here) -> None:
    if here.place.kind != "bwrap":
        pytest.skip("the same program does it everywhere")

    async def test() -> None:
        flood = await here.bash(await here.slot(), "yes")
        assert not flood.success
        assert "64 MiB" in flood.error

    here(test)


def test_the_shell_that_lasts_keeps_its_directory_variables_and_programs(here: Here) -> None:
    async def test() -> None:
        slot = await here.slot()

        async def shell(command: str, timeout_s: float = PATIENCE) -> ExecutionResult:
            return await here.do(slot, "terminal_stateful", timeout_s, command=command)

        assert (await shell("mkdir d; cd d; A=5; f() { echo f$1; }; sleep 100 &")).success
        after = await shell("echo $A ${PWD##*/}; f 1; kill -0 $! && echo there; false")
        assert (after.output, after.exit_code) == ("5 d\nf1\nthere\n", 1)
        late = await shell("sleep 60", timeout_s=1.0)
        assert late.timed_out
        assert (await shell("echo $A")).output == "5\n"  # Ctrl-C was enough
        ended = await shell("exit 4")
        assert "the next call has a new shell" in ended.error
        assert (await shell("echo [$A]")).output == "[]\n"
        assert (await here.bash(slot, "echo [$A]; ls")).output == "[]\nd\n"
        await shell("A=6")
        await here.do(slot, "tmux", action="stop", session="terminal_stateful")
        fresh = await shell("echo [$A]")
        assert (fresh.output, fresh.metadata) == ("[]\n", {"new_shell": True})

    here(test)


def test_a_terminal_shows_what_a_program_draws_and_takes_keys(here: Here) -> None:
    async def test() -> None:
        slot = await here.slot()

        async def tmux(action: str, **options: Any) -> ExecutionResult:
            return await here.do(slot, "tmux", action=action, **options)

        assert (await tmux("start", command="read -p 'name: ' n; echo hello $n; sleep 100")).success
        twice = await tmux("start")
        assert not twice.success
        assert "duplicate session" in twice.error
        shown = await tmux("send_keys", keys="Ada", wait_s=1.0)
        assert "name: Ada\nhello Ada" in shown.output
        assert "hello Ada" in (await tmux("stream")).output
        assert (await tmux("stream")).output == ""
        assert "hello Ada" in (await tmux("capture", lines=100)).output
        assert (await tmux("stop")).success
        gone = await tmux("capture")
        assert not gone.success

    here(test)


def test_files_are_written_and_read_in_the_workspace_only(here: Here) -> None:
    async def test() -> None:
        slot = await here.slot()
        assert (await here.do(slot, "write_file", path="a/b.txt", content="one\ntwo\nthrée\n")).success
        await here.do(slot, "write_file", path="a/b.txt", content="four\n", append=True)
        assert (await here.do(slot, "read_file", path="a/b.txt", offset=3)).output == "thrée\nfour\n"
        assert (await here.bash(slot, "wc -l < a/b.txt")).output.strip() == "4"
        await here.bash(slot, "ln -s /etc/passwd link; ln -s .. up; mkfifo pipe; ln -s a/b.txt fine")
        for path in ("/etc/passwd", "../x", "link", "up/x", "a/../../x", "pipe", "a", "missing"):
            read = await here.do(slot, "read_file", path=path)
            assert not read.success, path
            assert read.error
        assert not (await here.do(slot, "write_file", path="up/../../x", content="")).success
        assert (await here.do(slot, "read_file", path="fine", limit=1)).output == "one\n"

    here(test)


def test_artifacts_leave_the_workspace_whole_and_nothing_else_does(here: Here) -> None:
    async def test() -> None:
        slot = await here.slot()
        backend = here.backend
        await here.bash(slot, r"mkdir -p out/in; printf '\x00\xff' > out/raw; echo x > out/in/y; ln -s /etc out/etc")
        found = await backend.read_artifact(slot, "out/raw")
        assert (found.content, found.size, found.truncated) == (b"\0\xff", 2, False)
        start = await backend.read_artifact(slot, "out/raw", max_bytes=1)
        assert (start.content, start.size, start.truncated) == (b"\0", 2, True)
        entries = await backend.list_artifacts(slot, "out", recursive=True)
        kinds = {entry.path: entry.kind for entry in entries}
        assert kinds == {"out/etc": "link", "out/in": "directory", "out/raw": "file", "out/in/y": "file"}
        assert [entry.path for entry in await backend.list_artifacts(slot)] == ["out"]
        with tarfile.open(fileobj=io.BytesIO(await backend.archive_artifacts(slot, "out"))) as archive:
            assert sorted(archive.getnames()) == ["etc", "in", "in/y", "raw"]
            assert archive.getmember("etc").issym()  # as it is, and not what it leads to
            raw = archive.extractfile("raw")
            assert raw is not None
            assert raw.read() == b"\0\xff"
        for path in ("../x", "/etc/passwd", "out/etc/passwd", "missing", "out", "", "\0", "half\udcff", "x" * 5000):
            with pytest.raises(ArtifactError):
                await backend.read_artifact(slot, path)
        with pytest.raises(InvalidArgument, match="max_bytes=-1"):
            await backend.read_artifact(slot, "out/raw", -1)
        with pytest.raises(ArtifactError):
            await backend.list_artifacts(slot, "out/etc")
        with pytest.raises(ArtifactError):
            await backend.archive_artifacts(slot, "..")
        await here.bash(slot, "head -c 17000000 /dev/urandom > big")
        with pytest.raises(ArtifactError, match="larger than"):
            await backend.archive_artifacts(slot, "big")
        assert (await backend.read_artifact(slot, "big", max_bytes=5)).size == 17_000_000

    here(test)


def test_no_slot_can_read_what_another_one_has(here: Here) -> None:
    if not here.backend.isolated:
        pytest.skip("it says that it is no boundary")

    async def test() -> None:
        mine, other = await here.slot(), await here.slot()
        await here.bash(mine, "umask 0; echo secret > s; chmod 777 . s; echo secret > /tmp/s; sleep 100 & echo")
        await here.do(mine, "terminal_stateful", command="sleep 100 &")
        looked = await here.bash(
            other, f"cat {mine.workspace}/s /tmp/s; ls {mine.workspace}; pkill -9 sleep; kill -9 -1"
        )
        assert "secret" not in looked.output
        assert (await here.do(mine, "terminal_stateful", command="kill -0 $! && cat s")).output == "secret\n"

    here(test)


def test_a_slot_that_was_reset_has_nothing_of_its_last_lease(here: Here) -> None:
    async def test() -> None:
        seconds = f"10{os.getpid()}"  # which no other test's programs have
        slots = [await here.slot() for _ in range(3)]  # all there are
        for slot in slots:
            await here.bash(slot, f"echo x > f; mkdir -p d/e; chmod 0 d; setsid sleep {seconds} &")
            await here.do(slot, "terminal_stateful", command=f"A=5; sleep {seconds} &")
            await here.backend.release(slot, reset_workspace=True)
        for slot in [await here.slot() for _ in range(3)]:
            left = "ls -A; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '[s]leep 1234'"
            assert (await here.bash(slot, left.replace("1234", seconds))).output == ""
            assert (await here.do(slot, "terminal_stateful", command="echo [$A]")).output == "[]\n"
        for slot in slots:
            (stale,) = await here.backend.execute_batch([(slot, "bash", {"command": "ls"})], PATIENCE)
            assert stale.lost  # what was given back is of no use

    here(test)


def test_a_slot_that_was_not_reset_is_kept_for_its_trajectory_and_clean_for_others(here: Here) -> None:
    async def test() -> None:
        backend = here.backend
        for name in ("k1", "k2", "k3"):
            slot = await here.slot(name)
            await here.bash(slot, f"echo {name} > mine")
            await backend.release(slot)
        again = await here.slot("k2")
        assert (await here.bash(again, "cat mine")).output == "k2\n"
        others = [await here.slot(name) for name in ("k4", "k5")]
        for slot in others:
            assert (await here.bash(slot, "ls -A")).output == ""
        for slot in (again, *others):
            await backend.release(slot, reset_workspace=True)
        assert backend.get_stats()["slots"] == {"free": 3, "kept": 0, "leased": 0}

    here(test)


def test_a_slot_whose_process_is_killed_fails_at_once_and_the_others_go_on(here: Here) -> None:
    async def test() -> None:
        dying, other = await here.slot(), await here.slot()
        await here.bash(dying, "true")
        long = asyncio.ensure_future(here.bash(other, "sleep 1; echo on"))
        began = time.monotonic()
        dead = await here.bash(dying, "kill -9 $PPID; sleep 60", timeout_s=60)
        assert time.monotonic() - began < PATIENCE
        assert dead.lost
        assert "ended" in dead.error
        assert "signal 9" in dead.error
        assert (await long).output == "on\n"
        assert (await here.bash(dying, "echo")).lost
        with pytest.raises(SlotLost):
            await here.backend.read_artifact(dying, "x")
        await here.backend.release(dying)
        fresh = await here.slot()
        assert (await here.bash(fresh, "echo new")).output == "new\n"

    here(test)


def test_who_waits_gets_a_slot_in_turn_or_an_error_in_time(here: Here) -> None:
    async def test() -> None:
        backend = here.backend
        slots = [await here.slot() for _ in range(3)]
        with pytest.raises(SlotTimeout, match=r"within 0.2 seconds.*3 are in use"):
            await backend.acquire("late", timeout_s=0.2)
        order: list[str] = []

        async def wait(name: str) -> None:
            slot = await backend.acquire(name, PATIENCE)
            order.append(name)
            await backend.release(slot, reset_workspace=True)

        waiting = []
        for name in ("w1", "w2", "w3", "w4"):
            waiting.append(asyncio.create_task(wait(name)))
            await asyncio.sleep(0)
        waiting[1].cancel()
        await backend.release(slots[0], reset_workspace=True)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == ["w1", "w3", "w4"]
        for slot in slots[1:]:
            await backend.release(slot, reset_workspace=True)
        assert backend.get_stats()["slots"]["free"] == 3

    here(test)


def test_a_container_that_dies_loses_its_trajectories_at_once_and_another_takes_its_place(here: Here) -> None:
    if here.place.kind in ("bwrap", "local"):
        pytest.skip("its slots are on this machine")

    async def test() -> None:
        working, idle = await here.slot(), await here.slot()
        await here.bash(working, "true")
        running = asyncio.ensure_future(here.bash(working, "sleep 60", timeout_s=60))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        here.place.kill(working)
        dead = await running
        assert time.monotonic() - began < PATIENCE
        assert dead.lost
        after = await here.bash(idle, "echo")
        assert after.lost
        with pytest.raises(SlotLost):
            idle.check()
        for slot in (working, idle):
            await here.backend.release(slot, reset_workspace=True)
        fresh = await here.slot(timeout_s=60)
        assert (await here.bash(fresh, "echo new")).output == "new\n"

    here(test)


def test_a_backend_that_is_stopped_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        place = Place("local", tmp_path)
        await place.start()
        slot, _, taken = [await place.backend.acquire(name) for name in "abc"]
        late = asyncio.ensure_future(place.backend.acquire("d", timeout_s=PATIENCE))
        await asyncio.sleep(0)
        await place.stop()
        with pytest.raises(SandboxError, match="stopped"):
            await late
        with pytest.raises(SandboxError, match="not running"):
            await place.backend.acquire("e")
        (gone,) = await place.backend.execute_batch([(slot, "bash", {"command": "ls"})], PATIENCE)
        assert gone.lost
        await place.backend.release(taken)

    asyncio.run(test())
