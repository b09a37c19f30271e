"""The unit that runs the tools a message calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..budget import charge_tool_call
from ..colour import careful
from ..concurrency import Stop
from ..errors import InvalidArgument, ToolArgumentsError
from ..hooks import Hook
from ..memory import SessionId
from ..module import AsyncModule, Module
from ..prompts.parsers.tool_call import loads_strictly, MAX_CALLS
from ..registry import create_object
from ..schema import (
    ActionReturn,
    ActionStatusCode,
    ActionValidCode,
    AgentMessage,
    copied,
    FunctionCall,
    ToolCall,
    ToolResult,
    unchecked_message,
)
from ..tracing import spans
from .base import BaseAction, ToolAPI
from .builtin import FinishAction, InvalidAction, NoAction
from .function import checked_timeout, FunctionTool
from .result import failed
from .running import PreparedCall, run_calls, run_calls_async
from .schema import wire_name

__all__ = ["ActionExecutor", "AsyncActionExecutor"]


class ActionExecutor(Module):
    """Runs the tools that a message calls, and gives the results back as a message.

    A message with `tool_calls` gets a reply with `tool_results`: one for each call, in their order. A message whose
    content is a call (`FunctionCall`, or a dict with `name` and `parameters`) gets an `ActionReturn` as content.
    Whatever a tool does, and whatever a model asks for, becomes a result that the model can read; what is raised is
    cancellation, the user's Ctrl-C, and a used-up `Budget`.

    Several calls of one message run side by side, a blocking tool in a thread each; a single one runs in the caller's
    thread, unless it has a time limit. Async tools work too: they run on a background loop.

    Args:
        actions: the tools: `BaseAction`s, functions, `dict(type=...)` of them; one or a list.
        invalid_action, no_action, finish_action: what answers a call of an unknown tool, a message without a call, and
            a call of `FinishAction`.
        finish_in_action: also tell models of the finish action.
        hooks: hooks, of which `before_action` and `after_action` are called.
        timeout: seconds a call may take where the tool itself does not say; None for no limit.
        max_concurrency: most calls of one message that run at once.

    The tools are its children in the tree.

    >>> from lagentlike.actions import calculator
    >>> executor = ActionExecutor([calculator])
    >>> executor(AgentMessage(content={"name": "calculator", "parameters": {"expression": "6 * 7"}})).content.text
    '42'
    """

    hook_events = ("before_action", "after_action")

    def __init__(
        self,
        actions: Any = (),
        invalid_action: InvalidAction | Mapping[str, Any] | None = None,
        no_action: NoAction | Mapping[str, Any] | None = None,
        finish_action: FinishAction | Mapping[str, Any] | None = None,
        finish_in_action: bool = False,
        hooks: Hook | Mapping[str, Any] | Sequence[Hook | Mapping[str, Any]] | None = None,
        *,
        timeout: float | None = None,
        max_concurrency: int = 16,
    ) -> None:
        if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
            raise InvalidArgument("max_concurrency", max_concurrency, "give a whole number of at least 1")
        self.timeout = checked_timeout(timeout)
        self.max_concurrency = max_concurrency
        invalid = _special(invalid_action, InvalidAction, "invalid_action")
        absent = _special(no_action, NoAction, "no_action")
        finish = _special(finish_action, FinishAction, "finish_action")
        self.__answers = (invalid, absent, finish)  # in a tuple: they are no part of the tree
        self.__tools: list[dict[str, Any]] | None = None
        self.__routes: dict[str, ToolAPI] = {}
        for action in _listed(actions):
            self._add(_as_action(action))
        if finish_in_action:
            self._add(finish)
        self._register_all(hooks)

    @careful
    def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, stop: Stop | None = None, **kwargs: Any
    ) -> Any:
        """Run the calls of a message; those under way are given up when `stop` says so."""
        plan = self._calls_of(message, session_id)
        return self._reply(plan, run_calls(plan.pending, self.max_concurrency, stop))

    # Its tools

    def description(self) -> list[dict[str, Any]]:
        """What each action does, in Lagent's shape; see `BaseAction.description`."""
        return [action.description for action in self.values()]

    def tools(self) -> list[dict[str, Any]]:
        """What a model server is told of the tools: `{"type": "function", "function": {…}}` each.

        It is the same list until a tool is added or taken out.
        """
        if self.__tools is None:
            apis = [api for action in self.values() for api in action.apis().values()]
            self.__tools = [api.schema.openai for api in apis]
        return self.__tools

    def find(self, name: str) -> ToolAPI | None:
        """The function that a call of this name would run; None if no tool has it."""
        return self.__routes.get(name)

    def keys(self) -> list[str]:
        """The names of the actions."""
        return [action.name for action in self.values()]

    def values(self) -> list[BaseAction]:
        """The actions."""
        return list(self._children.values())  # type: ignore[arg-type]  # only actions are added

    def items(self) -> list[tuple[str, BaseAction]]:
        """The actions by name."""
        return [(action.name, action) for action in self.values()]

    def __getitem__(self, name: str) -> BaseAction:
        if wire_name(name) not in self._children:
            raise KeyError(name)
        return self._children[wire_name(name)]  # type: ignore[return-value]

    def __setitem__(self, name: str, action: Any) -> None:
        added = _as_action(action, name)
        if added.name != name:
            raise InvalidArgument("name", name, f"the action is called {added.name!r}: use its own name")
        if name in self.keys():
            del self[name]
        self._add(added)

    def __delitem__(self, name: str) -> None:
        if name not in self.keys():
            raise KeyError(name)
        del self._children[wire_name(name)]
        self.__routes = {key: api for key, api in self.__routes.items() if api.action.name != name}
        self.__tools = None

    def __contains__(self, name: object) -> bool:
        return name in self.__routes or any(name == action.name for action in self.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._children)

    def _add(self, action: BaseAction) -> None:
        """Make an action a child. Its name may be any word, also one that is an attribute of this class."""
        routes = {name: api for api in action.apis().values() for name in (api.name, wire_name(api.name))}
        taken = sorted(set(routes) & set(self.__routes))
        key = wire_name(action.name)
        if taken or key in self._children:
            cure = f"there is a tool of that name already: {taken or [key]}"
            if action.name not in {*self.keys(), *self.__routes}:
                cure += " (servers take names of a-z, A-Z, 0-9, _ and - only; others are written _): give it another"
            raise InvalidArgument("actions", action.name, cure)
        if not routes:
            raise InvalidArgument("actions", action, "it has nothing to call: define run, or use tool_api")
        self._children[key] = action
        self.__routes.update(routes)
        self.__tools = None

    # A message's calls

    def _calls_of(self, messages: tuple[AgentMessage, ...], session_id: SessionId) -> _Plan:
        """What is to be run for a message, every call counted against the budget."""
        if len(messages) != 1:
            raise InvalidArgument("message", messages, f"call {self.name} with one message")
        message = messages[0]
        calls = message.tool_calls
        if calls:
            entries = [self._called(call, session_id) for call in calls[:MAX_CALLS]]
            if len(calls) > MAX_CALLS:
                excess = failed(f"more than {MAX_CALLS} calls in one message: this one was not made", self.name)
                entries += [excess] * (len(calls) - MAX_CALLS)
        else:
            entries = [self._single(message.content, session_id)]
        plan = _Plan(calls or None, entries)
        for _ in plan.pending:
            charge_tool_call()
        if spans.tracers:
            _note(plan)
        return plan

    def _single(self, content: Any, session_id: SessionId) -> PreparedCall | ActionReturn:
        """The call that a message's content is."""
        fault = None
        if isinstance(content, str):
            try:
                content = loads_strictly(content)
            except ValueError as error:
                fault = f"{self.__answers[1].err_msg} (it is no valid JSON: {error})"
        if isinstance(content, FunctionCall):
            return self._prepared(content.name, content.parameters, session_id)
        if isinstance(content, ToolCall):
            return self._called(content, session_id)
        if isinstance(content, Mapping) and "name" in content:
            arguments = content.get("parameters", content.get("arguments"))
            return self._prepared(content["name"], arguments, session_id)
        absent: NoAction = self.__answers[1]
        return absent.run(fault)

    def _called(self, call: ToolCall, session_id: SessionId) -> PreparedCall | ActionReturn:
        """A call that was read, or what is wrong with one that was not."""
        if call.error:
            return failed(call.error, call.name, call.arguments, ActionStatusCode.ARGS_ERROR)
        return self._prepared(call.name, call.arguments, session_id)

    def _prepared(self, name: Any, arguments: Any, session_id: SessionId) -> PreparedCall | ActionReturn:
        """The call of a tool, or why it cannot be made."""
        api = self.__routes.get(name) if isinstance(name, str) else None
        if api is None:
            api = self._answering(name)
        if api is None:
            return self._unknown(name, arguments)
        try:
            return api.prepare(arguments, session_id, self.timeout)
        except ToolArgumentsError as error:
            return failed(str(error), api.name, arguments, ActionStatusCode.ARGS_ERROR)

    def _answering(self, name: Any) -> ToolAPI | None:
        """The finish action and the like, when a call names them."""
        return next((action.apis()["run"] for action in self.__answers if action.name == name), None)

    def _unknown(self, name: Any, arguments: Any) -> ActionReturn:
        invalid = self.__answers[0]
        names = list(dict.fromkeys(api.name for api in self.__routes.values()))
        known = f"the tools are {', '.join(names)}" if names else "there are no tools"
        fault = ""
        if name == "" and isinstance(arguments, str):
            try:
                loads_strictly(arguments)
            except ValueError as error:
                fault = f" (the call is no valid JSON: {error})"
        shown = repr(name) if len(repr(name)) <= 100 else repr(name)[:97] + "..."
        answer = invalid.run(f"{invalid.err_msg}: {shown}{fault}; {known}")
        return _failed_as(answer, name if isinstance(name, str) else invalid.name, arguments)

    def _reply(self, plan: _Plan, results: list[ActionReturn]) -> AgentMessage:
        """The results as a message."""
        returns = plan.filled(results)
        if plan.calls is None:
            return unchecked_message(sender=self.name, content=copied(returns[0]))
        tool_results = [_tool_result(call, one) for call, one in zip(plan.calls, returns, strict=True)]
        text = "\n".join(result.text for result in tool_results)
        return unchecked_message(sender=self.name, content=text, tool_results=tool_results)


class AsyncActionExecutor(ActionExecutor, AsyncModule):
    """Runs the tools that a message calls, awaited; see `ActionExecutor`.

    Async tools run in the caller's loop, blocking ones in threads.
    """

    @careful
    async def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, stop: Stop | None = None, **kwargs: Any
    ) -> Any:
        """Run the calls of a message; those under way are given up when `stop` says so."""
        plan = self._calls_of(message, session_id)
        return self._reply(plan, await run_calls_async(plan.pending, self.max_concurrency, stop))


_OPEN, _SUCCESS = ActionValidCode.OPEN, ActionStatusCode.SUCCESS  # looked at for each call


class _Plan:
    """The calls of a message: those to be run, and those that are answered already."""

    __slots__ = ("calls", "entries", "pending")

    def __init__(self, calls: list[ToolCall] | None, entries: list[PreparedCall | ActionReturn]) -> None:
        self.calls = calls
        self.entries = entries
        self.pending = [entry for entry in entries if isinstance(entry, PreparedCall)]

    def filled(self, results: list[ActionReturn]) -> list[ActionReturn]:
        """One result for each call, in their order."""
        if len(results) == len(self.entries):
            return results
        arrived = iter(results)
        return [next(arrived) if isinstance(entry, PreparedCall) else entry for entry in self.entries]


def _note(plan: _Plan) -> None:
    """Let the spans of calls have the ids that the model gave, and those that are answered already have theirs now."""
    ids = [call.id for call in plan.calls or ()] or [""]
    for call_id, entry in zip(ids[:MAX_CALLS], plan.entries, strict=False):
        if isinstance(entry, PreparedCall):
            entry.call_id = call_id
        else:
            spans.note_refused(entry, call_id)


def _failed_as(answer: ActionReturn, name: str, arguments: Any) -> ActionReturn:
    """An answer about a call, cleaned as a failed call's is."""
    result = failed(answer.errmsg or "", name, arguments, answer.state)
    result.valid = answer.valid
    return result


def _tool_result(call: ToolCall, returned: ActionReturn) -> ToolResult:
    metadata: dict[str, Any] = {}
    files = [item for item in returned.result or () if item.get("type") != "text"]
    if files:
        metadata["items"] = copied(files)
    if returned.valid != _OPEN:
        metadata["valid"] = int(returned.valid)
    good = returned.state == _SUCCESS
    text = returned.text
    return ToolResult(good, text if good else "", "" if good else text, metadata, call.id, call.name)


def _listed(actions: Any) -> Iterable[Any]:
    if isinstance(actions, Mapping) and "type" not in actions:
        raise InvalidArgument("actions", actions, "give a list of tools, or one dict(type=...)")
    if isinstance(actions, Mapping | BaseAction) or callable(actions):
        return [actions]
    if not isinstance(actions, Iterable) or isinstance(actions, str):
        raise InvalidArgument("actions", actions, "give functions, BaseActions, or dicts with 'type'")
    return actions


def _as_action(action: Any, name: str | None = None) -> BaseAction:
    """An action as it is, a function as a tool."""
    action = create_object(action, "actions")
    if isinstance(action, type) and issubclass(action, BaseAction):
        raise InvalidArgument("actions", action, f"give an object: {action.__name__}()")
    if isinstance(action, BaseAction):
        return action
    if not callable(action) or isinstance(action, type | Module):
        raise InvalidArgument("actions", action, "give functions, BaseActions, or dicts with 'type'")
    function: Callable[..., Any] = action
    return FunctionTool(function, name)


def _special(given: Any, kind: type[Any], argument: str) -> Any:
    action = kind() if given is None else create_object(given, argument)
    if not isinstance(action, kind):
        raise InvalidArgument(argument, given, f"give an object of {kind.__name__} or a class derived from it")
    return action
