"""Many trajectories at once: lanes, batches, policies, and what is wrong with a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from lagentlike.errors import InvalidArgument, SandboxError, SandboxUnavailable, SlotTimeout
from lagentlike.sandbox import (
    Artifact,
    ArtifactEntry,
    create_tool_backend,
    ExecutionResult,
    SandboxSettings,
    Slot,
    SlotRequest,
    ToolBackend,
    ToolExecutor,
    ToolServer,
)
from lagentlike.schema import ToolCall, ToolResult
from lagentlike.tools import build_tool_registry, calculator, tool, ToolRegistry

PATIENCE = 60.0


def executor_of(
    mode: str = "bwrap", slots: int = 3, tools: ToolRegistry | None = None, **settings: Any
) -> ToolExecutor:
    config = {"tool_pool_mode": mode, "slots_per_container": slots, "max_containers": 1, **settings}
    return ToolExecutor(create_tool_backend(config), tools or build_tool_registry(), config)


def bash(command: str, **more: Any) -> ToolCall:
    return ToolCall("bash", {"command": command, **more}, id="c1")


async def test_a_call_gives_a_result_with_its_id() -> None:
    async with executor_of() as executor:
        result = await executor.execute("t", bash("echo hi"))
        assert result == ToolResult(True, "hi\n", metadata={"exit_code": 0}, id="c1", name="bash")
        failed = await executor.execute("t", bash("echo so; exit 2"))
        assert (failed.success, failed.output, failed.error) == (False, "so\n", "exit code 2")
        assert failed.metadata == {"exit_code": 2}
        late = await executor.execute("t", bash("sleep 60"), timeout_s=0.5)
        assert late.metadata == {"timed_out": True}
        assert "0.5 seconds" in late.error


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (ToolCall("nope", {}), "there is no tool 'nope': the tools are bash"),
        (ToolCall("bash", "{oops"), "no valid JSON"),
        (ToolCall("bash", "[1]"), "write an object"),
        (ToolCall("bash", '{"command": "a", "command": "b"}'), "there twice"),
        (ToolCall("bash", {}), "command: Field required"),
        (ToolCall("bash", {"command": 5}), "command: Input should be a valid string"),
        (ToolCall("bash", {"command": "ls", "cwd": "/"}), "cwd: Extra inputs are not permitted"),
        (ToolCall("bash", "", error="a <tool_call> is not closed"), "is not closed"),
        (ToolCall("bash", {"command": "x" * 2_000_000}), "at most 1048576 characters"),
        (ToolCall("tmux", {"action": "explode"}), "action: Input should be"),
        (ToolCall("read_file", {"path": "f", "offset": 10**30}), "offset: Input should be less than"),
        (ToolCall("calculator", {"expr": "1"}), "calculator"),
    ],
)
async def test_a_call_that_is_wrong_comes_back_as_an_error_and_takes_no_slot(call: ToolCall, error: str) -> None:
    tools = ToolRegistry(["bash", "tmux", "read_file", calculator])
    async with executor_of("local", tools=tools) as executor:
        result = await executor.execute("t", call)
        assert not result.success
        assert error in result.error
        assert executor.get_stats()["backend"]["slots"]["leased"] == 0


class Recording(ToolBackend):
    """A backend that keeps what it is asked, and takes as long as the command says."""

    name = "recording"

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, str, dict[str, Any], float]]] = []
        self.released: list[tuple[str, bool]] = []
        self.failing: Exception | None = None
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def stop(self, purge: bool = False) -> None:
        self.running = False

    async def acquire(self, trajectory_id: str, timeout_s: float | None = None) -> Slot:
        return Slot(f"of-{trajectory_id}", trajectory_id=trajectory_id)

    async def release(self, slot: Slot, reset_workspace: bool = False) -> None:
        self.released.append((slot.id, reset_workspace))

    async def run_batch(
        self, requests: Sequence[SlotRequest], timeout_s: float
    ) -> AsyncIterator[tuple[int, ExecutionResult]]:
        self.batches.append([(one.slot.id, one.tool, dict(one.arguments), timeout_s) for one in requests])
        if self.failing is not None:
            raise self.failing
        waits = {index: float(one.arguments["command"]) for index, one in enumerate(requests)}
        began = 0.0
        for index in sorted(waits, key=lambda index: waits[index]):
            await asyncio.sleep(waits[index] - began)
            began = waits[index]
            yield index, ExecutionResult(True, f"waited {waits[index]}")

    async def read_artifact(self, slot: Slot, path: str, max_bytes: int = 0) -> Artifact:
        return Artifact(f"{slot.id}/{path}", b"", 0)

    async def list_artifacts(self, slot: Slot, path: str = ".", recursive: bool = False) -> list[ArtifactEntry]:
        return []

    async def archive_artifacts(self, slot: Slot, path: str = ".") -> bytes:
        return b""

    def get_stats(self) -> dict[str, Any]:
        return {}


def recording(**settings: Any) -> tuple[Recording, ToolExecutor]:
    backend = Recording()
    return backend, ToolExecutor(backend, build_tool_registry(), settings)


async def test_calls_that_come_together_go_together_up_to_the_largest_batch() -> None:
    backend, executor = recording(tool_batch_window_ms=50, tool_max_batch_size=4)
    async with executor:
        calls = [executor.execute(f"t{number}", bash("0")) for number in range(10)]
        results = await asyncio.gather(*calls)
    assert all(result.output == "waited 0.0" for result in results)
    assert [len(batch) for batch in backend.batches] == [4, 4, 2]
    assert executor.get_stats()["largest_batch"] == 4


async def test_each_time_limit_has_a_batch_of_its_own() -> None:
    backend, executor = recording(tool_timeout_s=7)
    async with executor:
        await asyncio.gather(
            executor.execute("a", bash("0")),
            executor.execute("b", bash("0"), timeout_s=3),
            executor.execute("c", bash("0")),
        )
    assert [[one[3] for one in batch] for batch in backend.batches] == [[7, 7], [3]]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
async def test_a_time_limit_is_a_number_of_seconds(seconds: float) -> None:
    _, executor = recording()
    async with executor:
        with pytest.raises(InvalidArgument, match="timeout_s"):
            await executor.execute("a", bash("0"), timeout_s=seconds)


async def test_what_a_model_says_of_network_sandbox_and_time_is_not_heard() -> None:
    backend, executor = recording(tool_timeout_s=7)
    orders = {"timeout": 1e9, "timeout_s": 0, "network": True, "allow_network": True, "sandbox": False}
    async with executor:
        result = await executor.execute("a", bash("0", require_sandbox=False, privileged=True, **orders))
    assert result.success
    assert backend.batches == [[("of-a", "bash", {"command": "0"}, 7)]]


async def test_one_slow_call_delays_nobody_else_not_even_those_of_its_batch() -> None:
    backend, executor = recording()
    async with executor:
        slow = asyncio.create_task(executor.execute("slow", bash("30")))
        others = [executor.execute(f"t{number}", bash("0.01")) for number in range(50)]
        async with asyncio.timeout(15):
            results = await asyncio.gather(*others)
        assert all(result.success for result in results)
        assert len(backend.batches) == 1
        assert not slow.done()
        await executor.release_trajectory("slow")  # which ends it
        ended = await slow
        assert (ended.error, ended.metadata) == ("the trajectory was released", {"unavailable": True})
        assert backend.released == [("of-slow", True)]  # reset, since its call was under way


async def test_calls_of_one_trajectory_run_one_after_the_other() -> None:
    backend, executor = recording(tool_batch_window_ms=0)
    async with executor:
        order = []

        async def call(wait: str) -> None:
            await executor.execute("a", bash(wait))
            order.append(wait)

        await asyncio.gather(call("0.2"), call("0.1"), call("0"))
    assert order == ["0.2", "0.1", "0"]
    assert [len(batch) for batch in backend.batches] == [1, 1, 1]


async def test_a_caller_that_is_cancelled_leaves_its_lane_usable() -> None:
    backend, executor = recording(tool_batch_window_ms=100)
    async with executor:
        unsent = asyncio.create_task(executor.execute("a", bash("0")))
        await asyncio.sleep(0.01)
        unsent.cancel()
        sent = asyncio.create_task(executor.execute("b", bash("0.3")))
        await asyncio.sleep(0.2)
        sent.cancel()
        began = time.monotonic()
        after = await asyncio.gather(executor.execute("a", bash("0")), executor.execute("b", bash("0")))
        assert all(result.success for result in after)
        assert time.monotonic() - began < PATIENCE
    assert sorted(one[0] for batch in backend.batches for one in batch) == ["of-a", "of-b", "of-b"]


@pytest.mark.parametrize("failing", [SandboxError("the pool is on fire"), OSError("disk")])
async def test_a_backend_that_fails_leaves_nobody_waiting(failing: Exception) -> None:
    backend, executor = recording()
    backend.failing = failing
    async with executor:
        results = await asyncio.gather(*(executor.execute(f"t{number}", bash("0")) for number in range(3)))
    texts = {result.error for result in results}
    assert texts == {"the pool is on fire" if isinstance(failing, SandboxError) else "the sandbox failed: OSError"}


async def test_closing_ends_what_is_under_way() -> None:
    _, executor = recording()
    await executor.start()
    running = asyncio.create_task(executor.execute("a", bash("60")))
    queued = asyncio.create_task(executor.execute("a", bash("0")))
    await asyncio.sleep(0.1)
    await executor.close()
    assert [(await task).error for task in (running, queued)] == ["the executor was closed"] * 2
    with pytest.raises(SandboxError, match="not running"):
        await executor.execute("a", bash("0"))


async def test_a_tool_marked_external_runs_in_the_tool_server_and_never_in_the_sandbox() -> None:
    asked = []

    @tool
    def lookup(word: str, network: bool = False) -> str:
        """Look a word up with a key."""
        asked.append((word, network))
        return f"found {word}"

    tools = ToolRegistry(["bash"])
    tools.register(lookup, external=True)
    backend = Recording()
    token = "0123456789abcdef"
    call = ToolCall("lookup", {"word": "x", "network": True}, id="c7")
    async with ToolServer(tools, token) as server:
        async with ToolExecutor(
            backend, tools, {"tool_server_url": server.url, "tool_server_token": token}
        ) as executor:
            result = await executor.execute("a", call)
            assert (result.success, result.output, result.id) == (True, "found x", "c7")
            for word in ("\ud800", 10**30):
                unsent = await executor.execute("a", ToolCall("lookup", {"word": word}))
                assert "the arguments of lookup cannot be sent" in unsent.error
                assert unsent.metadata == {}, "a model is to blame for it"
        async with ToolExecutor(
            backend, tools, {"tool_server_url": server.url, "tool_server_token": token + "x"}
        ) as executor:
            assert "401" in (await executor.execute("a", call)).error
    async with ToolExecutor(backend, tools, {"tool_server_url": "inprocess"}) as executor:
        assert (await executor.execute("a", call)).output == "found x"
    async with ToolExecutor(backend, tools) as executor:
        assert "set tool_server_url" in (await executor.execute("a", call)).error
    assert backend.batches == []
    assert asked == [("x", True)] * 2  # its own argument of that name is its own


async def test_no_sandbox_is_started_for_tools_of_a_tool_server_until_a_slot_is_asked_for() -> None:
    tools = ToolRegistry()
    tools.register(calculator, external=True)
    backend = Recording()
    async with ToolExecutor(backend, tools, {"tool_server_url": "inprocess"}) as executor:
        assert (await executor.execute("a", ToolCall("calculator", {"expression": "6 * 7"}))).output == "42"
        assert not backend.running
        async with executor.lease("a") as slot:
            assert (slot.id, backend.running) == ("of-a", True)
    assert (backend.released, backend.running) == ([("of-a", True)], False)


async def test_a_lease_is_fair_ends_in_time_and_gives_back_what_it_had() -> None:
    async with executor_of("local", slots=1) as executor:
        async with executor.lease("first") as slot:
            assert (await executor.execute("first", bash("echo here > file"))).success
            with pytest.raises(SlotTimeout, match=r"no sandbox slot came free within 0\.1 seconds"):
                async with executor.lease("second", timeout_s=0.1):
                    raise AssertionError("there is none")
            later = [asyncio.create_task(_who_has(executor, name)) for name in ("third", "fourth")]
            await asyncio.sleep(0.1)
            assert slot.trajectory_id == "first"
        assert [await one for one in later] == ["", ""], "in a clean workspace"
        stats = executor.get_stats()
        assert (stats["trajectories"], stats["backend"]["slots"]["leased"]) == (0, 0)


async def _who_has(executor: ToolExecutor, name: str) -> str:
    async with executor.lease(name, PATIENCE):
        return (await executor.execute(name, bash("ls"))).output


def test_a_backend_that_is_no_boundary_is_refused_where_a_sandbox_is_required() -> None:
    with pytest.raises(SandboxUnavailable, match="'local' is no boundary"):
        create_tool_backend({"tool_pool_mode": "local", "require_sandbox": True})
    local = create_tool_backend({"tool_pool_mode": "local"})
    with pytest.raises(SandboxUnavailable, match="'local' is no boundary"):
        ToolExecutor(local, build_tool_registry(), {"require_sandbox": True})
    stateless = Recording()
    stateless.stateful = False
    with pytest.raises(SandboxUnavailable, match="keeps no processes"):
        ToolExecutor(stateless, build_tool_registry(), {"require_stateful_sandbox": True})


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"tool_pool_mode": "none"}, "give one of bwrap, local"),
        ({"slots_per_container": 0}, "at least 1"),
        ({"acquire_timeout_s": float("nan")}, "number above 0"),
        ({"tool_batch_window_ms": "20"}, "milliseconds"),
        ({"allow_network": "no"}, "allow_network='no': give True or False"),
        ({"min_containers": 5, "max_containers": 2}, "max_containers is 2"),
        ({"driver": "lxc"}, "docker or singularity"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidArgument, match=error):
        SandboxSettings.of(settings)


def test_settings_are_taken_from_any_object_that_has_some_and_show_no_secret() -> None:
    class Config:
        tool_pool_mode = "local"
        tool_server_token = "s3cret"
        group_size = 8

    settings = SandboxSettings.of(Config())
    assert (settings.tool_pool_mode, settings.tool_server_token) == ("local", "s3cret")
    assert "s3cret" not in repr(settings)
    assert SandboxSettings.of(settings) is settings


async def test_many_trajectories_share_few_slots_and_only_one_waits_for_its_slow_command() -> None:
    async with executor_of("bwrap", slots=6, acquire_timeout_s=200) as executor:
        began = time.monotonic()
        slow = asyncio.create_task(executor.execute("slow", bash("sleep 300"), timeout_s=300))

        async def trajectory(number: int) -> str:
            name = f"t{number}"
            try:
                await executor.execute(name, ToolCall("write_file", {"path": "mine", "content": name}))
                return (await executor.execute(name, bash("ls -A | wc -l; cat mine"))).output
            finally:
                await executor.release_trajectory(name, reset_workspace=True)

        seen = await asyncio.gather(*(trajectory(number) for number in range(50)))
        assert seen == [f"1\nt{number}" for number in range(50)]
        assert not slow.done()
        assert time.monotonic() - began < 200
        stats = executor.get_stats()
        assert stats["backend"]["slots"] == {"free": 5, "kept": 0, "leased": 1}
        assert stats["largest_batch"] > 1
        await executor.release_trajectory("slow", reset_workspace=True)
        assert not (await slow).success
