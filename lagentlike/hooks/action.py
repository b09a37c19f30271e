"""Turn what an output parser found into the call that an executor runs, and the result into text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InvalidArgument
from ..schema import ActionReturn, AgentMessage, FunctionCall, ToolCall, ToolResult, ToolStatusCode
from .hook import Hook

__all__ = ["ActionPreprocessor", "InternLMActionProcessor"]


class ActionPreprocessor(Hook):
    """Before the executor: the call in `message.formatted` becomes the content. After it: the result becomes text.

    `formatted` is what a parser gave, with the call under `action` (`{"name", "parameters"}`), or the call itself. A
    call that the parser could not read is not made: its result says so. Where the parser found several, under `calls`,
    all are run, and their results become one text.

    Args:
        results: writes the results of several calls as one text, such as `ToolFormat.results`; one a line by default.
    """

    results: Callable[[Sequence[ToolResult]], str] | None = None

    def __init__(self, results: Callable[[Sequence[ToolResult]], str] | None = None) -> None:
        if results is not None:
            self.results = results

    def before_action(self, executor: Any, message: AgentMessage, session_id: Any) -> AgentMessage:
        if message.tool_calls or isinstance(message.content, FunctionCall):
            return message
        call = message.formatted if message.formatted is not None else message.content
        if isinstance(call, Mapping) and call.get("calls"):
            message.tool_calls = [self._tool_call(executor, one) for one in call["calls"]]
            for one in message.tool_calls:
                one.id = _IN_TEXT + one.id
            return message
        if isinstance(call, Mapping) and "action" in call:
            broken = call.get("status") == ToolStatusCode.PARSING_ERROR
            call = _unread(call["action"]) if broken else self._call(executor, call)
        message.content = call
        return message

    def after_action(self, executor: Any, message: AgentMessage, session_id: Any) -> AgentMessage:
        if isinstance(message.content, ActionReturn):
            message.content = message.content.text
        elif (results := message.tool_results) and all(one.id.startswith(_IN_TEXT) for one in results):
            for one in results:
                one.id = one.id.removeprefix(_IN_TEXT)
            write = self.results or _in_lines
            message.content, message.tool_results = write(results), None
        return message

    def _tool_call(self, executor: Any, one: Mapping[str, Any]) -> ToolCall:
        """One of several calls: as a tool format gives it, or as a tool parser does."""
        if "action" not in one:
            return ToolCall(one["name"], one["parameters"], id=one.get("id", ""), error=one.get("error", ""))
        if one.get("status") == ToolStatusCode.PARSING_ERROR:
            return _unread(one["action"])
        return _as_tool_call(self._call(executor, one))

    def _call(self, executor: Any, parsed: Mapping[str, Any]) -> Any:
        return parsed["action"]


class InternLMActionProcessor(ActionPreprocessor):
    """Also takes bare code: it becomes a call of the executor's code tool.

    Args:
        code_parameter: name of the parameter of the code tool that takes the code.
        interpreter: name of the code tool; None for the tool named by the parser's `tool_type` if there is one, else
            the first whose only required parameter is `code_parameter`, else the first one.
    """

    def __init__(self, code_parameter: str = "command", interpreter: str | None = None) -> None:
        self.code_parameter = code_parameter
        self.interpreter = interpreter

    def _call(self, executor: Any, parsed: Mapping[str, Any]) -> Any:
        action = parsed["action"]
        if not isinstance(action, str):
            return action
        return {"name": self._code_tool(executor, parsed.get("tool_type")), "parameters": {self.code_parameter: action}}

    def _code_tool(self, executor: Any, tool_type: Any) -> str:
        names = list(executor.keys())
        if not names:
            raise InvalidArgument(
                "actions", names, "the executor has no tool to run code with: add IPythonInterpreter()"
            )
        if self.interpreter is not None:
            return self.interpreter
        if tool_type in names:
            return str(tool_type)
        takers = [tool["name"] for tool in executor.description() if tool.get("required") == [self.code_parameter]]
        return str(takers[0] if takers else names[0])


_IN_TEXT = "text:"  # how the ids of calls begin that were made in text, whose results are text again


def _as_tool_call(call: Any) -> ToolCall:
    """A call in any form, also that of JSON text."""
    if isinstance(call, str):
        try:
            call = json.loads(call)
        except (ValueError, RecursionError):
            return _unread(call)
    if isinstance(call, Mapping) and isinstance(call.get("name"), str):
        return ToolCall(call["name"], call.get("parameters", call.get("arguments", {})))
    if isinstance(call, FunctionCall):
        return ToolCall(call.name, call.parameters)
    return _unread(json.dumps(call, default=str))


def _in_lines(results: Sequence[ToolResult]) -> str:
    return "\n".join(result.text for result in results)


def _unread(action: Any) -> ToolCall:
    """What a parser could not read, as a call whose result says so."""
    error = "the call cannot be read: it is not whole, or not in the format that was asked for"
    if isinstance(action, str) and action.lstrip().startswith("{"):
        try:
            json.loads(action)
        except (ValueError, RecursionError) as fault:
            error = f"{error} (it is no valid JSON: {fault})"
    return ToolCall("", action if isinstance(action, str) else "", error=f"{error}; write it whole again")
