"""Executors: units of the tree that turn calls into results."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lagentlike.actions import (
    ActionExecutor,
    AsyncActionExecutor,
    BaseAction,
    calculator,
    FinishAction,
    InvalidAction,
    NoAction,
    tool,
    tool_api,
)
from lagentlike.agents import Agent
from lagentlike.budget import Budget
from lagentlike.errors import BudgetExceeded, InvalidArgument
from lagentlike.hooks import ActionPreprocessor, Hook, InternLMActionProcessor
from lagentlike.memory.state import SessionValue
from lagentlike.prompts.parsers.tool_call import MAX_CALLS
from lagentlike.schema import (
    ActionReturn,
    ActionStatusCode,
    ActionValidCode,
    AgentMessage,
    FunctionCall,
    ToolCall,
)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def add_later(a: int, b: int) -> int:
    """Add two numbers, asynchronously."""
    await asyncio.sleep(0)
    return a + b


class Notes(BaseAction):
    """Remember notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: SessionValue[list[str]] = SessionValue(list)

    @tool_api
    def write(self, text: str, session_id: Any = 0) -> str:
        """Write a note.

        Args:
            text: The note.
        """
        self.notes[session_id].append(text)
        return "written"

    @tool_api(explode_return=False)
    async def read(self, session_id: Any = 0) -> list[str]:
        """Read all notes."""
        return self.notes[session_id]

    def secret(self) -> str:
        """Not marked, so nobody may call it."""
        return "secret"


def one(name: Any, parameters: Any = None) -> AgentMessage:
    return AgentMessage(content={"name": name, "parameters": {} if parameters is None else parameters}, sender="model")


def calls(*items: tuple[str, Any]) -> AgentMessage:
    tool_calls = [ToolCall(name, arguments, id=str(index)) for index, (name, arguments) in enumerate(items)]
    return AgentMessage(content="", tool_calls=tool_calls, sender="model")


def run_blocking(actions: Any, message: AgentMessage, session_id: Any = 0, **options: Any) -> AgentMessage:
    return ActionExecutor(actions, **options)(message, session_id=session_id)  # type: ignore[no-any-return]


def run_async(actions: Any, message: AgentMessage, session_id: Any = 0, **options: Any) -> AgentMessage:
    return asyncio.run(AsyncActionExecutor(actions, **options)(message, session_id=session_id))


Run = Callable[..., AgentMessage]
BOTH = pytest.mark.parametrize("run", [run_blocking, run_async], ids=["blocking", "async"])


@BOTH
@pytest.mark.parametrize("name", ["add", "add_later"])
@pytest.mark.parametrize("timeout", [None, 5])
def test_either_colour_runs_plain_and_async_tools(run: Run, name: str, timeout: float | None) -> None:
    reply = run([add, add_later], one(name, {"a": 1, "b": 2}), timeout=timeout)
    assert reply.sender.endswith("ActionExecutor")
    assert reply.content == ActionReturn(args={"a": 1, "b": 2}, type=name, result=[{"type": "text", "content": "3"}])


@pytest.mark.parametrize(
    "content",
    [
        {"name": "add", "parameters": {"a": 1, "b": 2}},
        {"name": "add", "arguments": '{"a": 1, "b": 2}'},
        FunctionCall("add", {"a": 1, "b": 2}),
        ToolCall("add", {"a": 1, "b": 2}),
        '{"name": "add", "parameters": {"a": 1, "b": 2}}',
    ],
)
def test_a_call_may_have_any_of_its_forms(content: Any) -> None:
    assert run_blocking([add], AgentMessage(content=content)).content.format_result() == "3"


@BOTH
def test_several_calls_have_one_result_each_in_order(run: Run) -> None:
    reply = run(
        [add, add_later, Notes()],
        calls(
            ("add", {"a": 1, "b": 1}),
            ("nope", {}),
            ("add_later", '{"a": 2, "b": 2}'),
            ("add", "{"),
            ("add", {"a": "x"}),
        ),
    )
    assert reply.tool_results is not None
    assert [(result.id, result.name, result.success) for result in reply.tool_results] == [
        ("0", "add", True),
        ("1", "nope", False),
        ("2", "add_later", True),
        ("3", "add", False),
        ("4", "add", False),
    ]
    assert reply.tool_results[2].output == "4"
    assert reply.content == "\n".join(result.text for result in reply.tool_results)


@BOTH
def test_several_calls_run_side_by_side(run: Run) -> None:
    meeting = threading.Barrier(3, timeout=10)

    def meet() -> str:
        meeting.wait()
        return "met"

    reply = run([meet], calls(*[("meet", {})] * 3))
    assert reply.content == "met\nmet\nmet"


@BOTH
def test_no_more_calls_run_at_once_than_allowed(run: Run) -> None:
    running, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with guard:
            running -= 1

    run([work], calls(*[("work", {})] * 12), max_concurrency=3)
    assert 1 <= most <= 3


def test_a_single_blocking_call_runs_in_the_callers_thread() -> None:
    def where() -> int:
        return threading.get_ident()

    assert run_blocking([where], one("where")).content.format_result() == str(threading.get_ident())
    assert run_async([where], one("where")).content.format_result() != str(threading.get_ident())


def test_too_many_calls_are_answered_without_being_made() -> None:
    made = []

    def count() -> None:
        made.append(1)

    started = time.process_time()
    reply = run_blocking([count], calls(*[("count", {})] * 100_000))
    assert len(made) == MAX_CALLS
    assert reply.tool_results is not None
    assert len(reply.tool_results) == 100_000
    assert "more than 128 calls" in reply.tool_results[-1].error
    assert time.process_time() - started < 10


# Sessions


@BOTH
def test_session_id_reaches_tools_that_ask_for_it(run: Run) -> None:
    def whoami(session_id: Any) -> str:
        return repr(session_id)

    assert run([whoami], one("whoami"), session_id=("user", 7)).content.format_result() == "('user', 7)"
    assert run([whoami], one("whoami", {"session_id": 8}), session_id=7).content.state == ActionStatusCode.ARGS_ERROR


def test_toolkits_keep_state_by_session_in_the_tree() -> None:
    executor = ActionExecutor([Notes()])
    executor(one("Notes.write", {"text": "milk"}), session_id=1)
    executor(one("Notes__write", {"text": "eggs"}), session_id=2)
    assert executor(one("Notes.read"), session_id=1).content.format_result() == '["milk"]'
    assert executor.state_dict(2) == {"Notes.notes": ["eggs"]}
    executor.fork(1, 3)
    executor.reset(1, recursive=True)
    assert executor(one("Notes.read"), session_id=1).content.format_result() == "[]"
    assert executor(one("Notes.read"), session_id=3).content.format_result() == '["milk"]'


def test_executor_and_tools_are_in_the_tree_of_an_agent() -> None:
    class Helper(Agent):
        def __init__(self) -> None:
            super().__init__()
            self.executor = ActionExecutor([add, Notes()])

    helper = Helper()
    assert [path for path, _ in helper.named_modules()] == ["", "executor", "executor.add", "executor.Notes"]
    assert helper.state_dict() == {"memory": [], "executor.Notes.notes": []}
    assert helper.load_state_dict(helper.state_dict()) == ([], [])
    assert "FunctionTool('add')" in repr(helper)
    assert helper.summary().rows[1]["tools"] == ["add", "Notes"]


# Bad calls


@pytest.mark.parametrize(
    "name",
    ["nope", "", "a.b.c", "Notes", "Notes.nope", "Notes.secret", "Notes.__init__", "Notes.description", "add.run",
     "add.__class__", "run", "Notes.notes", "add ", None, 3, ["add"], {"name": "add"}, "x" * 10_000],
)  # fmt: skip
def test_only_declared_tools_can_be_reached(name: Any) -> None:
    returned = run_blocking([add, Notes()], one(name)).content
    assert returned.valid == ActionValidCode.INVALID
    assert returned.state == ActionStatusCode.API_ERROR
    assert returned.text.endswith("the tools are add, Notes.write, Notes.read")
    assert len(returned.text) < 300


@BOTH
@pytest.mark.parametrize(
    "arguments",
    ['{"a": 1, "b": 2', "{'a': 1, 'b': 2}", '{"a": 1, "b": 2,}', "null", "[1, 2]", '"1, 2"', "NaN",
     '{"a": 1, "a": 1, "b": 2}', "", {}, {"a": 1}, {"a": "1", "b": 2}, {"a": 1, "b": 2, "c": 3}, {"a": 1.5, "b": 2},
     {"a": None, "b": 2}, "a=1, b=2", '{"a": 1e999, "b": 2}', "\ud800", '{"a": "\ud800", "b": 2}', "{" * 5000, "\x00",
     '{"a": 1, "b": 2} trailing', "__import__('os')"],
)  # fmt: skip
def test_arguments_that_do_not_fit_become_a_text_for_the_model(run: Run, arguments: Any) -> None:
    for reply in (run([add], one("add", arguments)).content, run([add], calls(("add", arguments))).tool_results[0]):  # type: ignore[index]
        text = reply.text
        assert "the arguments of add do not fit: " in text
        assert "It takes a (integer), b (integer)." in text
        text.encode()


@pytest.mark.parametrize("content", ["just words", None, [], {}, {"parameters": {}}, 3, "null", '{"name": "add"'])
def test_a_message_without_a_call_is_answered_so(content: Any) -> None:
    returned = run_blocking([add], AgentMessage(content=content)).content
    assert returned.valid == ActionValidCode.ABSENT
    assert "there is no tool call here" in returned.text


def test_a_call_whose_json_is_broken_beyond_its_name_is_explained() -> None:
    reply = run_blocking([add], calls(("", "{oops")))
    assert "no valid JSON: Expecting property name" in reply.content


# What tools do


class Base(BaseException):
    pass


def raising(error: BaseException) -> list[Any]:
    def fail() -> None:
        raise error

    async def fail_later() -> None:
        raise error

    async def fail_after_a_while() -> None:
        await asyncio.sleep(0)
        raise error

    return [fail, fail_later, fail_after_a_while]


@BOTH
@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), Base("x"),
     StopIteration(1), TimeoutError("mine"), RecursionError(), MemoryError(), UnicodeError("x")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_nothing_that_a_tool_raises_gets_out(run: Run, error: BaseException, timeout: float | None) -> None:
    for function in raising(error):
        returned = run([function], one(function.__name__), timeout=timeout).content
        assert returned.state == ActionStatusCode.API_ERROR
        assert type(error).__name__ in returned.text or "StopIteration" in returned.text
    reply = run(
        [*raising(error), add], calls(("fail", {}), ("add", {"a": 1, "b": 2}), ("fail_later", {})), timeout=timeout
    )
    assert reply.tool_results is not None
    assert [result.success for result in reply.tool_results] == [False, True, False]


@BOTH
def test_the_errors_of_a_group_are_told(run: Run) -> None:
    async def two_at_once() -> None:
        async def fail(what: str) -> None:
            raise ValueError(what)

        async with asyncio.TaskGroup() as group:
            group.create_task(fail("one"))
            group.create_task(fail("two"))

    assert run([two_at_once], one("two_at_once")).content.text == "ValueError: one; ValueError: two"


async def test_a_tool_cannot_keep_the_cancellation_of_its_caller_to_itself() -> None:
    begun = asyncio.Event()

    async def keep() -> str:
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "nothing happened"
        return "waited"

    executor = AsyncActionExecutor([keep])
    calling = asyncio.create_task(executor(one("keep")))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await executor(one("keep"))


async def test_cancelling_the_caller_cancels_the_tools() -> None:
    seen = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    for message in (one("wait"), calls(("wait", {}), ("wait", {}))):
        for timeout in (None, 30):
            task = asyncio.ensure_future(AsyncActionExecutor([wait], timeout=timeout)(message))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert seen == ["cancelled"] * 6


async def test_cancelling_the_caller_does_not_wait_for_a_blocking_tool() -> None:
    release = threading.Event()
    task = asyncio.ensure_future(AsyncActionExecutor([tool(release.wait, name="wait")])(one("wait")))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    release.set()


@pytest.mark.parametrize("timeout", [None, 30])
def test_the_users_interrupt_still_interrupts(timeout: float | None) -> None:
    def busy() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            time.sleep(0.01)

    async def asleep() -> None:
        await asyncio.sleep(20)

    for message in (one("busy"), one("asleep"), calls(("busy", {}), ("asleep", {}))):
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            run_blocking([busy, asleep], message, timeout=timeout)


@BOTH
def test_a_blocking_tool_that_takes_too_long_is_written_off(run: Run) -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(30)

    started = time.monotonic()
    returned = run([hang], one("hang"), timeout=0.1).content
    assert time.monotonic() - started < 5
    assert "hang took longer than its 0.1 seconds: it is still running" in returned.text
    release.set()


@BOTH
def test_an_async_tool_that_takes_too_long_is_stopped(run: Run) -> None:
    stopped = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()

    returned = run([hang], one("hang"), timeout=0.1).content
    assert "took longer than its 0.1 seconds: it was stopped" in returned.text
    assert stopped.is_set()


@BOTH
@pytest.mark.parametrize("timeout", [math.inf, 1e300])
def test_a_limit_may_be_longer_than_any_thread_can_wait(run: Run, timeout: float) -> None:
    assert run([add, add_later], calls(("add", {"a": 1, "b": 2}), ("add_later", {"a": 1, "b": 2})), timeout=timeout)
    assert run([add], one("add", {"a": 1, "b": 2}), timeout=timeout).content.text == "3"


async def test_an_async_tool_that_does_not_heed_cancellation_is_left_alone() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    reply = await AsyncActionExecutor([stubborn], timeout=0.1)(one("stubborn"))
    assert "it is still running" in reply.content.text
    release.set()
    await asyncio.sleep(0.1)


@BOTH
def test_the_tools_own_limit_goes_before_the_executors(run: Run) -> None:
    @tool(timeout=0.05)
    def slow() -> None:
        time.sleep(0.5)

    assert "its 0.05 seconds" in run([slow], one("slow"), timeout=60).content.text


async def test_blocking_tools_never_block_the_loop() -> None:
    late = 0.0

    async def watch() -> None:
        nonlocal late
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            late = max(late, time.monotonic() - before)

    watching = asyncio.ensure_future(watch())
    await AsyncActionExecutor([nap])(one("nap"))
    watching.cancel()
    assert late < 0.4


def nap() -> str:
    """Sleep."""
    time.sleep(0.5)
    return "rested"


def test_a_tool_that_never_returns_does_not_keep_the_process_alive() -> None:
    code = (
        "import threading\n"
        "from lagentlike.actions import ActionExecutor\n"
        "from lagentlike.schema import AgentMessage\n"
        "def hang(): threading.Event().wait()\n"
        "r = ActionExecutor([hang], timeout=0.1)(AgentMessage(content={'name': 'hang'}))\n"
        "assert 'still running' in r.content.text\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_a_blocking_executor_works_inside_a_running_loop() -> None:
    async def main() -> str:
        return str(run_blocking([add_later], one("add_later", {"a": 1, "b": 2})).content.text)

    assert asyncio.run(main()) == "3"


# Hooks, budgets, special actions


def test_hooks_see_the_call_and_the_result() -> None:
    seen: list[Any] = []

    class Watch(Hook):
        def before_action(self, executor: Any, message: AgentMessage, session_id: Any) -> None:
            seen.append((executor.name, message.content["name"], session_id))
            message.content["parameters"]["a"] = 10

        def after_action(self, executor: Any, message: AgentMessage, session_id: Any) -> None:
            message.content = f"<{message.content.text}>"

    message = one("add", {"a": 1, "b": 2})
    assert run_blocking([add], message, session_id=4, hooks=[Watch()]).content == "<12>"
    assert seen == [("ActionExecutor", "add", 4)]
    assert message.content["parameters"]["a"] == 1


def test_processors_turn_parsed_text_into_calls_and_results_into_text() -> None:
    parsed = {"tool_type": "plugin", "action": {"name": "add", "parameters": {"a": 1, "b": 2}}}
    message = AgentMessage(content="…", formatted=parsed)
    assert run_blocking([add], message, hooks=[ActionPreprocessor()]).content == "3"

    def shell(command: str) -> str:
        return command.upper()

    message = AgentMessage(content="…", formatted={"tool_type": "interpreter", "action": "ls"})
    assert run_blocking([add, shell], message, hooks=[InternLMActionProcessor()]).content == "LS"


@BOTH
def test_a_used_up_budget_stops_calls_before_any_is_made(run: Run) -> None:
    made = []

    def count() -> None:
        made.append(1)

    with Budget(tool_calls=2) as budget:
        run([count], calls(("count", {}), ("nope", {})))
        assert budget.tool_calls == 1
        with pytest.raises(BudgetExceeded):
            run([count], calls(("count", {}), ("count", {})))
    assert made == [1]


def test_special_actions_answer_and_can_be_replaced() -> None:
    executor = ActionExecutor(
        [add],
        invalid_action=InvalidAction("unbekannt"),
        no_action={"type": NoAction, "err_msg": "nichts"},
        finish_in_action=True,
    )
    assert "unbekannt: 'x'" in executor(one("x")).content.text
    assert executor(AgentMessage(content="…")).content.text.startswith("nichts")
    finished = executor(one("FinishAction", {"response": "42"})).content
    assert (finished.text, finished.valid) == ("42", ActionValidCode.FINISH)
    assert [name for name, _ in executor.named_children()] == ["add", "FinishAction"]
    assert ActionExecutor([add])(one("FinishAction", {"response": "42"})).content.valid == ActionValidCode.FINISH
    with pytest.raises(InvalidArgument, match="invalid_action"):
        ActionExecutor([add], invalid_action=FinishAction())  # type: ignore[arg-type]


# Its tools


def test_tools_are_found_added_and_taken_out_by_name() -> None:
    executor = ActionExecutor([add, Notes()])
    assert executor.keys() == ["add", "Notes"] == list(executor)
    assert len(executor) == 2
    for name in ("add", "Notes", "Notes.read", "Notes__read"):
        assert name in executor
    assert "nope" not in executor
    assert executor["add"] is add
    tools = executor.tools()
    assert tools is executor.tools()
    assert [item["function"]["name"] for item in tools] == ["add", "Notes__write", "Notes__read"]
    executor["calculator"] = calculator
    del executor["Notes"]
    assert [item["function"]["name"] for item in executor.tools()] == ["add", "calculator"]
    assert executor(one("Notes.read")).content.valid == ActionValidCode.INVALID
    executor["double"] = lambda x: 2 * x
    assert executor(one("double", {"x": 4})).content.text == "8"
    with pytest.raises(KeyError):
        del executor["Notes"]
    with pytest.raises(KeyError):
        executor["Notes"]


@pytest.mark.parametrize("name", ["map", "name", "reset", "keys", "forward", "_hooks", "math.evaluate", "load"])
def test_a_tool_may_have_any_name(name: str) -> None:
    executor = ActionExecutor([tool(add.function, name=name)])
    assert executor(one(name, {"a": 1, "b": 2})).content.text == "3"
    assert name in executor
    assert repr(executor)
    del executor[name]
    assert len(executor) == 0


def test_names_that_servers_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="servers take names of a-z"):
        ActionExecutor([tool(add.function, name="搜索"), tool(add.function, name="计算")])


def test_description_is_in_lagents_shape() -> None:
    executor = ActionExecutor([add, Notes()])
    plain, kit = executor.description()
    assert plain["name"] == "add"
    assert plain["required"] == ["a", "b"]
    assert plain["parameters"][0] == {"name": "a", "description": "", "type": "integer"}
    assert kit["name"] == "Notes"
    assert kit["description"] == "Remember notes."
    assert [api["name"] for api in kit["api_list"]] == ["write", "read"]
    assert kit["api_list"][0]["parameters"] == [{"name": "text", "description": "The note.", "type": "string"}]


def test_actions_may_be_configs_and_single_ones() -> None:
    assert ActionExecutor({"type": Notes}).keys() == ["Notes"]
    assert ActionExecutor([{"type": "lagentlike.actions.PythonInterpreter", "timeout": 3}]).keys() == [
        "PythonInterpreter"
    ]
    assert ActionExecutor(add).keys() == ["add"]
    assert ActionExecutor().keys() == []
    assert "there are no tools" in ActionExecutor()(one("x")).content.text


@pytest.mark.parametrize("actions", [3, "add", [3], ["add"], [Notes], {"add": add}, [ActionExecutor()], [add, add]])
def test_what_is_no_tool_is_refused(actions: Any) -> None:
    with pytest.raises(InvalidArgument, match="actions="):
        ActionExecutor(actions)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": "x"}, {"max_concurrency": 0}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        ActionExecutor([add], **options)


async def test_the_async_executor_is_an_executor() -> None:
    executor = AsyncActionExecutor([add])
    assert isinstance(executor, ActionExecutor)
    replies = await executor.map([one("add", {"a": n, "b": 1}) for n in range(50)])
    assert [reply.content.text for reply in replies] == [str(n + 1) for n in range(50)]  # type: ignore[union-attr]


def test_tools_see_the_context_of_the_caller_in_their_threads() -> None:
    def spend() -> str:
        from lagentlike.budget import charge_tool_call

        charge_tool_call()
        return "spent"

    with Budget(tool_calls=10) as budget:
        run_blocking([spend], calls(("spend", {}), ("spend", {})))
        run_async([spend], one("spend"))
    assert budget.tool_calls == 6


async def test_many_calls_leave_nothing_behind(no_leaks: None) -> None:
    executor = AsyncActionExecutor([add, add_later], timeout=5)
    for _ in range(20):
        await executor(calls(*[("add", {"a": 1, "b": 1}), ("add_later", {"a": 1, "b": 1})] * 8))


class Album(BaseAction):
    """Show a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.items = [{"type": "image", "content": ["a.png"]}]

    def run(self, seen: Any = None) -> ActionReturn:
        if seen is not None:
            seen.append("edited")
        return ActionReturn(result=self.items)


def test_messages_share_nothing_with_tools_nor_with_each_other() -> None:
    album = Album()
    executor = ActionExecutor([album])
    called = AgentMessage(content="", tool_calls=[ToolCall("Album", {"seen": ["x"]}, id="1")])
    result = executor(called).tool_results[0]
    result.metadata["items"][0]["content"].append("b.png")
    returned = executor(AgentMessage(content={"name": "Album", "parameters": {}})).content
    returned.result[0]["content"].append("c.png")
    assert album.items == [{"type": "image", "content": ["a.png"]}]
    assert called.tool_calls[0].arguments == {"seen": ["x"]}


def test_a_tool_may_edit_arguments_that_have_no_json_form() -> None:
    given = {"seen": ["x", {1}]}
    ActionExecutor([Album()])(AgentMessage(content={"name": "Album", "parameters": given}))
    assert given == {"seen": ["x", {1}]}


def test_a_refused_call_is_answered_with_a_copy_of_its_arguments() -> None:
    message = AgentMessage(content={"name": "add", "parameters": {"a": [1]}})
    answer = ActionExecutor([add])(message).content
    assert answer.state == ActionStatusCode.ARGS_ERROR
    answer.args["a"].append(2)
    assert message.content["parameters"] == {"a": [1]}
