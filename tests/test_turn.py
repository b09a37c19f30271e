"""A turn: the order of things around `forward`, what leaks where, and that a turn stands whole or not at all."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from contextvars import Context, copy_context
from typing import Any

import pytest

from lagentlike.actions import tool
from lagentlike.agents import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent, StreamingReAct
from lagentlike.agents.workflow import AsyncStreamingWorkflow, AsyncWorkflow, Call, StreamingWorkflow, Workflow
from lagentlike.colour import Colour
from lagentlike.concurrency import in_thread
from lagentlike.errors import ColourError, InvalidArgument, SessionBusy
from lagentlike.hooks import Hook
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.memory import Memory
from lagentlike.module import AsyncModule, Module
from lagentlike.schema import AgentMessage, AgentStatusCode, Completion, ToolCall, Usage

from .colours import parts_of

Answer = Callable[..., Any]
AGENTS: dict[Colour, type[Agent]] = {
    Colour.BLOCKING: Agent,
    Colour.ASYNC: AsyncAgent,
    Colour.STREAMING: StreamingAgent,
    Colour.ASYNC_STREAMING: AsyncStreamingAgent,
}
WORKFLOWS: dict[Colour, type[Workflow]] = {
    Colour.BLOCKING: Workflow,
    Colour.ASYNC: AsyncWorkflow,
    Colour.STREAMING: StreamingWorkflow,
    Colour.ASYNC_STREAMING: AsyncStreamingWorkflow,
}
every_colour = pytest.mark.parametrize("colour", AGENTS, ids=lambda colour: colour.name.lower())
streaming_colours = pytest.mark.parametrize(
    "colour", [Colour.STREAMING, Colour.ASYNC_STREAMING], ids=lambda colour: colour.name.lower()
)


def unit(colour: Colour, answer: Answer, **options: Any) -> Any:
    """An agent of a colour whose `forward` gives what `answer(*messages)` gives, streamed in two parts."""

    class Blocking(Agent):
        def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
            return answer(*message, **kwargs)

    class Async(AsyncAgent):
        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            return answer(*message, **kwargs)

    class Streaming(StreamingAgent):
        def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Iterator[Any]:
            yield "so f"
            yield answer(*message, **kwargs)

    class AsyncStreaming(AsyncStreamingAgent):
        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> AsyncIterator[Any]:
            yield "so f"
            await asyncio.sleep(0)
            yield answer(*message, **kwargs)

    for kind in (Blocking, Async, Streaming, AsyncStreaming):
        if kind.colour is colour:
            return kind(**{"name": "unit", **options})
    raise AssertionError(colour)


def echo(*message: AgentMessage, **kwargs: Any) -> str:
    return "echo " + " ".join(item.content for item in message)


def fail(*message: AgentMessage, **kwargs: Any) -> str:
    raise LookupError("no answer")


def ask(agent: Any, *message: Any, **kwargs: Any) -> AgentMessage:
    """The reply of an agent of whatever colour."""
    return parts_of(agent, *message, **kwargs)[-1]


def contents(agent: Any, session_id: Any = 0) -> list[Any]:
    return [message.content for message in agent.memory.get(session_id)]


# The order of things


class Recorder(Hook):
    """Writes down what happens when, and how much the memory holds then."""

    def __init__(self, log: list[Any], label: str) -> None:
        self.log = log
        self.label = label

    def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
        self.log.append(
            (self.label, "before", [m.content for m in messages], session_id, len(agent.memory.get(session_id)))
        )

    def after_agent(self, agent: Any, message: Any, session_id: Any) -> None:
        self.log.append((self.label, "after", message.content, session_id, len(agent.memory.get(session_id))))


@every_colour
def test_hooks_run_in_order_around_memory_and_forward(colour: Colour) -> None:
    log: list[Any] = []

    def answer(*message: AgentMessage) -> str:
        log.append("forward")
        return echo(*message)

    agent = unit(colour, answer, hooks=[Recorder(log, "one"), Recorder(log, "two")])
    ask(agent, "a", "b", session_id="s")
    assert log == [
        ("one", "before", ["a", "b"], "s", 0),
        ("two", "before", ["a", "b"], "s", 0),
        "forward",
        ("one", "after", "echo a b", "s", 3),
        ("two", "after", "echo a b", "s", 3),
    ]
    assert contents(agent, "s") == ["a", "b", "echo a b"]


@every_colour
def test_a_text_becomes_a_user_message_and_a_text_reply_the_units_own(colour: Colour) -> None:
    reply = ask(unit(colour, echo), "hi")
    assert (reply.sender, reply.content, reply.stream_state) == ("unit", "echo hi", AgentStatusCode.END)


@every_colour
def test_options_of_the_call_reach_forward(colour: Colour) -> None:
    agent = unit(colour, lambda *message, **kwargs: repr(kwargs))
    assert ask(agent, "hi", temperature=0.5).content == "{'temperature': 0.5}"


@every_colour
def test_streams_end_with_the_reply(colour: Colour) -> None:
    parts = parts_of(unit(colour, echo), "hi")
    expected = [("so f", 1), ("echo hi", 1), ("echo hi", 0)] if colour.is_streaming else [("echo hi", 0)]
    assert [(part.content, part.stream_state) for part in parts] == expected


@streaming_colours
def test_only_the_last_whole_message_of_a_stream_is_its_end(colour: Colour) -> None:
    done = AgentMessage(sender="inner", content="first done")
    agent = unit(colour, lambda *message: done)
    parts = parts_of(agent, "hi")
    assert [(part.content, part.stream_state) for part in parts] == [("so f", 1), ("first done", 0)]


# What leaks where: nothing


class Shouting(Hook):
    def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
        for message in messages:
            message.content = message.content.upper()

    def after_agent(self, agent: Any, message: Any, session_id: Any) -> None:
        message.content += "!"


@every_colour
def test_edits_in_place_count(colour: Colour) -> None:
    agent = unit(colour, echo, hooks=Shouting())
    assert ask(agent, "hi").content == "echo HI!"
    assert contents(agent) == ["HI", "echo HI"]


@every_colour
def test_edits_of_a_hook_do_not_reach_the_senders_copy(colour: Colour) -> None:
    mine = AgentMessage(content="hi", extra_info={"tags": ["a"]}, tool_calls=[ToolCall("add", {"a": 1})])

    class Editing(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
            messages[0].content = "changed"
            messages[0].extra_info["tags"].append("b")
            messages[0].tool_calls[0].arguments["a"] = 2

    ask(unit(colour, echo, hooks=Editing()), mine)
    assert mine == AgentMessage(content="hi", extra_info={"tags": ["a"]}, tool_calls=[ToolCall("add", {"a": 1})])


@every_colour
def test_edits_of_forward_do_not_reach_memory(colour: Colour) -> None:
    def answer(message: AgentMessage) -> AgentMessage:
        message.content = "eaten"
        message.extra_info["seen"] = True
        return AgentMessage(sender="unit", content="done")

    agent = unit(colour, answer)
    ask(agent, AgentMessage(content="hi", extra_info={}))
    assert [(m.content, m.extra_info) for m in agent.memory.get(0)] == [("hi", {}), ("done", None)]


@every_colour
def test_edits_of_the_caller_do_not_reach_memory(colour: Colour) -> None:
    agent = unit(colour, lambda message: AgentMessage(sender="unit", content={"a": [1]}, usage=Usage(1, 2, 3)))
    mine = AgentMessage(content=["hi"])
    for part in parts_of(agent, mine):
        if isinstance(part.content, dict):
            part.content["a"].append(2)
            part.usage.requests = 100
    mine.content.append("there")
    assert contents(agent) == [["hi"], {"a": [1]}]
    assert agent.memory.get(0)[1].usage == Usage(1, 2, 3)


@streaming_colours
def test_edits_of_streamed_parts_do_not_reach_the_reply(colour: Colour) -> None:
    agent = unit(colour, echo)

    async def consume() -> None:
        async with aclosing(agent("hi")) as stream:
            async for part in stream:
                part.content = "spoilt"

    if colour.is_async:
        asyncio.run(consume())
    else:
        for part in agent("hi"):
            part.content = "spoilt"
    assert contents(agent) == ["hi", "echo hi"]


@every_colour
def test_a_message_that_forward_keeps_is_not_the_one_the_caller_gets(colour: Colour) -> None:
    kept = AgentMessage(sender="unit", content={"n": 1})
    agent = unit(colour, lambda message: kept)
    ask(agent, "hi").content["n"] = 2
    assert kept.content == {"n": 1}


@every_colour
def test_two_hooks_returning_the_same_message_do_not_share_it(colour: Colour) -> None:
    kept = AgentMessage(content="from a hook")

    class Replacing(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> AgentMessage:
            return kept

    agent = unit(colour, echo, hooks=[Replacing(), Shouting()])
    assert ask(agent, "hi").content == "echo FROM A HOOK!"
    assert kept.content == "from a hook"


# What hooks return


@every_colour
@pytest.mark.parametrize(
    ("returned", "seen"),
    [
        (AgentMessage(content="one", sender="hook"), ["one"]),
        ("text", ["text"]),
        ([AgentMessage(content="a"), "b"], ["a", "b"]),
        ((AgentMessage(content="a"),), ["a"]),
        (None, ["hi", "there"]),
    ],
    ids=["a message", "a text", "a list", "a tuple", "nothing"],
)
def test_what_a_hook_returns_takes_the_messages_place(colour: Colour, returned: Any, seen: list[str]) -> None:
    class Replacing(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> Any:
            return returned

    agent = unit(colour, lambda *message: f"{len(message)} messages", hooks=Replacing())
    assert ask(agent, "hi", "there").content == f"{len(seen)} messages"
    assert contents(agent)[:-1] == seen


@every_colour
def test_what_a_hook_returns_takes_the_replys_place_for_the_caller_only(colour: Colour) -> None:
    class Replacing(Hook):
        def after_agent(self, agent: Any, message: Any, session_id: Any) -> Any:
            return "other"

    agent = unit(colour, echo, hooks=Replacing())
    assert ask(agent, "hi").content == "other"
    assert contents(agent) == ["hi", "echo hi"]


@every_colour
@pytest.mark.parametrize("returned", [5, [5], []], ids=["a number", "a list of numbers", "an empty list"])
def test_a_hook_that_returns_no_message_is_named_as_the_culprit(colour: Colour, returned: Any) -> None:
    class Wrong(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> Any:
            return returned

    agent = unit(colour, echo, hooks=Wrong())
    with pytest.raises(InvalidArgument, match=r"hook returned|call a unit"):
        ask(agent, "hi")
    assert contents(agent) == []


@every_colour
def test_function_hooks_work_as_torch_has_them(colour: Colour) -> None:
    agent = unit(colour, echo)
    agent.register_forward_pre_hook(lambda module, messages: "first " + messages[0].content)
    handle = agent.register_forward_hook(
        lambda module, messages, reply: f"{reply.content}, asked {messages[0].content}"
    )
    assert ask(agent, "hi").content == "echo first hi, asked first hi"
    handle.remove()
    assert ask(agent, "hi").content == "echo first hi"


@every_colour
def test_function_hooks_see_and_change_the_options(colour: Colour) -> None:
    seen = []
    agent = unit(colour, lambda *message, **kwargs: repr(kwargs))
    agent.register_forward_pre_hook(
        lambda module, messages, kwargs: (messages, {**kwargs, "top_k": 1}), with_kwargs=True
    )
    agent.register_forward_hook(lambda module, messages, kwargs, reply: seen.append(kwargs), with_kwargs=True)
    assert ask(agent, "hi", temperature=0).content == "{'temperature': 0, 'top_k': 1}"
    assert seen == [{"session_id": 0, "temperature": 0, "top_k": 1}]


@every_colour
def test_a_hook_cannot_move_a_turn_to_another_session(colour: Colour) -> None:
    agent = unit(colour, echo)
    agent.register_forward_pre_hook(lambda *given: (given[1], {**given[2], "session_id": 9}), with_kwargs=True)
    with pytest.raises(InvalidArgument, match="another session"):
        ask(agent, "hi")


def test_prepended_function_hooks_run_first_and_older_handles_go_on_working() -> None:
    agent = unit(Colour.BLOCKING, echo)
    later = agent.register_forward_pre_hook(lambda module, messages: messages[0].content + " later")
    first = agent.register_forward_pre_hook(lambda module, messages: messages[0].content + " first", prepend=True)
    assert agent("hi").content == "echo hi first later"
    later.remove()
    assert agent("hi").content == "echo hi first"
    first.remove()
    assert agent("hi").content == "echo hi"


# Async hooks


class AsyncShouting(Hook):
    """Awaits something that is there at once, so that it can be run without an event loop."""

    async def before_agent(self, agent: Any, messages: Any, session_id: Any) -> Any:
        return [message.content.upper() for message in messages]

    async def after_agent(self, agent: Any, message: Any, session_id: Any) -> None:
        message.content += "!"


class Waiting(Hook):
    def __init__(self, wait: Callable[[], Any], after: bool = False) -> None:
        self.wait = wait
        self.after = after

    async def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
        if not self.after:
            await self.wait()

    async def after_agent(self, agent: Any, message: Any, session_id: Any) -> None:
        if self.after:
            await self.wait()


@every_colour
def test_async_hooks_run_in_every_colour(colour: Colour) -> None:
    assert ask(unit(colour, echo, hooks=AsyncShouting()), "hi").content == "echo HI!"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("wait", [lambda: asyncio.sleep(0), lambda: asyncio.sleep(0.001)], ids=["yield", "timer"])
def test_async_hooks_may_wait_in_async_units(wait: Any, after: bool) -> None:
    for colour in (Colour.ASYNC, Colour.ASYNC_STREAMING):
        assert ask(unit(colour, echo, hooks=Waiting(wait, after)), "hi").content == "echo hi"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("wait", [lambda: asyncio.sleep(0), lambda: asyncio.sleep(0.001)], ids=["yield", "timer"])
@pytest.mark.parametrize("inside_a_loop", [False, True], ids=["plain script", "running loop"])
def test_an_async_hook_that_waits_in_a_blocking_unit_is_told_the_cure(
    wait: Any, after: bool, inside_a_loop: bool
) -> None:
    for colour in (Colour.BLOCKING, Colour.STREAMING):
        agent = unit(colour, echo, hooks=Waiting(wait, after))

        async def inside(agent: Any = agent) -> None:
            list(agent("hi")) if agent.colour.is_streaming else agent("hi")

        with pytest.raises(ColourError, match="use the async class"):
            asyncio.run(inside()) if inside_a_loop else ask(agent, "hi")
        assert contents(agent) == []
        assert agent.memory.open(0).turns.idle


def test_blocking_units_work_inside_a_running_loop() -> None:
    async def inside() -> AgentMessage:
        return Agent(ScriptedLLM(["Hello!"]))("hi")

    assert asyncio.run(inside()).content == "Hello!"


# A turn is atomic


@every_colour
def test_a_failed_forward_leaves_memory_as_it_was(colour: Colour) -> None:
    agent = unit(colour, echo)
    ask(agent, "before")
    saved = agent.state_dict("all")
    agent.register_hook(Shouting())
    failing = unit(colour, fail)
    failing.load_state_dict(saved, "all")
    with pytest.raises(LookupError):
        ask(failing, "hi")
    assert failing.state_dict("all") == saved
    assert failing.memory.get(0).turns.idle


@every_colour
@pytest.mark.parametrize(
    "error", [LookupError("x"), KeyboardInterrupt(), SystemExit(2), StopIteration(), GeneratorExit()]
)
def test_whatever_is_raised_takes_the_turn_back(colour: Colour, error: BaseException) -> None:
    def answer(*message: AgentMessage) -> str:
        raise error

    agent = unit(colour, answer)
    with pytest.raises((type(error), RuntimeError)):  # generators and coroutines turn StopIteration into RuntimeError
        ask(agent, "hi")
    assert contents(agent) == []
    assert agent.memory.open(0).turns.idle


@every_colour
@pytest.mark.parametrize("event", ["before_agent", "after_agent"])
def test_a_hook_that_raises_takes_the_turn_back(colour: Colour, event: str) -> None:
    class Failing(Hook):
        pass

    def raising(*given: Any) -> None:
        raise LookupError(event)

    setattr(Failing, event, raising)
    agent = unit(colour, echo, hooks=Failing())
    with pytest.raises(LookupError, match=event) as caught:
        ask(agent, "hi")
    assert contents(agent) == []
    made = [message.content for message in caught.value.produced]
    assert made == (["echo hi"] if event == "after_agent" else [])


@every_colour
@pytest.mark.parametrize("reply", [None, 5, ["a"]])
def test_a_forward_that_returns_no_message_is_named(colour: Colour, reply: Any) -> None:
    agent = unit(colour, lambda message: reply)
    with pytest.raises(InvalidArgument, match=r"forward=.*return an AgentMessage or a text"):
        ask(agent, "hi")
    assert contents(agent) == []


def tree(colour: Colour, then: Answer) -> Any:
    """A workflow of two agents that both answer before `then` is called."""

    class Two(WORKFLOWS[colour]):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="root")
            self.first = unit(colour, echo, name="first")
            self.second = unit(colour, echo, name="second")

        def steps(self, *message: AgentMessage, session_id: Any, **kwargs: Any) -> Any:
            reply = yield Call(self.first, message[0])
            reply = yield Call(self.second, reply)
            then(reply)
            return reply

    return Two()


@every_colour
def test_a_failure_takes_back_the_turns_of_the_whole_tree(colour: Colour) -> None:
    root = tree(colour, lambda reply: None)
    ask(root, "before")
    saved = root.state_dict()
    failing = tree(colour, fail)
    failing.load_state_dict(saved)
    with pytest.raises(LookupError) as caught:
        ask(failing, "hi")
    assert failing.state_dict() == saved
    assert [message.content for message in caught.value.produced][:4] == [
        "hi", "echo hi", "echo hi", "echo echo hi"
    ]  # fmt: skip


@every_colour
def test_what_a_failed_turn_produced_leaves_out_what_was_there_before(colour: Colour) -> None:
    calls = []

    def fail_second(reply: AgentMessage) -> None:
        calls.append(reply)
        if len(calls) > 1:
            raise LookupError

    root = tree(colour, fail_second)
    ask(root, "before")
    root.fork(0, "fork")  # the next turn writes into a log of its own
    with pytest.raises(LookupError) as caught:
        ask(root, "hi")
    assert not [message for message in caught.value.produced if "before" in message.content]


@every_colour
def test_a_turn_inside_a_turn_that_stands_is_kept_when_the_outer_one_recovers(colour: Colour) -> None:
    root = tree(colour, lambda reply: None)
    ask(root, "hi")
    assert contents(root.first) == ["hi", "echo hi"]
    assert contents(root.second) == ["echo hi", "echo echo hi"]


def test_an_inner_failure_that_forward_catches_leaves_the_outer_turn_standing() -> None:
    class Careful(Agent):
        def __init__(self) -> None:
            self.inner = unit(Colour.BLOCKING, fail)

        def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            try:
                return self.inner(message, session_id=session_id)  # type: ignore[no-any-return]
            except LookupError:
                return "recovered"

    agent = Careful()
    assert agent("hi").content == "recovered"
    assert contents(agent) == ["hi", "recovered"]
    assert contents(agent.inner) == []


async def test_siblings_of_a_failed_turn_are_taken_back_though_they_end_later() -> None:
    slow = asyncio.Event()

    class Slow(AsyncAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            await slow.wait()
            return "late"

    class Both(AsyncAgent):
        def __init__(self) -> None:
            self.quick = unit(Colour.ASYNC, fail)
            self.slow = Slow()

        async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            await asyncio.gather(self.quick(message), self.slow(message))
            return "never"

    agent = Both()
    with pytest.raises(LookupError):
        await agent("hi")
    slow.set()
    await asyncio.sleep(0.01)
    assert contents(agent.slow) == []
    assert agent.slow.memory.get(0).turns.idle


async def test_cancelling_takes_the_turn_back() -> None:
    entered = asyncio.Event()

    class Stuck(AsyncAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            entered.set()
            await asyncio.sleep(60)
            return "never"

    agent = Stuck()
    task = asyncio.create_task(agent("hi"))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert contents(agent) == []
    assert agent.memory.get(0).turns.idle


async def test_cancelling_a_turn_that_waits_in_line_lets_the_others_go_on() -> None:
    gate = asyncio.Event()

    class Gated(AsyncAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            await gate.wait()
            return "done"

    agent = Gated()
    first, second, third = (asyncio.create_task(agent(text)) for text in "abc")
    await asyncio.sleep(0)
    second.cancel()
    gate.set()
    await asyncio.gather(first, third)
    assert contents(agent) == ["a", "done", "c", "done"]


@pytest.mark.parametrize("taken", [1, 2], ids=["first part", "last part but the reply"])
def test_leaving_a_stream_takes_the_turn_back(taken: int) -> None:
    agent = unit(Colour.STREAMING, echo)
    with closing(agent("hi")) as stream:
        for _ in range(taken):
            next(stream)
    assert contents(agent) == []
    assert agent("again") is not None
    assert ask(agent, "again").content == "echo again"


def test_a_stream_that_nobody_holds_any_more_takes_its_turn_back() -> None:
    agent = unit(Colour.STREAMING, echo)
    stream = agent("hi")
    next(stream)
    del stream
    gc.collect()
    assert ask(agent, "again").content == "echo again"
    assert contents(agent) == ["again", "echo again"]


def test_a_stream_has_its_turn_in_memory_when_the_reply_comes() -> None:
    agent = unit(Colour.STREAMING, echo)
    stream = agent("hi")
    for part in stream:
        if part.stream_state == AgentStatusCode.END:
            break
    assert contents(agent) == ["hi", "echo hi"]
    stream.close()
    assert contents(agent) == ["hi", "echo hi"]


async def test_leaving_an_async_stream_takes_the_turn_back() -> None:
    agent = unit(Colour.ASYNC_STREAMING, echo)
    async with aclosing(agent("hi")) as stream:
        await anext(stream)
    assert contents(agent) == []
    async for _ in agent("hi"):
        break  # the loop closes what is left open
    assert [part.content async for part in agent("again")][-1] == "echo again"
    assert contents(agent) == ["again", "echo again"]


async def test_cancelling_an_async_stream_takes_the_turn_back() -> None:
    class Stuck(AsyncStreamingAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> AsyncIterator[str]:
            yield "a"
            await asyncio.sleep(60)

    agent = Stuck()

    async def consume() -> None:
        async for _ in agent("hi"):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert contents(agent) == []


@streaming_colours
def test_a_stream_that_raises_half_way_keeps_what_it_gave(colour: Colour) -> None:
    agent = unit(colour, fail)
    with pytest.raises(LookupError) as caught:
        ask(agent, "hi")
    assert [message.content for message in caught.value.produced] == ["so f"]
    assert contents(agent) == []


@every_colour
def test_a_tool_call_never_stays_without_its_result(colour: Colour) -> None:
    class Calling(WORKFLOWS[colour]):  # type: ignore[misc]
        def __init__(self, tool: Any) -> None:
            super().__init__()
            self.model = unit(
                colour, lambda message: AgentMessage(sender="m", content="", tool_calls=[ToolCall("add", {}, id="1")])
            )
            self.tool = tool

        def steps(self, *message: AgentMessage, session_id: Any, **kwargs: Any) -> Any:
            reply = yield Call(self.model, message[0])
            return (yield Call(self.tool, reply))

    agent = Calling(unit(colour, fail))
    with pytest.raises(LookupError) as caught:
        ask(agent, "hi")
    assert agent.state_dict() == {"memory": [], "model.memory": [], "tool.memory": []}
    assert [call.name for message in caught.value.produced for call in message.tool_calls or ()] == ["add"]


def test_an_exception_that_takes_no_attributes_goes_without_what_was_produced() -> None:
    class Strict(Exception):
        @property
        def produced(self) -> tuple[()]:
            return ()

    def answer(message: AgentMessage) -> str:
        raise Strict

    agent = unit(Colour.BLOCKING, answer)
    with pytest.raises(Strict):
        agent("hi")
    assert contents(agent) == []


# Sessions


def test_ten_thousand_turns_of_one_session_alternate_in_threads() -> None:
    agent = unit(Colour.BLOCKING, echo)
    asked = [f"{worker}:{turn}" for worker in range(100) for turn in range(100)]

    def work(worker: int) -> None:
        for turn in range(100):
            assert agent(f"{worker}:{turn}").content == f"echo {worker}:{turn}"

    with ThreadPoolExecutor(100) as pool:
        list(pool.map(work, range(100)))
    log = contents(agent)
    assert log[1::2] == [f"echo {text}" for text in log[::2]]
    assert sorted(log[::2]) == sorted(asked)
    assert agent.calls == 10_000


async def test_ten_thousand_turns_of_one_session_alternate_in_tasks() -> None:
    agent = unit(Colour.ASYNC, echo)

    async def work(worker: int) -> None:
        for turn in range(100):
            assert (await agent(f"{worker}:{turn}")).content == f"echo {worker}:{turn}"

    async with asyncio.TaskGroup() as group:
        for worker in range(100):
            group.create_task(work(worker))
    log = contents(agent)
    assert len(log) == 20_000
    assert log[1::2] == [f"echo {text}" for text in log[::2]]
    assert len(set(log)) == 20_000


async def test_turns_of_one_session_come_in_the_order_they_were_called() -> None:
    agent = unit(Colour.ASYNC, echo)
    await asyncio.gather(*(agent(str(index)) for index in range(100)))
    assert contents(agent)[::2] == [str(index) for index in range(100)]


async def test_different_sessions_never_wait_for_each_other() -> None:
    both = asyncio.Barrier(3)

    class Meeting(AsyncAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            await both.wait()  # passes only when all three are inside
            return "met"

    agent = Meeting()
    await asyncio.wait_for(asyncio.gather(*(agent("hi", session_id=one) for one in (0, "0", ("0", 0)))), 10)
    assert set(agent.session_ids()) == {0, "0", ("0", 0)}
    assert all(contents(agent, one) == ["hi", "met"] for one in agent.session_ids())


def test_different_sessions_never_wait_for_each_other_in_threads() -> None:
    both = threading.Barrier(4)

    def answer(*message: AgentMessage) -> str:
        both.wait(10)
        return "met"

    agent = unit(Colour.BLOCKING, answer)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda one: agent("hi", session_id=one).content, range(4)))
    assert replies == ["met"] * 4


async def test_a_session_reset_while_a_turn_waits_starts_anew_for_it() -> None:
    gate = asyncio.Event()

    class Gated(AsyncAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            await gate.wait()
            return "done"

    agent = Gated()
    running, waiting = asyncio.create_task(agent("old")), asyncio.create_task(agent("new"))
    await asyncio.sleep(0)
    agent.reset(0)
    gate.set()
    await asyncio.gather(running, waiting)
    assert contents(agent) == ["new", "done"]


@pytest.mark.parametrize("session_id", [None, 1.0, True, b"x", [1], {}, (), ("a", None), "all"])
def test_a_session_id_that_does_not_survive_json_is_refused(session_id: Any) -> None:
    with pytest.raises(InvalidArgument, match="session_id="):
        unit(Colour.BLOCKING, echo)("hi", session_id=session_id)


@every_colour
@pytest.mark.parametrize("message", [(), (5,), (None,), (["hi"],), ({"content": "hi"},)])
def test_a_call_without_a_message_is_refused_before_anything_happens(colour: Colour, message: Any) -> None:
    agent = unit(colour, echo)
    with pytest.raises(InvalidArgument, match="message="):
        ask(agent, *message)
    assert agent.session_ids() == []


# Turns inside turns


@every_colour
def test_a_turn_that_would_wait_for_itself_is_an_error(colour: Colour) -> None:
    class Recursive(WORKFLOWS[colour]):  # type: ignore[misc]
        def steps(self, *message: AgentMessage, session_id: Any, **kwargs: Any) -> Any:
            return (yield Call(self, message[0]))

    agent = Recursive()
    with pytest.raises(SessionBusy, match="use another session_id"):
        ask(agent, "hi")
    assert contents(agent) == []


async def test_a_turn_that_would_wait_for_itself_in_another_task_or_thread_is_an_error() -> None:
    class Spawning(AsyncAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> Any:
            return (await asyncio.gather(self(message)))[0]

    with pytest.raises(SessionBusy):
        await asyncio.wait_for(Spawning()("hi"), 10)

    class Threading(Agent):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> Any:
            return asyncio.run(in_thread(self, message))

    with pytest.raises(SessionBusy):
        await in_thread(Threading(), "hi")


def test_another_session_of_the_same_unit_may_be_called_from_inside() -> None:
    class Twice(Agent):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> Any:
            return self(message, session_id="inner") if session_id == 0 else "done"

    agent = Twice()
    assert agent("hi").content == "done"
    assert contents(agent, "inner") == ["hi", "done"]


def test_a_hook_may_call_another_unit_and_its_turn_belongs_to_this_one() -> None:
    helper = Agent(ScriptedLLM(["help"] * 2), name="helper")

    class Asking(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
            messages[0].content += " " + helper("?", session_id=session_id).content

    assert ask(unit(Colour.BLOCKING, echo, hooks=Asking()), "hi").content == "echo hi help"
    with pytest.raises(LookupError):
        ask(unit(Colour.BLOCKING, fail, hooks=Asking()), "hi")
    assert contents(helper) == ["?", "help"]


def test_a_part_that_others_went_on_from_stays_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    shared = unit(Colour.BLOCKING, echo, name="shared")

    class Outer(Agent):
        def __init__(self) -> None:
            self.shared = shared

        def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            self.shared(message)
            thread = threading.Thread(target=shared, args=("from elsewhere",))
            thread.start()
            thread.join()
            raise LookupError

    with caplog.at_level(logging.WARNING), pytest.raises(LookupError):
        Outer()("hi")
    assert contents(shared) == ["hi", "echo hi", "from elsewhere", "echo from elsewhere"]
    assert "shared" in caplog.text


# Units without this or that


def test_a_subclass_that_never_calls_super_init_works() -> None:
    class Bare(Agent):
        def __init__(self) -> None:
            self.inner = Agent(ScriptedLLM(["inner"]))

        def forward(self, message: AgentMessage, session_id: Any = 0) -> Any:
            return self.inner(message, session_id=session_id)

    agent = Bare()
    assert agent("hi").content == "inner"
    assert list(agent.state_dict()) == ["memory", "inner.memory"]


def test_units_without_memory_have_turns_too() -> None:
    class Upper(Module):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            return str(message.content).upper()

    module = Upper()
    module.register_forward_hook(lambda module, messages, reply: reply.content + "!")
    assert (module("hi").content, module.calls, module.state_dict()) == ("HI!", 1, {})


def test_an_agent_may_have_no_memory() -> None:
    agent = unit(Colour.BLOCKING, echo)
    agent.memory = None
    assert agent("hi").content == "echo hi"
    assert agent.state_dict() == {}


def test_a_model_cannot_be_asked_without_memory() -> None:
    agent = Agent(ScriptedLLM(["x"]))
    agent.memory = None
    with pytest.raises(InvalidArgument, match="memory=None"):
        agent("hi")


def test_a_namesakes_message_is_not_taken_for_an_own_one() -> None:
    agent = Agent(ScriptedLLM(["x"]), name="twin")
    agent(AgentMessage(sender="twin", content="I am the other"))
    assert agent.llm.requests[0].messages == [{"role": "user", "content": "I am the other"}]


async def test_a_blocking_forward_that_returns_a_coroutine_says_what_is_wrong() -> None:
    inner = AsyncAgent(AsyncScriptedLLM(["x"]))

    class Forgot(Agent):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> Any:
            return inner(message, session_id=session_id)

    with pytest.raises(ColourError, match="returned a coroutine"):
        Forgot()("hi")


def test_forward_that_is_not_defined_says_so() -> None:
    with pytest.raises(NotImplementedError, match="must define forward"):
        Module()("hi")

    async def ask_async() -> None:
        with pytest.raises(NotImplementedError, match="must define async forward"):
            await AsyncModule()("hi")

    asyncio.run(ask_async())


def test_a_memory_of_its_own_kind_is_what_turns_write_to() -> None:
    class Loud(Memory):
        def append(self, message: AgentMessage) -> None:
            message.content = str(message.content).upper()
            super().append(message)

    agent = unit(Colour.BLOCKING, echo, memory={"type": Loud})
    agent("hi")
    assert contents(agent) == ["HI", "ECHO HI"]


def test_a_tool_call_is_given_out_before_the_tool_runs() -> None:
    order = []

    @tool
    def look() -> str:
        """Look."""
        order.append("tool ran")
        return "seen"

    agent = StreamingReAct(ScriptedLLM([ToolCall("look", {}), "Done."]), actions=[look])
    for message in agent("Look."):
        order += ["call"] * bool(message.tool_calls) + ["result"] * bool(message.tool_results)
    assert order == ["call", "tool ran", "result"]


def test_a_stream_may_be_read_in_one_thread_after_another() -> None:
    agent = unit(Colour.STREAMING, echo)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        stream = agent("hi")
        one.submit(next, stream).result(10)
        waiting = one.submit(list, agent("again"))  # in the thread that opened the stream
        time.sleep(0.05)
        assert other.submit(list, stream).result(10)[-1].content == "echo hi"
        assert waiting.result(10)[-1].content == "echo again"
    assert contents(agent) == ["hi", "echo hi", "again", "echo again"]


async def test_a_stream_may_be_read_in_one_task_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lagentlike.concurrency.GRACE", 0.2)
    agent = AsyncStreamingAgent(AsyncScriptedLLM(["a b c d e f", "echo"], chunk_size=1))
    stream = agent("hi")
    await anext(stream)

    async def read_slowly() -> str:
        content = ""
        async for part in stream:
            await asyncio.sleep(0.05)
            content = part.content
        return content

    reading = asyncio.create_task(read_slowly())
    assert [part async for part in agent("again")][-1].content == "echo"  # from the task that opened the stream
    assert await reading == "a b c d e f"


def test_a_thread_that_reads_a_stream_and_calls_beside_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lagentlike.concurrency.GRACE", 0.05)
    agent = unit(Colour.STREAMING, echo)
    stream = agent("hi")
    next(stream)

    def read_and_call() -> None:
        next(stream)
        with pytest.raises(SessionBusy, match="is still open"):
            ask(agent, "again")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(read_and_call).result(10)
    assert next(stream).content == "echo hi"


def test_a_call_from_inside_a_stream_that_lost_its_context_is_an_error_at_once() -> None:
    class Nested(StreamingAgent):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> Iterator[Any]:
            yield "so f"
            yield Context().run(lambda: ask(self, "again"))

    with closing(Nested()("hi")) as stream:
        next(stream)
        with ThreadPoolExecutor(1) as pool, pytest.raises(SessionBusy, match="would wait for itself"):
            pool.submit(next, stream).result(10)


def test_a_call_beside_an_open_stream_of_its_own_thread_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lagentlike.concurrency.GRACE", 0.05)
    agent = unit(Colour.STREAMING, echo)
    with closing(agent("hi")) as stream:
        next(stream)
        with pytest.raises(SessionBusy):
            ask(agent, "again")
        assert ask(agent, "again", session_id="other").content == "echo again"
    assert ask(agent, "again").content == "echo again"


class _KeepsItsAnswer(ScriptedLLM):
    """A model that goes on using the answers it gave, as one with a cache does."""

    def __init__(self) -> None:
        super().__init__([])
        self.answer = Completion("", tool_calls=[ToolCall("add", {"a": [1]}, id="call_1")])

    def _chat(self, messages: Any, params: Any) -> Completion:
        return self.answer


def test_editing_a_reply_edits_neither_memory_nor_what_the_model_keeps() -> None:
    llm = _KeepsItsAnswer()
    agent = Agent(llm)
    reply = agent("Hi")
    reply.tool_calls[0].arguments["a"].append(2)
    assert llm.answer.tool_calls is not None
    assert llm.answer.tool_calls[0].arguments == {"a": [1]}
    assert agent.memory.get(0)[1].tool_calls[0].arguments == {"a": [1]}


def test_a_turn_that_is_over_keeps_no_memory_alive() -> None:
    contexts = []

    class Asking(Agent):
        def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
            contexts.append(copy_context())  # as a connection does that is opened here and kept
            return self.inner("Hi", session_id=session_id)

    asking = Asking()
    asking.inner = Agent(ScriptedLLM(["Hello"]))
    asking("Hi")
    remembered = [weakref.ref(asking.memory.get(0)), weakref.ref(asking.inner.memory.get(0))]
    asking.reset(recursive=True)
    gc.collect()
    assert contexts
    assert [memory() for memory in remembered] == [None, None]
