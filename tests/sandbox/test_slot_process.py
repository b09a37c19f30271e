"""The program of a slot: what it says is believed by nobody, and its end is seen at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lagentlike.errors import InvalidArgument, SlotLost
from lagentlike.sandbox import Bwrap, Isolation, Limits, Process, UnsafeLocal
from lagentlike.sandbox import slot_process as module
from lagentlike.sandbox.cgroups import controllers
from lagentlike.sandbox.host import HostCall
from lagentlike.sandbox.machine import MachineHost
from lagentlike.sandbox.slot_process import SlotProcess

PATIENCE = 20.0

HOSTILE = {
    "nothing": "import os; os._exit(0)",
    "no json": "print('hello', flush=True)",
    "no object": "print('[1, 2]', flush=True)",
    "NaN": "print('{\"success\": NaN}', flush=True)",
    "half a surrogate": 'print(\'{"output": "\\\\ud800"}\', flush=True)',
    "a pickle": "import os; os.write(1, b'\\x80\\x04\\x95\\x0f.\\n')",
    "no end": "import os\nwhile True: os.write(1, b'[' * 1000000)",
    "too deep": "print('{\"success\": ' + '[' * 100000, flush=True)",
    "silence": "import time; time.sleep(60)",
}


@asynccontextmanager
async def started(isolation: Isolation, folder: Path) -> AsyncIterator[SlotProcess]:
    slot = await SlotProcess.start(isolation, folder, Limits(), {})
    try:
        yield slot
    finally:
        await slot.close()


@pytest.mark.parametrize("what", HOSTILE)
async def test_an_answer_that_is_none_loses_the_slot(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "input(); print('{\"ready\": true}', flush=True); input()\n" + HOSTILE[what]
    monkeypatch.setattr(module, "_BOOT", program)
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.3)
    async with started(UnsafeLocal(), tmp_path) as slot:
        began = time.monotonic()
        with pytest.raises(SlotLost):
            await slot.run("bash", {"command": "ls"}, 0.2)
        assert time.monotonic() - began < PATIENCE
        with pytest.raises(SlotLost):
            await slot.run("bash", {"command": "ls"}, 0.2)


NO_RESULTS = [
    "{}",
    '{"success": 1}',
    '{"success": true, "output": 5}',
    '{"success": true, "exit_code": "0"}',
    '{"success": true, "exit_code": 99999999999}',
    '{"success": true, "metadata": [1]}',
]


@pytest.mark.parametrize("reply", NO_RESULTS)
async def test_an_object_that_is_no_result_loses_the_slot(reply: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"input(); print('{{\"ready\": true}}', flush=True); input(); print({reply!r}, flush=True); input()"
    monkeypatch.setattr(module, "_BOOT", program)
    host = MachineHost(UnsafeLocal(), 1)
    result = await host.run("slot-1", "bash", {"command": "ls"}, 5)
    assert result.lost
    assert "no result" in result.error
    again = await host.run("slot-1", "bash", {"command": "ls"}, 5)
    assert again.lost
    await host.close()


async def test_metadata_from_a_sandbox_is_small_and_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    told = '{"success": true, "metadata": {"a": 1, "b": {"c": 2}, "d": "' + "x" * 2000 + '", "e": "y"}}'
    program = f"input(); print('{{\"ready\": true}}', flush=True); input(); print({told!r}, flush=True); input()"
    monkeypatch.setattr(module, "_BOOT", program)
    host = MachineHost(UnsafeLocal(), 1)
    result = await host.run("slot-1", "bash", {"command": "ls"}, 5)
    assert result.metadata == {"a": 1, "e": "y"}
    await host.close()


@pytest.mark.parametrize("isolation", [Bwrap, UnsafeLocal])
async def test_the_end_of_the_process_is_seen_at_once(isolation: Any, tmp_path: Path) -> None:
    async with started(isolation(), tmp_path) as slot:
        running = asyncio.ensure_future(slot.run("bash", {"command": "sleep 300"}, 300))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        os.kill(slot.pid, signal.SIGKILL)
        with pytest.raises(SlotLost, match="signal 9"):
            await running
        assert time.monotonic() - began < PATIENCE


async def test_a_request_that_is_given_up_ends_the_process(tmp_path: Path) -> None:
    async with started(UnsafeLocal(), tmp_path) as slot:
        running = asyncio.ensure_future(slot.run("bash", {"command": "sleep 300"}, 300))
        await asyncio.sleep(0.3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(SlotLost):  # or it would get the answer of the request before
            await slot.run("bash", {"command": "echo hi"}, 5)


async def test_a_slot_that_does_not_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOT", "raise SystemExit(3)")
    with pytest.raises(SlotLost, match="exit code 3"):
        await SlotProcess.start(UnsafeLocal(), tmp_path, Limits(), {})


async def test_a_workspace_in_memory_is_full_and_the_slot_goes_on() -> None:
    host = MachineHost(Bwrap(), 2, Limits(memory=64 * 2**20))
    assert host.slots() == {"slot-1": "/workspace", "slot-2": "/workspace"}
    filling = {"command": "head -c 60M /dev/zero > big; echo rest > small; stat -c %s big; rm big"}
    result = await host.run("slot-1", "bash", filling, PATIENCE)
    assert "No space left on device" in result.output
    assert int(result.output.splitlines()[-1]) <= 32 * 2**20
    assert (await host.run("slot-2", "bash", {"command": "ls -A"}, PATIENCE)).output == "", "each has its own"
    assert await host.reset("slot-1") == "slot-3"
    assert (await host.run("slot-3", "bash", {"command": "ls -A"}, PATIENCE)).output == ""
    await host.close()


async def test_a_workspace_on_disk_is_full_and_the_slot_goes_on(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    host = MachineHost(Bwrap(), 1, Limits(disk=16 * 2**20), root=tmp_path / "slots")
    fill = "for n in $(seq 40); do head -c 1M /dev/zero > $n || break; sleep 0.02; done; exit 3"
    full = "the disk was full, since no more than 16 MiB may be written to it: remove something"
    filled = await host.run("slot-1", "terminal_stateful", {"command": f"({fill})"}, PATIENCE)
    assert filled.error == f"exit code 3; {full}"
    for tool in ("terminal_stateful", "bash", "write_file"):
        arguments = {"path": "y", "content": "x"} if tool == "write_file" else {"command": "(echo x > y)"}
        assert (await host.run("slot-1", tool, arguments, PATIENCE)).error.endswith(full)
    again = "rm *; for n in $(seq 200); do sleep 0.05; (echo x > y) 2> /dev/null && break; done; cat y"
    assert (await host.run("slot-1", "bash", {"command": again}, PATIENCE)).output.endswith("x\n")
    assert (await host.run("slot-1", "terminal_stateful", {"command": "cat y"}, PATIENCE)).output == "x\n"
    await host.close()


@pytest.mark.skipif("memory" not in controllers().parents, reason="no control group for memory")
async def test_a_command_that_memory_runs_out_for_says_so() -> None:
    host = MachineHost(Bwrap(), 1, Limits(memory=64 * 2**20))
    bomb = f"{sys.executable} -I -S -c \"x = b'x' * (200 << 20)\""
    result = await host.run("slot-1", "bash", {"command": bomb}, PATIENCE)
    told = "more than 64 MiB of memory were used, and what used most of it was killed"
    assert (result.exit_code, result.lost, result.error) == (-9, False, f"killed by signal 9; {told}")
    assert (await host.run("slot-1", "bash", {"command": "false"}, PATIENCE)).error == "exit code 1"
    lost = await host.run("slot-1", "bash", {"command": "kill -9 $PPID"}, PATIENCE)
    assert "(killed by signal 9)" in lost.error, "which memory has no part in"
    await host.close()


async def test_a_call_that_cannot_be_sent_fails_alone() -> None:
    host = MachineHost(UnsafeLocal(), 2)
    calls = [HostCall("slot-1", "bash", {"command": object()}), HostCall("slot-2", "bash", {"command": "echo on"})]
    results = dict([arrived async for arrived in host.run_batch(calls, PATIENCE)])
    assert "the arguments of bash are no JSON" in results[0].error
    assert (results[0].lost, results[1].output) == (False, "on\n")
    await host.close()


class Failing(UnsafeLocal):
    """Processes that cannot be ended."""

    name = "failing"

    def _start(self, launch: Any) -> Process:
        process = super()._start(launch)
        close = process.close

        def fail() -> None:
            close()
            raise OSError("cannot be ended")

        process.close = fail  # type: ignore[method-assign]
        return process


async def test_a_slot_that_cannot_be_cleaned_is_never_used_again(caplog: pytest.LogCaptureFixture) -> None:
    host = MachineHost(Failing(), 1)
    before = host.slots()["slot-1"]
    await host.run("slot-1", "bash", {"command": "echo secret > f"}, 10)
    assert await host.reset("slot-1") == "slot-2"
    assert "slot-1 cannot be cleaned and is never used again" in caplog.text
    assert list(host.slots()) == ["slot-2"]
    assert host.slots()["slot-2"] != before
    assert (await host.run("slot-1", "bash", {"command": "ls"}, 10)).lost
    await host.close()


@pytest.mark.parametrize("count", [0, -2, True, 1.5])
def test_a_host_has_slots(count: Any) -> None:
    with pytest.raises(InvalidArgument, match="count="):
        MachineHost(UnsafeLocal(), count)


async def test_nothing_is_left_behind(no_leaks: None) -> None:
    host = MachineHost(UnsafeLocal(), 3)
    root = Path(host.slots()["slot-1"]).parents[1]
    for name in host.slots():
        await host.run(name, "terminal_stateful", {"command": "sleep 300 &"}, 20)
    await host.close()
    assert not root.exists()
