"""What is kept, for how long, and for whom."""

from __future__ import annotations

import asyncio

import pytest

from lagentlike.actions.web_cache import SharedCache


class Maker:
    """Makes a value when it is told to."""

    def __init__(self) -> None:
        self.made = 0
        self.go = asyncio.Event()

    async def make(self) -> str:
        self.made += 1
        await self.go.wait()
        return f"value {self.made}"


async def test_those_who_ask_at_once_wait_for_one_value() -> None:
    cache: SharedCache[str] = SharedCache(9, 60)
    maker = Maker()
    waiting = [asyncio.create_task(cache.get("a", maker.make)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # the others still get it
    maker.go.set()
    values = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(values[0], asyncio.CancelledError)
    assert values[1:] == ["value 1"] * 4
    assert await cache.get("a", maker.make) == "value 1"


async def test_a_value_that_nobody_waits_for_is_given_up() -> None:
    cache: SharedCache[str] = SharedCache(9, 60)
    maker = Maker()
    waiting = [asyncio.create_task(cache.get("a", maker.make)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    maker.go.set()
    assert await cache.get("a", maker.make) == "value 2"
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_is_told_to_all_who_wait_and_to_nobody_after() -> None:
    cache: SharedCache[str] = SharedCache(9, 60)
    made = 0

    async def fail() -> str:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        raise ValueError(made)

    errors = await asyncio.gather(*(cache.get("a", fail) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in errors] == ["1", "1", "1"]
    with pytest.raises(ValueError, match="2"):
        await cache.get("a", fail)


async def test_it_forgets_what_was_not_used_for_longest_and_what_is_old() -> None:
    now = 0.0
    cache: SharedCache[str] = SharedCache(2, 60, clock=lambda: now)
    made: list[str] = []

    async def get(key: str) -> None:
        async def make() -> str:
            made.append(key)
            return key

        assert await cache.get(key, make) == key

    for key in "abacab":
        await get(key)
    assert "".join(made) == "abcb"
    assert len(cache) == 2
    now = 61.0
    await get("a")
    assert "".join(made) == "abcba"


async def test_what_is_heavy_takes_the_place_of_much_and_the_heaviest_is_not_kept() -> None:
    cache: SharedCache[str] = SharedCache(10, 60, weigh=len)
    for text in ("aaaa", "bbbb", "cc", "dddddddd", "e" * 11):

        async def make(text: str = text) -> str:
            return text

        assert await cache.get(text, make) == text
    assert list(cache._kept) == ["cc", "dddddddd"]
    assert cache._weight == 10
