"""Agents in actors of a real Ray cluster: units of the tree whose sessions outlive the processes they ran in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lagentlike.agents import (
    Agent,
    AsyncAgent,
    AsyncReAct,
    AsyncSequential,
    AsyncStreamingAgent,
    Sequential,
    StreamingAgent,
)
from lagentlike.cluster import Cluster
from lagentlike.errors import ActorLost, InvalidArgument, RemoteError, StateError
from lagentlike.hooks import Hook
from lagentlike.llms import ScriptedLLM
from lagentlike.schema import AgentMessage, AgentStatusCode
from lagentlike.serving import (
    AgentRayActor,
    AsyncAgentRayActor,
    AsyncStreamingAgentRayActor,
    StreamingAgentRayActor,
)
from lagentlike.tracing import JSONLTracer, read_trace

from ..ray_cluster import ray_nodes
from ..transcript import define, talk, without_call_ids
from .far_agents import Breaking, broken, count, Slow, streamer, talker, team, traced, Worker

pytest.importorskip("ray", reason="needs the extra 'ray'")


@pytest.fixture(scope="module", autouse=True)
def address() -> Iterator[str]:
    """Two nodes with room for two actors each, to which this process stays connected."""
    with ray_nodes(2, cpus=2) as nodes:
        connection = Cluster(nodes.address)
        yield nodes.address
        connection.close()


@pytest.fixture(scope="module")
def far() -> Iterator[AgentRayActor]:
    with AgentRayActor(Worker) as agent:
        yield agent


def pid(agent: AgentRayActor, session_id: Any = 0) -> int:
    return int(agent("pid", session_id=session_id).content)


def gone(process: int) -> bool:
    """Whether a process ends within some seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def kill(agent: AgentRayActor, process: int) -> None:
    """Kill the only actor of an agent, and wait until it is known."""
    before = agent.actors
    os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while agent.actors == before:
        assert time.monotonic() < deadline, "nobody notices that the actor is dead"
        time.sleep(0.02)


def test_it_is_a_unit_like_the_agent_itself() -> None:
    near = talker()
    with AgentRayActor({"type": Agent, "llm": {"type": ScriptedLLM, "replies": count}, "name": "talker"}) as agent:
        assert (agent.name, repr(agent)) == ("talker", "AgentRayActor(Agent, actors=1)")
        for text in ("one", "two"):
            assert agent(text).content == near(text).content
        assert agent("other", session_id="x").content == "1: other"
        assert agent.state_dict() == near.state_dict()
        assert agent.session_ids() == [0, "x"]
        agent.fork(0, "fork")
        assert agent("three", session_id="fork").content == "5: three"
        assert len(agent.state_dict()["memory"]) == 4
        agent.reset("x")
        assert agent("again", session_id="x").content == "1: again"


def test_one_agent_says_and_remembers_the_same_here_and_in_an_actor() -> None:
    expected = asyncio.run(talk(define(AsyncReAct)))
    with AsyncAgentRayActor(define) as agent:
        replies, state = asyncio.run(talk(agent))
    assert replies == expected[0]
    assert without_call_ids(state) == without_call_ids(expected[1])


def test_its_state_is_in_the_tree_and_goes_where_it_is_loaded() -> None:
    with AgentRayActor(team) as agent:
        parent = Sequential(("team", agent), ("near", talker()))
        assert dict(parent.named_agents())["team"] is agent
        assert parent("hello").content == "1: 1: 1: hello"
        state = json.loads(json.dumps(parent.state_dict()))
        assert sorted(state) == ["memory", "near.memory", "team.first.memory", "team.last.memory", "team.memory"]
        parent.load_state_dict(state, "copy")
        assert parent("more", session_id="copy").content == "3: 3: 3: more"
        assert parent.state_dict() == state
        local = team()
        local.load_state_dict(agent.state_dict())
        assert local("more").content == "3: 3: more"
        with pytest.raises(StateError, match=r"last\.memory"):
            agent.load_state_dict({**agent.state_dict(), "last.memory": [5]})
        parent.reset(recursive=True)
        assert parent.session_ids() == ["copy"]


def test_streams_give_parts_in_both_colours() -> None:
    with StreamingAgentRayActor(streamer) as agent:
        parts = list(agent("abc"))
        assert [part.content for part in parts] == ["1:", "1: a", "1: abc", "1: abc"]
        assert [part.stream_state for part in parts][-2:] == [AgentStatusCode.STREAM_ING, AgentStatusCode.END]
        stream = agent("left")
        next(stream)
        stream.close()
        assert len(agent.state_dict()["memory"]) == 2
        assert list(agent("then"))[-1].content == "3: then"

    async def streamed() -> None:
        with AsyncStreamingAgentRayActor(streamer) as agent:
            async with aclosing(agent("abc")) as stream:
                assert [part.content async for part in stream][-2:] == ["1: abc", "1: abc"]

    asyncio.run(streamed())


def test_it_has_the_colour_of_its_class() -> None:
    kinds = {
        AgentRayActor: Agent,
        AsyncAgentRayActor: AsyncAgent,
        StreamingAgentRayActor: StreamingAgent,
        AsyncStreamingAgentRayActor: AsyncStreamingAgent,
    }
    assert all(issubclass(kind, base) and kind.colour is base.colour for kind, base in kinds.items())


def test_errors_are_those_of_the_agent_and_take_the_turn_back(far: AgentRayActor) -> None:
    assert far("turns", session_id="errors").content == "1"
    with pytest.raises(LookupError, match="there is none") as caught:
        far("fail", session_id="errors")
    assert "in the actor" in caught.value.__notes__[0]
    with pytest.raises(RemoteError, match="failed with Odd"):
        far("odd", session_id="errors")
    assert far("turns", session_id="errors").content == "2"
    assert len(far.state_dict("errors")["memory"]) == 4


def test_a_turn_around_it_that_fails_takes_its_turn_back(far: AgentRayActor) -> None:
    class Fails(Agent):
        def __init__(self) -> None:
            self.far = far

        def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> AgentMessage:
            reply = self.far(*message, session_id=session_id)
            if message[0].content == "turns":
                return reply
            raise ValueError("after all")

    unit = Fails()
    unit("turns", session_id="around")
    before = unit.state_dict("around")
    with pytest.raises(ValueError, match="after all") as caught:
        unit("pid", session_id="around")
    assert [message.content for message in caught.value.produced][:1] == ["pid"]  # type: ignore[attr-defined]
    assert unit.state_dict("around") == before
    assert unit("turns", session_id="around").content == "2"


def test_hooks_run_here_and_training_is_told(far: AgentRayActor) -> None:
    class Shorter(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
            messages[0].content = "training"

    with far.register_hook(Shorter()):
        assert far("whatever", session_id="hooks").content == "False"
        assert far.train()("whatever", session_id="hooks").content == "True"
    assert far.eval()("training", session_id="hooks").content == "False"


def test_a_session_goes_on_where_its_actor_was_killed(far: AgentRayActor) -> None:
    assert [far("turns", session_id="s").content for _ in range(3)] == ["1", "2", "3"]
    kill(far, pid(far, "other"))
    assert far("turns", session_id="s").content == "4"
    assert len(far.state_dict("s")["memory"]) == 8


def test_a_turn_whose_actor_ends_is_an_error_or_is_made_again(far: AgentRayActor, tmp_path: Any) -> None:
    far("turns", session_id="lost")
    before = far.state_dict("lost")
    with pytest.raises(ActorLost, match="the actor of session 'lost' ended during its turn"):
        far("die", session_id="lost")
    assert far.state_dict("lost") == before
    assert far("turns", session_id="lost").content == "2"
    with AgentRayActor(Worker, retries=1) as agent:
        agent("turns")
        assert agent(f"die-once {tmp_path}/died").content == "alive"
        assert agent("turns").content == "3"
        with pytest.raises(ActorLost):
            agent("die")


def test_a_stream_that_has_begun_is_not_begun_again() -> None:
    with StreamingAgentRayActor(Breaking, retries=1) as agent:
        stream = agent("die")
        assert next(stream).content == "one"
        with pytest.raises(ActorLost):
            next(stream)
        assert agent.session_ids() == []
        assert [part.content for part in agent("live")][-1] == "one two"


def test_map_spreads_sessions_over_actors_where_they_stay() -> None:
    with AgentRayActor(Worker, min_size=1, max_size=3, num_cpus=1, idle_seconds=3) as agent:
        outcomes = agent.map(["sleep 1", "fail", "sleep 1"], session_ids="abc")
        assert [type(outcome) for outcome in outcomes] == [AgentMessage, LookupError, AgentMessage]
        processes = {session: pid(agent, session) for session in "abc"}
        assert len(set(processes.values())) == 3
        assert {session: pid(agent, session) for session in "abc"} == processes
        assert agent.size == 3
        deadline = time.monotonic() + 30
        while agent.size > 1:
            assert time.monotonic() < deadline, "idle actors stay"
            time.sleep(0.05)
        left = pid(agent, "new")
        assert all(gone(process) for process in processes.values() if process != left)
        assert [agent("turns", session_id=session).content for session in "abc"] == ["4", "3", "4"]


async def test_async_turns_run_side_by_side_and_can_be_cancelled() -> None:
    with AsyncAgentRayActor(Worker) as agent:
        await agent("turns", session_id="warm")
        began = time.monotonic()
        await asyncio.gather(*(agent("sleep 1", session_id=session) for session in range(20)))
        assert time.monotonic() - began < 10, "one after the other they take 20 s"
        turn = asyncio.create_task(agent("sleep 60", session_id="warm"))
        await asyncio.sleep(0.3)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert (await asyncio.wait_for(agent("turns", session_id="warm"), 20)).content == "2"
        team = AsyncSequential(agent, agent)
        assert len(await team.map(["pid", "pid"])) == 2


async def test_a_blocking_agent_can_be_called_with_await() -> None:
    with AsyncAgentRayActor(Slow) as agent:
        turn = asyncio.create_task(agent("first"))
        await asyncio.sleep(0.2)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert (await agent("second")).content == "slept"
        assert [message["content"] for message in agent.state_dict()["memory"]] == ["second", "slept"]


def test_an_agent_is_copied_with_its_sessions() -> None:
    near = talker()
    near("one", session_id=("a", 1))
    with AgentRayActor(near) as agent:
        assert agent.session_ids() == [("a", 1)]
        assert agent("two", session_id=("a", 1)).content == "3: two"
        assert agent.description == "It counts."
    assert len(near.state_dict(("a", 1))["memory"]) == 2
    with pytest.raises(InvalidArgument, match="were closed"):
        agent("three")
    assert len(agent.state_dict(("a", 1))["memory"]) == 4


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"agent": broken}, LookupError, "there is no model here"),
        ({"agent": {"type": "nowhere.Agent"}}, InvalidArgument, "cannot import 'nowhere'"),
        ({"agent": 5}, InvalidArgument, "agent=5: give an agent"),
        ({"agent": talker, "max_size": 0}, InvalidArgument, "max_size=0: give a whole number of at least 1"),
        ({"agent": talker, "idle_seconds": 0}, InvalidArgument, "idle_seconds=0: give seconds"),
        ({"agent": talker, "retries": -1}, InvalidArgument, "retries=-1"),
        ({"agent": talker, "address": "127.0.0.1:1"}, InvalidArgument, "is connected to the cluster at"),
    ],
)
def test_what_cannot_be_made_is_told_when_it_is_asked_for(
    options: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        AgentRayActor(**options)


def test_a_trace_goes_on_in_the_actor(tmp_path: Path) -> None:
    with AgentRayActor(partial(traced, str(tmp_path / "far.jsonl")), name="near") as agent:
        with JSONLTracer(tmp_path / "near.jsonl"):
            agent("Q")
        agent("Nobody listens here.", session_id=1)
    (near,) = read_trace(tmp_path / "near.jsonl")
    request, far, *_, other = read_trace(tmp_path / "far.jsonl")
    assert (near["name"], near["trace_id"], near["span_id"]) == ("near", far["trace_id"], far["parent_id"])
    assert request["parent_id"] == far["span_id"]
    assert other["parent_id"] is None
