"""The agent: a model, a memory by session, and an aggregator between them, in four colours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, TYPE_CHECKING

from ..aggregators import DefaultAggregator
from ..colour import careful, overridable
from ..errors import ColourError, InvalidArgument
from ..hooks import Hook
from ..llms.base import AsyncBaseLLM, BaseLLM
from ..memory import check_session_id, Memory, MemoryManager, SessionId
from ..memory.state import ALL_SESSIONS
from ..module import AsyncModule, AsyncStreamingModule, Module, StreamingModule
from ..prompts import StrParser
from ..registry import create_object
from ..schema import (
    AgentMessage,
    AgentStatusCode,
    Completion,
    copied,
    message_of,
    ModelStatusCode,
    TokenSpan,
    ToolCall,
    unchecked_message,
    Usage,
)

if TYPE_CHECKING:
    from ..trajectory import Trajectory

__all__ = ["Agent", "AsyncAgent", "AsyncStreamingAgent", "StreamingAgent"]

_STREAMING, _PART = ModelStatusCode.STREAM_ING, AgentStatusCode.STREAM_ING  # looked at for each part of a stream


class Agent(Module):
    """A model with a memory for each session, called blocking.

    Args:
        llm: the model, or `dict(type=...)` of one.
        template: system prompt: a text, a `PromptTemplate`, a chat message, or a list of these.
        memory: what each session's memory is made from, such as `dict(type=Memory, recent_n=10)`.
        output_format: parser whose instruction goes with the prompt and whose result goes into `formatted`.
        aggregator: turns memory into the messages that the model is sent.
        name: sender of its messages; the class's name by default.
        description: what it is good for, for people and for agents that choose among agents.
        hooks: a hook, or a list of them.

    Wherever an object is taken, `dict(type=Class or "dotted.path", **options)` is too.

    A subclass overrides `forward`, which for this class asks the model once:

    >>> from lagentlike.llms import ScriptedLLM
    >>> agent = Agent(ScriptedLLM(["Hello!"]), "Be brief.")
    >>> agent("Hi").content
    'Hello!'
    >>> [message["content"] for message in agent.state_dict()["memory"]]
    ['Hi', 'Hello!']
    """

    llm: Any = None
    template: Any = None
    output_format: StrParser | None = None
    aggregator: DefaultAggregator
    description: str | None = None
    memory: MemoryManager | None

    def _equip(self) -> None:
        self.memory = MemoryManager()
        self.aggregator = DefaultAggregator()

    def __init__(
        self,
        llm: Any = None,
        template: Any = None,
        memory: Mapping[str, Any] | type[Memory] | Memory | None = None,
        output_format: StrParser | Mapping[str, Any] | None = None,
        aggregator: DefaultAggregator | Mapping[str, Any] | None = None,
        name: str | None = None,
        description: str | None = None,
        hooks: Hook | Mapping[str, Any] | Sequence[Hook | Mapping[str, Any]] | None = None,
    ) -> None:
        self.llm = self._checked_llm(create_object(llm, "llm"))
        self.template = create_object(template, "template")
        self.output_format = _with_method(create_object(output_format, "output_format"), "output_format")
        if memory is not None:
            self.memory = MemoryManager(memory)
        if aggregator is not None:
            self.aggregator = _with_method(create_object(aggregator, "aggregator"), "aggregator")
        if name is not None:
            if not isinstance(name, str) or not name:
                raise InvalidArgument("name", name, "give a non-empty text, or None for the class's name")
            self.name = name
        if description is not None:
            self.description = description
        self._register_all(hooks)

    @overridable
    @careful
    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Ask the model for the reply to what the session remembers; `kwargs` are generation parameters."""
        return self._read(self._model().chat(self._prompt(session_id, message), **self._asking(kwargs)))

    def agents(self) -> Iterator[Agent]:
        """The agents assigned to this one, each once."""
        return (child for child in self.children() if isinstance(child, Agent))

    def named_agents(self) -> Iterator[tuple[str, Agent]]:
        """The agents assigned to this one with their names, each once."""
        return ((name, child) for name, child in self.named_children() if isinstance(child, Agent))

    def trajectories(self, session_id: SessionId = 0) -> list[Trajectory]:
        """What each agent of this tree did in a session, for rewards and training.

        In `train()` mode models give token ids and log-probabilities with their answers; the trajectories hold them as
        the engine gave them, spliced and never tokenized again.

        Args:
            session_id: the session; `"all"` for every one, in the order they first spoke.

        Returns:
            One trajectory for each agent that asked a model, with its path in `agent`.

        >>> from lagentlike.llms import TinyLM
        >>> agent = Agent(TinyLM(), name="greeter").train()
        >>> reply = agent("Hello")
        >>> [trajectory] = agent.trajectories()
        >>> trajectory.final_response, trajectory.counts.missing
        ('Hello! How can I help you?', 0)
        """
        from .recall import trajectory_of  # what only training needs

        sessions = self.session_ids() if session_id == ALL_SESSIONS else [check_session_id(session_id)]
        agents = [(path, unit) for path, unit in self.named_modules() if isinstance(unit, Agent)]
        found = (trajectory_of(self, path, unit, one) for one in sessions for path, unit in agents)
        return [trajectory for trajectory in found if trajectory is not None]

    def extra_repr(self) -> str:
        shown = []
        if self.name != type(self).__name__:
            shown.append(f"name={self.name!r}")
        if self.llm is not None:
            shown.append(f"llm={self.llm!r}")
        if isinstance(self.output_format, StrParser):
            shown.append(f"output_format={self.output_format!r}")
        if type(self.aggregator) is not DefaultAggregator:
            shown.append(f"aggregator={self.aggregator!r}")
        return ", ".join(shown)

    def _prompt(self, session_id: SessionId, given: Sequence[AgentMessage] = ()) -> list[dict[str, Any]]:
        """The messages that the model is sent; those that `forward` was given are in memory, unless nobody called."""
        if self.memory is None:
            raise InvalidArgument(
                "memory", None, f"{type(self).__name__} needs one to ask its model; define forward otherwise"
            )
        memory = self.memory.get(session_id)
        if given and not memory:
            cure = "it is not in memory: call the agent itself, agent(message), which runs forward in a turn"
            raise InvalidArgument("message", given[0], cure)
        return self.aggregator.aggregate(memory, self.name, self.output_format, self.template)

    def _model(self) -> Any:
        if self.llm is None:
            raise InvalidArgument(
                "llm", None, f"{type(self).__name__} has no model to ask: pass llm=..., or define forward in a subclass"
            )
        return self.llm

    def _asking(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.training:
            kwargs.setdefault("logprobs", True)
        return kwargs

    def _read(self, completion: Any) -> AgentMessage:
        """The model's answer as this agent's message."""
        text = str.__str__(completion)
        extras = completion.extras() if isinstance(completion, Completion) else {}
        parser, formatted = self.output_format, None
        if parser is not None:
            is_cut = extras.get("finish_reason") == "length" and isinstance(parser, StrParser)
            formatted = parser.parse_cut(text) if is_cut else parser.parse_response(text)
        if extras.get("tool_calls"):
            extras["tool_calls"] = copied(extras["tool_calls"])  # the model may keep its answer
        make = unchecked_message if _is_sound(extras) else AgentMessage
        return make(sender=self.name, content=text, formatted=formatted, **extras)

    def _open_memory(self, session_id: SessionId) -> Memory | None:
        return None if self.memory is None else self.memory.open(session_id)

    def _checked_llm(self, llm: Any) -> Any:
        """Refuse a model of the other colour when the agent is made, not at its first call."""
        if isinstance(llm, str | type):
            raise InvalidArgument("llm", llm, "give a model object, such as TinyLM() or GPTAPI('gpt-4o')")
        wrong = BaseLLM if self.colour.is_async else AsyncBaseLLM
        if isinstance(llm, wrong):
            name = type(llm).__name__
            twin = f"Async{name}" if self.colour.is_async else name.removeprefix("Async")
            raise ColourError(f"llm={llm!r}: {type(self).__name__} needs a model of its own colour: give it {twin}")
        return llm


class AsyncAgent(Agent, AsyncModule):
    """A model with a memory for each session, called with `await`; see `Agent`."""

    @overridable
    @careful
    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Ask the model for the reply to what the session remembers; `kwargs` are generation parameters."""
        return self._read(await self._model().chat(self._prompt(session_id, message), **self._asking(kwargs)))


class StreamingAgent(Agent, StreamingModule):
    """A model with a memory for each session, whose call is an iterator of messages; see `Agent`.

    >>> from lagentlike.llms import ScriptedLLM
    >>> agent = StreamingAgent(ScriptedLLM(["one two"], chunk_size=4))
    >>> [message.content for message in agent("Count")]
    ['one ', 'one two', 'one two']
    """

    @overridable
    @careful
    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Iterator[AgentMessage]:
        """Ask the model for the reply to what the session remembers, giving it out as it comes."""
        with closing(self._model().stream_chat(self._prompt(session_id, message), **self._asking(kwargs))) as stream:
            blank = _blank(self.name)
            for status, _, answer in stream:
                yield _part(blank, answer) if status == _STREAMING else self._read(answer)


class AsyncStreamingAgent(AsyncAgent, AsyncStreamingModule):
    """A model with a memory for each session, whose call is an async iterator of messages; see `Agent`."""

    @overridable
    @careful
    async def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Ask the model for the reply to what the session remembers, giving it out as it comes."""
        async with aclosing(
            self._model().stream_chat(self._prompt(session_id, message), **self._asking(kwargs))
        ) as stream:
            blank = _blank(self.name)
            async for status, _, answer in stream:
                yield _part(blank, answer) if status == _STREAMING else self._read(answer)


_METHODS = {
    "output_format": ("parse_response", "a parser, such as JSONParser(...); tool_format('hermes') is one by its name"),
    "aggregator": ("aggregate", "an aggregator, such as DefaultAggregator()"),
}


def _with_method(given: Any, argument: str) -> Any:
    """What an argument gave, if it can do its part."""
    method, wanted = _METHODS[argument]
    if given is not None and (isinstance(given, type) or not callable(getattr(given, method, None))):
        raise InvalidArgument(argument, given, f"give {wanted}")
    return given


_KINDS = {
    "tool_calls": list,
    "reasoning": str,
    "blocks": list,
    "usage": Usage,
    "model": str,
    "finish_reason": str,
    "tokens": TokenSpan,
}


def _is_sound(extras: dict[str, Any]) -> bool:
    """Whether what a model's answer holds besides its text is what a message may hold."""
    for name, value in extras.items():
        if value is not None and type(value) is not _KINDS[name]:
            return False
    calls = extras.get("tool_calls")
    return not calls or all(type(call) is ToolCall for call in calls)


def _blank(name: str) -> dict[str, Any]:
    """The fields of all parts of an answer, but for what they tell."""
    return unchecked_message(sender=name, stream_state=_PART).__dict__


def _part(blank: dict[str, Any], answer: Any) -> AgentMessage:
    """The answer so far as a message."""
    reasoning = answer.reasoning if isinstance(answer, Completion) else None
    return message_of({**blank, "content": str.__str__(answer), "reasoning": reasoning})
