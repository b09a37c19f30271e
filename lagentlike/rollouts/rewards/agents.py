"""A reward for each agent of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ...errors import InvalidArgument
from .arguments import Known
from .base import as_reward, Reward, RewardResult

__all__ = ["PerAgent", "per_agent"]


class PerAgent(Reward):
    """A reward for each agent; see `per_agent`."""

    def __init__(self, rewards: Mapping[str, Reward | Callable[..., object]]) -> None:
        if not isinstance(rewards, Mapping) or not rewards:
            raise InvalidArgument("rewards", rewards, "give a dict such as {'writer': reward, 'critic': reward}")
        super().__init__("per_agent")
        self.rewards = {path: as_reward(part, f"rewards[{path!r}]") for path, part in rewards.items()}

    async def evaluate(self, known: Known, timeout: float | None = None) -> RewardResult:
        part = self.rewards.get(known.trajectory.agent)
        if part is None:
            return RewardResult(None)
        return (await part.evaluate(known, timeout)).times(part.weight)

    def lacking(self, metadata_keys: Iterable[str]) -> list[str]:
        keys = set(metadata_keys)
        return sorted({name for part in self.rewards.values() for name in part.lacking(keys)})

    def wants(self, name: str) -> bool:
        return any(part.wants(name) for part in self.rewards.values())


def per_agent(rewards: Mapping[str, Reward | Callable[..., object]]) -> PerAgent:
    """A reward that judges each agent's trajectory by the reward of that agent.

    Args:
        rewards: rewards by the agent's path in the tree (`Trajectory.agent`; "" is the root). The trajectory of an
            agent that is not named gets no reward: None, which no trainer takes for 0.

    >>> from lagentlike.rollouts.rewards import f1, format_reward
    >>> sorted(per_agent({"writer": f1, "critic": format_reward(".*Score: [0-9]+")}).rewards)
    ['critic', 'writer']
    """
    return PerAgent(rewards)
