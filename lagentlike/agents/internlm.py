"""Agents that write tool calls as InternLM2 was trained to, and read code and plugins apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from ..actions.base import BaseAction
from ..actions.executor import ActionExecutor, AsyncActionExecutor
from ..aggregators import DefaultAggregator, InternLMToolAggregator
from ..errors import InvalidArgument
from ..hooks import Hook, InternLMActionProcessor
from ..memory import Memory, SessionId
from ..prompts import InterpreterParser, MixedToolParser, PluginParser, StrParser
from ..registry import create_object
from ..schema import AgentMessage
from .agent import Agent, AsyncAgent
from .react import calls_no_tool, checked_max_turn, executor_of
from .workflow import AsyncWorkflow, Call, Steps, Workflow

__all__ = ["AgentForInternLM", "AsyncAgentForInternLM", "AsyncMathCoder", "MathCoder", "get_plugin_prompt"]

META_PROMPT = "When you need to use a tool, say what you want to do first, then write the call."

INTERPRETER_PROMPT = (
    "You can run Python code in a live session that keeps its state. Write the code between "
    "<|action_start|><|interpreter|> and <|action_end|>; the output comes back to you. Use it to compute, to check, "
    "and to draw."
)

PLUGIN_PROMPT = (
    "You can use these tools:\n{prompt}\nWrite a call as JSON between <|action_start|><|plugin|> and <|action_end|>:\n"
    '{{"name": "the tool\'s name", "parameters": {{"argument": "value"}}}}'
)

MATH_PROMPT = (
    "Solve the problem by reasoning step by step and running Python code. Say what you compute before each piece of "
    "code, write exact forms with sympy where numbers would be rounded, look at the output, and end with the final "
    "answer in \\boxed{}. Write the code between <|action_start|><|interpreter|> and <|action_end|>."
)

API_PREFIX = "This is a function of the tool '{tool_name}'. What it does: \n{description}"


class AgentForInternLM(Workflow):
    """A model that calls plugins and an interpreter in text, each by its own executor.

    Args:
        llm: the model.
        plugins: tools that are called by name with JSON parameters.
        interpreter: the tool that runs code.
        template: system prompt.
        memory: what each session's memory is made from.
        output_format: parser of the calls; its `tool_type`s are `plugin` and `interpreter`.
        aggregator: turns memory into the messages that the model is sent.
        action_hooks: hooks of the executors.
        name, description, hooks: as for `Agent`.
        finish_condition: called with each answer; true for the one that is the reply. By default, that calls no tool.
        max_turn: most times the model is asked; the last message is the reply then.

    Its units are `agent`, `plugin_executor` and `interpreter_executor` (the latter two where there are such tools).
    """

    agent_class: ClassVar[type[Agent]] = Agent
    executor_class: ClassVar[type[ActionExecutor]] = ActionExecutor

    def __init__(
        self,
        llm: Any,
        plugins: Any = None,
        interpreter: Any = None,
        template: Any = None,
        memory: Mapping[str, Any] | type[Memory] | Memory | None = None,
        output_format: StrParser | Mapping[str, Any] | None = None,
        aggregator: DefaultAggregator | Mapping[str, Any] | None = None,
        action_hooks: Sequence[Hook | Mapping[str, Any]] | None = None,
        name: str | None = None,
        description: str | None = None,
        hooks: Hook | Mapping[str, Any] | Sequence[Hook | Mapping[str, Any]] | None = None,
        finish_condition: Callable[[AgentMessage], bool] = calls_no_tool,
        max_turn: int = 4,
    ) -> None:
        super().__init__(memory=memory, name=name, description=description, hooks=hooks)
        self.finish_condition = finish_condition
        self.max_turn = checked_max_turn(max_turn)
        processors = [InternLMActionProcessor()] if action_hooks is None else action_hooks
        self.plugin_executor = self._executor(plugins, processors)
        self.interpreter_executor = self._executor(interpreter, processors)
        if self.plugin_executor is None and self.interpreter_executor is None:
            raise InvalidArgument("plugins", plugins, "give plugins, an interpreter, or both")
        self.agent = self.agent_class(
            llm,
            template,
            memory=memory,
            output_format=output_format if output_format is not None else self._parser(),
            aggregator=aggregator if aggregator is not None else InternLMToolAggregator(),
        )

    def steps(self, *message: AgentMessage, session_id: SessionId, **kwargs: Any) -> Steps:
        shown: tuple[AgentMessage, ...] = message[-1:]
        for _ in range(self.max_turn):
            reply = yield Call(self.agent, shown, kwargs)
            if self.finish_condition(reply):
                return reply
            shown = ()
            for one in _one_call_each(reply):
                result = yield Call(self._executor_for(one), one)
                shown = (*shown, result)
        return shown[-1]

    def _executor_for(self, message: AgentMessage) -> ActionExecutor:
        """The executor that a call is meant for."""
        executors = {"plugin": self.plugin_executor, "interpreter": self.interpreter_executor}
        wanted = message.formatted.get("tool_type") if isinstance(message.formatted, Mapping) else None
        executor = executors.get(str(wanted)) or self.interpreter_executor or self.plugin_executor
        if executor is None:  # one of the two is there: the constructor saw to it
            raise InvalidArgument("message.formatted", message.formatted, "there is no executor for this call")
        return executor

    def _executor(self, actions: Any, hooks: Sequence[Any]) -> ActionExecutor | None:
        return None if actions is None else executor_of(actions, self.executor_class, hooks)

    def _parser(self) -> StrParser:
        parsers: list[Any] = []
        if self.plugin_executor is not None:
            described = json.dumps(self.plugin_executor.description(), ensure_ascii=False, indent=4)
            parsers.append(PluginParser(template=PLUGIN_PROMPT, prompt=described))
        if self.interpreter_executor is not None:
            parsers.append(InterpreterParser(template=INTERPRETER_PROMPT))
        return MixedToolParser(template=META_PROMPT, parsers=parsers)


def _one_call_each(message: AgentMessage) -> list[AgentMessage]:
    """A message for each call of a message."""
    calls = message.formatted.get("calls") if isinstance(message.formatted, Mapping) else None
    return [message.model_copy(update={"formatted": call}) for call in calls] if calls else [message]


class AsyncAgentForInternLM(AgentForInternLM, AsyncWorkflow):
    """A model that calls plugins and an interpreter in text, called with `await`; see `AgentForInternLM`."""

    agent_class = AsyncAgent
    executor_class = AsyncActionExecutor


class MathCoder(AgentForInternLM):
    """A model that solves problems with code in a live session; see `AgentForInternLM` for the arguments.

    `interpreter` is a Jupyter kernel for each session by default.
    """

    def __init__(
        self,
        llm: Any,
        interpreter: Any = None,
        template: Any = None,
        output_format: StrParser | Mapping[str, Any] | None = None,
        max_turn: int = 6,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            llm,
            interpreter={"type": self.interpreter_type} if interpreter is None else interpreter,
            template=template,
            output_format=InterpreterParser(template=MATH_PROMPT) if output_format is None else output_format,
            max_turn=max_turn,
            **kwargs,
        )

    interpreter_type: ClassVar[str] = "lagentlike.actions.IPythonInterpreter"


class AsyncMathCoder(MathCoder, AsyncAgentForInternLM):
    """A model that solves problems with code in a live session, called with `await`; see `MathCoder`."""

    interpreter_type = "lagentlike.actions.AsyncIPythonInterpreter"


def get_plugin_prompt(actions: Any, api_desc_template: str = API_PREFIX) -> str:
    """The description of tools as JSON, for a system prompt.

    Args:
        actions: an action, or a list of them (functions and `dict(type=...)` too).
        api_desc_template: how a toolkit's functions are described; places `{tool_name}` and `{description}`.
    """
    described = []
    for action in actions if isinstance(actions, list | tuple) else [actions]:
        action = create_object(action, "actions")
        if not isinstance(action, BaseAction):
            action = next(iter(ActionExecutor([action]).children()))
        description = action.description
        if not action.is_toolkit:
            described.append(description)
            continue
        for api in description["api_list"]:
            text = api_desc_template.format(tool_name=action.name, description=api["description"])
            described.append({**api, "name": f"{action.name}.{api['name']}", "description": text})
    return json.dumps(described, ensure_ascii=False, indent=4)
