"""The agent for rollouts that a name or a config asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from ...errors import InvalidArgument
from .code import CodeAgent
from .hf import HFAgent
from .react import ReactAgent

__all__ = ["AutoAgent"]

C = TypeVar("C", bound=type[HFAgent])


class AutoAgent:
    """Makes the agent for rollouts that a name or a config asks for; it is never made itself.

    >>> AutoAgent.from_config({"agent_type": "react", "model_name_or_path": "tiny"}).name
    'ReactAgent'
    """

    _classes: ClassVar[dict[str, type[HFAgent]]] = {"hf": HFAgent, "react": ReactAgent, "code": CodeAgent}

    def __new__(cls) -> AutoAgent:
        raise InvalidArgument("AutoAgent", cls.__name__, "use AutoAgent.from_config(…) or AutoAgent.from_pretrained(…)")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HFAgent:
        """The agent of `{"agent_type": name, **arguments}`.

        Raises:
            InvalidArgument: there is no such agent, or it has no such argument.
        """
        if not isinstance(config, Mapping) or "agent_type" not in config:
            raise InvalidArgument("config", config, f"give a dict whose 'agent_type' is one of {cls._names()}")
        options = dict(config)
        return cls._class(options.pop("agent_type"))(**options)

    @classmethod
    def from_pretrained(cls, model_name_or_path: str, agent_type: str = "hf", **options: Any) -> HFAgent:
        """The agent of a type over a model; options as for `HFAgent`."""
        return cls._class(agent_type)(model_name_or_path, **options)

    @classmethod
    def register_agent(cls, name: str, agent: C) -> C:
        """Have a name mean a class of yours; it is given back.

        Raises:
            InvalidArgument: the name means another class already, or the class is no `HFAgent`.
        """
        if not (isinstance(agent, type) and issubclass(agent, HFAgent)):
            raise InvalidArgument("agent", agent, "give a subclass of HFAgent")
        known = cls._classes.get(name)
        if known is not None and known is not agent:
            raise InvalidArgument("name", name, f"it means {known.__name__} already: take another")
        cls._classes[name] = agent
        return agent

    @classmethod
    def _class(cls, name: Any) -> type[HFAgent]:
        if name not in cls._classes:
            raise InvalidArgument("agent_type", name, f"the agents are {cls._names()}")
        return cls._classes[name]

    @classmethod
    def _names(cls) -> str:
        return ", ".join(cls._classes)
