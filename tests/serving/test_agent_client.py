"""Agents behind HTTP are agents: they nest, stream, have sessions and state, and raise their own errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import calculator
from lagentlike.agents import (
    Agent,
    AsyncAgent,
    AsyncSequential,
    AsyncStreamingAgent,
    AsyncStreamingReAct,
    AsyncStreamingSequential,
    Sequential,
    StreamingSequential,
)
from lagentlike.concurrency import run_in_background
from lagentlike.errors import (
    AuthenticationFailed,
    BadResponse,
    BudgetExceeded,
    ConnectFailed,
    ContextLengthExceeded,
    InvalidArgument,
    LagentlikeError,
    RateLimited,
    RemoteError,
    RequestTimeout,
    StateError,
    StreamTruncated,
    ToolTimeout,
)
from lagentlike.hooks import Hook
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM, ScriptedLLM
from lagentlike.memory import Change, SQLiteStore, Tail
from lagentlike.schema import ActionReturn, AgentMessage, AgentStatusCode, ToolCall, ToolResult
from lagentlike.serving import (
    AgentServer,
    AsyncHTTPAgentClient,
    AsyncStreamingHTTPAgentClient,
    HTTPAgentClient,
    StreamingHTTPAgentClient,
)
from lagentlike.serving.agent_client import _session_id, _wire_name
from lagentlike.serving.message_stream import MessageDecoder, MessageEncoder

from ..llms.fault_server import FaultServer, reply
from .serving import an_agent, echo


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of an agent that repeats what it heard, on the background loop."""
    agent = AsyncStreamingAgent(AsyncScriptedLLM(echo, chunk_size=5))
    yield from _served(agent)


def _served(agent: Any, **options: Any) -> Iterator[str]:
    server = AgentServer(agent, port=0, **options)
    run_in_background(server.start())
    yield server.url
    run_in_background(server.stop())


def _parts(stream: Any) -> list[AgentMessage]:
    if hasattr(stream, "__aiter__"):

        async def gather() -> list[AgentMessage]:
            return [part async for part in stream]

        return asyncio.run(gather())
    return list(stream)


def test_it_is_called_like_any_agent(url: str) -> None:
    agent = HTTPAgentClient(url=url)
    reply = agent("one", session_id="called")
    assert (reply.content, reply.sender) == ("heard one", "AsyncStreamingAgent")
    assert agent("two", AgentMessage(content="three"), session_id="called").content == "heard one, two\nthree"
    assert reply.usage is not None
    assert agent.is_alive
    assert repr(agent) == f"HTTPAgentClient({url!r})"


def test_the_async_form_answers_the_same(url: str) -> None:
    agent = AsyncHTTPAgentClient(url=url)
    assert asyncio.run(agent("one", session_id="async")).content == "heard one"


@pytest.mark.parametrize("kind", [StreamingHTTPAgentClient, AsyncStreamingHTTPAgentClient])
def test_the_streaming_forms_give_the_answer_as_it_comes(url: str, kind: Any) -> None:
    parts = _parts(kind(url=url)("one", session_id=kind.__name__))
    assert [part.content for part in parts] == ["heard", "heard one", "heard one"]
    assert [part.stream_state for part in parts[:-1]] == [AgentStatusCode.STREAM_ING] * 2
    assert parts[-1].stream_state == AgentStatusCode.END
    assert parts[-1].usage is not None


def test_its_state_is_that_of_the_agent_over_there() -> None:
    there = AsyncStreamingReAct(AsyncTinyLM(), actions=[calculator])
    for url in _served(there):
        here = HTTPAgentClient(url=url)
        here("What is the result of 1 + 1?")
        state = here.state_dict()
        assert state == there.state_dict("0")
        assert here.load_state_dict(state, "copy") == ([], [])
        assert here.state_dict("copy") == state
        assert here("What is the result of 2 + 2?", session_id="copy").content == "The result of 2 + 2 is 4."
        here.fork(0, "fork")
        assert here.session_ids() == [0, "copy", "fork"]
        here.reset("fork")
        assert here.session_ids() == [0, "copy"]
        assert here.state_dict("never") == {"memory": [], "agent.memory": []}
        with pytest.raises(InvalidArgument, match="exists"):
            here.fork(0, "copy")
        everything = here.state_dict("all")
        here.reset("all")
        assert here.session_ids() == []
        here.load_state_dict(everything, "all")
        assert here.state_dict("all") == everything


def test_a_wrong_state_changes_nothing_in_the_whole_tree(url: str) -> None:
    tree = Sequential(HTTPAgentClient(url=url), Agent(ScriptedLLM(["a", "b"])))
    tree("one", session_id="whole")
    state = tree.state_dict("whole")
    assert list(state) == ["memory", "0.memory", "1.memory"]
    for wrong in ({**state, "0.memory": "x"}, {**state, "0.more": []}, {"memory": [], "1.memory": []}):
        with pytest.raises(StateError):
            tree.load_state_dict(wrong, "whole")
        assert tree.state_dict("whole") == state
    assert tree.load_state_dict({"memory": [], "1.memory": []}, "whole", strict=False).missing_keys == ["0.sessions"]
    assert tree.state_dict("whole")["0.memory"] == state["0.memory"]
    assert tree.load_state_dict(state, "whole") == ([], [])


def test_it_nests_in_every_colour(url: str) -> None:
    after = Agent(ScriptedLLM(lambda messages, params: "then " + messages[-1]["content"]))
    assert Sequential(HTTPAgentClient(url=url), after)("one", session_id="n1").content == "then heard one"
    async_after = an_agent(lambda messages, params: "then " + messages[-1]["content"])
    nested = AsyncSequential(AsyncHTTPAgentClient(url=url), async_after)
    assert asyncio.run(nested("one", session_id="n2")).content == "then heard one"
    parts = _parts(StreamingSequential(StreamingHTTPAgentClient(url=url))("one", session_id="n3"))
    assert [part.content for part in parts] == ["heard", "heard one", "heard one"]
    parts = _parts(AsyncStreamingSequential(AsyncStreamingHTTPAgentClient(url=url))("one", session_id="n4"))
    assert [part.content for part in parts] == ["heard", "heard one", "heard one"]


def test_it_nests_behind_another_server_that_keeps_its_sessions(url: str, tmp_path: Path) -> None:
    async def main() -> None:  # all three in one event loop, where a blocking request would wait for itself
        async with (
            AgentServer(an_agent(), port=0) as inner,
            AgentServer(
                AsyncSequential(AsyncHTTPAgentClient(url=inner.url), an_agent()),
                port=0,
                store=tmp_path / "s.db",
                max_sessions=1,
            ) as outer,
        ):
            agent = AsyncHTTPAgentClient(url=outer.url)
            for session_id in (("deep", 1), "other"):
                assert (await agent("one", session_id=session_id)).content == "heard heard one"
            state = await asyncio.to_thread(agent.state_dict, ("deep", 1))
            assert {path: len(messages) for path, messages in state.items()} == {
                "memory": 2,
                "0.memory": 2,
                "1.memory": 2,
            }
            await asyncio.to_thread(agent.fork, "other", "new")
            await asyncio.to_thread(agent.load_state_dict, state, "third")
            await asyncio.to_thread(agent.reset, ("deep", 1))
            assert (await agent("two", session_id="third")).content == "heard heard one, heard one, two"
            assert await asyncio.to_thread(agent.session_ids) == ["other", "new", "third"]

    asyncio.run(main())


def test_of_what_an_agent_elsewhere_remembers_a_kept_tree_writes_what_is_new(tmp_path: Path) -> None:
    store, written = SQLiteStore(tmp_path / "sessions.db"), []
    append = store.append

    async def watched(session_id: Any, change: Change) -> None:
        written.append(change)
        await append(session_id, change)

    store.append = watched  # type: ignore[method-assign]
    for url in _served(Agent(ScriptedLLM(echo))):
        team = Sequential(Agent(ScriptedLLM(echo)), HTTPAgentClient(url=url))
        team.keep(store)
        for number in range(10):
            team(f"tea {number}", session_id="ann")
        tails = [change.tails["1.memory"] for change in written]
        assert [(tail.start, len(tail.messages)) for tail in tails] == [(2 * number, 2) for number in range(10)]
        assert [change for change in written[1:] if change.values] == []
        assert len({one.path for one in store.blocking.search("tea", limit=40)}) > 1
        before = team.state_dict("ann")
        team.reset("ann", recursive=True)
    for url in _served(Agent(ScriptedLLM(echo))):  # another server, where nothing is remembered
        again = Sequential(Agent(ScriptedLLM(echo)), HTTPAgentClient(url=url))
        again.keep(store)
        again("more", session_id="ann")
        after = again.state_dict("ann")
        assert {key: value[:-2] for key, value in after.items()} == before
        assert written[-1].tails["1.memory"].start == 20
        again[1].sessions.restore("ann", {"memory": [{"content": "short", "sender": "user"}]})
        again("last", session_id="ann")
        assert store.blocking.load("ann").lengths["1.memory"] == 3
    store.blocking.close()


def test_what_was_kept_whole_of_an_agent_elsewhere_goes_on(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "sessions.db")
    said = [{"content": "one", "sender": "user"}, {"content": "heard one", "sender": "Agent"}]
    own = {"memory": Tail(0, [json.dumps(message) for message in said])}
    change = Change(0, 5, {"memory": 2}, own, {"0.sessions": json.dumps({"memory": said})})
    run_in_background(store.append("ann", change))
    for text, count in (("two", 4), ("three", 6)):
        for url in _served(Agent(ScriptedLLM(echo))):
            team = Sequential(HTTPAgentClient(url=url))
            team.keep(store)
            assert team(text, session_id="ann").content.startswith("heard one, two")
            assert len(team.state_dict("ann")["0.memory"]) == count
    kept = store.blocking.load("ann")
    assert (kept.lengths["0.memory"], kept.values["0.sessions"]) == (6, {})
    store.blocking.close()


def test_hooks_run_around_it(url: str) -> None:
    class Loud(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
            messages[0].content = messages[0].content.upper()

    assert HTTPAgentClient(url=url, hooks=Loud())("one", session_id="hooks").content == "heard ONE"


@pytest.mark.parametrize("session_id", [0, 7, "ann", "7", "_x", "", "a b", "ä" * 99, ("ann", 3), ("x", ("y", "7")), -1])
def test_every_session_id_has_a_name_of_its_own(url: str, session_id: Any) -> None:
    name = _wire_name(session_id)
    assert len(name) <= 64
    assert _session_id(name) == session_id or session_id == "ä" * 99
    agent = HTTPAgentClient(url=url)
    agent("one", session_id=session_id)
    assert len(agent.state_dict(session_id)["memory"]) == 2
    agent.reset(session_id)
    assert agent.state_dict(session_id)["memory"] == []


def test_no_two_session_ids_share_a_name() -> None:
    ids = [0, "0", 7, "7", "07", "_", "", "a", ("a",), ("a", 1), ("a", "1"), "x" * 64, "x" * 65, "ä" * 99, "ä" * 98]
    assert len({_wire_name(one) for one in ids}) == len(ids)


class _OwnError(LagentlikeError):
    """One that another package made."""


@pytest.mark.parametrize(
    ("error", "kind", "fields"),
    [
        (BudgetExceeded("tokens", 12.0, 10.0), BudgetExceeded, {"what": "tokens", "used": 12.0, "limit": 10.0}),
        (RateLimited("slow down", retry_after=99.0, status=429), RateLimited, {"retry_after": 99.0, "status": 429}),
        (ContextLengthExceeded("too long", used=9, limit=8), ContextLengthExceeded, {"used": 9, "limit": 8}),
        (StreamTruncated("cut", partial="half"), StreamTruncated, {"partial": "half", "raw": ""}),
        (InvalidArgument("x", 3, "give 4"), InvalidArgument, {"argument": "x", "value": 3, "cure": "give 4"}),
        (ToolTimeout("the tool took too long"), ToolTimeout, {}),
        (_OwnError("mine"), LagentlikeError, {}),
        (ZeroDivisionError("secret"), RemoteError, {"kind": "ZeroDivisionError"}),
        (SystemExit(3), RemoteError, {"kind": "SystemExit"}),
    ],
)
def test_errors_come_out_as_they_went_in(error: BaseException, kind: type[Exception], fields: Any) -> None:
    for url in _served(Agent(ScriptedLLM(lambda messages, params: error))):
        for client in (HTTPAgentClient, StreamingHTTPAgentClient):
            with pytest.raises(kind) as caught:
                _parts(client(url=url)("one")) if client is StreamingHTTPAgentClient else client(url=url)("one")
            assert type(caught.value) is kind
            if kind is not RemoteError:
                assert str(caught.value) == str(error)
            assert {name: getattr(caught.value, name) for name in fields} == fields
            assert "secret" not in str(caught.value)
        assert HTTPAgentClient(url=url).session_ids() == []


def test_a_failing_agent_is_asked_once() -> None:
    llm = ScriptedLLM([RateLimited("slow down", retry_after=1.0)] * 3)
    for url in _served(Agent(llm)):
        with pytest.raises(RateLimited):
            HTTPAgentClient(url=url)("one")
    assert llm.answered == 1


@pytest.mark.parametrize("client", [HTTPAgentClient, StreamingHTTPAgentClient])
def test_an_agent_that_loses_a_connection_of_its_own_is_asked_once(client: Any) -> None:
    llm = ScriptedLLM([ConnectionResetError("no")] * 3)
    for url in _served(Agent(llm)):
        with pytest.raises(RemoteError, match="ConnectionResetError"):
            _parts(client(url=url)("one")) if client is StreamingHTTPAgentClient else client(url=url)("one")
    assert llm.answered == 1


def test_tokens_are_needed_and_never_shown() -> None:
    for url in _served(an_agent(), token="the-secret-token"):
        assert HTTPAgentClient(url=url, token="the-secret-token")("one").content == "heard one"
        for token in (None, "wrong"):
            agent = HTTPAgentClient(url=url, token=token)
            assert agent.is_alive
            with pytest.raises(AuthenticationFailed) as caught:
                agent("one")
            assert "wrong" not in str(caught.value)
            with pytest.raises(AuthenticationFailed):
                agent.state_dict()
        assert "secret" not in repr(HTTPAgentClient(url=url, token="the-secret-token"))


def test_a_server_that_is_not_there() -> None:
    agent = HTTPAgentClient(port=9, retry=0)
    assert not agent.is_alive
    with pytest.raises(ConnectFailed):
        agent("one")


def test_a_turn_that_takes_too_long_is_left_and_taken_back() -> None:
    for url in _served(AsyncAgent(AsyncScriptedLLM(echo, latency=30))):
        with pytest.raises(RequestTimeout):
            HTTPAgentClient(url=url, timeout=0.2)("one")
        assert HTTPAgentClient(url=url).session_ids() == []


def test_a_turn_whose_answer_was_lost_is_asked_for_again_and_not_made_twice() -> None:
    async def main() -> None:
        async with AgentServer(an_agent(), port=0) as server:
            lost = 0

            async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                """Hand a request on; the first answer is lost."""
                nonlocal lost
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", server.port)
                there_writer.write(await reader.read(65536))
                answer = await there_reader.read(65536)
                lost += 1
                if lost > 1:
                    writer.write(answer)
                writer.close()
                there_writer.close()

            proxy = await asyncio.start_server(pipe, "127.0.0.1", 0)
            async with proxy:
                port = proxy.sockets[0].getsockname()[1]
                reply = await AsyncHTTPAgentClient(port=port)("one", session_id="ann")
            assert (reply.content, lost) == ("heard one", 2)
            assert len(server.unit.state_dict("ann")["memory"]) == 2

    asyncio.run(main())


async def test_an_answer_that_is_no_agents_is_a_typed_error() -> None:
    for body in (b"{}", b"[]", b"x", b'{"message": {"content": 1, "lc": 2}}'):
        async with FaultServer(reply(body)) as server:
            with pytest.raises(LagentlikeError, match="server"):
                await AsyncHTTPAgentClient(url=server.url, retry=0)("one")


@pytest.mark.parametrize("sessions", [{}, {"sessions": None}, {"sessions": 3}, {"sessions": ["ann", {}]}])
async def test_sessions_that_are_no_names_are_a_typed_error(sessions: Any) -> None:
    async with FaultServer(reply(json.dumps(sessions).encode())) as server:
        agent = AsyncHTTPAgentClient(url=server.url, retry=0)
        with pytest.raises(BadResponse, match="list of names"):
            await asyncio.to_thread(agent.session_ids)


def test_a_part_that_adds_to_no_text_is_a_typed_error() -> None:
    decoder = MessageDecoder()
    decoder.decode({"type": "message", "message": {"content": [1], "sender": "a"}})
    with pytest.raises(BadResponse, match="no text but list"):
        decoder.decode({"type": "delta", "content": "x"})


def test_a_url_must_be_one() -> None:
    with pytest.raises(InvalidArgument, match="give the server's address"):
        HTTPAgentClient(url="127.0.0.1:8090")
    with pytest.raises(InvalidArgument, match="give a whole address by its name: url="):
        HTTPAgentClient("http://127.0.0.1:1")


def test_streams_of_all_kinds_of_messages_come_out_as_they_went_in() -> None:
    call = ToolCall("add", {"a": 1}, id="c1")
    messages = [
        AgentMessage(content="", sender="a", reasoning="hm"),
        AgentMessage(content="", sender="a", reasoning="hmm"),
        AgentMessage(content="one", sender="a", reasoning="hmm"),
        AgentMessage(content="one", sender="a", reasoning="hmm"),
        AgentMessage(content="one", sender="a", reasoning="hmm", tool_calls=[call]),
        AgentMessage(content="one more", sender="a", reasoning="hmm", tool_calls=[call]),
        AgentMessage(content=ActionReturn(result=[{"type": "text", "content": "4"}]), sender="x"),
        AgentMessage(content={"k": [1]}, sender="x", tool_results=[ToolResult(True, "4", id="c1")]),
        AgentMessage(content=None, sender="x"),
        AgentMessage(content="ä\ud83d", sender="b"),
        AgentMessage(content="ä\ud83d!", sender="b"),
    ]
    encoder, decoder = MessageEncoder(), MessageDecoder()
    events = [encoder.encode(message) for message in messages]
    assert [decoder.decode(event) for event in events] == messages
    assert [event["type"] for event in events].count("delta") == 5
