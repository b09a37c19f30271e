"""What a rollout gives back: its trajectories in order, with their rewards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload, Self

from ..errors import StateError
from ..trajectory import Trajectory

__all__ = ["RunResult"]


class RunResult(Sequence[Trajectory]):
    """The trajectories of a rollout, ordered by query, chain and agent, whatever finished first.

    It is a sequence of its trajectories.

    Attributes:
        trajectories: one for each agent of each chain; a chain that failed has one as well.
        wall_time: seconds that the whole of it took.
    """

    def __init__(self, trajectories: Sequence[Trajectory], wall_time: float = 0.0) -> None:
        self.trajectories = list(trajectories)
        self.wall_time = wall_time

    @property
    def rewards(self) -> list[float | None]:
        """The reward of each trajectory; None where there is none, or where it failed."""
        return [trajectory.reward for trajectory in self.trajectories]

    @property
    def reward_extras(self) -> list[dict[str, Any]]:
        """What the reward of each trajectory said besides the number."""
        return [trajectory.reward_extras for trajectory in self.trajectories]

    @property
    def failures(self) -> list[Trajectory]:
        """The trajectories in which something went wrong."""
        return [trajectory for trajectory in self.trajectories if trajectory.error is not None]

    def chains(self) -> dict[tuple[int, int], list[Trajectory]]:
        """The trajectories of each chain, by number of query and chain."""
        chains: dict[tuple[int, int], list[Trajectory]] = {}
        for trajectory in self.trajectories:
            chains.setdefault((trajectory.query, trajectory.chain), []).append(trajectory)
        return chains

    def to_json(self) -> str:
        """All of it as JSON text, which `from_json` reads.

        Raises:
            TypeError: something in a trajectory has no JSON form; the message names where it is.
        """
        saved = [trajectory.to_dict() for trajectory in self.trajectories]
        return json.dumps({"version": 1, "wall_time": self.wall_time, "trajectories": saved}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The result that `to_json` wrote.

        Raises:
            StateError: the text is no such result.
        """
        try:
            saved = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StateError(f"this is no saved rollout: {error}") from None
        if not isinstance(saved, Mapping) or saved.get("version") != 1 or "trajectories" not in saved:
            raise StateError("this is no saved rollout: it has no trajectories, or another version than 1")
        return cls([Trajectory.from_dict(item) for item in saved["trajectories"]], float(saved.get("wall_time", 0.0)))

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trajectory]: ...
    def __getitem__(self, index: int | slice) -> Trajectory | list[Trajectory]:
        return self.trajectories[index]

    def __len__(self) -> int:
        return len(self.trajectories)

    def __iter__(self) -> Iterator[Trajectory]:
        return iter(self.trajectories)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RunResult):
            return NotImplemented
        return self.trajectories == other.trajectories and self.wall_time == other.wall_time

    __hash__ = None  # type: ignore[assignment]  # it can be edited

    def __repr__(self) -> str:
        known = [reward for reward in self.rewards if reward is not None]
        mean = f", mean reward {sum(known) / len(known):.3f}" if known else ""
        reasons = Counter(trajectory.finish_reason for trajectory in self.trajectories)
        ended = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        return f"{type(self).__name__}({len(self)} trajectories: {ended or 'none'}{mean})"
