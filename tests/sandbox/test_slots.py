"""Leases: in turn, in time, one to a trajectory, and none lost whatever is cancelled."""

from __future__ import annotations

import asyncio
import random

import pytest

from lagentlike.errors import SandboxError, SlotTimeout
from lagentlike.sandbox import Slot
from lagentlike.sandbox.slots import SlotPool


def pool_of(count: int) -> SlotPool:
    pool = SlotPool()
    for number in range(count):
        pool.add(Slot(f"s{number}"))
    return pool


def give_back(pool: SlotPool, slot: Slot) -> None:
    assert pool.give_back(slot)
    pool.add(slot)


async def test_a_trajectory_keeps_the_slot_that_it_has() -> None:
    pool = pool_of(2)
    slot = await pool.lease("a", 1)
    assert await pool.lease("a", 1) is slot
    assert (pool.free, pool.leased) == (1, 1)
    assert pool.give_back(slot)
    assert not pool.give_back(slot)


async def test_who_waited_longest_is_first() -> None:
    pool = pool_of(1)
    slot = await pool.lease("first", 1)
    order = []

    async def wait(name: str) -> None:
        taken = await pool.lease(name, 10)
        order.append(name)
        give_back(pool, taken)

    waiting = [asyncio.create_task(wait(f"w{number}")) for number in range(20)]
    await asyncio.sleep(0)
    give_back(pool, slot)
    late = asyncio.create_task(wait("late"))  # which does not overtake
    await asyncio.gather(*waiting, late)
    assert order == [*(f"w{number}" for number in range(20)), "late"]


async def test_who_waits_too_long_is_told_and_forgotten() -> None:
    wanted = []
    pool = SlotPool(lambda: wanted.append(1))
    with pytest.raises(SlotTimeout, match=r"within 0.05 seconds: 0 are in use and 0 others wait"):
        await pool.lease("a", 0.05)
    assert (pool.waiting, wanted) == (0, [1])
    pool.add(Slot("s"))
    assert (await pool.lease("b", 1)).id == "s"


async def test_a_slot_given_at_the_moment_of_a_cancellation_goes_to_the_next() -> None:
    pool = pool_of(1)
    slot = await pool.lease("a", 1)
    first, second = (asyncio.create_task(pool.lease(name, 10)) for name in ("b", "c"))
    await asyncio.sleep(0)
    give_back(pool, slot)  # it is b's now, whose task has not run yet
    first.cancel()
    assert (await second).trajectory_id == "c"
    assert first.cancelled()
    assert (pool.free, pool.leased, pool.waiting) == (0, 1, 0)


async def test_one_trajectory_asks_for_one_slot_at_a_time() -> None:
    pool = pool_of(0)
    waiting = asyncio.create_task(pool.lease("a", 10))
    await asyncio.sleep(0)
    with pytest.raises(SandboxError, match="waits for a slot already"):
        await pool.lease("a", 1)
    pool.close("it is over")
    with pytest.raises(SandboxError, match="it is over"):
        await waiting
    with pytest.raises(SandboxError, match="it is over"):
        await pool.lease("b", 1)


async def test_no_slot_is_lost_or_given_twice_in_a_thousand_random_leases() -> None:
    rng = random.Random(7)
    pool = pool_of(5)
    holders: dict[str, str] = {}

    async def trajectory(name: str) -> bool:
        try:
            slot = await pool.lease(name, rng.choice([0.001, 0.01, 5.0]))
        except SlotTimeout:
            return False
        assert slot.id not in holders
        holders[slot.id] = name
        try:
            await asyncio.sleep(rng.choice([0, 0, 0.001]))
        finally:
            del holders[slot.id]
            give_back(pool, slot)
        return True

    tasks = [asyncio.create_task(trajectory(f"t{number}")) for number in range(1000)]
    for task in rng.sample(tasks, 200):
        await asyncio.sleep(0)
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [one for one in outcomes if isinstance(one, Exception)]
    assert True in outcomes
    assert (pool.free, pool.leased, pool.waiting) == (5, 0, 0)
