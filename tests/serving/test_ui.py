"""What the page of an agent is told, over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from lagentlike.actions import calculator, tool
from lagentlike.agents import (
    Agent,
    AsyncAgent,
    AsyncReAct,
    AsyncSequential,
    AsyncStreamingAgent,
    AsyncStreamingAIAgent,
    AsyncStreamingReAct,
    ReAct,
    StreamingAgent,
    StreamingReAct,
)
from lagentlike.errors import InvalidArgument
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.memory import SessionValue
from lagentlike.module import AsyncModule, AsyncStreamingModule
from lagentlike.schema import ToolCall
from lagentlike.serving import AgentServer, AsyncHTTPAgentClient
from lagentlike.serving.ui import launch, look, spans, TraceViewer, UIServer
from lagentlike.serving.ui.feed import Feed
from lagentlike.tracing import JSONLTracer

from .serving import an_agent, echo, until

CALL = [ToolCall("calculator", {"expression": "12 * 7"}, id="call-1"), "It is 84."]


class Asking:
    """The page, without a browser: it asks, and hears events."""

    def __init__(self, server: UIServer | TraceViewer, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http
        self.headers = {"Authorization": f"Bearer {server.page_url.partition('=')[2]}"}

    async def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        headers = more.pop("headers", self.headers)
        async with self.http.request(method, path, json=body, headers=headers, **more) as response:
            return response.status, json.loads(await response.read())

    async def events(self, place: str, until_type: str = "turn") -> list[tuple[dict[str, Any], str]]:
        """The events after a place up to one of a type, each with its place."""
        heard: list[tuple[dict[str, Any], str]] = []
        async with self.http.get("/ui/events", headers={**self.headers, "Last-Event-ID": place}) as response:
            assert response.status == 200
            fields: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "id" in fields:
                    heard.append((json.loads(fields["data"]), fields["id"]))
                    fields = {}
                    if heard[-1][0]["type"] == until_type:
                        return heard
        raise AssertionError("the stream ended")

    async def place(self) -> str:
        return str((await self("GET", "/ui/spans?session=-"))[1]["place"])

    async def say(self, message: Any, session: str = "ann") -> list[dict[str, Any]]:
        """Make a turn; the events that it came with."""
        place = await self.place()
        status, answer = await self("POST", f"/ui/sessions/{key(session)}/turns", {"message": message})
        assert status == 202, answer
        return [event for event, _ in await self.events(place)]

    async def conversation(self, session: Any = "ann") -> list[tuple[str, str]]:
        """Who said what in a session."""
        told = (await self("GET", f"/ui/sessions/{key(session)}"))[1]
        return [(item["message"]["sender"], item["message"]["text"]) for item in told["messages"]]


def key(session: Any) -> str:
    return quote(json.dumps(session), safe="")


@asynccontextmanager
async def shown(agent: Any = None, **options: Any) -> AsyncIterator[Asking]:
    async with (
        UIServer(an_agent() if agent is None else agent, **options) as server,
        aiohttp.ClientSession(server.address) as http,
    ):
        yield Asking(server, http)


async def test_the_page_needs_no_token_and_all_else_does() -> None:
    async with shown() as ask:
        async with ask.http.get("/") as response:
            assert response.status == 200
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert "unsafe" not in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "Access-Control-Allow-Origin" not in response.headers
            page = await response.text()
        for path in ("/ui/app.js", "/ui/style.css", "/ui/icon.svg"):
            assert path == "/ui/icon.svg" or path in page
            async with ask.http.get(path) as response:
                assert response.status == 200
        for path in ("/ui/agent", "/ui/sessions", "/ui/spans", "/ui/events", "/ui/server.py"):
            assert (await ask("GET", path, headers={}))[0] == 401
        assert (await ask("GET", "/ui/agent"))[0] == 200
        assert (await ask("GET", "/ui/server.py"))[0] == 404
        assert (await ask("GET", "/ui/agent", headers={**ask.headers, "Host": "evil.example"}))[0] == 403
        assert (await ask("GET", "/ui/agent", headers={**ask.headers, "Origin": "http://evil.example"}))[0] == 403


@pytest.mark.parametrize("kind", [Agent, AsyncAgent, StreamingAgent, AsyncStreamingAgent])
async def test_agents_of_every_colour_are_watched(kind: type[Agent]) -> None:
    script = AsyncScriptedLLM(echo) if kind.colour.is_async else ScriptedLLM(echo)
    async with shown(kind(script)) as ask:
        events = await ask.say("one")
        kinds = [(event["type"], event["span"]["kind"]) for event in events if "span" in event]
        assert kinds == [("begin", "turn"), ("begin", "request"), ("end", "request"), ("end", "turn")]
        parts = "".join(event["text"] for event in events if event["type"] == "part")
        assert parts == ("heard one" if kind.colour.is_streaming else "")
        end = next(event["span"] for event in reversed(events) if event["type"] == "end")
        assert (end["status"], end["content"]["reply"]["content"]) == ("ok", "heard one")
        assert await ask.conversation() == [("user", "one"), (kind.__name__, "heard one")]


@pytest.mark.parametrize("kind", [ReAct, AsyncReAct, StreamingReAct, AsyncStreamingReAct])
async def test_tool_calls_are_told_with_arguments_results_and_times(kind: type[ReAct]) -> None:
    script = AsyncScriptedLLM(CALL) if kind.colour.is_async else ScriptedLLM(CALL)
    async with shown(kind(script, [calculator], name="counter")) as ask:
        events = await ask.say("What is 12 * 7?")
        (tool,) = [event["span"] for event in events if event["type"] == "end" and event["span"]["kind"] == "tool"]
        assert (tool["name"], tool["call_id"]) == ("calculator", "call-1")
        assert tool["content"] == {"arguments": {"expression": "12 * 7"}, "result": "84"}
        assert tool["seconds"] > 0
        told = (await ask("GET", f"/ui/sessions/{key('ann')}"))[1]["messages"]
        assert [item["message"]["text"] for item in told] == ["What is 12 * 7?", "", "84", "It is 84."]
        assert [item["point"] for item in told] == [1, None, None, 2]
        assert told[1]["message"]["tool_calls"][0]["name"] == "calculator"


async def test_a_workflow_tells_of_all_its_units() -> None:
    team = AsyncSequential(an_agent(["draft"], name="writer"), an_agent(["fine"], name="critic"))
    async with shown(team) as ask:
        events = await ask.say("Write")
        turns = [
            event["span"]["path"] for event in events if event["type"] == "begin" and event["span"]["kind"] == "turn"
        ]
        assert turns == ["", "0", "1"]
        assert await ask.conversation() == [("user", "Write"), ("critic", "fine")]
        memory = (await ask("GET", f"/ui/sessions/{key('ann')}/memory?path=0"))[1]
        assert [message["text"] for message in memory["messages"]] == ["Write", "draft"]
        assert (await ask("GET", f"/ui/sessions/{key('ann')}/memory?path=2"))[0] == 404
        units = (await ask("GET", "/ui/agent"))[1]["units"]
        assert [(unit["path"], unit["model"]) for unit in units] == [("", None), ("0", "scripted"), ("1", "scripted")]


class Counting(AsyncStreamingModule):
    """A unit without a model or a memory, which counts its turns."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = SessionValue(int)

    async def forward(self, *message: Any, session_id: Any = 0, **kwargs: Any) -> AsyncIterator[str]:
        self.counted[session_id] += 1
        yield "turn "
        yield f"turn {self.counted[session_id]}"


async def test_what_a_unit_of_ones_own_gives_out_is_heard_without_a_model() -> None:
    async with shown(Counting()) as ask:
        events = await ask.say("Go")
        assert [event["text"] for event in events if event["type"] == "part"] == ["turn ", "1"]
        state = (await ask("GET", f"/ui/sessions/{key('ann')}/memory?path="))[1]
        assert (state["messages"], state["states"]) == ([], {"counted": 1})


async def test_an_error_is_told_and_leaves_the_session_as_it_was() -> None:
    async with shown(an_agent(["fine", RuntimeError("the model is ill")])) as ask:
        await ask.say("one")
        *_, end, turn = [event for event in await ask.say("two") if event["type"] in ("end", "turn")]
        assert (end["span"]["status"], end["span"]["error"]["message"]) == ("error", "the model is ill")
        assert (turn["error"]["message"], turn["point"]) == ("the model is ill", 2)
        assert await ask.conversation() == [("user", "one"), ("AsyncAgent", "fine")]


class Slow(AsyncModule):
    """A unit whose turns end when they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.agent = an_agent()

    async def forward(self, *message: Any, session_id: Any = 0, **kwargs: Any) -> Any:
        reply = await self.agent(*message, session_id=session_id)
        if message[0].content == "Wait":
            self.begun.set()
            await asyncio.Event().wait()
        return reply


async def test_a_turn_goes_on_without_the_page_until_it_is_stopped() -> None:
    agent = Slow()
    async with shown(agent) as ask:
        place = await ask.place()
        assert (await ask("POST", f"/ui/sessions/{key('ann')}/turns", {"message": "Wait"}))[0] == 202
        async with asyncio.timeout(30):
            await agent.begun.wait()
        assert (await ask("POST", f"/ui/sessions/{key('ann')}/turns", {"message": "Me too"}))[0] == 409
        (session,) = (await ask("GET", "/ui/sessions"))[1]["sessions"]
        assert (session["key"], session["running"]) == ('"ann"', True)
        told = (await ask("GET", f"/ui/spans?session={key('ann')}"))[1]["spans"]
        assert [span["status"] for span in told] == ["running", "ok", "ok"]
        assert (await ask("POST", f"/ui/sessions/{key('ann')}/stop", {}))[1] == {"stopping": True}
        turn = (await ask.events(place))[-1][0]
        assert turn["stopped"]
        assert agent.session_ids() == []
        assert (await ask("GET", "/ui/sessions"))[1]["sessions"] == []


async def test_a_fork_begins_where_the_session_was_before_any_of_its_turns() -> None:
    agent = AsyncSequential(an_agent(), an_agent())
    agent.counted = SessionValue(int)  # some state that is no memory
    agent.register_forward_pre_hook(count, with_kwargs=True)
    async with shown(agent) as ask:
        for text in ("one", "two", "three"):
            await ask.say(text)
        told = (await ask("GET", f"/ui/sessions/{key('ann')}"))[1]
        assert told["points"] == [2, 4]
        for point, name, expected in ((2, "first", 1), (4, "second", 2), (6, "third", 3), (None, "end", 3)):
            body = {"name": name, "point": point}
            assert await ask("POST", f"/ui/sessions/{key('ann')}/fork", body) == (200, {"session": json.dumps(name)})
            assert len(await ask.conversation(name)) == 2 * expected
            assert agent.counted[name] == expected
            points = (await ask("GET", f"/ui/sessions/{key(name)}"))[1]["points"]
            assert points == [place for place in (2, 4) if place < 2 * expected]
        await ask.say("four", "first")
        assert [text for _, text in await ask.conversation("first")][2] == "four"
        assert len(await ask.conversation()) == 6
        for point, name, status in ((3, "odd", 409), (2, "first", 409), (2, "a/b", 400)):
            assert (await ask("POST", f"/ui/sessions/{key('ann')}/fork", {"name": name, "point": point}))[0] == status
        sessions = {one["key"]: one for one in (await ask("GET", "/ui/sessions"))[1]["sessions"]}
        assert sessions['"second"']["origin"] == '"ann"'
        assert set(sessions) == {'"ann"', '"first"', '"second"', '"third"', '"end"'}
        await ask("DELETE", f"/ui/sessions/{key('ann')}")
        assert agent.session_ids() == ["first", "second", "third", "end"]


def count(unit: Any, messages: Any, kwargs: dict[str, Any]) -> None:
    unit.counted[kwargs["session_id"]] += 1


async def test_sessions_of_other_code_are_seen_and_forked_but_not_written() -> None:
    agent = an_agent()
    async with shown(agent) as ask:
        place = await ask.place()
        await agent("one", session_id=7)
        begin = (await ask.events(place, "begin"))[0][0]
        assert (begin["span"]["session"], begin["span"]["content"]["messages"]) == ("7", ["one"])
        await agent("hidden", session_id="bob")
        sessions = (await ask("GET", "/ui/sessions"))[1]["sessions"]
        assert [(one["key"], one["own"], one["title"]) for one in sessions] == [
            ("7", False, "one"),
            ('"bob"', False, "hidden"),
        ]
        assert await ask.conversation("bob") == [("user", "hidden"), ("AsyncAgent", "heard hidden")]
        assert (await ask("POST", f"/ui/sessions/{key('bob')}/turns", {"message": "Hi"}))[0] == 409
        assert (await ask("DELETE", f"/ui/sessions/{key('bob')}"))[0] == 409
        assert (await ask("POST", f"/ui/sessions/{key(7)}/turns", {"message": "Hi"}))[0] == 400
        assert (await ask("POST", f"/ui/sessions/{key(7)}/fork", {"name": "mine"}))[0] == 200
        await ask.say("two", "mine")
        assert (await ask.conversation("mine"))[-1][1] == "heard one, two"
        assert agent.session_ids()[:2] == [7, "bob"]


async def test_other_agents_of_the_process_are_not_heard() -> None:
    async with shown() as ask:
        place = await ask.place()
        await an_agent()("elsewhere", session_id="ann")
        assert await ask.place() == place


async def test_an_agent_inside_another_one_is_seen_as_itself() -> None:
    inner = AsyncSequential(an_agent(), an_agent())
    async with shown(inner) as ask:
        await AsyncSequential(an_agent(), inner)("one", session_id="ann")
        told = (await ask("GET", f"/ui/spans?session={key('ann')}"))[1]["spans"]
        assert [span["path"] for span in told if span["kind"] == "turn"] == ["", "0", "1"]
        assert [span["parent_id"] for span in told].count(None) == 1


def careful(name: str = "careful") -> AsyncStreamingAIAgent:
    calls = [ToolCall("calculator", {"expression": "1 + 1"}, id="sum"), ToolCall("erase", {"path": "all"}, id="erase")]
    llm = AsyncScriptedLLM([calls, "It is done.", "Hello!"])
    return AsyncStreamingAIAgent(llm, enabled_toolsets=[], tools=[calculator, erase], name=name)


@tool(needs_approval=True)
def erase(path: str) -> str:
    """Erase a file."""
    return f"{path} is gone"


async def test_a_run_that_waits_for_an_approval_goes_on_from_the_page() -> None:
    async with shown(careful()) as ask:
        await ask.say("Erase all")
        told = (await ask("GET", f"/ui/sessions/{key('ann')}"))[1]["messages"]
        assert [item["message"]["text"] for item in told] == ["Erase all", ""]
        assert [call["name"] for call in told[1]["message"]["tool_calls"]] == ["calculator", "erase"]
        assert told[1]["message"]["extra_info"]["run"]["pending"][0]["id"] == "erase"
        decision = {"type": "approval", "content": {"call_id": "erase", "approved": True, "reason": ""}}
        await ask.say(decision)
        await ask.say("Hi")
        told = (await ask("GET", f"/ui/sessions/{key('ann')}"))[1]["messages"]
        assert [item["message"].get("type") for item in told] == [None, None, "approval", None, None, None, None]
        texts = [item["message"]["text"] for item in told]
        assert texts[3:] == ["2\nall is gone", "It is done.", "Hi", "Hello!"]
        assert [item["point"] for item in told] == [1, 2, 3, None, 4, 5, 6]


async def test_only_a_run_that_can_be_told_something_is() -> None:
    words = {"words": "Quick!"}
    async with shown() as ask:
        assert (await ask("GET", "/ui/agent"))[1]["steers"] is False
        assert (await ask("POST", f"/ui/sessions/{key('ann')}/steer", words))[0] == 409
    async with shown(careful()) as ask:
        assert (await ask("GET", "/ui/agent"))[1]["steers"] is True
        assert await ask("POST", f"/ui/sessions/{key('ann')}/steer", words) == (200, {"told": False})
        assert (await ask("POST", f"/ui/sessions/{key('ann')}/steer", {"words": ""}))[0] == 400


async def test_an_agent_elsewhere_is_shown_as_one_that_is_here() -> None:
    far = AsyncReAct(AsyncScriptedLLM(CALL), [calculator], name="counter")
    async with AgentServer(far, port=0) as server, shown(AsyncHTTPAgentClient(url=server.url)) as ask:
        await ask.say("What is 12 * 7?")
        told = (await ask("GET", f"/ui/sessions/{key('ann')}"))[1]["messages"]
        assert [item["message"]["text"] for item in told] == ["What is 12 * 7?", "", "84", "It is 84."]
        assert (await ask("POST", f"/ui/sessions/{key('ann')}/fork", {"name": "other"}))[0] == 200
        assert (await ask.conversation("other"))[-1][1] == "It is 84."
        memory = (await ask("GET", f"/ui/sessions/{key('ann')}/memory?path="))[1]
        assert [message["text"] for message in memory["messages"]] == ["What is 12 * 7?", "It is 84."]


async def test_sessions_in_a_store_are_there_after_a_restart(tmp_path: Path) -> None:
    store = tmp_path / "sessions.db"
    async with shown(store=store) as ask:
        await ask.say("one")
    async with shown(store=store) as ask:
        (session,) = (await ask("GET", "/ui/sessions"))[1]["sessions"]
        assert session["own"]
        assert await ask.conversation() == [("user", "one"), ("AsyncAgent", "heard one")]
        await ask.say("two")
        await ask("POST", f"/ui/sessions/{key('ann')}/fork", {"name": "other", "point": 2})
    async with shown(store=store) as ask:
        assert (await ask.conversation("other"))[-1][1] == "heard one"
        assert (await ask.conversation())[-1][1] == "heard one, two"


async def test_a_reader_goes_on_where_it_stopped() -> None:
    async with shown() as ask:
        beginning = await ask.place()
        await ask.say("one")
        await ask.say("two")
        everything = await ask.events(beginning)
        everything += await ask.events(everything[-1][1])
        for at in range(len(everything) - 1):
            again = await ask.events(everything[at][1])
            assert again == everything[at + 1 : at + 1 + len(again)]


async def test_a_place_in_another_line_is_answered_by_a_reset() -> None:
    async with shown() as ask:
        await ask.say("one")
        for place in ("", "0.1", "nonsense", f"{(await ask.place()).partition('.')[0]}.999", "²"):
            ((event, at),) = await ask.events(quote(place), "reset")
            assert (event, at) == ({"type": "reset"}, await ask.place())


async def test_the_line_is_bounded_however_slow_its_readers_are() -> None:
    feed = Feed(max_events=10, max_bytes=1000)
    reader = feed.since(feed.place)
    feed.publish({"type": "first"})
    assert b"first" in await anext(reader)
    for number in range(1000):
        feed.publish({"type": "event", "number": number})
    assert len(feed._line) <= 10
    assert b"reset" in await anext(reader)
    feed.publish({"type": "big", "text": "x" * 2000})
    assert not feed._line
    assert b"reset" in await anext(reader)
    feed.close()
    assert [event async for event in reader] == []


async def test_readers_that_are_gone_leave_nothing() -> None:
    async with shown() as ask:
        for _ in range(5):
            await ask.events("", "reset")
        await until(lambda: not ask.server.feed.readers and len(ask.server._busy) == 0)


async def test_spans_are_remembered_up_to_a_number() -> None:
    async with shown(max_spans=10) as ask:
        for number in range(8):
            await ask.say(str(number), f"s{number}")
        told = (await ask("GET", "/ui/spans"))[1]["spans"]
        assert len(told) == 10
        assert (await ask("GET", f"/ui/spans/{told[-1]['span_id']}"))[0] == 200
        assert (await ask("GET", "/ui/spans/0123456789abcdef"))[0] == 404


async def test_ids_and_values_may_be_of_any_kind() -> None:
    call = ToolCall("calculator", {"expression": float("nan"), "more": [float("inf"), 2**70, "\ud800"]}, id="odd")
    agent = AsyncReAct(
        AsyncScriptedLLM(lambda messages, params: call if messages[-1]["role"] == "user" else "Odd."), [calculator]
    )
    async with shown(agent) as ask:
        for session in (0, -1, ("a/b", 1), "ünï {c} ✓", "%2F", "a b"):
            place = await ask.place()
            await agent("Go", session_id=session)
            events = [event for event, _ in await ask.events(place, "end")]
            assert events[0]["span"]["session"] == json.dumps(session)
            assert [text for _, text in await ask.conversation(session)][-1] == "Odd."
            assert len((await ask("GET", f"/ui/spans?session={key(session)}"))[1]["spans"]) >= 4
        assert len((await ask("GET", "/ui/sessions"))[1]["sessions"]) == 6


async def test_a_parameter_that_json_cannot_hold_is_told_as_a_text() -> None:
    agent = AsyncAgent(AsyncScriptedLLM(["Yes."]))
    async with shown(agent) as ask:
        place = await ask.place()
        await agent("Go", session_id="ann", temperature=float("nan"))
        spans = [event["span"] for event, _ in await ask.events(place, "end") if "span" in event]
        assert [span["temperature"] for span in spans if span["kind"] == "request"] == ["nan", "nan"]


async def test_what_is_told_of_a_turn_does_not_grow_with_the_conversation() -> None:
    async with shown(an_agent(lambda messages, params: "ok")) as ask:
        sizes = [sum(len(json.dumps(event)) for event in await ask.say("x" * 100)) for _ in range(30)]
        assert max(sizes[1:]) < 1.1 * min(sizes[1:])
        told = (await ask("GET", f"/ui/spans?session={key('ann')}"))[1]["spans"]
        request = [span for span in told if span["kind"] == "request"][-1]
        assert "messages" not in request["content"]
        whole = (await ask("GET", f"/ui/spans/{request['span_id']}"))[1]
        assert len(whole["content"]["messages"]) == 59


async def test_of_what_models_were_sent_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "_MOST_MESSAGES", 20)
    async with shown() as ask:
        for number in range(8):  # they send 1, 3, 5 … messages
            await ask.say(str(number))
        told = (await ask("GET", f"/ui/spans?session={key('ann')}"))[1]["spans"]
        wholes = [(await ask("GET", f"/ui/spans/{one['span_id']}"))[1] for one in told if one["kind"] == "request"]
        assert [len(whole["content"].get("messages", ())) for whole in wholes] == [0] * 7 + [15]
        assert all(whole["content"]["answer"] for whole in wholes)


async def test_a_long_conversation_comes_in_pieces() -> None:
    agent = an_agent()
    agent.memory.add([f"message {number}" for number in range(250)], "ann")
    async with shown(agent) as ask:
        last = (await ask("GET", f"/ui/sessions/{key('ann')}"))[1]
        before = (await ask("GET", f"/ui/sessions/{key('ann')}?before={last['start']}"))[1]
        assert (last["start"], before["start"]) == (150, 50)
        assert before["messages"][-1]["message"]["text"] == "message 149"


@pytest.mark.parametrize("path", ["/ui/sessions/nonsense", "/ui/sessions/%7B%7D", "/ui/sessions/%22all%22"])
async def test_what_is_no_session_is_refused(path: str) -> None:
    async with shown() as ask:
        assert (await ask("GET", path))[0] in (400, 404)


async def test_a_trace_is_shown_without_its_agent(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with JSONLTracer(path, content=True):
        await AsyncReAct(AsyncScriptedLLM(CALL), [calculator], name="counter")("What is 12 * 7?", session_id="ann")
    viewer = TraceViewer(path)
    async with viewer, aiohttp.ClientSession(viewer.address) as http:
        ask = Asking(viewer, http)
        agent = (await ask("GET", "/ui/agent"))[1]
        assert (agent["name"], agent["live"]) == ("trace.jsonl", False)
        units = {unit["path"]: unit for unit in agent["units"]}
        assert set(units) == {"", "agent", "actions", "actions.calculator"}
        assert units["agent"]["model"] == "scripted"
        (session,) = (await ask("GET", "/ui/sessions"))[1]["sessions"]
        assert (session["key"], session["title"]) == ('"ann"', "What is 12 * 7?")
        told = (await ask("GET", f"/ui/spans?session={key('ann')}"))[1]["spans"]
        assert [span["parent_id"] for span in told].count(None) == 1
        assert told[0]["content"]["reply"]["content"] == "It is 84."


def test_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        TraceViewer(tmp_path / "nothing.jsonl")


def test_a_program_launches_the_page_and_goes_on() -> None:
    agent = Agent(ScriptedLLM(echo))
    with launch(agent, open_browser=False) as ui:
        assert agent("one").content == "heard one"
        told = asyncio.run(_spans(ui.url))
        assert [(span["kind"], span["session"]) for span in told] == [("turn", "0"), ("request", "0")]
        assert "#" not in repr(ui)
    ui.close()
    assert "closed" in repr(ui)


async def _spans(url: str) -> Any:
    address, _, token = url.partition("/#token=")
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(address, headers=headers) as http, http.get("/ui/spans") as response:
        return (await response.json())["spans"]


def test_all_texts_are_readable_in_light_and_dark() -> None:
    css = (Path(look.__file__).parent / "static" / "style.css").read_text()
    themes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(themes) == 2
    for theme in themes:
        for text, grounds in READ_ON.items():
            for ground in grounds.split():
                assert _contrast(theme[text], theme[ground]) >= 4.5, (text, ground, theme)  # WCAG 2, level AA


READ_ON = {
    "ink": "ground panel raised accent-soft",
    "soft": "ground panel raised accent-soft",
    "accent-ink": "accent",
    "accent": "accent-soft",
    "request": "panel raised",
    "tool": "panel raised accent-soft",
    "bad": "panel raised bad-soft",
}


def _contrast(one: str, other: str) -> float:
    """By https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio."""
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
