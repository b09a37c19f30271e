"""Reason, act, observe: a model that uses tools until it has an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from ..actions.executor import ActionExecutor, AsyncActionExecutor
from ..aggregators import DefaultAggregator
from ..colour import careful
from ..errors import InvalidArgument
from ..hooks import ActionPreprocessor, Hook
from ..memory import Memory, SessionId
from ..prompts import PromptTemplate, StrParser
from ..prompts.parsers import tool_format, ToolFormat
from ..registry import create_object
from ..schema import AgentMessage
from .agent import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent
from .workflow import AsyncStreamingWorkflow, AsyncWorkflow, Call, Steps, StreamingWorkflow, Workflow

__all__ = ["AsyncReAct", "AsyncStreamingReAct", "ReAct", "StreamingReAct"]


class ReAct(Workflow):
    """A model that uses tools until it has an answer.

    Args:
        llm: the model.
        actions: tools (functions, `BaseAction`s, `dict(type=...)`), or an `ActionExecutor` of them.
        template: system prompt. With an `output_format`, its places `{action_info}` and `{output_format}` take the
            tools' descriptions and the parser's instruction.
        memory: what each session's memory is made from, for this agent and the one inside.
        output_format: parser of a text protocol, for models without native tool calls; None to use those. The name of
            a format that `tool_format` knows, such as `"hermes"`, will do; it tells the model of the tools itself.
        aggregator: turns memory into the messages that the model is sent.
        name, description, hooks: as for `Agent`.
        finish_condition: called with each answer; true for the one that is the reply. By default, that calls no tool.
        max_turn: most times the model is asked while it calls tools; after that it is asked once more without tools,
            and the reply's `finish_reason` is `max_turns`.

    Its units are `agent` (the model with its memory) and `actions` (the executor).

    >>> from lagentlike.llms import TinyLM
    >>> from lagentlike.actions import calculator
    >>> ReAct(TinyLM(), actions=[calculator])("What is the result of 1 + 1?").content
    'The result of 1 + 1 is 2.'
    """

    agent_class: ClassVar[type[Agent]] = Agent
    executor_class: ClassVar[type[ActionExecutor]] = ActionExecutor

    def __init__(
        self,
        llm: Any,
        actions: ActionExecutor | Sequence[Any] | Mapping[str, Any] | Callable[..., Any],
        template: Any = None,
        memory: Mapping[str, Any] | type[Memory] | Memory | None = None,
        output_format: StrParser | Mapping[str, Any] | str | None = None,
        aggregator: DefaultAggregator | Mapping[str, Any] | None = None,
        name: str | None = None,
        description: str | None = None,
        hooks: Hook | Mapping[str, Any] | Sequence[Hook | Mapping[str, Any]] | None = None,
        finish_condition: Callable[[AgentMessage], bool] | None = None,
        max_turn: int = 10,
    ) -> None:
        super().__init__(memory=memory, name=name, description=description, hooks=hooks)
        self.max_turn = checked_max_turn(max_turn)
        self.finish_condition = finish_condition or calls_no_tool
        parser = parser_of(output_format)
        self.native = parser is None
        results = parser.results if isinstance(parser, ToolFormat) else None
        self.actions = executor_of(actions, self.executor_class, [] if self.native else [ActionPreprocessor(results)])
        if isinstance(parser, ToolFormat) and not parser.tools:
            parser = parser.with_tools(self.actions.tools())
        self.agent = self.agent_class(
            llm, self._filled(template, parser), memory=memory, output_format=parser, aggregator=aggregator
        )

    @careful
    def steps(self, *message: AgentMessage, session_id: SessionId, **kwargs: Any) -> Steps:
        asking = {**kwargs, "tools": self.actions.tools()} if self.native else kwargs
        (reply,) = message if len(message) == 1 else (_as_one(message),)
        for _ in range(self.max_turn):
            reply = yield Call(self.agent, reply, asking)
            if self.finish_condition(reply):
                return reply
            reply = yield Call(self.actions, reply)
        reply = yield Call(self.agent, reply, kwargs)
        return reply.model_copy(update={"finish_reason": "max_turns"})

    def _is_careful(self) -> bool:
        return self.finish_condition is calls_no_tool and super()._is_careful()

    def _filled(self, template: Any, parser: StrParser | None) -> Any:
        """The system prompt with the tools and the output format filled in, for the text protocol."""
        if parser is None or not isinstance(template, str | PromptTemplate):
            return template
        tools = json.dumps(self.actions.description(), ensure_ascii=False)
        prompt = template if isinstance(template, PromptTemplate) else PromptTemplate(template)
        return prompt.format(action_info=tools, output_format=parser.format_instruction())


class AsyncReAct(ReAct, AsyncWorkflow):
    """A model that uses tools until it has an answer, called with `await`; see `ReAct`."""

    agent_class = AsyncAgent
    executor_class = AsyncActionExecutor


class StreamingReAct(ReAct, StreamingWorkflow):
    """A model that uses tools until it has an answer, giving out each step as it comes; see `ReAct`."""

    agent_class = StreamingAgent


class AsyncStreamingReAct(AsyncReAct, AsyncStreamingWorkflow):
    """A model that uses tools until it has an answer, giving out each step as it comes; see `ReAct`."""

    agent_class = AsyncStreamingAgent


def parser_of(output_format: Any) -> StrParser | None:
    """The parser that an argument `output_format` means: itself, what a config describes, or a format by name."""
    if isinstance(output_format, str):
        return tool_format(output_format)
    parser: StrParser | None = create_object(output_format, "output_format")
    return parser


def executor_of(actions: Any, executor_class: type[ActionExecutor], hooks: Sequence[Any]) -> ActionExecutor:
    """The executor of some tools; one that is given is taken as it is."""
    actions = create_object(actions, "actions")
    if isinstance(actions, ActionExecutor):
        if actions.colour is not executor_class.colour:
            raise InvalidArgument("actions", actions, f"this agent needs an {executor_class.__name__}")
        return actions
    if not isinstance(actions, list | tuple):
        actions = [actions]
    return executor_class(actions, hooks=list(hooks))


def calls_no_tool(message: AgentMessage) -> bool:
    """Whether an answer is no tool call, native or in a parser's text form."""
    if message.tool_calls:
        return False
    formatted = message.formatted
    if formatted is None:
        return True
    if isinstance(formatted, Mapping):
        if "tool_type" in formatted:
            return formatted["tool_type"] is None
        return "name" not in formatted
    return True


def checked_max_turn(max_turn: Any, argument: str = "max_turn") -> int:
    if isinstance(max_turn, bool) or not isinstance(max_turn, int) or max_turn < 1:
        raise InvalidArgument(argument, max_turn, "give how often the model may be asked, at least 1")
    return max_turn


def _as_one(messages: tuple[AgentMessage, ...]) -> AgentMessage:
    text = "\n".join(str(message.content) for message in messages)
    return messages[-1].model_copy(update={"content": text})
