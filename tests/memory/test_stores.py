"""What every store of sessions does, wherever it keeps them."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st

from lagentlike import Agent, AgentMessage, AsyncAgent, ScriptedLLM, StreamingAgent, TinyLM
from lagentlike.agents import AsyncStreamingAgent
from lagentlike.cli import main
from lagentlike.concurrency import run_in_background
from lagentlike.errors import InvalidArgument, SessionConflict, StateError
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.memory import (
    Change,
    MemoryManager,
    PostgresStore,
    RedisStore,
    SessionStore,
    SessionValue,
    SQLiteStore,
    Tail,
)
from lagentlike.memory.keeper import surely
from lagentlike.memory.store import session_key, to_json

from .talker import echoing, open_store

ROOT = Path(__file__).resolve().parents[2]
_numbers = itertools.count()


@pytest.fixture
def address(store_kind: str, store_place: str) -> str:
    """Where a store of this test alone is."""
    return store_place if store_kind == "sqlite" else f"{store_place}#room_{next(_numbers)}"


@pytest.fixture
def another(store_kind: str, address: str) -> Iterator[Callable[[], SessionStore]]:
    """Opens the store once more, as another process would."""
    opened: list[SessionStore] = []

    def open_one() -> SessionStore:
        opened.append(open_store(store_kind, address))
        return opened[-1]

    yield open_one
    for store in opened:
        store.blocking.close()


@pytest.fixture
def store(another: Callable[[], SessionStore]) -> SessionStore:
    return another()


def echo(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
    return "heard " + ", ".join(message["content"] for message in messages if message["role"] == "user")


def an_agent(store: SessionStore, **options: Any) -> Agent:
    agent = Agent(ScriptedLLM(echo), name="echo")
    agent.keep(store, **options)
    return agent


def said(agent: Any, session_id: Any = 0) -> list[str]:
    return [message.content for message in agent.memory.get(session_id)]


# Turns


def test_a_session_goes_on_in_another_process(another: Callable[[], SessionStore]) -> None:
    an_agent(another())("one", session_id="ann")
    assert an_agent(another())("two", session_id="ann").content == "heard one, two"
    assert an_agent(another())("hello", session_id="bob").content == "heard hello"


async def test_all_colours_are_kept(store: SessionStore) -> None:
    kinds = (
        (Agent, ScriptedLLM),
        (StreamingAgent, ScriptedLLM),
        (AsyncAgent, AsyncScriptedLLM),
        (AsyncStreamingAgent, AsyncScriptedLLM),
    )
    for number, (make, model) in enumerate(kinds):
        agent: Any = make(model(echo), name="echo")
        agent.keep(store)
        called = agent(str(number))
        if isinstance(called, AsyncIterator):
            called = [message async for message in called][-1]
        elif isinstance(called, Iterator):
            called = list(called)[-1]
        elif not isinstance(called, AgentMessage):
            called = await called
        assert called.content == "heard " + ", ".join(map(str, range(number + 1)))


def test_two_processes_may_take_turns(another: Callable[[], SessionStore]) -> None:
    first, second = an_agent(another()), an_agent(another())
    for number in range(3):
        first(f"a{number}")
        reply = second(f"b{number}")
    assert reply.content == "heard a0, b0, a1, b1, a2, b2"


def test_of_two_turns_at_once_one_is_refused_and_taken_back(another: Callable[[], SessionStore]) -> None:
    first, second = an_agent(another()), an_agent(another())
    first("one")

    def meanwhile(unit: Any, messages: Any) -> None:
        second("two")

    handle = first.register_forward_pre_hook(meanwhile)
    with pytest.raises(SessionConflict, match="session 0 went on elsewhere"):
        first("three")
    handle.remove()
    assert said(first) == ["one", "heard one"]
    assert first("three").content == "heard one, two, three"


def test_the_first_turns_of_a_session_conflict_too(another: Callable[[], SessionStore]) -> None:
    first, second = an_agent(another()), an_agent(another())
    first.register_forward_pre_hook(lambda *_: second("two") and None)
    with pytest.raises(SessionConflict):
        first("one")
    assert an_agent(another())("three").content == "heard two, three"


def test_a_change_whose_answer_was_lost_may_be_asked_for_again(store: SessionStore) -> None:
    said_ = [json.dumps({"content": text, "sender": "user"}) for text in ("one", "two")]
    changes = [
        Change(0, 5, {"memory": 1}, {"memory": Tail(0, said_[:1])}),
        Change(5, 9, {"memory": 2}, {"memory": Tail(1, said_[1:])}),
    ]
    for change in changes:
        for _ in range(2):
            run_in_background(store.append("ann", change))
    with pytest.raises(SessionConflict):
        run_in_background(store.append("ann", changes[0]))
    kept = store.blocking.load("ann")
    assert kept is not None
    assert [message["content"] for message in kept.messages["memory"]] == ["one", "two"]


async def test_a_hundred_calls_of_one_session_are_all_kept(another: Callable[[], SessionStore]) -> None:
    agent = AsyncAgent(AsyncScriptedLLM(["yes"] * 100), name="echo")
    agent.keep(another())
    await asyncio.gather(*(agent(str(number)) for number in range(100)))
    kept = await another().load(0)
    assert kept is not None
    messages = kept.messages["memory"]
    assert [message["sender"] for message in messages] == ["user", "echo"] * 100
    assert {message["content"] for message in messages[::2]} == {str(number) for number in range(100)}


def test_a_forked_process_is_refused_and_does_not_disturb(store: SessionStore) -> None:
    agent = an_agent(store)
    agent("one")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        told = []
        for work in (lambda: agent("two"), store.blocking.session_ids, lambda: store.blocking.load(0)):
            try:
                work()
            except StateError as error:
                told.append(str(error))
        os.write(theirs, "\n".join(told).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        told = pipe.read().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    assert len(told) == 3
    assert all("was opened before this process was forked: open stores after the fork" in line for line in told)
    assert agent("two").content == "heard one, two"
    assert said(an_agent(store)) == []


async def test_many_sessions_are_read_at_once(store: SessionStore) -> None:
    assert await asyncio.gather(*(store.version(number) for number in range(300))) == [0] * 300


async def test_after_a_turn_that_was_cancelled_at_any_moment_the_next_one_is_made(store: SessionStore) -> None:
    agent = AsyncAgent(AsyncScriptedLLM(lambda messages, params: "Yes"))
    agent.keep(store)
    await agent("first", session_id=0)

    async def talk(session_id: int) -> None:
        for number in range(20):
            turn = asyncio.create_task(agent("left", session_id=session_id))
            await asyncio.wait([turn], timeout=0.0001 * number)
            turn.cancel()
            with suppress(asyncio.CancelledError):
                await turn
            await agent("made", session_id=session_id)

    await asyncio.gather(*map(talk, range(10)))
    for session_id in range(10):
        assert said(agent, session_id).count("made") == 20
        kept = await store.load(session_id)
        assert kept is not None
        assert [message["content"] for message in kept.messages["memory"]] == said(agent, session_id)


@pytest.mark.parametrize("fails", [False, True])
async def test_what_must_not_be_broken_off_is_done_however_often_it_is_cancelled(fails: bool) -> None:
    go_on, done = asyncio.Event(), []

    async def work() -> None:
        await go_on.wait()
        done.append("work")
        if fails:
            raise StateError("full")

    turn = asyncio.create_task(surely(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        turn.cancel()
    await asyncio.sleep(0)
    assert not turn.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await turn
    assert done == ["work"]
    assert isinstance(caught.value.__cause__, StateError) == fails


def test_a_turn_that_fails_leaves_the_store_as_it_was(another: Callable[[], SessionStore]) -> None:
    agent = an_agent(another())
    agent("one")
    before = another().blocking.load(0)

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    handle = agent.register_forward_hook(fail)
    with pytest.raises(RuntimeError):
        agent("two")
    handle.remove()
    assert another().blocking.load(0) == before
    assert agent("three").content == "heard one, three"


async def test_a_turn_that_is_cancelled_leaves_the_store_as_it_was(store: SessionStore) -> None:
    async def slow(messages: Any, params: Any) -> str:
        await asyncio.sleep(60 if messages[-1]["content"] == "slow" else 0)
        return "yes"

    agent = AsyncAgent(AsyncScriptedLLM(slow))
    agent.keep(store)
    await agent("one")
    before = await store.load(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agent("slow"), 0.2)
    assert await store.load(0) == before


def test_what_changed_before_the_end_of_a_memory_is_kept_too(another: Callable[[], SessionStore]) -> None:
    agent = an_agent(another())
    for text in ("one", "two", "three"):
        agent(text)
    agent.memory.delete([2, 3])  # type: ignore[union-attr]
    agent("four")
    fresh = an_agent(another())
    assert fresh("five").content == "heard one, three, four, five"


def test_a_fork_and_a_reset_are_kept_with_their_next_turn(another: Callable[[], SessionStore]) -> None:
    agent = an_agent(another())
    agent("one")
    agent.fork(0, "fork")
    agent("two", session_id="fork")
    agent.reset(0)
    agent("three")
    fresh = an_agent(another())
    assert fresh("x", session_id="fork").content == "heard one, two, x"
    assert fresh("x").content == "heard three, x"


def test_a_session_deleted_elsewhere_is_forgotten(another: Callable[[], SessionStore]) -> None:
    agent = an_agent(another())
    agent("one")
    another().blocking.delete(0)
    assert agent("two").content == "heard two"


def test_other_states_are_kept_when_they_change(another: Callable[[], SessionStore]) -> None:
    def counting() -> Agent:
        agent = Agent(ScriptedLLM(["yes"] * 3))
        agent.count = SessionValue(list)
        agent.register_forward_hook(lambda unit, messages, reply: unit.count[0].append(1))
        agent.keep(another())
        return agent

    agent = counting()
    agent("one")
    agent("two")
    again = counting()
    again("three")
    assert again.count[0] == [1, 1, 1]


def test_a_turn_writes_what_is_new_in_it(store: SessionStore) -> None:
    written: list[Change] = []
    append = store.append

    async def watched(session_id: Any, change: Change) -> None:
        written.append(change)
        await append(session_id, change)

    store.append = watched  # type: ignore[method-assign]
    agent = an_agent(store)
    for number in range(50):
        agent(f"turn {number}")
    assert [(change.tails["memory"].start, len(change.tails["memory"].messages)) for change in written] == [
        (2 * number, 2) for number in range(50)
    ]


def test_an_event_loop_does_not_wait_for_a_long_session(another: Callable[[], SessionStore]) -> None:
    loop_thread = threading.current_thread()

    class Watched(MemoryManager):
        parsed_in: set[threading.Thread] = set()

        def parse(self, value: Any) -> Any:
            self.parsed_in.add(threading.current_thread())
            return super().parse(value)

    async def talk() -> None:
        agent = AsyncAgent(AsyncScriptedLLM(["yes"] * 2))
        agent.keep(another())
        agent.memory.load([f"message {number}" for number in range(1000)])  # type: ignore[union-attr]
        await agent("one")
        fresh = AsyncAgent(AsyncScriptedLLM(["yes"]))
        fresh.memory = Watched()
        fresh.keep(another())
        await fresh("two")
        assert len(said(fresh)) == 1004

    asyncio.run(talk())
    assert Watched.parsed_in
    assert loop_thread not in Watched.parsed_in


# Crashes


def test_no_acknowledged_turn_is_lost_to_a_kill(
    store_kind: str, address: str, another: Callable[[], SessionStore]
) -> None:
    rng, acknowledged = random.Random(0), 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.memory.talker", store_kind, address, str(acknowledged)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        whole = [int(line) for line in lines if line.endswith("\n")]
        assert len(whole) >= 3
        kept = another().blocking.load("talk")
        assert kept is not None
        turns = [message["content"] for message in kept.messages["memory"][::2]]
        assert turns[: whole[-1] + 1] == [f"turn {number}" for number in range(whole[-1] + 1)]
        assert len(turns) <= whole[-1] + 2, "more than the one turn that was under way"
        assert {len(messages) for messages in kept.messages.values()} == {2 * len(turns)}, "a turn is there in half"
        acknowledged = len(turns)
    agent = echoing()
    agent.keep(another())
    assert agent("last", session_id="talk").content == "last"


# Data


_texts = st.text(st.characters(exclude_categories=["Cs"]))
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=_json, text=_texts)
def test_what_is_kept_comes_back_equal(store: SessionStore, value: Any, text: str) -> None:
    agent = an_agent(store)
    agent.memory.load([{"content": text, "sender": "user", "extra_info": {"value": value}}], session_id=text)  # type: ignore[union-attr]
    expected = agent.state_dict(text) if text != "all" else {}
    if text == "all":
        return
    try:
        run_in_background(agent._keeper.write(text))  # type: ignore[union-attr]
    except InvalidArgument:
        assert len(json.dumps(text)) > 1000
        return
    fresh = an_agent(store)
    run_in_background(fresh._keeper.fetch(text))  # type: ignore[union-attr]
    assert fresh.state_dict(text) == expected
    store.blocking.delete(text)


@pytest.mark.parametrize("odd", [float("nan"), {1, 2}, b"x"])
def test_what_has_no_json_form_is_refused_and_taken_back(store: SessionStore, odd: Any) -> None:
    agent = an_agent(store)
    agent("one")
    with pytest.raises(StateError):
        agent(AgentMessage(content="two", sender="user", extra_info={"odd": odd}))
    assert agent("three").content == "heard one, three"


def test_ids_are_told_apart(store: SessionStore) -> None:
    ids = [1, "1", ("1",), (1, "1"), "../x", "a b\x00", "ünï", 2**70]
    agent = an_agent(store)
    for number, session_id in enumerate(ids):
        agent(str(number), session_id=session_id)
    assert store.blocking.session_ids() == ids
    assert store.blocking.session_ids(owner=1) == [(1, "1")]
    fresh = an_agent(store)
    for number, session_id in enumerate(ids):
        assert fresh("x", session_id=session_id).content == f"heard {number}, x"


def test_an_id_too_long_is_refused(store: SessionStore) -> None:
    with pytest.raises(InvalidArgument, match="1000 characters"):
        an_agent(store)("one", session_id="x" * 1001)
    with pytest.raises(InvalidArgument, match="1000 characters"):
        run_in_background(store.append("x" * 1001, Change(0, 5, {})))


def test_a_change_that_is_no_json_fails_alone(store: SessionStore) -> None:
    async def keep_and_read() -> None:
        await store.append(1, Change(0, 5, {"memory": 1}, {"memory": Tail(0, ["{"])}))
        await store.load(1)

    with pytest.raises(StateError):
        run_in_background(keep_and_read())
    assert an_agent(store)("one", session_id=2).content == "heard one"


HOSTILE = [
    {"lc": 1, "type": "constructor", "id": ["os", "system"]},
    {"__class__": "os.system", "content": "x"},
    {"content": "x", "sender": "user", "__reduce__": "x"},
    {"content": "x", "sender": 3},
    "nothing",
    [],
    None,
    7,
]


@pytest.mark.parametrize("message", [*map(json.dumps, HOSTILE), "{", "NaN x", "[" * 100_000], ids=range(11))
def test_hostile_messages_are_refused_whole(store: SessionStore, message: str) -> None:
    good = json.dumps({"content": "one", "sender": "user"})
    change = Change(0, 5, {"memory": 2}, {"memory": Tail(0, [good, message])})
    agent = an_agent(store)
    imported = set(sys.modules)
    try:
        run_in_background(store.append(0, change))
        reply = agent("two").content
    except StateError:
        assert said(agent) == []
    else:
        assert message == json.dumps("nothing"), f"it was taken for a message: {reply}"
    assert not {name for name in set(sys.modules) - imported if name.startswith("os")}


def test_messages_that_are_none_hide_no_others_from_a_search(store: SessionStore) -> None:
    agent = an_agent(store)
    agent("tea", session_id="ann")
    odd = [json.dumps({"content": "tea", "tool_results": 3}), "7"]
    run_in_background(store.append("bob", Change(0, 5, {"memory": 2}, {"memory": Tail(0, odd)})))
    assert {one.session_id for one in store.blocking.search("tea")} == {"ann", "bob"}
    agent("more tea", session_id="ann")


async def damage(store: SessionStore, session_id: Any) -> None:
    """Make the first message and the lengths of a session unreadable."""
    key = session_key(session_id)
    if isinstance(store, SQLiteStore):
        with closing(sqlite3.connect(store.path)) as database, database:
            database.execute("UPDATE sessions SET lengths = '{' WHERE key = ?", (key,))
            session = "(SELECT id FROM sessions WHERE key = ?)"
            which = f"WHERE position = 0 AND session = {session}"
            database.execute(f"UPDATE messages SET message = CAST(x'7bff' AS TEXT) {which}", (key,))
    elif isinstance(store, PostgresStore):
        schema = store._schema
        await store._do(lambda one: one.execute(f"UPDATE {schema}.sessions SET lengths = '{{' WHERE key = $1", key))
        session = f"(SELECT id FROM {schema}.sessions WHERE key = $1)"
        which = f"WHERE position = 0 AND session = {session}"
        await store._do(lambda one: one.execute(f"UPDATE {schema}.messages SET message = '{{' {which}", key))
    else:
        assert isinstance(store, RedisStore)
        await store._do(lambda one: one.hset(store._key(key), "lengths", "{"))
        await store._do(lambda one: one.lset(f"{store._key(key)} memory", 0, b"{\xff"))


@pytest.mark.parametrize("way", ["delete", "expire"])
def test_a_damaged_session_hides_no_others_and_can_be_deleted(way: str, store: SessionStore) -> None:
    agent = an_agent(store)
    agent("tea", session_id="ann")
    agent("tea", session_id="bob")
    run_in_background(damage(store, "ann"))
    with pytest.raises(StateError):
        store.blocking.load("ann")
    assert "bob" in {one.session_id for one in store.blocking.search("tea")}
    if way == "delete":
        store.blocking.delete("ann")
    else:
        assert set(store.blocking.expire(-60)) == {"ann", "bob"}
    assert "ann" not in store.blocking.session_ids()
    assert an_agent(store)("coffee", session_id="ann").content == "heard coffee"
    assert {one.session_id for one in store.blocking.search("coffee")} == {"ann"}


def test_a_session_with_messages_missing_is_refused(store: SessionStore) -> None:
    good = json.dumps({"content": "one", "sender": "user"})
    run_in_background(store.append(0, Change(0, 5, {"memory": 3}, {"memory": Tail(0, [good])})))
    with pytest.raises(StateError, match="damaged"):
        an_agent(store)("two")


def test_a_session_of_another_tree_is_refused(store: SessionStore) -> None:
    agent = echoing()
    agent.keep(store)
    agent("one")
    other = an_agent(store)
    with pytest.raises(StateError, match="does not fit Agent"):
        other("two")
    assert said(other) == []


# Search


def test_messages_are_found_by_their_words(store: SessionStore) -> None:
    agent = an_agent(store)
    agent("Green tea, please", session_id="ann")
    agent("Black TEA or coffee?", session_id=("bob", "x"))
    agent("我喜欢喝绿茶", session_id="chinese")
    find = store.blocking.search
    assert [(one.session_id, one.position, one.sender) for one in find("tea")] == [
        (("bob", "x"), 1, "echo"),
        (("bob", "x"), 0, "user"),
        ("ann", 1, "echo"),
        ("ann", 0, "user"),
    ]
    assert [one.snippet for one in find("green TEA")] == ["heard Green tea, please", "Green tea, please"]
    assert {one.session_id for one in find("喜欢")} == {one.session_id for one in find("茶")} == {"chinese"}
    assert find("te") == find("tea water") == find("") == find("'\"; DROP TABLE sessions; --") == []
    assert {one.session_id for one in find("tea", owner="bob")} == {("bob", "x")}
    assert len(find("tea", limit=2)) == 2
    agent("milk", session_id="ann")
    store.blocking.delete(("bob", "x"))
    assert {one.session_id for one in find("tea")} == {"ann"}


# Bounds


def test_few_sessions_are_in_memory_and_all_in_the_store(store: SessionStore) -> None:
    gone: list[Any] = []
    agent = an_agent(store, max_sessions=3, on_evict=gone.append)
    for number in range(10):
        agent("one", session_id=number)
    assert agent.session_ids() == [7, 8, 9]
    assert gone == list(range(7))
    assert agent("two", session_id=0).content == "heard one, two"
    assert store.blocking.session_ids() == list(range(10))


def test_sessions_that_are_not_used_leave_the_memory(store: SessionStore) -> None:
    agent = an_agent(store, ttl=0.2)
    agent("one", session_id=1)
    time.sleep(0.4)
    agent("one", session_id=2)
    assert agent.session_ids() == [2]


def test_a_session_that_is_used_while_it_leaves_the_memory_is_whole(store: SessionStore) -> None:
    agent = an_agent(store, max_sessions=1)
    agent("one", session_id="ann")
    reset, begun, go_on = agent.memory.reset, threading.Event(), threading.Event()  # type: ignore[union-attr]

    def slowly(session_id: Any) -> None:
        begun.set()
        go_on.wait(60)
        reset(session_id)

    agent.memory.reset = slowly  # type: ignore[union-attr,method-assign]
    leaving = threading.Thread(target=agent, args=("x",), kwargs={"session_id": "bob"})
    leaving.start()
    begun.wait(60)
    using = threading.Thread(target=agent, args=("two",), kwargs={"session_id": "ann"})
    using.start()
    using.join(0.3)  # it may wait, or not
    go_on.set()
    leaving.join()
    using.join()
    agent.memory.reset = reset  # type: ignore[union-attr,method-assign]
    assert agent("three", session_id="ann").content == "heard one, two, three"


def test_sessions_expire(store: SessionStore) -> None:
    agent = an_agent(store)
    agent("one", session_id="old")
    time.sleep(0.3)
    agent("one", session_id="new")
    assert store.blocking.expire(0.2) == ["old"]
    assert store.blocking.session_ids() == ["new"]
    assert store.blocking.expire(60) == []


async def test_memory_does_not_grow_with_the_number_of_sessions(tmp_path: Path) -> None:
    agent = AsyncAgent(AsyncScriptedLLM(lambda messages, params: "yes"))
    agent.keep(open_store("sqlite", str(tmp_path / "s.db")), max_sessions=50)

    async def talk(first: int) -> int:
        for start in range(first, first + 1000, 50):
            await asyncio.gather(*(agent("x" * 2000, session_id=number) for number in range(start, start + 50)))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = await talk(0)
    after = await talk(1000)
    assert after - before < 2048, f"{after - before} KiB more for 1,000 more sessions of 4 KiB"
    assert len(agent.session_ids()) == 50
    await agent._keeper.store.close()  # type: ignore[union-attr]


# By their address


def test_agents_and_commands_take_a_store_by_its_address(
    store_place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = Agent(TinyLM(temperature=0), name="assistant")
    keeper = agent.keep(store_place)
    agent("My name is Ann.", session_id="travel")
    keeper.store.blocking.close()
    chat = ["chat", "--no-tools", "--store", store_place, "--session", "travel"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is my name?\n/search ann\n/reset\n"))
    assert main(chat) == 0
    out = capsys.readouterr().out
    assert out.startswith("Your name is Ann.\n")
    assert "travel  user: My name is Ann." in out


# What only one has


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 100)
    with pytest.raises(StateError, match="holds no sessions"):
        open_store("sqlite", str(path))
    assert path.read_text() == "not a database" * 100


def test_threads_that_read_at_once_see_the_last_turn(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    over = threading.Event()

    def version(session_id: str) -> int:
        try:
            store.version(session_id).send(None)
        except StopIteration as found:  # it waits for nothing, so that one step is all
            return int(found.value)
        raise AssertionError

    def read() -> None:
        while not over.is_set():
            version("bob")

    for session_id in ("ann", "bob"):
        run_in_background(store.append(session_id, Change(0, 1, {})))
    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as another_process:
        another_process.execute("PRAGMA synchronous=OFF")
        seen = []
        for number in range(2, 1000):
            another_process.execute("UPDATE sessions SET version = ? WHERE key = ?", (number, session_key("ann")))
            seen.append(version("ann"))
    over.set()
    for thread in threads:
        thread.join()
    store.blocking.close()
    assert seen == [*range(2, 1000)]


@pytest.mark.parametrize("path", [":memory:", ""])
def test_a_file_must_have_a_name(path: str) -> None:
    with pytest.raises(InvalidArgument, match="path of a file"):
        SQLiteStore(path)
    assert not Path(":memory:").exists()


def test_only_units_with_memory_are_kept(tmp_path: Path) -> None:
    from lagentlike.actions import ActionExecutor

    with pytest.raises(InvalidArgument, match="unit with a memory"):
        ActionExecutor([]).keep(tmp_path / "s.db")


def test_a_store_that_was_closed_gives_a_typed_error(tmp_path: Path) -> None:
    store = open_store("sqlite", str(tmp_path / "s.db"))
    agent = an_agent(store)
    agent("one")
    store.blocking.close()
    with pytest.raises(StateError):
        agent("two")
    with pytest.raises(StateError, match="closed"):
        store.blocking.delete(0)
    assert said(agent) == ["one", "heard one"]


def test_an_address_where_nobody_is_gives_a_typed_error(tmp_path: Path) -> None:
    pytest.importorskip("asyncpg")
    pytest.importorskip("redis")
    for kind, address in (
        ("postgres", f"postgresql://nobody:secret@/x?host={tmp_path}"),
        ("redis", f"unix://:secret@{tmp_path}/redis.sock"),
    ):
        store = open_store(kind, address)
        with pytest.raises(StateError) as caught:
            an_agent(store)("one")
        assert "secret" not in f"{caught.value} {store!r}"
        store.blocking.close()


def test_json_keeps_integers_of_any_size() -> None:
    assert json.loads(to_json([2**63, 2**80, -(2**70)])) == [2**63, 2**80, -(2**70)]


async def test_the_benchmark_measures_what_it_says(tmp_path: Path) -> None:
    from benchmarks.stores import measure

    async with open_store("sqlite", str(tmp_path / "s.db")) as store:
        figures = await measure(store, turns=64)
        assert set(figures) == {"turns_a_second", "first_turns_ms", "last_turns_ms"}
        kept = await store.load("s31")
        assert kept is not None
        assert kept.lengths == {"memory": 4}
