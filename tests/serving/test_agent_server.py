"""The server of agents: turns, streams, sessions and state over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lagentlike.actions import calculator
from lagentlike.agents import Agent, AsyncAgent, AsyncReAct, AsyncStreamingAgent, Sequential, StreamingAgent
from lagentlike.errors import BudgetExceeded, InvalidArgument
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM, ScriptedLLM
from lagentlike.memory import Change, SQLiteStore
from lagentlike.schema import AgentMessage
from lagentlike.serving import AgentServer, HTTPAgentClient, Limits

from .serving import an_agent, echo, serving, until


def turn(message: Any, session_id: str = "ann", **params: Any) -> dict[str, Any]:
    return {"message": message, "session_id": session_id, "params": params}


async def events(server: AgentServer, body: Any, path: str = "/stream") -> list[Any]:
    """The events of a stream."""
    async with aiohttp.ClientSession() as http, http.post(server.url + path, json=body) as response:
        assert response.status == 200
        lines = (await response.read()).decode().split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def test_turns_go_on_in_their_session() -> None:
    async with serving() as (_, ask):
        assert (await ask("POST", "/forward", turn("one")))[1]["message"]["content"] == "heard one"
        status, answer = await ask("POST", "/forward", turn("two"))
        assert (status, answer["session_id"], answer["message"]["content"]) == (200, "ann", "heard one, two")
        assert (await ask("POST", "/forward", turn("three", "bob")))[1]["message"]["content"] == "heard three"
        assert await ask("GET", "/sessions") == (200, {"sessions": ["ann", "bob"]})


async def test_a_turn_without_a_session_begins_one() -> None:
    async with serving() as (_, ask):
        first = (await ask("POST", "/forward", {"message": "one"}))[1]
        second = (await ask("POST", "/forward", {"message": "two", "session_id": first["session_id"]}))[1]
        assert second["message"]["content"] == "heard one, two"


async def test_messages_may_be_texts_messages_or_a_list() -> None:
    async with serving() as (_, ask):
        message = AgentMessage(content="three", sender="bob", extra_info={"a": [1, None]}).plain()
        for sent in ("one", {"content": "two"}, [message, "four"]):
            status, _ = await ask("POST", "/forward", turn(sent))
            assert status == 200
        shown = (await ask("GET", "/sessions/ann"))[1]["messages"]
        assert [item["content"] for item in shown if item["sender"] != "AsyncAgent"] == ["one", "two", "three", "four"]
        assert shown[4]["extra_info"] == {"a": [1, None]}


async def test_a_stream_tells_what_is_new_and_ends_with_the_reply() -> None:
    agent = AsyncStreamingAgent(AsyncScriptedLLM(["one two three"], chunk_size=4))
    async with serving(agent) as (server, _):
        first, *middle, reply = await events(server, turn("Count"))
        assert (first["type"], first["message"]["content"]) == ("message", "one ")
        assert [event["content"] for event in middle] == ["two ", "thre", "e"]
        assert {event["type"] for event in middle} == {"delta"}
        assert (reply["type"], reply["message"]["content"], reply["session_id"]) == ("reply", "one two three", "ann")


@pytest.mark.parametrize("kind", [Agent, AsyncAgent, StreamingAgent, AsyncStreamingAgent])
async def test_agents_of_every_colour_are_served(kind: type[Agent]) -> None:
    script = AsyncScriptedLLM(echo) if kind.colour.is_async else ScriptedLLM(echo)
    async with serving(kind(script)) as (server, ask):
        assert (await ask("POST", "/forward", turn("one")))[1]["message"]["content"] == "heard one"
        assert (await events(server, turn("two")))[-1]["message"]["content"] == "heard one, two"


async def test_blocking_turns_run_side_by_side() -> None:
    all_there = threading.Barrier(20, timeout=60)  # passed only by twenty at once

    def meet(messages: Any, params: Any) -> str:
        all_there.wait()
        return "ok"

    async with serving(Agent(ScriptedLLM(meet))) as (_, ask):
        answers = await asyncio.gather(*(ask("POST", "/forward", turn("one", f"s{n}")) for n in range(20)))
        assert [status for status, _ in answers] == [200] * 20


async def test_turns_of_one_session_run_in_order() -> None:
    async with serving(AsyncAgent(AsyncScriptedLLM(echo, latency=0.01))) as (_, ask):
        await asyncio.gather(*(ask("POST", "/forward", turn(f"q{n}")) for n in range(20)))
        shown = (await ask("GET", "/sessions/ann"))[1]["messages"]
        assert [item["sender"] for item in shown] == ["user", "AsyncAgent"] * 20
        assert sorted(item["content"] for item in shown[::2]) == sorted(f"q{n}" for n in range(20))


async def test_sessions_are_forked_shown_and_deleted() -> None:
    async with serving() as (_, ask):
        await ask("POST", "/forward", turn("one"))
        assert await ask("POST", "/sessions/ann/fork", {"new_session_id": "bob"}) == (200, {"session_id": "bob"})
        assert (await ask("POST", "/sessions/ann/fork", {"new_session_id": "bob"}))[0] == 409
        assert (await ask("POST", "/sessions/ann/fork", {"new_session_id": "ann"}))[0] == 409
        await ask("POST", "/forward", turn("two", "bob"))
        assert len((await ask("GET", "/sessions/ann"))[1]["messages"]) == 2
        assert len((await ask("GET", "/sessions/bob"))[1]["messages"]) == 4
        assert (await ask("DELETE", "/sessions/ann"))[0] == 200
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/state")):
            assert (await ask(method, f"/sessions/ann{path}"))[0] == 404
        assert await ask("GET", "/sessions") == (200, {"sessions": ["bob"]})


async def test_a_session_that_the_program_began_is_shown_and_goes_on() -> None:
    agent = an_agent()
    await agent("before", session_id="ann")
    async with serving(agent) as (_, ask):
        _, shown = await ask("GET", "/sessions/ann")
        assert [message["content"] for message in shown["messages"]] == ["before", "heard before"]
        _, answer = await ask("POST", "/forward", {"message": "after", "session_id": "ann"})
        assert answer["message"]["content"] == "heard before, after"


async def test_state_goes_out_and_in_whole_or_not_at_all() -> None:
    agent = AsyncReAct(AsyncTinyLM(), actions=[calculator])
    async with serving(agent) as (_, ask):
        await ask("POST", "/forward", turn("What is the result of 1 + 1?"))
        state = (await ask("GET", "/sessions/ann/state"))[1]
        assert state == agent.state_dict("ann")
        assert (await ask("PUT", "/sessions/bob/state", state))[0] == 200
        assert agent.state_dict("bob") == state
        for wrong in ({"memory": []}, {**state, "x": 1}, {**state, "agent.memory": [{"content": 1, "lc": 2}]}, [], 3):
            status, answer = await ask("PUT", "/sessions/bob/state", wrong)
            assert (status, answer["error"]["code"]) == (400, "StateError")
        assert agent.state_dict("bob") == state


async def test_the_state_of_a_session_that_has_not_spoken_can_be_asked_for() -> None:
    async with serving() as (_, ask):
        assert await ask("GET", "/sessions/new/state?empty=1") == (200, {"memory": []})
        assert await ask("GET", "/sessions") == (200, {"sessions": []})


async def test_a_turn_that_fails_leaves_nothing_and_says_why() -> None:
    errors = [BudgetExceeded("requests", 4, 3), ZeroDivisionError("the secret path")]
    async with serving(an_agent([*errors, "ok"])) as (_, ask):
        status, answer = await ask("POST", "/forward", turn("one"))
        assert (status, answer["error"]["code"]) == (429, "BudgetExceeded")
        assert "budget of 3 requests" in answer["error"]["message"]
        status, answer = await ask("POST", "/forward", turn("one"))
        assert (status, answer["error"]["code"]) == (500, "RemoteError")
        assert "secret" not in json.dumps(answer)
        assert await ask("GET", "/sessions") == (200, {"sessions": []})
        assert (await ask("POST", "/forward", turn("one")))[0] == 200


async def test_a_stream_that_fails_half_way_says_so_and_leaves_nothing() -> None:
    class Breaking(AsyncStreamingAgent):
        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> AsyncIterator[Any]:
            yield "half"
            raise BudgetExceeded("tokens", 2, 1)

    async with serving(Breaking()) as (server, ask):
        told = await events(server, turn("one"))
        assert [event.get("type") for event in told] == ["message", None]
        assert told[-1]["error"]["code"] == "BudgetExceeded"
        assert await ask("GET", "/sessions") == (200, {"sessions": []})


async def test_an_empty_key_makes_no_turn_the_same_as_another() -> None:
    async with serving() as (_, ask):
        for text, heard in (("one", "heard one"), ("two", "heard one, two")):
            status, answer = await ask("POST", "/forward", turn(text), headers={"Idempotency-Key": ""})
            assert (status, answer["message"]["content"]) == (200, heard)


async def test_the_same_turn_asked_for_again_is_answered_and_not_made() -> None:
    async with serving() as (_, ask):
        for _ in range(2):
            key = {"Idempotency-Key": "first"}
            assert (await ask("POST", "/forward", turn("one"), headers=key))[1]["message"]["content"] == "heard one"
        assert len((await ask("GET", "/sessions/ann"))[1]["messages"]) == 2
        assert (await ask("POST", "/forward", turn("one"), headers={"Idempotency-Key": "x" * 129}))[0] == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "message: Field required"),
        ({"message": 3}, "message"),
        ({"message": []}, "give at least one"),
        ({"message": {"sender": "ann"}}, "content"),
        ({"message": {"content": "x", "lc": 1}}, "unknown fields ['lc']"),
        ({"message": "x", "params": {"exit_at": 1}}, "'exit_at' is no parameter"),
        ({"message": "x", "params": {"tools": []}}, "'tools' is no parameter"),
        ({"message": "x", "params": []}, "params"),
        ([], "dictionary"),
    ],
)
async def test_a_wrong_turn_is_refused_with_its_cure(body: Any, message: str) -> None:
    async with serving() as (_, ask):
        status, answer = await ask("POST", "/forward", body)
    assert status == 400
    assert message in answer["error"]["message"]


async def test_parameters_are_those_that_the_agent_takes_and_the_server_lets_through() -> None:
    class Fixed(AsyncAgent):
        async def forward(self, *message: AgentMessage, session_id: Any = 0) -> str:
            return "ok"

    llm = AsyncScriptedLLM(echo)
    async with serving(AsyncAgent(llm)) as (_, ask):
        assert (await ask("POST", "/forward", turn("one", temperature=0.5)))[0] == 200
        assert llm.requests[-1].params["temperature"] == 0.5
    async with serving(Fixed()) as (_, ask):
        assert "it takes none" in (await ask("POST", "/forward", turn("x", temperature=1)))[1]["error"]["message"]
    pipeline = Sequential(Agent(ScriptedLLM(["a"])), Agent(ScriptedLLM(["b"])))
    async with serving(pipeline, params=["exit_at"]) as (_, ask):
        assert (await ask("POST", "/forward", turn("x", exit_at=0)))[1]["message"]["content"] == "a"
        assert (await ask("POST", "/forward", turn("x", temperature=0)))[0] == 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "set a token as well"),
        ({"host": "::"}, "set a token as well"),
        ({"token": " "}, "give a text"),
        ({"token": {}}, "give a token"),
        ({"token": {"a/b": "x"}}, "letters, digits"),
        ({"token": {"a": "x", "b": "x"}}, "the same token"),
        ({"port": 70000}, "from 0"),
        ({"max_concurrency": 0}, "at least 1"),
        ({"max_sessions": 0}, "at least 1"),
        ({"ttl": 0}, "more than 0"),
    ],
)
def test_wrong_settings_are_refused_and_show_no_token(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        AgentServer(an_agent(), **options)
    assert "'x'" not in str(caught.value)


@pytest.mark.parametrize("agent", [3, "nowhere.agent", {"type": "builtins.dict"}, "lagentlike.schema.to_plain"])
def test_what_is_no_agent_is_refused(agent: Any) -> None:
    with pytest.raises((InvalidArgument, TypeError)):
        AgentServer(agent)


async def test_a_config_or_a_dotted_path_is_served() -> None:
    llm = {"type": AsyncScriptedLLM, "replies": ["ok"]}
    config = {"type": "lagentlike.agents.AsyncAgent", "llm": llm, "name": "one"}
    async with serving(config) as (server, ask):
        assert server.name == "one"
        assert (await ask("POST", "/forward", turn("x")))[1]["message"]["content"] == "ok"


async def test_the_document_names_every_route_and_the_page_shows_it_without_scripts() -> None:
    async with serving(an_agent(description="Says <what> it heard."), token="t") as (server, ask):
        status, api = await ask("GET", "/openapi.json")
        assert (status, api["openapi"], api["info"]["description"]) == (200, "3.1.0", "Says <what> it heard.")
        routes = {
            (route.method.lower(), route.resource.canonical)
            for route in server.app().router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
        told = {(method, path) for path, methods in api["paths"].items() for method in methods}
        assert routes - told == {("get", "/docs"), ("get", "/openapi.json")}
        assert told <= routes
        schema = api["components"]["schemas"]["Turn"]
        assert schema["required"] == ["message"]
        async with aiohttp.ClientSession() as http, http.get(server.url + "/docs") as response:
            page = await response.text()
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Says &lt;what&gt; it heard." in page
    assert "/sessions/{session_id}/fork" in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page


# Sessions in memory, and on the disk


async def test_sessions_leave_the_memory_when_they_are_too_many() -> None:
    gone: list[tuple[str, str]] = []
    agent = an_agent()
    async with serving(agent, max_sessions=5, on_evict=lambda *who: gone.append(who)) as (_, ask):
        for number in range(50):
            await ask("POST", "/forward", turn("one", f"s{number}"))
        assert len(agent.session_ids()) == 5
        assert gone == [("", f"s{number}") for number in range(45)]
        assert (await ask("POST", "/forward", turn("two", "s49")))[1]["message"]["content"] == "heard one, two"
        assert (await ask("POST", "/forward", turn("two", "s0")))[1]["message"]["content"] == "heard two"


async def test_sessions_that_are_not_used_leave_the_memory() -> None:
    agent = an_agent()
    async with serving(agent, ttl=0.05) as (_, ask):
        await ask("POST", "/forward", turn("one"))
        await until(lambda: not agent.session_ids())


async def test_kept_sessions_come_back_when_they_are_used(tmp_path: Path) -> None:
    agent = an_agent()
    async with serving(agent, max_sessions=2, store=tmp_path / "s.db") as (_, ask):
        for number in range(6):
            await ask("POST", "/forward", turn("one", f"s{number}"))
        assert len(agent.session_ids()) == 2
        assert (await ask("GET", "/sessions"))[1]["sessions"] == [f"s{number}" for number in range(6)]
        assert (await ask("POST", "/forward", turn("two", "s0")))[1]["message"]["content"] == "heard one, two"
        await ask("POST", "/sessions/s1/fork", {"new_session_id": "t"})
        await ask("DELETE", "/sessions/s2")
    async with serving(an_agent(), store=tmp_path / "s.db") as (_, ask):
        assert (await ask("GET", "/sessions"))[1]["sessions"] == ["s0", "s1", "s3", "s4", "s5", "t"]
        assert (await ask("POST", "/forward", turn("three", "s0")))[1]["message"]["content"] == "heard one, two, three"
        assert (await ask("POST", "/forward", turn("two", "t")))[1]["message"]["content"] == "heard one, two"


async def test_a_store_that_the_program_opened_stays_open(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "s.db") as store:
        for text, heard in (("one", "heard one"), ("two", "heard one, two")):
            async with serving(store=store) as (_, ask):
                assert (await ask("POST", "/forward", turn(text)))[1]["message"]["content"] == heard
        assert await store.version("ann")


async def test_sessions_are_where_the_agent_itself_keeps_them(tmp_path: Path) -> None:
    place = tmp_path / "own.db"
    agent = an_agent()
    agent.keep(place)
    chat = {"model": "AsyncAgent", "messages": [{"role": "user", "content": "once"}]}
    async with serving(agent) as (_, ask):
        assert (await ask("POST", "/v1/chat/completions", chat))[0] == 200
        await ask("POST", "/forward", turn("one"))
        await ask("POST", "/forward", turn("other", "bob"))
        assert (await ask("DELETE", "/sessions/bob"))[0] == 200
    again = an_agent()
    again.keep(place)
    async with serving(again) as (_, ask):
        assert await ask("GET", "/sessions") == (200, {"sessions": ["ann"]})
        assert (await ask("POST", "/forward", turn("two")))[1]["message"]["content"] == "heard one, two"
    with pytest.raises(InvalidArgument, match="keeps its sessions itself"):
        AgentServer(again, store=tmp_path / "two.db")


async def test_a_kept_turn_asked_for_again_after_a_restart_is_not_made(tmp_path: Path) -> None:
    key = {"Idempotency-Key": "first"}
    for _ in range(2):
        async with serving(store=tmp_path / "s.db") as (_, ask):
            assert (await ask("POST", "/forward", turn("one"), headers=key))[1]["message"]["content"] == "heard one"
            assert len((await ask("GET", "/sessions/ann"))[1]["messages"]) == 2


class FailingStore(SQLiteStore):
    """A store whose disk is full from some time on."""

    full = False

    async def append(self, session_id: Any, change: Change) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        await super().append(session_id, change)


async def test_a_turn_that_cannot_be_kept_is_not_answered_and_is_taken_back(tmp_path: Path) -> None:
    store = FailingStore(tmp_path / "s.db")
    async with serving(store=store) as (_, ask):
        await ask("POST", "/forward", turn("one"))
        store.full = True
        status, answer = await ask("POST", "/forward", turn("two"))
        assert (status, answer["error"]["code"]) == (500, "StateError")
        assert "No space left" in answer["error"]["message"]
        store.full = False
        assert (await ask("POST", "/forward", turn("three")))[1]["message"]["content"] == "heard one, three"


async def test_a_reply_that_json_cannot_hold_is_a_typed_error(tmp_path: Path) -> None:
    class Odd(AsyncAgent):
        async def forward(self, *message: AgentMessage, session_id: Any = 0) -> AgentMessage:
            return AgentMessage(content={1, 2}, sender="odd")

    for store in (None, tmp_path / "s.db"):
        async with serving(Odd(), store=store) as (_, ask):
            status, answer = await ask("POST", "/forward", turn("one"))
            assert answer["error"]["code"] == "StateError"
            assert "no JSON form" in answer["error"]["message"]
            assert status == 500


async def test_two_forks_that_cross_do_not_wait_for_each_other() -> None:
    async with serving() as (_, ask):
        await ask("POST", "/forward", turn("one", "a"))
        await ask("POST", "/forward", turn("one", "b"))
        async with asyncio.timeout(60):
            crossing = [("a", "b"), ("b", "a")] * 20
            answers = await asyncio.gather(
                *(ask("POST", f"/sessions/{old}/fork", {"new_session_id": new}) for old, new in crossing)
            )
        assert {status for status, _ in answers} == {409}


async def test_long_sessions_are_kept_and_read_again(tmp_path: Path) -> None:
    state = {"memory": [{"content": f"m{number}", "sender": "user"} for number in range(1000)]}
    async with serving(store=tmp_path / "s.db") as (_, ask):
        assert (await ask("PUT", "/sessions/ann/state", state))[0] == 200
        await ask("POST", "/forward", turn("last"))
    async with serving(store=tmp_path / "s.db") as (_, ask):
        messages = (await ask("GET", "/sessions/ann"))[1]["messages"]
        assert len(messages) == 1002
        assert messages[1000]["content"] == "last"


async def test_a_hook_of_evictions_that_fails_costs_no_turn() -> None:
    def fail(*_: str) -> None:
        raise RuntimeError("no")

    async with serving(max_sessions=1, on_evict=fail) as (_, ask):
        for number in range(3):
            assert (await ask("POST", "/forward", turn("one", f"s{number}")))[0] == 200


async def test_a_client_that_leaves_while_its_turn_is_kept_finds_it_kept(tmp_path: Path) -> None:
    class SlowStore(SQLiteStore):
        async def append(self, session_id: Any, change: Change) -> None:
            await asyncio.sleep(0.3)
            await super().append(session_id, change)

    store, key = SlowStore(tmp_path / "s.db"), {"Idempotency-Key": "first"}
    async with serving(store=store) as (_, ask):
        with pytest.raises(TimeoutError):
            await ask("POST", "/forward", turn("one"), headers=key, timeout=aiohttp.ClientTimeout(total=0.1))
        assert (await ask("POST", "/forward", turn("one"), headers=key))[1]["message"]["content"] == "heard one"
        assert len((await ask("GET", "/sessions/ann"))[1]["messages"]) == 2


async def test_a_blocking_turn_whose_client_leaves_stands_and_is_kept(tmp_path: Path) -> None:
    begun, left = threading.Event(), threading.Event()

    def slow(messages: Any, params: Any) -> str:
        begun.set()
        left.wait(60)
        return echo(messages, params)

    async with serving(Agent(ScriptedLLM(slow)), store=tmp_path / "s.db") as (_, ask):
        asking = asyncio.create_task(ask("POST", "/forward", turn("one")))
        await until(begun.is_set)
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.sleep(0.2)  # the server learns of it
        left.set()
        assert (await ask("POST", "/forward", turn("two")))[1]["message"]["content"] == "heard one, two"
    async with serving(Agent(ScriptedLLM(echo)), store=tmp_path / "s.db") as (_, ask):
        assert len((await ask("GET", "/sessions/ann"))[1]["messages"]) == 4


async def test_a_blocking_stream_whose_client_leaves_is_taken_back() -> None:
    class Slow(StreamingAgent):
        def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Iterator[Any]:
            for number in range(10_000):
                time.sleep(0.01)
                given.append(number)
                yield str(number)

    agent, given = Slow(), list[int]()
    async with serving(agent) as (server, ask):
        async with aiohttp.ClientSession() as http, http.post(server.url + "/stream", json=turn("one")) as response:
            await response.content.readany()
        assert (await ask("GET", "/sessions/ann"))[0] == 404  # it waits for the end of the turn
        assert len(given) < 10_000
        assert agent.session_ids() == []


async def test_the_grace_ends_turns_that_take_too_long(no_leaks: None) -> None:
    server = AgentServer(AsyncAgent(AsyncScriptedLLM(echo, latency=60)), port=0, limits=Limits(grace=0.1))
    await server.start()
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(server.url + "/forward", json=turn("one")))
        await until(lambda: len(server.sessions) == 1)
        began = time.monotonic()
        await server.stop()
        assert time.monotonic() - began < 30.0
        with pytest.raises(aiohttp.ClientError):
            await asking


def test_the_client_is_an_agent() -> None:
    assert issubclass(HTTPAgentClient, Agent)
