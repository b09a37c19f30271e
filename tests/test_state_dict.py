"""What a tree remembers, as plain data: written and taken back whole, whatever it holds and whatever comes back."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st

from lagentlike.agents import (
    Agent,
    AgentDict,
    AgentList,
    AsyncAgent,
    AsyncSequential,
    AsyncStreamingAgent,
    AsyncStreamingSequential,
    Sequential,
    StreamingAgent,
    StreamingSequential,
)
from lagentlike.errors import InvalidArgument, StateError
from lagentlike.llms import ScriptedLLM
from lagentlike.memory import Memory, SessionState, SessionValue
from lagentlike.module import IncompatibleKeys, Module
from lagentlike.schema import ActionReturn, AgentMessage, FunctionCall, to_plain, TokenSpan, ToolCall, ToolResult, Usage


class Nest(Agent):
    """A tree of three levels, one unit of it in two places."""

    def __init__(self) -> None:
        self.writer = Agent(name="writer")
        self.team = AgentDict({"a": Agent(), "b": AgentList([Agent(), self.writer])})
        self.again = self.team


CONTAINERS: dict[str, tuple[Callable[[], Module], list[str]]] = {
    "Sequential": (lambda: Sequential(Agent(), Agent()), ["memory", "0.memory", "1.memory"]),
    "Sequential of pairs": (lambda: Sequential(("x", Agent()), ("y", Agent())), ["memory", "x.memory", "y.memory"]),
    "AsyncSequential": (lambda: AsyncSequential(AsyncAgent()), ["memory", "0.memory"]),
    "StreamingSequential": (lambda: StreamingSequential(StreamingAgent()), ["memory", "0.memory"]),
    "AsyncStreamingSequential": (lambda: AsyncStreamingSequential(AsyncStreamingAgent()), ["memory", "0.memory"]),
    "nested Sequential": (lambda: Sequential(Sequential(Agent())), ["memory", "0.memory", "0.0.memory"]),
    "AgentList": (lambda: AgentList([Agent(), Agent()]), ["0.memory", "1.memory"]),
    "AgentDict": (lambda: AgentDict({"a": Agent(), "b": Agent()}), ["a.memory", "b.memory"]),
    "nest": (Nest, ["memory", "writer.memory", "team.a.memory", "team.b.0.memory"]),
}
every_container = pytest.mark.parametrize(("make", "keys"), CONTAINERS.values(), ids=CONTAINERS)


def fill(module: Module, *session_ids: Any) -> None:
    for number, (_, state) in enumerate(module.named_states()):
        for session_id in session_ids or (0,):
            for turn in range(number + 1):
                state.add(f"{session_id!r} {number} {turn}", session_id)  # type: ignore[attr-defined]


def make_agent(*contents: Any, session_id: Any = 0) -> Agent:
    agent = Agent()
    agent.memory.load([AgentMessage(content=content) for content in contents], session_id)  # type: ignore[union-attr]
    return agent


@every_container
def test_keys_are_flat_paths(make: Callable[[], Module], keys: list[str]) -> None:
    assert list(make().state_dict()) == keys


@every_container
def test_loading_is_the_inverse_of_saving(make: Callable[[], Module], keys: list[str]) -> None:
    module, other = make(), make()
    fill(module)
    state = module.state_dict()
    written = json.loads(json.dumps(state))
    assert written == state
    assert other.load_state_dict(written) == IncompatibleKeys([], [])
    assert other.state_dict() == state
    assert module.load_state_dict(module.state_dict()) == ([], [])
    assert module.state_dict() == state


@every_container
def test_loading_is_the_inverse_of_saving_for_all_sessions(make: Callable[[], Module], keys: list[str]) -> None:
    module, other = make(), make()
    fill(module, 0, "0", ("user", 7, ("deep", 1)), -3, "")
    fill(other, "to be forgotten")
    state = module.state_dict("all")
    assert other.load_state_dict(json.loads(json.dumps(state)), "all") == ([], [])
    assert other.state_dict("all") == state
    assert other.session_ids() == module.session_ids() == [0, "0", ("user", 7, ("deep", 1)), -3, ""]


@every_container
def test_saving_to_a_file_and_loading_it(make: Callable[[], Module], keys: list[str], tmp_path: Path) -> None:
    module, other = make(), make()
    fill(module, 0, ("a", 1))
    module.save(tmp_path / "state.json")
    other.load(tmp_path / "state.json")
    assert other.state_dict("all") == module.state_dict("all")


def test_one_session_can_be_saved_alone(tmp_path: Path) -> None:
    agent = make_agent("a", session_id=1)
    agent.memory.add("b", 2)  # type: ignore[union-attr]
    agent.save(tmp_path / "one.json", session_id=2)
    other = Agent()
    other.load(tmp_path / "one.json")
    assert other.session_ids() == [2]


def test_a_session_nobody_spoke_in_is_empty_and_leaves_no_trace() -> None:
    agent = Agent()
    assert agent.state_dict("unknown") == {"memory": []}
    assert agent.session_ids() == []


def test_a_session_can_be_loaded_into_another() -> None:
    agent = make_agent("a")
    agent.load_state_dict(agent.state_dict(0), "copy")
    agent("x") if agent.llm else agent.memory.add("more", "copy")  # type: ignore[union-attr]
    assert len(agent.state_dict(0)["memory"]) == 1
    assert len(agent.state_dict("copy")["memory"]) == 2


def test_what_is_handed_out_is_not_what_is_kept() -> None:
    agent = make_agent({"a": [1]})
    agent.state_dict()["memory"][0]["content"]["a"].append(2)
    state: Any = {"memory": [{"content": {"a": [1]}}]}
    agent.load_state_dict(state)
    state["memory"][0]["content"]["a"].append(3)
    assert agent.state_dict()["memory"][0]["content"] == {"a": [1]}


def test_all_that_a_message_can_carry_survives() -> None:
    message = AgentMessage(
        content={"nested": [1, 2.5, None, True, "\ud800"]},
        sender="s",
        formatted={"status": 1},
        extra_info=[1],
        type="t",
        receiver="r",
        tool_calls=[ToolCall("add", {"a": 1}, "raw", "id")],
        tool_results=[ToolResult(False, "", "oops", {"k": 1}, "id", "add")],
        reasoning="because",
        usage=Usage(1, 2, 3, 4, 5),
        model="m",
        finish_reason="stop",
        tokens=TokenSpan([1, 2], [-0.5, -1.5], [7], [[(1, -0.5)]]),
    )
    agent = Agent()
    agent.memory.add(message)  # type: ignore[union-attr]
    other = Agent()
    other.load_state_dict(json.loads(json.dumps(agent.state_dict())))
    assert other.memory.get(0)[0] == message  # type: ignore[union-attr]


# What does not fit


def test_missing_and_unexpected_keys_are_an_error_unless_asked_otherwise() -> None:
    state = Sequential(Agent(), Agent()).state_dict()
    one = Sequential(Agent(), Agent())
    fill(one)
    before = one.state_dict()
    wrong = {"0.memory": [{"content": "new"}], "gone.memory": [], "memory": []}
    with pytest.raises(
        StateError, match=r"missing keys \['1.memory'\], unexpected keys \['gone.memory'\].*strict=False"
    ):
        one.load_state_dict(wrong)
    assert one.state_dict() == before
    assert one.load_state_dict(wrong, strict=False) == (["1.memory"], ["gone.memory"])
    assert one.state_dict()["0.memory"][0]["content"] == "new"
    assert one.state_dict()["1.memory"] == before["1.memory"]
    assert one.load_state_dict(state) == ([], [])


def test_keys_that_do_not_fit_are_told_for_all_sessions_together() -> None:
    state = {
        "version": 1,
        "sessions": [
            {"session_id": 0, "state": {"memory": [], "x": 1}},
            {"session_id": 1, "state": {"y": 2}},
        ],
    }
    assert Agent().load_state_dict(state, "all", strict=False) == (["memory"], ["x", "y"])


def test_a_state_of_all_sessions_is_no_state_of_one() -> None:
    agent = make_agent("kept")
    with pytest.raises(StateError, match="that of all sessions, load it with session_id='all'"):
        agent.load_state_dict(agent.state_dict("all"))


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ([], "a state dict is a dict, got list"),
        ({}, "version is None"),
        ({"version": 2, "sessions": []}, "version is 2, this package reads version 1"),
        ({"version": 1}, "'sessions' is NoneType"),
        ({"version": 1, "sessions": {}}, "'sessions' is dict"),
        ({"version": 1, "sessions": [1]}, r"sessions\[0\] is not of the form"),
        ({"version": 1, "sessions": [{"session_id": 0, "state": []}]}, r"sessions\[0\] is not of the form"),
        ({"version": 1, "sessions": [{"session_id": 1.5, "state": {"memory": []}}]}, r"sessions\[0\]: session_id=1.5"),
        ({"version": 1, "sessions": [{"session_id": {}, "state": {"memory": []}}]}, r"sessions\[0\]: session_id="),
        ({"version": 1, "sessions": [{"session_id": "all", "state": {"memory": []}}]}, r"sessions\[0\]: session_id="),
        ({"version": 1, "sessions": [{"session_id": 0, "state": {"memory": []}}] * 2}, "twice"),
    ],
)
def test_what_is_no_state_of_all_sessions_is_refused(state: Any, complaint: str) -> None:
    agent = make_agent("kept")
    with pytest.raises(StateError, match=complaint):
        agent.load_state_dict(state, "all")
    assert agent.state_dict()["memory"][0]["content"] == "kept"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1, "sessions": NaN}',
        "[" * 100_000,
        '"\\ud800"',
        '{"version": 1' + "0" * 5000,
    ],
    ids=["nothing", "cut", "a list", "null", "NaN", "deep", "a text", "a long number"],
)
def test_a_file_that_holds_no_state_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    agent = make_agent("kept")
    with pytest.raises(StateError):
        agent.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StateError, match="holds no state"):
        agent.load(path)
    assert agent.state_dict()["memory"][0]["content"] == "kept"


# Half-way failures change nothing


class Fragile(SessionState):
    """Refuses what it is given, at one point or the other."""

    def __init__(self, fail_in: str) -> None:
        self.fail_in = fail_in
        self.values: dict[Any, str] = {0: "old"}

    def session_ids(self) -> list[Any]:
        return list(self.values)

    def dump(self, session_id: Any) -> Any:
        return self.values.get(session_id, "")

    def parse(self, value: Any) -> Any:
        if self.fail_in == "parse" and value == "new":
            raise StateError("no")
        return value

    def restore(self, session_id: Any, parsed: Any) -> None:
        if self.fail_in == "restore" and parsed == "new":
            raise OSError("disk full")
        self.values[session_id] = parsed

    def fork(self, session_id: Any, new_session_id: Any) -> None:
        raise NotImplementedError

    def reset(self, session_id: Any) -> None:
        self.values.pop(session_id, None)


@pytest.mark.parametrize("session_id", [0, "all"])
@pytest.mark.parametrize("fail_in", ["parse", "restore"])
def test_a_load_that_fails_half_way_changes_nothing(fail_in: str, session_id: Any) -> None:
    agent: Any = Sequential(make_agent("a"), make_agent("b"))
    agent.notes = SessionValue(list)
    agent.notes["other"] = ["kept"]
    agent.fragile = Fragile(fail_in)
    before = agent.state_dict("all")
    new: Any = {"memory": [], "notes": ["x"], "fragile": "new", "0.memory": [], "1.memory": [{"content": "z"}]}
    if session_id == "all":
        new = {"version": 1, "sessions": [{"session_id": one, "state": new} for one in (5, 0)]}
    with pytest.raises((StateError, OSError)):
        agent.load_state_dict(new, session_id)
    assert agent.state_dict("all") == before


def test_the_last_message_being_wrong_leaves_all_units_as_they_were() -> None:
    module = Sequential(Agent(), Agent())
    fill(module)
    before = module.state_dict()
    state = json.loads(json.dumps(before))
    state["0.memory"] = []
    state["1.memory"][-1] = {"content": "x", "sender": None}
    with pytest.raises(StateError, match=r"1\.memory: message 2, field sender"):
        module.load_state_dict(state)
    assert module.state_dict() == before


# Files are whole


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    make_agent("good").save(path)
    saved = path.read_bytes()
    with pytest.raises(StateError, match=r"memory: message 0\.content"):
        make_agent({"bad": object()}).save(path)
    assert path.read_bytes() == saved
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        make_agent("x").save(tmp_path / "nowhere" / "state.json")


SAVER = """
import sys
from lagentlike.agents import Agent
agent = Agent()
agent.memory.load(["x" * 1000] * 3000)
for index in range(10**9):
    agent.memory.load([str(index)], 1)
    agent.save(sys.argv[1])
    print(index, flush=True)
"""


def test_killing_a_process_while_it_saves_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for attempt in range(6):
        with subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(2):
                process.stdout.readline()
            time.sleep(0.007 * attempt)
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
        agent = Agent()
        agent.load(path)
        number = int(agent.state_dict(1)["memory"][0]["content"])
        assert number >= max(map(int, said), default=1)
        assert len(agent.state_dict(0)["memory"]) == 3000


def test_saving_while_turns_go_on_gives_a_state_that_loads(tmp_path: Path) -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "r"))
    stop = threading.Event()

    def talk() -> None:
        while not stop.is_set():
            agent("q")

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        for _ in range(10):
            agent.save(tmp_path / "state.json")
            Agent().load(tmp_path / "state.json")
    finally:
        stop.set()
        thread.join()


# Anything, there and back


texts = st.text(st.characters(codec=None), max_size=20).map(  # lone surrogates too
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**4000), 10**4000) | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
anything = st.recursive(
    plain | st.floats() | st.sets(st.integers(), max_size=2) | st.binary(max_size=4) | st.builds(lambda: 10**5000)
    | st.builds(FunctionCall, texts, st.dictionaries(texts, plain, max_size=2)) | st.builds(object),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
    | st.dictionaries(st.integers() | texts, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
some = settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))


def check_round_trip(content: Any, extra: Any, sender: str) -> None:
    agent, other = Agent(), Agent()
    message = AgentMessage(content=content, extra_info=extra, formatted=extra, sender=sender, reasoning=sender)
    agent.memory.add(message)  # type: ignore[union-attr]
    state = agent.state_dict()
    other.load_state_dict(json.loads(json.dumps(state)))
    assert other.state_dict() == state
    assert other.memory.get(0)[0] == message  # type: ignore[union-attr]


@given(plain, plain, texts)
@some
def test_plain_data_comes_back_equal(content: Any, extra: Any, sender: str) -> None:
    check_round_trip(content, extra, sender)


class MadeUp:
    """Data from a seed, many times quicker than a search for a smallest example."""

    def __init__(self, seed: int, leaves: list[Callable[[random.Random], Any]], keys: list[str]) -> None:
        self.random = random.Random(seed)
        self.leaves = leaves
        self.keys = keys

    def value(self, depth: int = 0) -> Any:
        choice = self.random.random()
        if depth > 4 or choice < 0.5:
            return self.random.choice(self.leaves)(self.random)
        if choice < 0.72:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.key(): self.value(depth + 1) for _ in range(self.random.randrange(5))}

    def key(self) -> str:
        return self.random.choice(self.keys) if self.random.random() < 0.7 else made_up_text(self.random)


def made_up_text(source: random.Random) -> str:
    limit = source.choice([0x80, 0x3000, 0xE000, 0x110000])  # lone surrogates are among them
    text = "".join(chr(source.randrange(limit)) for _ in range(source.randrange(8)))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def test_ten_thousand_made_up_values_come_back_equal() -> None:
    made_up = MadeUp(
        3,
        [
            lambda source: None,
            lambda source: source.random() < 0.5,
            lambda source: source.randrange(-(2**70), 2**70),
            lambda source: source.choice([-1, 1]) * 10 ** source.randrange(4000),
            lambda source: source.uniform(-1e3, 1e3) * 10.0 ** source.randrange(-300, 300),
            made_up_text,
        ],
        ["content", "", "a", "type", "0"],
    )
    for _ in range(10_000):
        check_round_trip(made_up.value(), made_up.value(), made_up_text(made_up.random))


@given(anything)
@some
def test_anything_else_is_refused_by_name_or_comes_back_equal(content: Any) -> None:
    agent, other = Agent(), Agent()
    agent.memory.add(AgentMessage(content=content))  # type: ignore[union-attr]
    try:
        state = agent.state_dict()
    except StateError as error:
        complaint = str(error)
        assert "message 0.content" in complaint  # it may raise, or else the rest must hold
        return
    other.load_state_dict(json.loads(json.dumps(state, allow_nan=False)))
    assert other.state_dict() == state


def test_ten_megabytes_come_back_equal(tmp_path: Path) -> None:
    agent = make_agent(*["日本\U0001f600\n" * 20_000] * 40)
    agent.save(tmp_path / "big.json")
    other = Agent()
    other.load(tmp_path / "big.json")
    assert other.state_dict("all") == agent.state_dict("all")


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        {1},
        b"x",
        object(),
        "\ud83d" + "\ude00",
        10**5000,
        {"a": {2: 3}},
        {10**5000: 1},
        1j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_without_json_form_are_refused_with_place_and_cure(value: Any) -> None:
    agent = make_agent("ok")
    agent.memory.add(AgentMessage(content={"list": [0, value]}))  # type: ignore[union-attr]
    with pytest.raises(StateError, match=r"memory: .*message 1\.content\['list'\]\[1\]"):
        agent.state_dict()


def test_what_is_nested_too_deep_is_refused_when_written(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(600):
        deep = [deep]
    agent = make_agent()
    agent.memory.open(0).append(AgentMessage(content=deep))  # type: ignore[union-attr]
    with pytest.raises(StateError, match="nested too deeply"):
        agent.save(tmp_path / "deep.json")


# Hostile states


HOSTILE: list[Any] = [
    {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": "true"}},
    {"type": "os.system", "command": "true"},
    {"type": "lagentlike.memory.Memory"},
    {"__reduce__": ["os.system", ["true"]]},
    {"__class__": "subprocess.Popen", "args": ["true"]},
    {"py/object": "os.system"},
    {"!!python/object/apply:os.system": ["true"]},
    {"__init__": {"__globals__": {}}},
    {"model_config": {"extra": "allow"}, "content": "x"},
    {"content": "x", "__dict__": {"sender": 1}},
    {"content": "x", "clone": "y"},
    {"content": "x", "model_fields_set": []},
    {"content": "x", "sender": ["a"]},
    {"content": "x", "sender": None},
    {"content": "x", "stream_state": "END"},
    {"content": "x", "stream_state": [0]},
    {"content": "x", "tool_calls": "x"},
    {"content": "x", "tool_calls": [{}]},
    {"content": "x", "tool_calls": [{"name": 5, "arguments": {}}]},
    {"content": "x", "tool_results": [{"success": "maybe"}]},
    {"content": "x", "usage": []},
    {"content": "x", "usage": {"requests": "many"}},
    {"content": "x", "tokens": {"ids": ["a"]}},
    {"content": "x", "tokens": {}},
    {"sender": "no content"},
    {},
    [],
    None,
    0,
    "just a text",
    True,
    1e999,
    [["content", "x"]],
    {"content": {"args": {}, "url": {}, "type": 5, "result": "x", "errmsg": [], "state": 99, "thought": 1, "valid": 9}},
    {"content": "{0.__class__.__mro__}"},
    {"content": "x", "": ""},
    {"content": "x", "content ": "y"},
]
VALUES: list[Any] = ["memory", 5, None, {}, {"0": {}}, [[]], [None], {"type": "builtins.list"}, {"content": "x"}, True]
KEYS = [
    "__class__",
    "__dict__",
    "llm",
    "memory.memory_map",
    "_children",
    "..memory",
    "memory\x00",
    "",
    "__init__.memory",
]

WATCHED = (
    "import",
    "exec",
    "compile",
    "open",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "pickle.find_class",
)
_seen: list[str] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _seen is not None and event in WATCHED and threading.current_thread() is threading.main_thread():
        _seen.append(f"{event} {args[:1]}")


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fail when anything in the block imports, executes, opens a file or starts a process."""
    global _seen
    if not getattr(sys, "_lagentlike_watch", False):
        sys.addaudithook(_watch)
        sys._lagentlike_watch = True  # type: ignore[attr-defined]
    _seen = []
    try:
        yield
    finally:
        seen, _seen = _seen, None
    assert seen == []


def test_the_watch_sees_what_it_should() -> None:
    with pytest.raises(AssertionError, match="open"), nothing_runs():
        open(os.devnull).close()


def load_both_ways(agent: Module, state: Any) -> None:
    """Try it as a session's state and as that of all; it is taken whole, or refused and nothing changed."""
    for session_id, given_ in ((0, state), ("all", {"version": 1, "sessions": [{"session_id": 0, "state": state}]})):
        before = agent.state_dict("all")
        try:
            agent.load_state_dict(given_, session_id)
        except StateError:
            assert agent.state_dict("all") == before
        else:
            agent.load_state_dict(before, "all")


def hostile_states() -> list[Any]:
    states: list[Any] = [{"memory": [item], "inner.memory": []} for item in HOSTILE]
    states += [{"memory": [{"content": "fine"}], "inner.memory": [item]} for item in HOSTILE]
    states += [{"memory": value, "inner.memory": []} for value in VALUES]
    states += [{"memory": [], "inner.memory": [], key: []} for key in KEYS]
    return [*states, *HOSTILE, *VALUES]


class Pair(Agent):
    def __init__(self) -> None:
        self.inner = Agent()


def test_hostile_states_run_nothing_and_change_nothing_in_part() -> None:
    agent = Pair()
    fill(agent, 0, "other")
    states = hostile_states()
    assert len(states) >= 60
    load_both_ways(agent, states[0])
    Memory.parse([{"content": to_plain(ActionReturn())}])  # validators are built when they are first used
    with nothing_runs():
        for state in states:
            load_both_ways(agent, state)


def test_ten_thousand_made_up_states_run_nothing_and_change_nothing_in_part() -> None:
    words = ["content", "sender", "memory", "type", "os.system", "__class__", "lc", "user", "", "0", "builtins.exec"]
    made_up = MadeUp(
        4,
        [
            lambda source: None,
            lambda source: source.random() < 0.5,
            lambda source: source.randrange(-3, 10),
            lambda source: source.choice([0.0, -1.5, math.nan, math.inf, 1e300]),
            lambda source: source.choice(words),
            made_up_text,
        ],
        [*AgentMessage.model_fields, "__class__", "__reduce__", "lc", "kwargs", "name", "arguments", "ids", "success"],
    )

    def item() -> Any:
        return {"content": made_up.value(), **{made_up.key(): made_up.value() for _ in range(2)}}

    def state() -> Any:
        if made_up.random.random() < 0.2:
            return made_up.value()
        return {"memory": [item() for _ in range(made_up.random.randrange(3))], "inner.memory": [item()]}

    agent = Pair()
    fill(agent)
    load_both_ways(agent, {})
    made = [state() for _ in range(10_000)]
    with nothing_runs():
        for one in made:
            load_both_ways(agent, one)


def test_a_state_of_a_hundred_thousand_levels_is_refused() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    agent = make_agent("kept")
    for state in ({"memory": [{"content": deep}]}, {"memory": deep}, {"memory": [deep]}):
        with pytest.raises(StateError):
            agent.load_state_dict(state)
    with pytest.raises(StateError):
        agent.load_state_dict({"version": 1, "sessions": [{"session_id": deep, "state": {}}]}, "all")
    assert agent.state_dict()["memory"][0]["content"] == "kept"
    while isinstance(deep, list):  # taken apart level by level: freeing it at once recurses
        deep = deep[0]


# Forgetting


def test_reset_forgets_one_session_of_one_unit() -> None:
    module = Pair()
    fill(module, 0, 1)
    module.reset(0)
    assert [len(module.state_dict(0)[key]) for key in ("memory", "inner.memory")] == [0, 2]
    assert [len(module.state_dict(1)[key]) for key in ("memory", "inner.memory")] == [1, 2]


def test_reset_reaches_down_by_path_or_recursively() -> None:
    module = Pair()
    fill(module, 0, 1)
    module.reset(0, keypath="inner")
    assert [len(module.state_dict(0)[key]) for key in ("memory", "inner.memory")] == [1, 0]
    module.reset("all", recursive=True)
    assert module.session_ids() == []
    with pytest.raises(AttributeError, match="has no child 'nobody'"):
        module.reset(0, keypath="nobody")
    with pytest.raises(InvalidArgument, match="session_id="):
        module.reset(None)


def test_a_message_with_fields_of_its_own_is_refused_where_they_would_be_lost() -> None:
    class Scored(AgentMessage):
        score: float = 0.5

    class Named(AgentMessage):
        """Has no field more."""

        @cached_property
        def words(self) -> list[str]:
            return str(self.content).split()

    agent: Any = Agent(ScriptedLLM(["ok", "ok"]))
    agent(Named(content="x"))
    assert agent.memory.get(0)[0].words == ["x"]
    assert agent.state_dict()["memory"][0]["content"] == "x"
    agent(Scored(content="x"))
    with pytest.raises(StateError, match=r"memory: message 2 is a Scored, whose own fields \['score'\] would be lost"):
        agent.state_dict()
