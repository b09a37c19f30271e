"""A reward for each answer of a trajectory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...llms.base import side_by_side
from .arguments import Known, lacking
from .base import as_reward, FunctionReward, number_of, Reward, RewardResult

__all__ = ["PerStep", "per_step"]

_OF_A_STEP = ("message", "results", "step")


class PerStep(Reward):
    """A function called once for each answer; see `per_step`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        inner = as_reward(function, "function")
        if not isinstance(inner, FunctionReward):
            raise TypeError("per_step takes a function, not a sum of rewards")
        super().__init__(inner.name, inner.weight, inner.timeout)
        self.inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)

    async def evaluate(self, known: Known, timeout: float | None = None) -> RewardResult:
        messages = known.trajectory.messages
        answers = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
        values = (
            await side_by_side([self._value(known, timeout, index, step) for step, index in enumerate(answers)])
            if answers
            else []
        )
        steps: list[float | None] = [None] * len(messages)
        for index, value in zip(answers, values, strict=True):
            steps[index] = value
        return RewardResult(float(sum(value for value in values if value is not None)), {}, steps)

    async def _value(self, known: Known, timeout: float | None, index: int, step: int) -> float | None:
        messages = known.trajectory.messages
        end = index + 1
        while end < len(messages) and messages[end].get("role") == "tool":
            end += 1
        added = known.with_added(message=messages[index], step=step, results=messages[index + 1 : end])
        value = await self.inner.value(added, timeout)
        return None if value is None else number_of(value, self.name)

    def lacking(self, metadata_keys: Iterable[str]) -> list[str]:
        return lacking(self.inner.parameters, metadata_keys, _OF_A_STEP)

    def wants(self, name: str) -> bool:
        return self.inner.wants(name)


def per_step(function: Callable[..., Any]) -> PerStep:
    """A reward that is called once for each answer and gives each its own number, or None for none.

    Beside what every reward may ask for, the function may ask for `message` (the answer), `step` (its number among the
    answers) and `results` (the tool messages that follow it). The numbers become `step_rewards`, their sum the reward.

    >>> @per_step
    ... def no_failed_call(message, results):
    ...     return -sum("Error" in str(result["content"]) for result in results)
    """
    return PerStep(function)
