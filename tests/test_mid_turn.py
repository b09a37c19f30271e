"""What is read of a session while a turn of it runs is the session as it was before that turn, in the whole tree."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncAgent, AsyncStreamingAgent, Sequential, StreamingAgent
from lagentlike.agents.workflow import AsyncStreamingWorkflow, AsyncWorkflow, Call, StreamingWorkflow, Workflow
from lagentlike.errors import InvalidArgument, SessionBusy
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.memory import Memory, SessionValue
from lagentlike.module import Module
from lagentlike.schema import AgentMessage

from .colours import parts_of

WORKFLOWS: list[Any] = [Workflow, AsyncWorkflow, StreamingWorkflow, AsyncStreamingWorkflow]
AGENTS: dict[Any, Any] = dict(zip(WORKFLOWS, [Agent, AsyncAgent, StreamingAgent, AsyncStreamingAgent], strict=True))
every_colour = pytest.mark.parametrize("base", WORKFLOWS, ids=lambda base: base.__name__)


class Gate:
    """A model's answer that waits, from the second request on, until the test lets it go."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.asked = 0

    def __call__(self, messages: Any, params: Any) -> str:
        self.asked += 1
        if self.asked > 1:
            self.reached.set()
            assert self.open.wait(20)
        return f"second {self.asked}"


def tree(base: Any, gate: Callable[[Any, Any], str]) -> Any:
    """A workflow of two agents in a row, of which the second one answers by `gate`."""

    class Two(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            model = AsyncScriptedLLM if base.colour.is_async else ScriptedLLM
            self.first = AGENTS[base](model(lambda messages, params: f"first {len(messages)}"))
            self.second = AGENTS[base](model(gate))

        def steps(self, *message: AgentMessage, session_id: Any, **kwargs: Any) -> Any:
            reply = yield Call(self.first, message[0])
            return (yield Call(self.second, reply))

    return Two()


def ask(unit: Any, *message: Any, **kwargs: Any) -> AgentMessage:
    return parts_of(unit, *message, **kwargs)[-1]


class Running:
    """A turn under way in another thread."""

    def __init__(self, unit: Any, gate: Gate, *message: Any, **kwargs: Any) -> None:
        self.gate = gate
        self.thread = threading.Thread(target=ask, args=(unit, *message), kwargs=kwargs)

    def __enter__(self) -> None:
        self.thread.start()
        assert self.gate.reached.wait(20)

    def __exit__(self, *error: object) -> None:
        self.gate.open.set()
        self.thread.join(20)


@every_colour
def test_state_fork_and_file_have_the_session_as_it_was_before_the_turn(base: Any, tmp_path: Path) -> None:
    unit = tree(base, gate := Gate())
    ask(unit, "hi")
    before, whole = unit.state_dict(), unit.state_dict("all")
    with Running(unit, gate, "again"):
        assert len(unit.first.memory.get(0)) == 4, "the first agent is done with its part"
        assert unit.state_dict() == before
        assert unit.state_dict("all") == whole
        unit.save(tmp_path / "state.json")
        unit.fork(0, "branch")
    loaded = tree(base, Gate())
    loaded.load(tmp_path / "state.json")
    assert loaded.state_dict() == unit.state_dict("branch") == before
    assert len(unit.state_dict()["memory"]) == len(unit.state_dict()["first.memory"]) == 4


@every_colour
def test_a_fork_made_during_a_turn_goes_its_own_way(base: Any) -> None:
    unit = tree(base, gate := Gate())
    ask(unit, "hi")
    with Running(unit, gate, "left"):
        unit.fork(0, "branch")
    ask(unit, "right", session_id="branch")
    assert [message.content for message in unit.memory.get(0)][2:] == ["left", "second 2"]
    assert [message.content for message in unit.memory.get("branch")][2:] == ["right", "second 3"]
    asked = [message["content"] for message in unit.first.llm.requests[-1].messages]
    assert asked == ["hi", "first 1", "right"]


@every_colour
def test_a_session_in_its_first_turn_is_not_there_yet(base: Any) -> None:
    gate = Gate()
    gate.asked = 1
    unit = tree(base, gate)
    with Running(unit, gate, "hi", session_id="new"):
        assert unit.state_dict("new") == {"memory": [], "first.memory": [], "second.memory": []}
        assert unit.state_dict("all")["sessions"] == []
        with pytest.raises(InvalidArgument, match="nothing is remembered of it"):
            unit.fork("new", "branch")
        ask(unit.first, "by itself", session_id="other")
        assert [one["session_id"] for one in unit.state_dict("all")["sessions"]] == ["other"]
    assert len(unit.state_dict("new")["memory"]) == 2


@every_colour
def test_a_turn_that_is_taken_back_was_never_seen(base: Any) -> None:
    def answer(messages: Any, params: Any) -> str:
        text = gate(messages, params)
        if gate.asked > 1:
            raise LookupError("no answer")
        return text

    gate = Gate()
    unit = tree(base, answer)
    ask(unit, "hi")
    before = unit.state_dict()

    def fail() -> None:
        with pytest.raises(LookupError):
            ask(unit, "again")

    running = Running(unit, gate, "again")
    running.thread = threading.Thread(target=fail)
    with running:
        assert unit.state_dict() == before
    assert unit.state_dict() == before


def test_between_two_parts_of_a_stream_its_reader_sees_the_session_as_it_was() -> None:
    class Parts(StreamingAgent):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> Iterator[str]:
            yield "so f"
            yield "so far"

    agent = Parts()
    ask(agent, "hi")
    before = agent.state_dict()
    with closing(agent("again")) as stream:
        next(stream)
        agent.fork(0, "branch")
        assert agent.state_dict() == agent.state_dict("branch") == before
        list(stream)
    assert len(agent.state_dict()["memory"]) == 4


async def test_between_two_parts_of_an_async_stream_its_reader_sees_the_session_as_it_was() -> None:
    class Parts(AsyncStreamingAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> AsyncIterator[str]:
            yield "so f"
            yield "so far"

    agent = Parts()
    async for _ in agent("hi"):
        if len(agent.memory.get(0)) == 1:
            assert agent.state_dict() == {"memory": []}
    assert len(agent.state_dict()["memory"]) == 2


def test_from_inside_a_turn_the_turns_that_ended_in_it_are_there() -> None:
    seen = []

    class Branching(Agent):
        def __init__(self) -> None:
            super().__init__()
            self.writer = Agent(ScriptedLLM(lambda messages, params: f"draft {len(messages)}"))

        def forward(self, message: AgentMessage, session_id: Any = 0) -> Any:
            draft = self.writer(message, session_id=session_id)
            self.writer.fork(session_id, "other")
            seen.append(self.state_dict(session_id))
            return self.writer(draft, session_id="other")

    unit = Branching()
    assert unit("hi").content == "draft 3", "the branch began with the first draft"
    assert [len(messages) for messages in seen[0].values()] == [0, 2]


def test_a_sub_agent_that_is_called_by_itself_stands_for_itself() -> None:
    unit = Sequential(
        Agent(ScriptedLLM(lambda messages, params: "a")), Agent(ScriptedLLM(lambda messages, params: "b"))
    )
    unit("hi")
    unit[0]("alone")
    assert [len(messages) for messages in unit.state_dict().values()] == [2, 4, 2]


def test_other_state_of_a_session_is_refused_while_a_turn_may_be_changing_it() -> None:
    gate = Gate()
    agent = Agent(ScriptedLLM(gate))
    agent.notes = SessionValue(list)
    agent("hi")
    agent.notes[0].append("a note")
    agent.notes["quiet"].append("a note")
    with Running(agent, gate, "again"):
        for read in (agent.state_dict, lambda: agent.fork(0, "branch"), lambda: agent.state_dict("all")):
            with pytest.raises(SessionBusy, match=r"session 0.*notes"):
                read()
        assert agent.state_dict("quiet") == {"memory": [], "notes": ["a note"]}
    assert agent.state_dict()["notes"] == ["a note"]


@every_colour
def test_nothing_is_loaded_into_a_session_whose_turn_is_under_way(base: Any, tmp_path: Path) -> None:
    unit = tree(base, gate := Gate())
    ask(unit, "hi")
    state = unit.state_dict()
    unit.save(tmp_path / "state.json")
    with Running(unit, gate, "again"):
        for load in (
            lambda: unit.load_state_dict(state),
            lambda: unit.load(tmp_path / "state.json"),
            lambda: unit.load_state_dict({"version": 1, "sessions": []}, "all"),
        ):
            with pytest.raises(SessionBusy, match="a turn of session 0 is under way"):
                load()
        unit.load_state_dict(state, "quiet")
    assert len(unit.state_dict()["memory"]) == 4
    unit.load_state_dict(state)
    assert unit.state_dict() == unit.state_dict("quiet") == state


def test_a_turn_may_load_into_its_own_session() -> None:
    class Recalling(Agent):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            self.load_state_dict({"memory": [{"content": "long ago"}, message.plain()]}, session_id)
            return "I remember."

    agent = Recalling()
    agent("Go on.")
    assert [message.content for message in agent.memory.get(0)] == ["long ago", "Go on.", "I remember."]


def test_a_tool_of_the_turn_itself_may_read_other_state() -> None:
    states = []

    class Reading(Agent):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            self.notes[session_id].append("x")
            states.append(self.state_dict(session_id))
            return "done"

    agent = Reading()
    agent.notes = SessionValue(list)
    agent("hi")
    assert states == [{"memory": [], "notes": ["x"]}]


def test_readers_never_see_a_part_of_a_turn() -> None:
    unit = Sequential(*(Agent(ScriptedLLM(lambda messages, params: "r")) for _ in range(3)))
    stop = time.monotonic() + 2
    failures: list[BaseException] = []

    def talk() -> None:
        try:
            while time.monotonic() < stop:
                unit("q")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=talk) for _ in range(2)]
    for thread in threads:
        thread.start()
    looks = 0
    while time.monotonic() < stop:
        state = unit.state_dict()
        assert len({len(messages) for messages in state.values()}) == 1
        assert len(state["memory"]) % 2 == 0
        unit.fork(0, looks) if looks and len(state["memory"]) else None
        looks += 1
    for thread in threads:
        thread.join(20)
    assert not failures
    assert looks > 10


def test_what_a_turn_leaves_in_memory_to_look_back_is_let_go_with_it() -> None:
    unit = tree(Workflow, lambda messages, params: "r")
    ask(unit, "hi")
    for path, state in unit.named_states():
        memory: Memory = state.get(0)
        assert (memory.before, memory.running) == (None, None), path


def test_units_without_memory_are_read_at_any_time() -> None:
    class Reader(Module):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            return str(self.state_dict(session_id))

    assert Reader()("hi").content == "{}"
