"""Rewards: functions that say what a trajectory was worth, their weighted sums, and the checks on what they say."""

from __future__ import annotations

import copy
import functools
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload, Self

from ...errors import InvalidArgument, RewardError, shown
from ...llms.base import side_by_side
from ...schema import to_plain
from ..calling import call, Overran
from .arguments import Known, lacking, Parameters, parameters_of

__all__ = ["FunctionReward", "Reward", "RewardGroup", "RewardResult", "as_reward", "reward"]


@dataclass(slots=True)
class RewardResult:
    """What a trajectory was worth.

    Attributes:
        reward: the number; None where the reward has no say in it (see `per_agent`).
        extras: what was said besides.
        step_rewards: one item for each message of the trajectory, None where nothing was said; None without steps.
    """

    reward: float | None
    extras: dict[str, Any] = field(default_factory=dict)
    step_rewards: list[float | None] | None = None

    def times(self, weight: float) -> RewardResult:
        """The same with its numbers multiplied; the extras stay as they are."""
        if weight == 1.0:
            return self
        steps = self.step_rewards
        return RewardResult(
            None if self.reward is None else self.reward * weight,
            self.extras,
            None if steps is None else [None if step is None else step * weight for step in steps],
        )


class Reward:
    """What says how much a trajectory was worth; `reward` makes one of a function.

    `a * 0.5 + b` is the weighted sum of two, a `RewardGroup`.

    Attributes:
        name: what errors and extras call it.
        weight: what its number is multiplied with.
        timeout: seconds it may take; None for as long as the rollout lets it.
    """

    def __init__(self, name: str, weight: float = 1.0, timeout: float | None = None) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidArgument("name", name, "give a non-empty text")
        self.name = name
        self.weight = _checked_weight(weight)
        self.timeout = _checked_timeout(timeout)

    async def evaluate(self, known: Known, timeout: float | None = None) -> RewardResult:
        """What the trajectory is worth, before the weight.

        Raises:
            RewardError: it cannot be said.
        """
        raise NotImplementedError(f"{type(self).__name__} must define async evaluate(known, timeout)")

    def lacking(self, metadata_keys: Iterable[str]) -> list[str]:
        """Names of parameters that nobody can fill where the queries have these metadata keys."""
        return []

    def wants(self, name: str) -> bool:
        """Whether it asks for the argument of that name."""
        return False

    def __mul__(self, factor: float) -> Self:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        weighted = copy.copy(self)
        weighted.weight = _checked_weight(self.weight * factor)
        return weighted

    __rmul__ = __mul__

    def __add__(self, other: Reward) -> RewardGroup:
        if not isinstance(other, Reward):
            return NotImplemented
        return RewardGroup([*_terms(self), *_terms(other)])

    def __radd__(self, other: Any) -> Self:  # so that sum([a, b]) works
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __repr__(self) -> str:
        return self.name if self.weight == 1.0 else f"{self.weight:g} * {self.name}"


class FunctionReward(Reward):
    """A function as a reward; it can still be called as the function it is."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        weight: float = 1.0,
        timeout: float | None = None,
    ) -> None:
        self.parameters = parameters_of(function)
        own_name: str = getattr(function, "__name__", type(function).__name__)
        super().__init__(own_name if name is None else name, weight, timeout)
        functools.update_wrapper(self, function, updated=())  # attributes of the function are its own
        self.function = function
        self.bound: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **{**self.bound, **kwargs})

    def bind(self, **values: Any) -> Self:
        """The same reward with some of its arguments fixed.

        Raises:
            InvalidArgument: it has no parameter of that name.
        """
        names = (*self.parameters.required, *self.parameters.optional)
        for name, value in values.items():
            if name not in names and not self.parameters.rest:
                raise InvalidArgument(name, value, f"the reward {self.name} has {', '.join(names) or 'no parameters'}")
        bound = copy.copy(self)
        bound.bound = {**self.bound, **values}
        bound.parameters = Parameters(
            tuple(name for name in self.parameters.required if name not in values),
            tuple(name for name in self.parameters.optional if name not in values),
            self.parameters.rest,
        )
        return bound

    async def evaluate(self, known: Known, timeout: float | None = None) -> RewardResult:
        return result_of(await self.value(known, timeout), self.name)

    async def value(self, known: Known, timeout: float | None = None) -> Any:
        """What the function returns.

        Raises:
            RewardError: an argument cannot be filled, it raised, or it took too long.
        """
        arguments = {**known.arguments(self.parameters, self.name), **self.bound}
        limit = timeout if self.timeout is None else self.timeout
        try:
            return await call(self.function, arguments, limit)
        except Overran as error:
            raise RewardError(self.name, str(error)) from None
        except RewardError:
            raise
        except Exception as error:
            raise RewardError(self.name, f"it raised {type(error).__name__}: {error}") from error

    def lacking(self, metadata_keys: Iterable[str]) -> list[str]:
        return lacking(self.parameters, metadata_keys)

    def wants(self, name: str) -> bool:
        return name in self.parameters.required or name in self.parameters.optional


class RewardGroup(Reward):
    """The weighted sum of several rewards; what each said is kept in the extras, under its name.

    Args:
        rewards: rewards or functions; no two of one name.
        weights: one for each, multiplied with the weight it has already.
        name: what errors call the sum.

    The parts are reckoned side by side; where one fails, the sum fails.
    """

    def __init__(
        self,
        rewards: Sequence[Reward | Callable[..., Any]],
        weights: Sequence[float] | None = None,
        name: str | None = None,
    ) -> None:
        parts = [as_reward(part) for part in rewards]
        if not parts:
            raise InvalidArgument("rewards", rewards, "give at least one reward")
        if weights is not None:
            if len(weights) != len(parts):
                raise InvalidArgument("weights", weights, f"give one for each of the {len(parts)} rewards")
            parts = [part * weight for part, weight in zip(parts, weights, strict=True)]
        names = [part.name for part in parts]
        twins = sorted({one for one in names if names.count(one) > 1})
        if twins:
            raise InvalidArgument("rewards", names, f"two are called {twins[0]!r}: give one another name")
        super().__init__(name or " + ".join(map(repr, parts)))
        self.parts = parts
        self.is_named = name is not None

    async def evaluate(self, known: Known, timeout: float | None = None) -> RewardResult:
        results = await side_by_side([part.evaluate(known, timeout) for part in self.parts])
        extras: dict[str, Any] = {}
        for part, result in zip(self.parts, results, strict=True):
            extras[part.name] = result.reward
            extras.update({f"{part.name}.{key}": value for key, value in result.extras.items()})
        weighted = [result.times(part.weight) for part, result in zip(self.parts, results, strict=True)]
        said = [result.reward for result in weighted if result.reward is not None]
        steps = [result.step_rewards for result in weighted if result.step_rewards is not None]
        return RewardResult(sum(said) if said else None, extras, _summed(steps) if steps else None)

    def lacking(self, metadata_keys: Iterable[str]) -> list[str]:
        keys = set(metadata_keys)
        return sorted({name for part in self.parts for name in part.lacking(keys)})

    def wants(self, name: str) -> bool:
        return any(part.wants(name) for part in self.parts)

    def __repr__(self) -> str:
        return f"({self.name}) * {self.weight:g}" if self.weight != 1.0 else self.name


@overload
def reward(function: Callable[..., Any], /) -> FunctionReward: ...
@overload
def reward(
    *, name: str | None = None, weight: float = 1.0, timeout: float | None = None
) -> Callable[[Callable[..., Any]], FunctionReward]: ...
def reward(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    weight: float = 1.0,
    timeout: float | None = None,
) -> FunctionReward | Callable[[Callable[..., Any]], FunctionReward]:
    """Make a function, plain or async, a reward.

    Its arguments are given by name: `final_response` (or `prediction`), `trajectory`, `messages`, `context`,
    `environment`, any key of the query's metadata (`answer` and `ground_truth` stand for each other), `chain`,
    `trajectories` (all of the chain), or a field of the trajectory; `**metadata` takes the keys that are left. It
    returns a number, or a dict with `reward` and whatever else is worth keeping. A plain function runs in a thread.

    Args:
        name: what errors and extras call it; the function's name by default.
        weight: what its number is multiplied with.
        timeout: seconds it may take; None for as long as the rollout lets it.

    >>> @reward
    ... def shortness(prediction, limit=100):
    ...     return 1 - min(len(prediction), limit) / limit
    >>> shortness("x" * 25)
    0.75
    >>> shortness * 0.5
    0.5 * shortness
    """
    if function is not None:
        return FunctionReward(function)
    return lambda function: FunctionReward(function, name, weight, timeout)


def as_reward(given: Any, argument: str = "reward") -> Reward:
    """A reward as it is, a function as a reward.

    Raises:
        InvalidArgument: it is neither.
    """
    if isinstance(given, Reward):
        return given
    if callable(given) and not isinstance(given, type):
        return FunctionReward(given)
    raise InvalidArgument(argument, given, "give a function, a reward made by @reward, or a sum of them")


def result_of(value: Any, name: str) -> RewardResult:
    """What a reward's function returned, checked.

    Raises:
        RewardError: it is no finite number, nor a dict with such a `reward` and extras that JSON can hold.
    """
    extras: dict[str, Any] = {}
    if isinstance(value, Mapping):
        if "reward" not in value:
            raise RewardError(name, f"it gave {shown(value, 120)}, a dict without 'reward'")
        extras = {key: item for key, item in value.items() if key != "reward"}
        value = value["reward"]
    number = number_of(value, name)
    try:
        return RewardResult(number, to_plain(_unpacked(extras), "extras"))
    except TypeError as error:
        raise RewardError(name, str(error)) from None


def number_of(value: Any, name: str) -> float:
    """A finite number as a float: int, float, bool, a numpy scalar, or a tensor without dimensions.

    Raises:
        RewardError: it is something else, NaN or infinite.
    """
    plain = _unpacked(value)
    if not isinstance(plain, numbers.Real):
        raise RewardError(
            name,
            f"it gave {shown(value, 120)} of type {type(value).__name__}: return a number, or a dict with 'reward'",
        )
    try:
        number = float(plain)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RewardError(name, f"it gave {shown(value, 120)}, which is no finite number")
    return number


def _unpacked(value: Any) -> Any:
    """Numpy's and torch's scalars and arrays as Python's own numbers and lists, also in dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _unpacked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unpacked(item) for item in value]
    dimensions = getattr(value, "ndim", None)
    if isinstance(dimensions, int) and hasattr(value, "item") and hasattr(value, "tolist"):
        return value.item() if dimensions == 0 else value.tolist()
    return value


def _summed(rows: list[list[float | None]]) -> list[float | None]:
    """The sum of each column; None where no row says anything."""
    summed: list[float | None] = []
    for column in zip(*rows, strict=True):
        said = [step for step in column if step is not None]
        summed.append(sum(said) if said else None)
    return summed


def _terms(term: Reward) -> list[Reward]:
    """The parts of a sum that has no name of its own, or the reward itself."""
    if isinstance(term, RewardGroup) and not term.is_named:
        return [part * term.weight for part in term.parts]
    return [term]


def _checked_weight(weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise InvalidArgument("weight", weight, "give a finite number")
    return float(weight)


def _checked_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise InvalidArgument("timeout", timeout, "give seconds greater than 0, or None for no limit")
    return float(timeout)
