"""Where the arguments of a reward come from: by name, from the trajectory and what is known beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...errors import InvalidArgument, RewardError
from ...trajectory import Trajectory

__all__ = ["ALWAYS", "Known", "Parameters", "parameters_of"]

ALWAYS = ("context", "environment", "final_response", "messages", "prediction", "trajectory")
"""Names that mean the same for every reward, whatever is in the metadata."""

_FIELDS = tuple(item.name for item in fields(Trajectory))
_CONTEXT = ("chain", "trajectories")
_TWINS = {"answer": "ground_truth", "ground_truth": "answer"}
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a reward.

    Attributes:
        required: those without a default.
        optional: those with one.
        rest: whether it takes `**metadata`.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    rest: bool = False


def parameters_of(function: Callable[..., Any], argument: str = "function") -> Parameters:
    """The parameters of a function whose arguments are given by name.

    Raises:
        InvalidArgument: it has none that can be looked at, or some that cannot be given by name.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise InvalidArgument(argument, function, "give a function, plain or async, with a signature") from None
    required, optional, rest = [], [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            rest = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise InvalidArgument(
                argument, function, f"its parameter {parameter.name!r} cannot be given by name: drop the * or /"
            )
        elif parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            optional.append(parameter.name)
    return Parameters(tuple(required), tuple(optional), rest)


@dataclass(slots=True)
class Known:
    """What the arguments of a reward can be filled from.

    In this order: what the caller adds; `ALWAYS`; the metadata of the query, where `answer` and `ground_truth` stand
    for each other; what the context has by name; and the fields of the trajectory.
    """

    trajectory: Trajectory
    context: Any = None
    added: dict[str, Any] = field(default_factory=dict)

    def with_added(self, **added: Any) -> Known:
        return Known(self.trajectory, self.context, {**self.added, **added})

    def arguments(self, parameters: Parameters, reward: str) -> dict[str, Any]:
        """A value for each parameter that can be filled.

        Raises:
            RewardError: one without a default cannot; the message names it and what there is.
        """
        found = {}
        for name in (*parameters.required, *parameters.optional):
            value = self._find(name)
            if value is not _NOTHING:
                found[name] = value
        lacking = [name for name in parameters.required if name not in found]
        if lacking:
            raise RewardError(reward, _lack(lacking, self.trajectory.metadata, "environment" in lacking))
        if parameters.rest:
            taken = {*found, *(_TWINS.get(name, name) for name in found), *ALWAYS}
            found.update({key: value for key, value in self.trajectory.metadata.items() if key not in taken})
        return found

    def _find(self, name: str) -> Any:
        if name in self.added:
            return self.added[name]
        if name in ALWAYS:
            return self._always(name)
        metadata = self.trajectory.metadata
        for key in (name, _TWINS.get(name, name)):
            if key in metadata:
                return metadata[key]
        if isinstance(self.context, Mapping) and name in self.context:
            return self.context[name]
        return getattr(self.trajectory, name) if name in _FIELDS else _NOTHING

    def _always(self, name: str) -> Any:
        if name == "trajectory":
            return self.trajectory
        if name == "messages":
            return self.trajectory.messages
        if name == "context":
            return self.context
        if name == "environment":
            environment = (
                self.context.get("environment")
                if isinstance(self.context, Mapping)
                else getattr(self.context, "environment", None)
            )
            return _NOTHING if environment is None else environment
        return self.trajectory.final_response


def lacking(parameters: Parameters, metadata_keys: Iterable[str], added: Iterable[str] = ()) -> list[str]:
    """The required parameters that no rollout with these metadata keys can fill."""
    there = {*ALWAYS, *_CONTEXT, *_FIELDS, *added}
    keys = set(metadata_keys)
    there |= keys | {_TWINS[key] for key in keys if key in _TWINS}
    return [name for name in parameters.required if name not in there]


def _lack(names: list[str], metadata: Iterable[str], environment: bool) -> str:
    wanted = ", ".join(map(repr, names))
    if environment and names == ["environment"]:
        return "it wants 'environment', and the rollout has none: give rollout(…, environment=EnvironmentPool(…))"
    return f"nobody can fill its parameter {wanted}: {what_there_is(metadata)}, or give it a default"


def what_there_is(metadata: Iterable[str]) -> str:
    """The names that an argument may have, for an error message."""
    keys = ", ".join(map(repr, sorted(metadata))) or "no key"
    return (
        f"name one of {', '.join(ALWAYS)}, a key of the query's metadata (it has {keys}), or a field of the trajectory"
    )
