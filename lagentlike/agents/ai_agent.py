"""An agent that works with tools until it has an answer, with the rules that long runs need."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from ..actions.arithmetic import calculator
from ..actions.base import BaseAction
from ..actions.executor import ActionExecutor, AsyncActionExecutor
from ..actions.toolsets import tools_of
from ..colour import careful
from ..errors import ColourError, InvalidArgument, LLMError, RealRequestsForbidden, RequestRefused, ScriptExhausted
from ..hooks import Hook, MessageLogger
from ..llms.fallback import AsyncFallbackLLM, FallbackLLM
from ..memory import Memory, SessionId
from ..prompts.parsers.tool_formats import tool_format as format_of
from ..prompts.parsers.tool_formats import ToolFormat
from ..registry import create_object
from ..schema import AgentMessage, copied, unchecked_message, Usage
from .agent import Agent
from .approvals import Approve, decision_message
from .callbacks import AsyncCallbacks, Callbacks
from .compression import Compressor, DropOldest, is_mark
from .containers import AgentDict
from .controls import Controls
from .conversation import from_openai, LoopAggregator, Transcript
from .delegation import agent_tool, AgentTool, AsyncDelegate, Delegate
from .guardrails import Guardrails
from .handoffs import Handoff
from .limits import RunLimits
from .loop import Loop
from .loop_model import AsyncLoopModel, AsyncStreamingLoopModel, LoopModel, StreamingLoopModel
from .react import checked_max_turn
from .reasoning import checked_policy, gives_back, ReasoningPolicy
from .run import KEY, Run, run_of
from .trajectory_files import TrajectoryFile
from .workflow import AsyncStreamingWorkflow, AsyncWorkflow, Steps, StreamingWorkflow, Workflow

__all__ = ["AIAgent", "AsyncAIAgent", "AsyncStreamingAIAgent", "StreamingAIAgent"]


T = TypeVar("T")

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class AIAgent(Workflow):
    """A model that works with tools until it has an answer.

    A run asks the model, makes the calls of its reply, asks again, until the reply calls nothing. It ends for one of
    the reasons in `FinishReason`, with what it has by then; `run_conversation` and the reply's `finish_reason` tell.

    Args:
        model: `"TinyLM"`, the embedded model; any other name, of a model behind an OpenAI-compatible server; or a model
            object. Without one, the embedded model; as that follows few tools at a time, it has only those that are
            named, or else a calculator.
        api_key: the server's key; None takes `OPENAI_API_KEY` from the environment.
        base_url: the server; OpenAI's by default.
        max_turns: most times the model is asked while it may use tools; then once more without them.
        enabled_toolsets: names of toolsets whose tools it has; None for all that can be used here.
        disabled_toolsets: names of toolsets that are left out.
        verbose_logging: log each message to stderr, unless logging is set up already.
        save_trajectories: write each run to `trajectories/`, or to a folder or file of another name.
        tools: further tools: functions, `BaseAction`s, `dict(type=...)`. One goes before a toolset's of its name.
        system_prompt: what it is told first.
        tool_format: `"native"`, or the name of a text format such as `"hermes"`, for models without native tool calls.
        reasoning: whether earlier thinking is sent again: `"echo"`, `"strip"`, or `"auto"`, where the server takes it.
        fallback_models: asked in this order where the model fails for good; each as `model`.
        limits: what one run may use.
        approve: called with each `ToolCall` whose tool asks for approval; True lets it be made. Without it a run
            pauses there, see `approve`.
        guardrails: checks of input, calls and output.
        compressor: makes a conversation shorter that does not fit the model; None lets the run end instead, as it
            always does in `train()` mode.
        handoffs: agents that may take the conversation over: `Handoff`s or agents. One with the tool `HandBack` can
            give it back.
        delegation_depth: how deep sub-agents of the tool `delegate` may be nested; 0 leaves the tool out.
        memory, name, description, hooks: as for `Agent`.

    Its units are `agent` (the model with its memory), `actions` (the executor), `callbacks`, and `others` (those that
    may take over). The task's id is the session's.

    >>> AIAgent().chat("What is the result of 1 + 1?")
    'The result of 1 + 1 is 2.'
    """

    agent_class: ClassVar[type[Agent]] = LoopModel
    executor_class: ClassVar[type[ActionExecutor]] = ActionExecutor
    callbacks_class: ClassVar[type[Callbacks]] = Callbacks

    def __init__(
        self,
        model: Any = None,
        api_key: str | None = None,
        base_url: str | None = None,
        max_turns: int = 20,
        enabled_toolsets: Iterable[str] | None = None,
        disabled_toolsets: Iterable[str] | None = None,
        verbose_logging: bool = False,
        save_trajectories: bool | str | os.PathLike[str] = False,
        tools: Sequence[Any] = (),
        system_prompt: Any = None,
        *,
        tool_format: str | ToolFormat = "native",
        reasoning: ReasoningPolicy = "auto",
        fallback_models: Sequence[Any] = (),
        limits: RunLimits | None = None,
        approve: Approve | None = None,
        guardrails: Guardrails | None = None,
        compressor: Compressor | None = DropOldest(),  # noqa: B008  # it holds no state
        handoffs: Sequence[Handoff | Agent] = (),
        delegation_depth: int = 1,
        memory: Mapping[str, Any] | type[Memory] | Memory | None = None,
        name: str | None = None,
        description: str | None = None,
        hooks: Hook | Mapping[str, Any] | Sequence[Hook | Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(name=name, description=description, hooks=hooks)
        self.max_turns = checked_max_turn(max_turns, "max_turns")
        self.limits = _of_kind("limits", limits, RunLimits) or RunLimits()
        self.approve_call = _function("approve", approve)
        self.guardrails = _of_kind("guardrails", guardrails, Guardrails) or Guardrails()
        self.compressor = _function("compressor", compressor)
        self.reasoning_policy = checked_policy(reasoning)
        self._controls = Controls()
        if model is None:
            model, enabled_toolsets = "TinyLM", enabled_toolsets or ()
            tools = tools or ([] if enabled_toolsets else [calculator])
        llm = self._model_of(model, api_key, base_url)
        fallback_models = _several("fallback_models", fallback_models, "models, each as model")
        if fallback_models:
            others = [self._model_of(other, api_key, base_url) for other in fallback_models]
            llm = (AsyncFallbackLLM if self.colour.is_async else FallbackLLM)([llm, *others], on=_is_no_refusal)
        given = _several("handoffs", handoffs, "Handoffs or agents")
        taking_over = [item if isinstance(item, Handoff) else Handoff(item) for item in given]
        for handoff in taking_over:
            self._check_colour(handoff.agent)
        self.handoffs = {handoff.name: handoff for handoff in taking_over}
        tools = _several("tools", tools, "functions or BaseActions; of an agent, agent.as_tool()")
        own = [*tools, *(handoff.tool() for handoff in taking_over)]
        self.actions = self.executor_class(own)
        settings = {
            "enabled_toolsets": enabled_toolsets,
            "disabled_toolsets": disabled_toolsets,
            "tools": tools,
            "tool_format": tool_format,
        }
        for tool in tools_of(enabled_toolsets, disabled_toolsets):
            if tool.name in self.actions:
                continue
            if isinstance(tool, Delegate) and tool.agent is None:
                if delegation_depth < 1:
                    continue
                tool = self._delegate(llm, tool, {**settings, "delegation_depth": delegation_depth - 1})
            self.actions[tool.name] = tool
        self.native = tool_format == "native"
        self.tool_format = None if self.native else format_of(tool_format, self.actions.tools())
        self.agent = self.agent_class(
            llm,
            self.instructed("" if system_prompt is None else str(system_prompt)) or None,
            memory=memory,
            aggregator=LoopAggregator(gives_back(self.reasoning_policy, llm), self.tool_format),
        )
        self.agent.tool_format = self.tool_format
        self.transcript = Transcript(self.tool_format)
        self.callbacks = self.callbacks_class()
        if taking_over:
            self.others = AgentDict({name: handoff.agent for name, handoff in self.handoffs.items()})
        if save_trajectories:
            self.register_hook(TrajectoryFile("trajectories" if save_trajectories is True else save_trajectories))
        if verbose_logging:
            _log_messages(self)

    # Talking to it

    def chat(self, user_message: Any, task_id: SessionId | None = None) -> str:
        """The answer to a message.

        Args:
            user_message: a text, a list of content parts, or an `AgentMessage`.
            task_id: the session that goes on; 0 if there is none.

        Returns:
            The answer; where a run ends without one, why it did.

        Raises:
            LLMError: a model call failed for good; the session is as before.
        """
        return _text_of(self._asked(_message_of(user_message), task_id))

    def run_conversation(
        self,
        user_message: Any,
        system_message: str | None = None,
        conversation_history: Iterable[Mapping[str, Any]] | None = None,
        task_id: SessionId | None = None,
    ) -> dict[str, Any]:
        """Run until there is an answer, or a reason to stop.

        Args:
            user_message: a text, a list of content parts, or an `AgentMessage`.
            system_message: instructions in place of the agent's, for this session from here on.
            conversation_history: message dicts in OpenAI's form, which take the place of what the session remembers.
            task_id: the session that goes on; 0 if there is none.

        Returns:
            `final_response` (None if there is none), `messages` (the whole session as dicts in OpenAI's form),
            `api_calls`, `tool_calls`, `turns`, `usage`, `seconds`, `finish_reason`, `completed` (whether that is
            "stop"), `detail` (more on the reason), `pending` (calls that wait for an approval), `task_id`. Where a
            model call failed for good, the reason is "error", the session is as before, and `messages` end with what
            was lost.
        """
        options = {} if system_message is None else {"system_message": system_message}
        try:
            with self._begun_at(conversation_history, task_id):
                return self._result(self._asked(_message_of(user_message), task_id, options), task_id)
        except LLMError as error:
            return self._failed(error, task_id)

    def approve(self, task_id: SessionId | None, call_id: str, approved: bool, reason: str = "") -> dict[str, Any]:
        """Decide on a call that waits, and go on with the run if it was the last one; see `pending`.

        Args:
            task_id: the session.
            call_id: the call.
            approved: whether it may be made.
            reason: told to the model where it may not.

        Returns:
            As `run_conversation`.

        Raises:
            InvalidArgument: no such call waits.
        """
        try:
            return self._result(self._asked(decision_message(call_id, approved, reason), task_id), task_id)
        except LLMError as error:
            return self._failed(error, task_id)

    def pending(self, task_id: SessionId | None = None) -> list[dict[str, Any]]:
        """The calls of a session that wait for an approval: `id`, `name`, `arguments`, `reason`."""
        reply = self._last_reply(_session(task_id))
        return [] if reply is None else list(run_of(reply).get("pending", ()))

    def interrupt(self, task_id: SessionId | None = None, reason: str = "interrupted by the user") -> bool:
        """Let a run that is under way, and those of its sub-agents, end at the next safe point; from any thread.

        What it did is kept, and calls that were not made get a result that says so.

        Returns:
            Whether there was such a run.
        """
        session_id, loops = _session(task_id), [unit for unit in self.modules() if isinstance(unit, AIAgent)]
        return any([loop._controls.interrupt(session_id, reason) for loop in loops])  # noqa: C419  # all of them

    def steer(self, task_id: SessionId | None, text: str) -> bool:
        """Say something to a run that is under way; its model is told with the next request. From any thread.

        Returns:
            Whether there was such a run.
        """
        if not isinstance(text, str) or not text.strip():
            raise InvalidArgument("text", text, "give a text")
        loops = [unit for unit in self.modules() if isinstance(unit, AIAgent)]  # who took over comes after this one
        return any(loop._controls.steer(_session(task_id), text) for loop in reversed(loops))

    def messages(self, task_id: SessionId | None = None) -> list[dict[str, Any]]:
        """The session as message dicts in OpenAI's form; thinking is in `reasoning`."""
        session_id = _session(task_id)
        assert self.agent.memory is not None
        shown = self.transcript.aggregate(self.agent.memory.get(session_id), self.agent.name)
        head = [] if shown and shown[0]["role"] == "system" else self.agent.aggregator._head(None, self.agent.template)
        found = [{key: copied(value) for key, value in message.items()} for message in (*head, *shown)]
        reply = self._last_reply(session_id)
        run = Run() if reply is None else Run.after(reply)
        unasked = run.unasked
        if run.pending and not run.active:  # what comes after their results waits with them
            partly = unchecked_message(content="", sender=self.actions.name, tool_results=run.results)
            unasked = [partly] if run.results else []
        for message in unasked:
            found += self.transcript.render(message, self.agent.name, None)
        if run.active in self.handoffs:
            found += self.handoffs[run.active].messages(session_id)
        return found

    def remembered(self, session_id: SessionId) -> list[AgentMessage]:
        """All of a session, for records: what was left over too, and calls in the place of their text.

        A message whose calls were text has that whole as `text` in its `extra_info`.
        """
        assert self.agent.memory is not None
        reply = self._last_reply(session_id)
        left_over = [] if reply is None else Run.after(reply).unasked
        messages = [message for message in (*self.agent.memory.get(session_id), *left_over) if not is_mark(message)]
        for place, message in enumerate(messages):
            if self.tool_format is not None and message.tool_calls:
                content = self.tool_format.parse(message.content).content
                update = {"content": content, "extra_info": {**(message.extra_info or {}), "text": message.content}}
                messages[place] = message.model_copy(update=update)
        return messages

    def as_tool(self, name: str | None = None, description: str | None = None) -> AgentTool:
        """This agent as a tool for another one of its colour; each call is a conversation of its own."""
        return agent_tool(self, name, description)

    # The loop

    @careful
    def steps(
        self, *message: AgentMessage, session_id: SessionId, system_message: str | None = None, **kwargs: Any
    ) -> Steps:
        control = self._controls.begin(session_id)
        try:
            run = Run.after(self._last_reply(session_id, len(message)))
            return (yield from Loop(self, run, control, session_id, kwargs).steps(message, system_message))
        finally:
            self._controls.end(session_id, control)

    def instructed(self, text: str) -> str:
        """Instructions with what a text format says of the tools."""
        tools = "" if self.tool_format is None else self.tool_format.instruction(self.actions.tools())
        return "\n\n".join(part for part in (text, tools) if part)

    def keep_reasoning(self) -> bool:
        """Send no thinking from here on, if that is what the policy leaves open; whether that changes anything."""
        aggregator = self.agent.aggregator
        if self.reasoning_policy != "auto" or not isinstance(aggregator, LoopAggregator) or not aggregator.echo:
            return False
        self.agent.aggregator = LoopAggregator(False, self.tool_format)
        return True

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (super().extra_repr(), f"max_turns={self.max_turns}")))

    # Its parts

    def _model_of(self, model: Any, api_key: str | None, base_url: str | None) -> Any:
        """A model object from what was given."""
        if not isinstance(model, str):
            return self._checked_llm(create_object(model, "model"))
        if not model:
            raise InvalidArgument("model", model, "give a model's name, or a model object")
        if model.lower() == "tinylm" and base_url is None:
            from ..llms.tiny import AsyncTinyLM, TinyLM  # it comes with an engine of its own

            return AsyncTinyLM() if self.colour.is_async else TinyLM()
        from ..llms.openai import AsyncGPTAPI, GPTAPI  # it comes with an HTTP client

        options: dict[str, Any] = {"key": "ENV" if api_key is None else api_key, "max_new_tokens": None}
        if base_url is not None:
            options["api_base"] = base_url
        return (AsyncGPTAPI if self.colour.is_async else GPTAPI)(model, **options)

    def _check_colour(self, agent: Agent) -> None:
        """Refuse an agent to hand over to that this one cannot call."""
        ours, its = self.colour, agent.colour
        if its.is_async is not ours.is_async or (its.is_streaming and not ours.is_streaming):
            raise ColourError(
                f"handoffs: forward of {type(agent).__name__} is {its.value}, that of {type(self).__name__} "
                f"{ours.value}: hand over to an agent that is called in the same way"
            )

    def _delegate(self, llm: Any, tool: Delegate, settings: dict[str, Any]) -> BaseAction:
        """The tool that hands tasks to a sub-agent, and that."""
        blocking: type[AIAgent] = AsyncAIAgent if self.colour.is_async else AIAgent
        sub_agent = blocking(
            llm,
            max_turns=self.max_turns,
            system_prompt=_SUB_AGENT,
            reasoning=self.reasoning_policy,
            limits=self.limits,
            approve=self.approve_call,
            guardrails=self.guardrails,
            compressor=self.compressor,
            name="sub_agent",
            **settings,
        )
        return (AsyncDelegate if self.colour.is_async else Delegate)(sub_agent, tool.most)

    def _shown(self, message: AgentMessage) -> AgentMessage:
        """A message of a stream, with its calls in the place of their text."""
        if self.tool_format is None or not message.tool_calls or message.sender != self.agent.name:
            return message
        text = message.content
        content = self.tool_format.parse(text).content
        space = text[: len(text) - len(text.lstrip())] if content else ""  # so that it goes on from what was shown
        return message.model_copy(update={"content": space + content})

    def _last_reply(self, session_id: SessionId, later: int = 0) -> AgentMessage | None:
        """The last reply of a session, before so many later messages."""
        if self.memory is None:
            return None
        memory = self.memory.get(session_id)
        place = len(memory) - later - 1
        return memory[place] if place >= 0 else None

    def _asked(self, message: AgentMessage, task_id: SessionId | None, options: Mapping[str, Any] = _NO_OPTIONS) -> Any:
        """The reply to a message, whatever the colour; awaited in async ones."""
        reply: Any = self(message, session_id=_session(task_id), **options)
        if self.colour.is_streaming:
            for part in reply:
                reply = part
        return reply

    @contextmanager
    def _begun_at(self, history: Iterable[Mapping[str, Any]] | None, task_id: SessionId | None) -> Iterator[None]:
        """Put a history in the place of what a session remembers; if what follows fails, put that back."""
        if history is None:
            yield
            return
        session_id = _session(task_id)
        assert self.agent.memory is not None
        messages = from_openai(history, self.agent.name)
        undo = [state.snapshot(session_id) for _, state in self.named_states()]
        self.reset(session_id, recursive=True)
        self.agent.memory.restore(session_id, messages)
        try:
            yield
        except BaseException:
            for put_back in undo:
                put_back()
            raise

    def _result(self, reply: AgentMessage, task_id: SessionId | None) -> dict[str, Any]:
        run = run_of(reply)
        return {
            "final_response": reply.content or None,
            "messages": self.messages(task_id),
            "api_calls": run.get("api_calls", 0),
            "tool_calls": run.get("tool_calls", 0),
            "turns": run.get("turns", 0),
            "completed": reply.finish_reason == "stop",
            "finish_reason": reply.finish_reason,
            "detail": run.get("detail"),
            "usage": run.get("usage") or asdict(Usage()),
            "seconds": run.get("seconds", 0.0),
            "pending": list(run.get("pending", ())),
            "task_id": _session(task_id),
        }

    def _failed(self, error: LLMError, task_id: SessionId | None) -> dict[str, Any]:
        """What is told of a run whose model failed; a test's own mistakes are raised."""
        if isinstance(error, ScriptExhausted | RealRequestsForbidden):
            raise error
        produced: list[AgentMessage] = getattr(error, "produced", [])
        usage = sum((message.usage for message in produced if message.usage is not None), Usage())
        answers = sum(message.is_from(self.agent.name) for message in produced)
        lost = [item for message in produced for item in self.transcript.render(message, self.agent.name, None)]
        told = unchecked_message(
            content="",
            finish_reason="error",
            extra_info={
                KEY: {
                    "detail": f"{type(error).__name__}: {error}",
                    "usage": asdict(usage),
                    "turns": answers,
                    "api_calls": answers + 1,
                }
            },
        )
        result = self._result(told, task_id)
        result["messages"] = [*result["messages"], *lost]
        return result


class AsyncAIAgent(AIAgent, AsyncWorkflow):
    """A model that works with tools until it has an answer, awaited; see `AIAgent`.

    `chat`, `run_conversation` and `approve` are awaited too.
    """

    agent_class = AsyncLoopModel
    executor_class = AsyncActionExecutor
    callbacks_class = AsyncCallbacks

    async def chat(self, user_message: Any, task_id: SessionId | None = None) -> str:  # type: ignore[override]  # awaited
        """The answer to a message; see `AIAgent.chat`."""
        return _text_of(await self._asked(_message_of(user_message), task_id))

    async def run_conversation(  # type: ignore[override]  # awaited
        self,
        user_message: Any,
        system_message: str | None = None,
        conversation_history: Iterable[Mapping[str, Any]] | None = None,
        task_id: SessionId | None = None,
    ) -> dict[str, Any]:
        """Run until there is an answer, or a reason to stop; see `AIAgent.run_conversation`."""
        options = {} if system_message is None else {"system_message": system_message}
        try:
            with self._begun_at(conversation_history, task_id):
                return self._result(await self._asked(_message_of(user_message), task_id, options), task_id)
        except LLMError as error:
            return self._failed(error, task_id)

    async def approve(  # type: ignore[override]  # awaited
        self, task_id: SessionId | None, call_id: str, approved: bool, reason: str = ""
    ) -> dict[str, Any]:
        """Decide on a call that waits; see `AIAgent.approve`."""
        try:
            return self._result(await self._asked(decision_message(call_id, approved, reason), task_id), task_id)
        except LLMError as error:
            return self._failed(error, task_id)

    async def _asked(  # awaited
        self, message: AgentMessage, task_id: SessionId | None, options: Mapping[str, Any] = _NO_OPTIONS
    ) -> Any:
        reply: Any = self(message, session_id=_session(task_id), **options)
        if not self.colour.is_streaming:
            return await reply
        async for part in reply:
            reply = part
        return reply


class StreamingAIAgent(AIAgent, StreamingWorkflow):
    """A model that works with tools until it has an answer, giving out each step as it comes; see `AIAgent`."""

    agent_class = StreamingLoopModel

    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Iterator[AgentMessage]:
        """Give out each step; no text of a call is shown."""
        parts = super().forward(*message, session_id=session_id, **kwargs)
        return parts if self.tool_format is None else self._all_shown(parts)

    def _all_shown(self, parts: Iterator[AgentMessage]) -> Iterator[AgentMessage]:
        with closing(parts):  # type: ignore[type-var]  # generators close
            for part in parts:
                yield self._shown(part)


class AsyncStreamingAIAgent(AsyncAIAgent, AsyncStreamingWorkflow):
    """A model that works with tools until it has an answer, giving out each step as it comes; see `AIAgent`."""

    agent_class = AsyncStreamingLoopModel

    def forward(  # type: ignore[override]  # the streaming form of the same call
        self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Give out each step; no text of a call is shown."""
        parts = super().forward(*message, session_id=session_id, **kwargs)
        return parts if self.tool_format is None else self._all_shown(parts)

    async def _all_shown(self, parts: AsyncIterator[AgentMessage]) -> AsyncIterator[AgentMessage]:
        async with aclosing(parts):  # type: ignore[type-var]  # generators close
            async for part in parts:
                yield self._shown(part)


_SUB_AGENT = "You work on a task that another agent hands you. Do it, and report what was asked for, and nothing else."


def _is_no_refusal(error: LLMError) -> bool:
    """Whether the next model is asked: a refusal is told of, and a conversation that is too long is compressed."""
    return not isinstance(error, RequestRefused | ScriptExhausted | RealRequestsForbidden)


def _of_kind(argument: str, value: Any, kind: type[T]) -> T | None:
    value = create_object(value, argument)
    if value is not None and not isinstance(value, kind):
        raise InvalidArgument(argument, value, f"give {kind.__name__}(…), or None")
    return value


def _function(argument: str, value: Any) -> Any:
    value = create_object(value, argument)
    if value is not None and (isinstance(value, type) or not callable(value)):
        raise InvalidArgument(argument, value, "give a function, or None")
    return value


def _several(argument: str, values: Any, wanted: str) -> list[Any]:
    if isinstance(values, str | Mapping | Agent) or not isinstance(values, Iterable):
        raise InvalidArgument(argument, values, f"give a list of {wanted}")
    return list(values)


def _session(task_id: SessionId | None) -> SessionId:
    return 0 if task_id is None else task_id


def _message_of(given: Any) -> AgentMessage:
    return given if isinstance(given, AgentMessage) else AgentMessage(content=given)


def _text_of(reply: AgentMessage) -> str:
    if reply.content or reply.finish_reason == "stop":
        return str(reply.content)
    return f"({reply.finish_reason}: {run_of(reply).get('detail', 'there is no answer')})"


def _log_messages(agent: AIAgent) -> None:
    """Log what the model and the tools are sent and answer."""
    hook = MessageLogger()
    if not hook.logger.hasHandlers():
        hook.logger.addHandler(logging.StreamHandler())
    if not hook.logger.isEnabledFor(hook.level):
        hook.logger.setLevel(hook.level)
    agent.agent.register_hook(hook)
    agent.actions.register_hook(hook)
