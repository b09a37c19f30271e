"""Turns of an agent behind HTTP are taken back with the turns around them, there and in the store."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent
from lagentlike.concurrency import run_in_background
from lagentlike.errors import RequestTimeout
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.serving import (
    AgentServer,
    AsyncHTTPAgentClient,
    AsyncStreamingHTTPAgentClient,
    HTTPAgentClient,
    StreamingHTTPAgentClient,
)

from .serving import an_agent, echo, serving


@contextmanager
def served(agent: Any = None, **options: Any) -> Iterator[AgentServer]:
    """A server on the background loop."""
    server = AgentServer(an_agent() if agent is None else agent, **{"port": 0, **options})
    run_in_background(server.start())
    try:
        yield server
    finally:
        run_in_background(server.stop())


class Failing(Agent):
    """Asks the agent elsewhere as often as it is told, and fails when it is told that."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, message: Any, session_id: Any = 0) -> str:
        for word in message.content.split():
            if word == "fail":
                raise RuntimeError("no")
            self.inner(word, session_id=session_id)
        return "done"


class AsyncFailing(Failing, AsyncAgent):
    async def forward(self, message: Any, session_id: Any = 0) -> str:
        for word in message.content.split():
            if word == "fail":
                raise RuntimeError("no")
            await self.inner(word, session_id=session_id)
        return "done"


class StreamingFailing(Failing, StreamingAgent):
    def forward(self, message: Any, session_id: Any = 0) -> Any:
        for word in message.content.split():
            if word == "fail":
                raise RuntimeError("no")
            yield from self.inner(word, session_id=session_id)
        yield "done"


class AsyncStreamingFailing(AsyncFailing, AsyncStreamingAgent):
    async def forward(self, message: Any, session_id: Any = 0) -> Any:
        for word in message.content.split():
            if word == "fail":
                raise RuntimeError("no")
            async for part in self.inner(word, session_id=session_id):
                yield part
        yield "done"


async def _all_of(stream: Any) -> Any:
    return [part async for part in stream]


COLOURS: dict[str, tuple[type[Failing], type[HTTPAgentClient], Callable[[Any], Any]]] = {
    "blocking": (Failing, HTTPAgentClient, lambda called: called),
    "async": (AsyncFailing, AsyncHTTPAgentClient, lambda called: asyncio.run(_awaited(called))),
    "streaming": (StreamingFailing, StreamingHTTPAgentClient, list),
    "async streaming": (
        AsyncStreamingFailing,
        AsyncStreamingHTTPAgentClient,
        lambda called: asyncio.run(_all_of(called)),
    ),
}


async def _awaited(called: Any) -> Any:
    return await called


def said(agent: Any, session_id: Any = "ann") -> list[str]:
    return [message["content"] for message in agent.state_dict(session_id)["memory"]]


@pytest.mark.parametrize("colour", COLOURS)
def test_turns_inside_one_that_fails_are_taken_back(colour: str, tmp_path: Path) -> None:
    workflow, client, run = COLOURS[colour]
    with served(store=tmp_path / "s.db") as server:
        agent = workflow(client(url=server.url))
        with pytest.raises(RuntimeError) as caught:
            run(agent("one fail", session_id="ann"))
        assert [message.content for message in caught.value.produced][:2] == ["one", "heard one"]  # type: ignore[attr-defined]
        assert agent.inner.session_ids() == []
        run(agent("two", session_id="ann"))
        with pytest.raises(RuntimeError):
            run(agent("three four five fail", session_id="ann"))
        assert said(agent.inner) == ["two", "heard two"]
        run(agent("six", session_id="ann"))
    with served(store=tmp_path / "s.db") as server:  # it was kept like that
        assert said(HTTPAgentClient(url=server.url)) == ["two", "heard two", "six", "heard two, six"]


def test_a_turn_with_a_hook_that_fails_is_taken_back() -> None:
    with served() as server:
        agent = HTTPAgentClient(url=server.url)
        agent("one", session_id="ann")

        def fail(*_: Any) -> None:
            raise RuntimeError("no")

        handle = agent.register_forward_hook(fail)
        with pytest.raises(RuntimeError):
            agent("two", session_id="ann")
        handle.remove()
        assert agent("three", session_id="ann").content == "heard one, three"


def test_a_blocking_turn_that_nobody_waits_for_is_taken_back_when_it_ends() -> None:

    go_on = threading.Event()

    def slow(messages: Any, params: Any) -> str:
        if messages[-1]["content"] == "slow":
            go_on.wait(60)
        return echo(messages, params)

    with served(Agent(ScriptedLLM(slow))) as server:
        patient, hasty = HTTPAgentClient(url=server.url), HTTPAgentClient(url=server.url, timeout=0.5, retry=0)
        patient("one", session_id="ann")
        with pytest.raises(RequestTimeout):
            hasty("slow", session_id="ann")
        go_on.set()
        assert patient("two", session_id="ann").content in ("heard one, two", "heard one, slow, two")
        assert said(server.unit) == ["one", "heard one", "two", "heard one, two"]


def test_a_stream_that_is_left_is_taken_back() -> None:
    with served(AsyncStreamingAgent(AsyncScriptedLLM(echo, chunk_size=2))) as server:
        agent = StreamingHTTPAgentClient(url=server.url)
        list(agent("one", session_id="ann"))
        with closing(agent("two", session_id="ann")) as stream:  # type: ignore[type-var]
            next(stream)
        assert said(agent) == ["one", "heard one"]


def test_what_somebody_else_went_on_from_stands(caplog: pytest.LogCaptureFixture) -> None:
    with served() as server:
        other = HTTPAgentClient(url=server.url)

        class Meddled(Failing):
            def forward(self, message: Any, session_id: Any = 0) -> str:
                self.inner("one", session_id=session_id)
                elsewhere = threading.Thread(target=other, args=("two",), kwargs={"session_id": session_id})
                elsewhere.start()
                elsewhere.join()
                raise RuntimeError("no")

        agent = Meddled(HTTPAgentClient(url=server.url))
        with pytest.raises(RuntimeError), caplog.at_level(logging.WARNING):
            agent("go", session_id="ann")
        assert said(agent.inner) == ["one", "heard one", "two", "heard one, two"]
        assert "it was not taken back" in caplog.text


def test_what_a_server_did_before_it_was_restarted_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(store=tmp_path / "s.db") as server:
        port = server.port
        client = HTTPAgentClient(url=server.url)

        class Meanwhile(Failing):
            def forward(self, message: Any, session_id: Any = 0) -> str:
                self.inner("one", session_id=session_id)
                run_in_background(server.stop())
                run_in_background(again.start())
                raise RuntimeError("no")

        again = AgentServer(an_agent(), port=port, store=tmp_path / "s.db")
        with pytest.raises(RuntimeError), caplog.at_level(logging.WARNING):
            Meanwhile(client)("go", session_id="ann")
        assert said(client) == ["one", "heard one"]
        assert "it was not taken back" in caplog.text
        run_in_background(again.stop())


def test_servers_behind_servers_take_their_turns_back_too(tmp_path: Path) -> None:
    with served() as inner, served(AsyncFailing(AsyncHTTPAgentClient(url=inner.url)), store=tmp_path / "s.db") as outer:
        agent = Failing(HTTPAgentClient(url=outer.url))
        agent("one", session_id="ann")
        with pytest.raises(RuntimeError):
            agent("two three fail", session_id="ann")
        assert said(agent.inner) == ["one", "done"]
        assert said(HTTPAgentClient(url=inner.url)) == ["one", "heard one"]


def test_two_clients_of_one_server_take_back_in_order() -> None:
    with served() as server:
        clients = [HTTPAgentClient(url=server.url) for _ in range(4)]

        class Several(Agent):
            def forward(self, message: Any, session_id: Any = 0) -> str:
                for client in clients:
                    client("one", session_id=session_id)
                raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            Several()("go", session_id="ann")
        assert [client.session_ids() for client in clients] == [[]] * 4


async def test_only_the_last_turn_is_taken_back_and_only_if_it_may_be() -> None:
    async with serving() as (_, ask):

        async def turn(text: str, within: str | None = None) -> None:
            headers = {"Idempotency-Key": text, **({} if within is None else {"Turn-Within": within})}
            assert (await ask("POST", "/forward", {"message": text, "session_id": "ann"}, headers=headers))[0] == 200

        async def take_back(turn: str) -> int:
            status, answer = await ask("DELETE", f"/sessions/ann/turns/{turn}")
            assert status == 200 or answer["error"]["code"] == "turn_not_found"
            return int(status)

        await turn("plain")
        assert await take_back("plain") == 404  # nobody said that it is part of anything
        for text, within in (("a", "first"), ("b", "second"), ("c", "second")):
            await turn(text, within)
        assert await take_back("b") == 404
        assert [await take_back(text) for text in "ccba"] == [200, 404, 200, 404]
        messages = (await ask("GET", "/sessions/ann"))[1]["messages"]
        assert [message["content"] for message in messages[::2]] == ["plain", "a"]
        assert (await ask("DELETE", "/sessions/nobody/turns/a"))[0] == 404
        assert (await ask("GET", "/sessions"))[1]["sessions"] == ["ann"]


def test_a_client_can_be_sent_to_another_process() -> None:
    with served() as server:
        agent = pickle.loads(pickle.dumps(HTTPAgentClient(url=server.url, retry=1)))
        assert agent("one").content == "heard one"
