"""Score a trajectory by a reward, and find out beforehand whether that can work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...errors import InvalidArgument
from ...trajectory import Trajectory
from .arguments import Known, what_there_is
from .base import as_reward, Reward, RewardResult
from .registry import get_reward

__all__ = ["check_reward", "missing", "score", "wants"]


async def score(
    reward: Any, trajectory: Trajectory, context: Any = None, *, timeout: float | None = None
) -> RewardResult:
    """What a trajectory is worth.

    Args:
        reward: a reward, a function, or the name of a ready one.
        trajectory: what to judge.
        context: what the reward gets as `context`; where it is a dict, its items can be had by name as well.
        timeout: seconds that a reward without a time limit of its own may take.

    Raises:
        RewardError: the reward failed. It is never taken for 0.
    """
    found = _as_reward(reward)
    return (await found.evaluate(Known(trajectory, context), timeout)).times(found.weight)


def missing(reward: Any, metadata_keys: Iterable[str]) -> list[str]:
    """Names of the reward's parameters that nobody can fill where queries have these metadata keys.

    >>> missing("exact_match", ["question"])
    ['answer']
    """
    return _as_reward(reward).lacking(metadata_keys)


def wants(reward: Any, name: str) -> bool:
    """Whether a reward asks for the argument of that name, such as `environment`.

    >>> wants("exact_match", "environment")
    False
    """
    return _as_reward(reward).wants(name)


def check_reward(reward: Any, metadata_keys: Iterable[Iterable[str]]) -> None:
    """Fail before a rollout starts where its reward cannot be reckoned.

    Args:
        reward: the reward; None is none.
        metadata_keys: the metadata keys of each query.

    Raises:
        InvalidArgument: it is no reward, or some query lacks what it wants; the message says which and what there is.
    """
    if reward is None:
        return
    found = _as_reward(reward)
    for keys in {frozenset(keys): None for keys in metadata_keys}:
        names = found.lacking(keys)
        if names:
            raise InvalidArgument(
                "reward", found, f"nobody can fill its parameter {', '.join(map(repr, names))}: {what_there_is(keys)}"
            )


def _as_reward(reward: Any) -> Reward:
    return get_reward(reward) if isinstance(reward, str) else as_reward(reward)
