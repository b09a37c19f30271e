"""Agents in a row, in a list, in a dict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from itertools import cycle, islice
from typing import Any, overload, Self

from ..errors import ColourError, InvalidArgument
from ..memory import SessionId
from ..module import Module
from ..registry import create_object
from ..schema import AgentMessage
from .agent import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent

__all__ = [
    "AgentDict",
    "AgentList",
    "AsyncSequential",
    "AsyncStreamingSequential",
    "Sequential",
    "StreamingSequential",
]


class Sequential(Agent):
    """Agents in a row: each gets the reply of the one before.

    Args:
        *agents: agents, or `(name, agent)` pairs, or one dict of them; without names they are `0`, `1`, ….
        **kwargs: as for `Agent`.

    A call takes `exit_at`: the index of the last agent to run. It may be beyond the last, and then goes round.
    """

    def __init__(self, *agents: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, agent in _named(agents):
            if name in self._children:
                raise InvalidArgument("agents", name, "there are two of this name: give each its own")
            self.add_agent(name, agent)

    def add_module(self, name: str, module: Module | Mapping[str, Any] | None) -> None:
        """Add an agent at the end under a name, or put it in the place of the one of that name.

        Raises:
            ColourError: it is called in another way than this one.
            InvalidArgument: the name cannot be one, or it is no unit.
        """
        module = create_object(module, "module")
        if isinstance(module, Module):
            _check_colour(self, module, name)
        super().add_module(name, module)

    add_agent = add_module

    def append(self, agent: Any) -> Self:
        """Add an agent at the end, named by its number."""
        name = str(len(self))
        if name in self._children:
            raise InvalidArgument("agents", list(self._children), f"{name!r} is taken: use add_agent with another name")
        self.add_agent(name, agent)
        return self

    def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, exit_at: int | None = None, **kwargs: Any
    ) -> Any:
        """Run the agents in order."""
        for agent in self._route(exit_at):
            message = (agent(*message, session_id=session_id, **kwargs),)
        return message[0]

    def _route(self, exit_at: int | None) -> Iterator[Any]:
        """The agents to run, in order."""
        if exit_at is not None and (isinstance(exit_at, bool) or not isinstance(exit_at, int) or exit_at < 0):
            raise InvalidArgument("exit_at", exit_at, "give the index of the last agent to run, or None for all")
        if not self._children:
            raise InvalidArgument("agents", (), "there is none to run: give Sequential at least one agent")
        return islice(cycle(self._children.values()), len(self) if exit_at is None else exit_at + 1)

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._children.values())

    @overload
    def __getitem__(self, index: int | str) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | str | slice) -> Module:
        if isinstance(index, str):
            return self.get_submodule(index)
        if isinstance(index, slice):
            return type(self)(dict(list(self._children.items())[index]))
        return list(self._children.values())[index]

    def __setitem__(self, index: int | str, agent: Any) -> None:
        self.add_agent(index if isinstance(index, str) else list(self._children)[index], agent)


class AsyncSequential(Sequential, AsyncAgent):
    """Async agents in a row; see `Sequential`."""

    async def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, exit_at: int | None = None, **kwargs: Any
    ) -> Any:
        """Run the agents in order."""
        for agent in self._route(exit_at):
            message = (await agent(*message, session_id=session_id, **kwargs),)
        return message[0]


class StreamingSequential(Sequential, StreamingAgent):
    """Streaming agents in a row; gives out what each of them does. See `Sequential`."""

    def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, exit_at: int | None = None, **kwargs: Any
    ) -> Iterator[AgentMessage]:
        """Run the agents in order, giving out their messages as they come."""
        for agent in self._route(exit_at):
            with closing(agent(*message, session_id=session_id, **kwargs)) as stream:
                for part in stream:
                    message = (part,)
                    yield part


class AsyncStreamingSequential(AsyncSequential, AsyncStreamingAgent):
    """Async streaming agents in a row; gives out what each of them does. See `Sequential`."""

    async def forward(  # type: ignore[override]  # the streaming form of the same call
        self, *message: AgentMessage, session_id: SessionId = 0, exit_at: int | None = None, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Run the agents in order, giving out their messages as they come."""
        for agent in self._route(exit_at):
            async with aclosing(agent(*message, session_id=session_id, **kwargs)) as stream:
                async for part in stream:
                    message = (part,)
                    yield part


class AgentList(Module):
    """A list whose units are in the tree; it is not called itself.

    Args:
        agents: the units, or `dict(type=...)` of them.
    """

    def __init__(self, agents: Iterable[Any] | None = None) -> None:
        self.extend(agents or ())

    def append(self, agent: Any) -> AgentList:
        """Add a unit at the end."""
        self.add_agent(str(len(self)), agent)
        return self

    def extend(self, agents: Iterable[Any]) -> AgentList:
        """Add units at the end."""
        if isinstance(agents, Module | str | Mapping):
            raise InvalidArgument("agents", agents, "give a list of units")
        for agent in agents:
            self.append(agent)
        return self

    def insert(self, index: int, agent: Any) -> None:
        """Add a unit before the one at an index."""
        units = list(self)
        units.insert(index, agent)
        self._renumber(units)

    def pop(self, index: int = -1) -> Module:
        """Take a unit out."""
        units = list(self)
        unit = units.pop(index)
        self._renumber(units)
        return unit

    def _renumber(self, units: Iterable[Any]) -> None:
        for name in list(self._children):
            delattr(self, name)
        self.extend(units)

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._children.values())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> AgentList: ...
    def __getitem__(self, index: int | slice) -> Module:
        units = list(self._children.values())[index]
        return AgentList(units) if isinstance(units, list) else units

    def __setitem__(self, index: int, agent: Any) -> None:
        self.add_agent(str(range(len(self))[index]), agent)

    def __delitem__(self, index: int) -> None:
        self.pop(index)


class AgentDict(Module):
    """A dict whose units are in the tree; it is not called itself.

    Args:
        agents: units by name, or `dict(type=...)` of them.
    """

    def __init__(self, agents: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None) -> None:
        self.update(agents or {})

    def update(self, agents: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add or replace units."""
        for item in agents.items() if isinstance(agents, Mapping) else agents:
            if not isinstance(item, tuple) or len(item) != 2:
                raise InvalidArgument("agents", item, "give a dict of units by name, or (name, unit) pairs")
            self[item[0]] = item[1]

    def keys(self) -> Iterable[str]:
        return self._children.keys()

    def values(self) -> Iterable[Module]:
        return self._children.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        return self._children.items()

    def pop(self, name: str) -> Module:
        """Take a unit out."""
        unit = self[name]
        del self[name]
        return unit

    def clear(self) -> None:
        for name in list(self._children):
            del self[name]

    def __getitem__(self, name: str) -> Module:
        return self._children[name]

    def __setitem__(self, name: str, agent: Any) -> None:
        self.add_agent(name, agent)

    def __delitem__(self, name: str) -> None:
        if name not in self._children:
            raise KeyError(name)
        delattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._children

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[str]:
        return iter(self._children)


def _named(agents: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    if len(agents) == 1 and isinstance(agents[0], Mapping) and "type" not in agents[0]:
        yield from agents[0].items()
        return
    for index, agent in enumerate(agents):
        yield agent if isinstance(agent, tuple) and len(agent) == 2 else (str(index), agent)


def _check_colour(container: Module, child: Module, name: str) -> None:
    if child.colour is not container.colour:
        raise ColourError(
            f"agents[{name!r}] is {type(child).__name__}, whose forward is {child.colour.value}; "
            f"{type(container).__name__} runs units whose forward is {container.colour.value}"
        )
