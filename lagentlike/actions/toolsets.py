"""Named groups of tools, which an agent is given by name."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidArgument
from ..registry import create_object, import_object
from .base import BaseAction, checked_name

__all__ = [
    "Toolset",
    "availability",
    "distributions",
    "get_toolset",
    "register_toolset",
    "resolve_toolset",
    "sample_toolsets",
    "tools_of",
    "tools_with_toolsets",
    "toolset_names",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Toolset:
    """A named group of tools.

    Attributes:
        name: what it is asked for by; `all` stands for every toolset there is.
        description: what it is for.
        tools: each a tool (a `BaseAction`, such as `@tool` makes), a function without arguments that gives a tool or a
            list of tools, or `dict(type=...)` of one. Functions and dicts are called whenever tools are asked for, so
            that agents share no state; a tool that is given as it is, is shared.
        includes: names of toolsets whose tools belong to it too.
        available: tells why its tools cannot be used here, such as for want of a key; None if they can. Without it,
            they always can.
        external: whether its tools need credentials: in environments of training they run in a ToolServer then.
    """

    name: str
    description: str
    tools: Sequence[Any] = ()
    includes: Sequence[str] = ()
    available: Callable[[], str | None] | None = field(default=None, repr=False)
    external: bool = False

    def __post_init__(self) -> None:
        if checked_name(self.name) == ALL:
            raise InvalidArgument("name", self.name, "this word means every toolset: choose another name")
        for argument in ("tools", "includes"):
            given = getattr(self, argument)
            if isinstance(given, str | Mapping | BaseAction) or not isinstance(given, Iterable):
                raise InvalidArgument(argument, given, "give a list")
            object.__setattr__(self, argument, tuple(given))
        for source in self.tools:
            if not callable(source) and not (isinstance(source, Mapping) and "type" in source):
                raise InvalidArgument("tools", source, "give tools, functions that make them, or dicts with 'type'")

    def unavailable(self) -> str | None:
        """Why its own tools cannot be used; None if they can."""
        if self.available is None:
            return None
        try:
            return self.available()
        except Exception as error:  # noqa: BLE001  # a toolset that cannot tell is left out, and the others are not
            return f"its check failed: {type(error).__name__}: {error}"

    def build(self) -> list[BaseAction]:
        """Its own tools, without those of the toolsets it includes."""
        return [tool for source in self.tools for tool in _built(source, self.name)]


ALL = "all"


def register_toolset(toolset: Toolset, *, replace: bool = False) -> Toolset:
    """Make a toolset known by its name.

    Args:
        toolset: the toolset; those that it includes may be registered later.
        replace: whether it may take the place of another one of that name.

    Raises:
        InvalidArgument: the name is taken.
    """
    if not replace and toolset.name in _toolsets:
        raise InvalidArgument("name", toolset.name, "there is such a toolset: choose another name, or replace=True")
    _toolsets[toolset.name] = toolset
    return toolset


def toolset_names() -> list[str]:
    """The names of all toolsets."""
    return list(_toolsets)


def get_toolset(name: str) -> Toolset:
    """The toolset of a name.

    Raises:
        InvalidArgument: there is none; the message names those there are.
    """
    if not isinstance(name, str) or name not in _toolsets:
        raise InvalidArgument("toolset", name, f"the toolsets are {', '.join([*_toolsets, ALL])}")
    return _toolsets[name]


def resolve_toolset(name: str) -> list[str]:
    """The names of a toolset's tools and of those it includes, available or not, each once.

    Raises:
        InvalidArgument: there is no such toolset, or none of a name that it includes.

    >>> resolve_toolset("code")
    ['code_interpreter']
    """
    return list(dict.fromkeys(tool.name for toolset in _closure([name]) for tool in toolset.build()))


def tools_of(enabled: Iterable[str] | None = None, disabled: Iterable[str] | None = None) -> list[BaseAction]:
    """The tools of some toolsets, for an executor; what cannot be used here is left out, and the log says why.

    Args:
        enabled: names of toolsets; None for all of them.
        disabled: names of toolsets that are left out, with all they include.

    Raises:
        InvalidArgument: there is no toolset of a name, or two toolsets have different tools of one name.
    """
    return [tool for tool, _ in tools_with_toolsets(enabled, disabled)]


def tools_with_toolsets(
    enabled: Iterable[str] | None = None, disabled: Iterable[str] | None = None
) -> list[tuple[BaseAction, Toolset]]:
    """What `tools_of` gives, each with the toolset that it is of."""
    left_out = {toolset.name for toolset in _closure(_names(disabled or (), "disabled"))}
    tools: dict[str, tuple[BaseAction, Toolset]] = {}
    sources: set[int] = set()  # by identity: one that two toolsets have is used once
    for toolset in _closure([ALL] if enabled is None else _names(enabled, "enabled")):
        if toolset.name in left_out:
            continue
        reason = toolset.unavailable()
        if reason is not None:
            logger.info("the toolset %s is left out: %s", toolset.name, reason)
            continue
        for source in toolset.tools:
            if id(source) in sources:
                continue
            sources.add(id(source))
            for tool in _built(source, toolset.name):
                if tool.name in tools:
                    raise InvalidArgument(
                        "enabled", tool.name, f"the toolsets {tools[tool.name][1].name} and {toolset.name} both have it"
                    )
                tools[tool.name] = (tool, toolset)
    return list(tools.values())


def availability() -> dict[str, str | None]:
    """For each toolset, why its own tools cannot be used here; None if they can."""
    return {name: toolset.unavailable() for name, toolset in _toolsets.items()}


distributions: dict[str, dict[str, float]] = {
    "default": dict.fromkeys(("terminal", "file", "web", "code", "vision", "memory", "todo", "delegation"), 1),
    "research": {"web": 0.95, "vision": 0.5, "file": 0.4, "terminal": 0.1, "todo": 0.3, "memory": 0.2},
    "development": {"terminal": 0.9, "file": 0.9, "code": 0.4, "web": 0.3, "todo": 0.4, "memory": 0.1},
    "balanced": dict.fromkeys(("terminal", "file", "web", "code", "vision", "memory", "todo", "delegation"), 0.5),
    "terminal_only": {"terminal": 1, "file": 0.5},
    "reasoning": {"code": 0.3, "todo": 0.1},
}
"""How likely each toolset is given to a sample, by name of the mixture, for data generation; yours may be added."""


def sample_toolsets(distribution: str | Mapping[str, float], rng: random.Random) -> list[str]:
    """Draw the toolsets of one sample: each by itself, with its probability; the likeliest one if none came.

    Args:
        distribution: a name in `distributions`, or a map of toolset -> probability.
        rng: where chance comes from; one seeded alike draws alike.

    Raises:
        InvalidArgument: there is no such distribution or toolset, or a probability is not from 0 to 1.

    >>> sample_toolsets({"code": 1}, random.Random(0))
    ['code']
    """
    if isinstance(distribution, str):
        if distribution not in distributions:
            raise InvalidArgument("distribution", distribution, f"the distributions are {', '.join(distributions)}")
        distribution = distributions[distribution]
    for name, chance in distribution.items():
        get_toolset(name)
        if isinstance(chance, bool) or not isinstance(chance, int | float) or not 0 <= chance <= 1:
            raise InvalidArgument(f"distribution[{name!r}]", chance, "give a probability from 0 to 1")
    drawn = [name for name, chance in distribution.items() if rng.random() < chance]
    likeliest = max(distribution, key=lambda name: distribution[name], default=None)
    if not drawn and likeliest is not None and distribution[likeliest] > 0:
        drawn = [likeliest]
    return drawn


def _closure(names: Iterable[str]) -> Iterator[Toolset]:
    """The toolsets of some names and all they include, each once, before those it includes."""
    seen: set[str] = set()
    waiting = list(reversed(list(names)))
    while waiting:
        name = waiting.pop()
        if name == ALL:
            waiting += reversed(_toolsets)
        elif name not in seen:
            toolset = get_toolset(name)
            seen.add(name)
            yield toolset
            waiting += reversed(toolset.includes)


def _names(given: Iterable[str], argument: str) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidArgument(argument, given, "give a list of names of toolsets")
    return list(given)


def _built(source: Any, name: str) -> list[BaseAction]:
    """The tools that an entry of a toolset stands for."""
    if isinstance(source, Mapping):
        made = create_object(source, f"the toolset {name}")
    else:
        made = source if isinstance(source, BaseAction) else source()
    tools = [made] if isinstance(made, BaseAction) else made
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, BaseAction) for tool in tools):
        raise InvalidArgument(f"the toolset {name}", made, "a tool is made by @tool or is a BaseAction")
    return list(tools)


_toolsets: dict[str, Toolset] = {}
for _toolset in (
    Toolset(
        "terminal",
        "Run shell commands, and programs in the background.",
        [{"type": "lagentlike.actions.terminal.terminal_tools"}],
        available=lambda: import_object("lagentlike.actions.terminal.terminal_unavailable")(),
    ),
    Toolset(
        "file",
        "Read, write, change and search files below the working directory.",
        [{"type": "lagentlike.actions.files.file_tools"}],
        available=lambda: import_object("lagentlike.sandbox.sandbox_unavailable")(),
    ),
    Toolset(
        "web",
        "Search the web (with a key or an endpoint in the environment) and read pages.",
        [{"type": "lagentlike.actions.web_tools.web_tools"}],
        external=True,
    ),
    Toolset(
        "vision",
        "Ask a model that sees about images.",
        [{"type": "lagentlike.actions.vision.Vision"}],
        available=lambda: import_object("lagentlike.actions.vision.vision_unavailable")(),
        external=True,
    ),
    Toolset("memory", "Notes of what will matter later.", [{"type": "lagentlike.actions.notes.Notes"}]),
    Toolset("todo", "A list of what is to be done.", [{"type": "lagentlike.actions.todo.Todo"}]),
    Toolset(
        "code",
        "Run Python in a session that keeps its variables.",
        [{"type": "lagentlike.actions.IPythonInterpreter", "name": "code_interpreter"}],
        available=lambda: import_object("lagentlike.sandbox.sandbox_unavailable")(),
    ),
    Toolset(
        "delegation",
        "Hand tasks to sub-agents, which see only what they are given (an AIAgent gives the tool its sub-agent).",
        [{"type": "lagentlike.agents.delegation.Delegate"}],
    ),
):
    register_toolset(_toolset)
