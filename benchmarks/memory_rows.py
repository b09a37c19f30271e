"""What sessions and stores hold out, in full numbers: `python -m benchmarks.memory_rows [--only turns …] [--short]`.

The tests show the same in smaller ones. Each part prints a line of JSON with what it did and what it found; whatever
should not be raises. Servers of PostgreSQL and Redis are started for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given, HealthCheck, settings

from lagentlike.agents import Agent, AsyncAgent, AsyncSequential
from lagentlike.errors import StateError
from lagentlike.memory import Change, Keeper, open_store, SessionStore, SessionValue, Tail
from lagentlike.schema import AgentMessage
from lagentlike.serving import AgentServer
from lagentlike.serving.agent_protocol import TurnRequest
from tests import test_state_dict as states
from tests.memory.servers import postgres_server, redis_server

from .serving import own_memory_mb
from .stores import Answering

__all__ = ["main"]

KINDS = ("sqlite", "postgres", "redis")
Figures = dict[str, Any]


class Blocking(Agent):
    def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> str:
        return "yes"


@contextmanager
def places() -> Iterator[dict[str, str]]:
    """Where each kind of store is."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        yield {
            "sqlite": str(Path(folder) / "sessions.db"),
            "postgres": stack.enter_context(postgres_server()),
            "redis": stack.enter_context(redis_server()),
        }


@asynccontextmanager
async def each_store(place: str) -> AsyncIterator[SessionStore]:
    async with open_store(place) as store:
        yield store


# M1


def turns(number: int) -> Figures:
    """A hundred calls of one session at once, again and again: turns alternate and none is lost."""
    figures: Figures = {"turns": number}
    agent = Blocking(name="echo")
    ask = partial(_ask_blocking, agent, number // 100)
    threads = [threading.Thread(target=ask, args=(caller,)) for caller in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _check_turns(agent.memory.save(0), number)  # type: ignore[union-attr]
    figures["threads"] = "alternate, none lost"
    with places() as found:
        for kind in ("memory", *KINDS):
            began = time.perf_counter()
            asyncio.run(_ask_async(number, found.get(kind)))
            figures[kind] = f"alternate, none lost, {number / (time.perf_counter() - began):.0f} turns a second"
    return figures


def _ask_blocking(agent: Agent, times: int, caller: int) -> None:
    for turn in range(times):
        agent(f"{caller}-{turn}")


async def _ask_async(number: int, place: str | None) -> None:
    agent = Answering(name="echo")
    keeper = None if place is None else agent.keep(place)

    async def ask(caller: int) -> None:
        for turn in range(number // 100):
            await agent(f"{caller}-{turn}")

    await asyncio.gather(*(ask(caller) for caller in range(100)))
    _check_turns(agent.memory.save(0), number)  # type: ignore[union-attr]
    if keeper is not None:
        kept = await keeper.store.load(0)
        assert kept is not None
        _check_turns(kept.messages["memory"], number)
        await keeper.store.close()


def _check_turns(messages: list[Any], number: int) -> None:
    assert [message["sender"] for message in messages] == ["user", "echo"] * number
    assert len({message["content"] for message in messages[::2]}) == number


# M2


class Fragile(AsyncAgent):
    """Fails, or is slow, as it is told."""

    async def forward(self, message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> str:
        await asyncio.sleep(0)
        if message.content.startswith(self.name or ""):
            raise RuntimeError("no")
        await asyncio.sleep(0)
        return str(message.content)


def taken_back(number: int) -> Figures:
    """Turns that fail in the first, the second or no unit of a row, or are cancelled somewhere: what is left."""
    counts = {"stood": 0, "failed": 0, "cancelled": 0}

    async def run() -> None:
        rng = random.Random(0)
        agent = AsyncSequential(Fragile(name="first"), Fragile(name="second"))
        for turn in range(number):
            before = agent.state_dict()
            task = asyncio.ensure_future(agent(rng.choice(["fine", "first", "second"])))
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            if rng.random() < 0.5:
                task.cancel()
            try:
                await task
                counts["stood"] += 1
                assert agent.state_dict() != before
            except (RuntimeError, asyncio.CancelledError) as error:
                counts["failed" if isinstance(error, RuntimeError) else "cancelled"] += 1
                assert agent.state_dict() == before
            if turn % 50 == 49:
                agent.reset(recursive=True)

    asyncio.run(run())
    return {"turns": number, **counts, "half_there": 0}


# M3


def round_trips(number: int) -> Figures:
    """Whatever JSON holds comes back equal, from a state dict and from each store; anything else is refused by name."""
    figures: Figures = {"examples": number}
    many = settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    many(given(states.plain, states.plain, states.texts)(states.check_round_trip))()
    figures["state_dict"] = "equal"
    refused = 0

    @many
    @given(states.anything)
    def check_anything(content: Any) -> None:
        nonlocal refused
        agent, other = Agent(), Agent()
        agent.memory.add(AgentMessage(content=content))  # type: ignore[union-attr]
        try:
            state = agent.state_dict()
        except StateError:
            refused += 1
            return
        other.load_state_dict(json.loads(json.dumps(state, allow_nan=False)))
        assert other.state_dict() == state

    check_anything()
    figures["anything"] = f"equal, or refused by name ({refused})"
    with places() as found:
        for kind in KINDS:
            with asyncio.Runner() as runner:
                store = open_store(found[kind])
                _check_all_kept(many, runner, store)
                runner.run(store.close())
            figures[kind] = "equal"
    return figures


def _check_all_kept(many: settings, runner: asyncio.Runner, store: SessionStore) -> None:
    async def check(text: str, value: Any) -> None:
        agent, other = Agent(), Agent()
        agent.memory.load([AgentMessage(content=text, extra_info={"value": value}, sender=text)], session_id=1)  # type: ignore[union-attr]
        expected = agent.state_dict(1)
        await Keeper(agent, store).write(1)
        await Keeper(other, store).fetch(1)
        assert other.state_dict(1) == expected
        await store.delete(1)

    @many
    @given(states.texts, states.plain)
    def check_kept(text: str, value: Any) -> None:
        runner.run(check(text, value))

    check_kept()


# M4


def hostile(number: int) -> Figures:
    """Hostile states, from a state dict and from each store: nothing runs, and nothing is taken over in part."""
    states.test_hostile_states_run_nothing_and_change_nothing_in_part()
    states.test_ten_thousand_made_up_states_run_nothing_and_change_nothing_in_part()
    figures: Figures = {"corpus": len(states.hostile_states()), "made_up": 10_000, "state_dict": "nothing ran"}
    leaves: list[Callable[[random.Random], Any]] = [
        lambda source: None,
        lambda source: source.randrange(-3, 10),
        lambda source: source.choice(["content", "os.system", "__class__", "user", "builtins.exec", ""]),
        states.made_up_text,
    ]
    keys = [*AgentMessage.model_fields, "__class__", "__reduce__", "lc", "kwargs", "ids", "success"]
    made_up = states.MadeUp(7, leaves, keys)
    items = [{"content": made_up.value(), made_up.key(): made_up.value()} for _ in range(number)]
    texts = [json.dumps(item) for item in [*states.HOSTILE, *states.VALUES, *items]]
    texts += ["{", "[" * 100_000, '"' + "x" * 10_000_000 + '"', "NaN x", ""]
    with places() as found:
        for kind in KINDS:
            figures[kind] = asyncio.run(_hostile_in_a_store(found[kind], texts))
    return figures


async def _hostile_in_a_store(place: str, texts: list[str]) -> str:
    taken = 0
    async with each_store(place) as store:
        agent = Agent()
        agent.memory.add("kept", 2)  # type: ignore[union-attr]
        keeper = Keeper(agent, store)
        await keeper.write(2)
        before = agent.state_dict("all")
        for text in texts:
            tails = {"memory": Tail(0, [json.dumps({"content": "fine"}), text])}
            try:
                await store.append(1, Change(0, 5, {"memory": 2}, tails))
                with states.nothing_runs():
                    await keeper.fetch(1)
                taken += 1
                keeper.forget(1)
            except StateError:
                pass
            assert agent.state_dict("all") == before
            await store.delete(1)
            keeper.forget(1)
    return f"nothing ran, {taken} of {len(texts)} were messages"


# M5


class Stubborn(SessionValue[Any]):
    """A state that cannot be put back at times."""

    fails = False

    def restore(self, session_id: Any, parsed: Any) -> None:
        super().restore(session_id, parsed)
        if self.fails and parsed == ["new"]:
            raise OSError("no")


def half_loaded(number: int) -> Figures:
    """Loads that fail at one of the states of a tree: the old state is intact."""
    rng = random.Random(0)

    class Part(Agent):
        def __init__(self) -> None:
            super().__init__()
            self.value = Stubborn(list)

    class Tree(Part):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Part(), Part()

    tree = Tree()
    parts = [tree, tree.one, tree.two]
    for part in parts:
        part.memory.add("old", 0)  # type: ignore[union-attr]
        part.value[0] = ["old"]
    before = tree.state_dict("all")
    new = json.loads(json.dumps(before).replace('"old"', '"new"'))
    for _ in range(number):
        failing = rng.choice(parts)
        failing.value.fails = True
        try:
            tree.load_state_dict(new, "all")
        except OSError:
            assert tree.state_dict("all") == before
        else:
            raise AssertionError("the load did not fail")
        failing.value.fails = False
    return {"loads": number, "old_state_intact": number}


# M6


def sessions(number: int) -> Figures:
    """So many sessions, a thousand of which may be in memory: of a server, and of an agent with each turn in SQLite."""
    with places() as found:
        held = {
            "server": asyncio.run(_served(number)),
            "sqlite": asyncio.run(_kept(number, found["sqlite"])),
        }
    return {"sessions": number, **{f"{kind}_memory_mb_at_each_tenth": values for kind, values in held.items()}}


async def _served(number: int) -> list[float]:
    gone = 0

    def count(*_: str) -> None:
        nonlocal gone
        gone += 1

    server, held = AgentServer(Answering(name="echo"), port=0, max_sessions=1000, on_evict=count), []
    for tenth in range(10):
        for index in range(number // 10):
            await server.turn("", TurnRequest([AgentMessage(content="x" * 100)], f"s{tenth}-{index}", {}))
        held.append(round(own_memory_mb(), 1))
    assert gone == number - 1000
    return _flat(held)


async def _kept(number: int, place: str) -> list[float]:
    agent, held = Answering(name="echo"), []
    keeper = agent.keep(place, max_sessions=1000)
    for tenth in range(10):
        for start in range(0, number // 10, 100):
            await asyncio.gather(*(agent("x" * 100, session_id=(tenth, start + index)) for index in range(100)))
        held.append(round(own_memory_mb(), 1))
    assert len(await keeper.store.session_ids(9)) == number // 10
    await keeper.store.close()
    return _flat(held)


def _flat(held: list[float]) -> list[float]:
    assert held[-1] - held[2] < 8, f"memory grows with the number of sessions: {held}"
    return held


PARTS: dict[str, tuple[Callable[[int], Figures], int]] = {
    "turns": (turns, 10_000),
    "taken_back": (taken_back, 10_000),
    "round_trips": (round_trips, 10_000),
    "hostile": (hostile, 10_000),
    "half_loaded": (half_loaded, 1_000),
    "sessions": (sessions, 1_000_000),
}


def main(arguments: list[str] | None = None) -> None:
    """Do the parts that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--short", action="store_true", help="a hundredth of it")
    options = parser.parse_args(arguments)
    for name in options.only:
        part, number = PARTS[name]
        began = time.perf_counter()
        figures = part(number // 100 if options.short else number)
        sys.stdout.write(json.dumps({name: {**figures, "seconds": round(time.perf_counter() - began)}}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
