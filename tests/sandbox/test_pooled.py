"""The pool of slots over hosts that fail at every moment: nobody waits for ever, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from lagentlike.errors import SandboxError, SlotTimeout
from lagentlike.sandbox import ExecutionResult, SandboxSettings, SlotRequest
from lagentlike.sandbox.host import HostCall, SlotHost
from lagentlike.sandbox.pooled import PooledBackend

PATIENCE = 20.0


class Host(SlotHost):
    """Two slots whose calls answer with what they are told."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.names = {f"{name}-1": "/workspace", f"{name}-2": "/workspace"}
        self.dead = asyncio.Event()
        self.silent = False
        self.closed = False
        self.closing = asyncio.Event()
        self.closing.set()
        self.answers = asyncio.Event()
        self.answers.set()

    def slots(self) -> dict[str, str]:
        return dict(self.names)

    async def run_batch(
        self, calls: Sequence[HostCall], timeout_s: float
    ) -> AsyncIterator[tuple[int, ExecutionResult]]:
        for index, call in enumerate(calls):
            yield index, ExecutionResult(True, str(call.arguments["say"]))

    async def ask(self, slot: str, action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        raise AssertionError

    async def reset(self, slot: str) -> str:
        del self.names[slot]
        self.names[slot + "'"] = "/workspace"
        return slot + "'"

    async def alive(self) -> bool:
        await self.answers.wait()
        return not self.silent and not self.dead.is_set()

    async def ended(self) -> str:
        await self.dead.wait()
        return "it died"

    async def close(self) -> None:
        await self.closing.wait()
        self.closed = True


class Pool(PooledBackend):
    name = "pool"

    def __init__(self, least: int = 1, most: int = 1) -> None:
        super().__init__(SandboxSettings(), least, most)
        self.made: list[Host] = []
        self.launching = asyncio.Event()
        self.launching.set()

    async def _launch(self) -> SlotHost:
        await self.launching.wait()
        self.made.append(Host(f"h{len(self.made)}"))
        return self.made[-1]


async def test_a_call_whose_host_dies_as_it_is_sent_gets_an_error() -> None:
    async with Pool() as pool, asyncio.timeout(PATIENCE):
        slots = [await pool.acquire(name) for name in "ab"]
        sending = asyncio.create_task(pool.execute_batch([SlotRequest(slot, "bash", {"say": 1}) for slot in slots], 5))
        pool.made[0].dead.set()  # seen when the call has been sent off, and has not begun
        results = await sending
        assert [(result.lost, result.error) for result in results] == [(True, "it died")] * 2


async def test_a_trajectory_that_asks_again_and_gives_up_keeps_its_slot() -> None:
    async with Pool() as pool, asyncio.timeout(PATIENCE):
        slot = await pool.acquire("a")
        pool.made[0].answers.clear()
        again = asyncio.create_task(pool.acquire("a"))
        await asyncio.sleep(0)
        again.cancel()
        await asyncio.wait([again])
        pool.made[0].answers.set()
        assert pool.get_stats()["slots"] == {"free": 1, "kept": 0, "leased": 1}
        assert await pool.acquire("a") is slot
        with pytest.raises(SlotTimeout):
            await pool.acquire("b"), await pool.acquire("c", timeout_s=0)


async def test_a_pool_that_is_stopped_while_it_starts_leaves_no_host() -> None:
    pool = Pool(least=2, most=2)
    pool.launching.clear()
    starting = asyncio.create_task(pool.start())
    await asyncio.sleep(0)
    await pool.stop()
    pool.launching.set()
    with pytest.raises(SandboxError, match="stopped"):
        await starting
    assert [host.closed for host in pool.made] == [True, True]


async def test_a_pool_that_is_stopped_while_a_host_is_closed_waits_for_that() -> None:
    pool = Pool(least=0, most=1)
    await pool.start()
    await pool.acquire("a")
    (host,) = pool.made
    host.closing.clear()
    host.dead.set()
    await asyncio.sleep(0.05)
    assert pool.get_stats()["containers"] == 0
    stopping = asyncio.create_task(pool.stop())
    await asyncio.sleep(0.05)
    host.closing.set()
    await stopping
    assert host.closed


async def test_who_gives_up_while_a_host_that_died_is_closed_leaves_nothing() -> None:
    async with Pool() as pool, asyncio.timeout(PATIENCE):
        (host,) = pool.made
        host.closing.clear()
        host.silent = True
        asking = asyncio.create_task(pool.acquire("a"))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait([asking])
        host.closing.set()
        await asyncio.sleep(0.05)
        assert host.closed
        assert (await pool.acquire("b")).container == "h1"
