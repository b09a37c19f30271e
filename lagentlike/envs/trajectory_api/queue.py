"""What waits for a trainer: groups from environments, put together to batches of an exact number of rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from ...errors import InvalidArgument
from ..groups import ScoredGroup

__all__ = ["EnvRegistration", "TrainerRegistration", "TrajectoryQueue", "pick"]

LEAST_WEIGHT = 0.01
"""The least share of the work that any environment is told to do."""


class TrainerRegistration(BaseModel):
    """What a trainer says of itself: `batch_size` in rows, `max_token_len` in tokens (0 for no limit)."""

    wandb_group: str = ""
    wandb_project: str = ""
    batch_size: int
    max_token_len: int
    checkpoint_dir: str = ""
    save_checkpoint_interval: int = 0
    starting_step: int = 0
    num_steps: int = -1


class EnvRegistration(BaseModel):
    """What an environment says of itself.

    `weight` is its share of the work beside others, `group_size` the rows of its groups, and `min_batch_allocation` the
    least share of a batch that is to come from it.
    """

    max_token_length: int = 2048
    desired_name: str | None = None
    weight: float | None = 1.0
    group_size: int = 1
    min_batch_allocation: float | None = None


class _Env:
    """An environment that is known."""

    def __init__(self, id_: int, name: str, registration: EnvRegistration) -> None:
        self.id = id_
        self.name = name
        self.registration = registration
        self.group_size = max(1, registration.group_size)
        self.connected = True

    @property
    def share(self) -> float:
        weight = 1.0 if self.registration.weight is None else self.registration.weight
        return self.registration.max_token_length * max(0.0, weight)


class TrajectoryQueue:
    """The state of a trajectory API: one trainer, its environments, and the groups on their way.

    Args:
        most_groups: most groups that wait; more are refused.

    >>> queue = TrajectoryQueue()
    >>> _ = queue.register(TrainerRegistration(batch_size=2, max_token_len=64))
    >>> queue.next_batch() is None  # the trainer has begun to ask, so environments may come
    True
    >>> queue.register_env(EnvRegistration(desired_name="sums", group_size=2))["wandb_name"]
    'sums_0'
    >>> _ = queue.add(ScoredGroup(tokens=[[1, 2], [1, 3]], masks=[[-100, 2], [-100, 3]], scores=[1, 0], env_id=0))
    >>> [group.scores for group in queue.next_batch()]
    [[1.0, 0.0]]
    """

    def __init__(self, most_groups: int = 10_000) -> None:
        if isinstance(most_groups, bool) or not isinstance(most_groups, int) or most_groups < 1:
            raise InvalidArgument("most_groups", most_groups, "give a whole number of at least 1")
        self.most_groups = most_groups
        self.reset()

    def reset(self) -> None:
        """Forget the trainer, the environments and all groups."""
        self.trainer: TrainerRegistration | None = None
        self.latest: ScoredGroup | None = None
        self.step = 0
        self._started = False
        self._groups: list[ScoredGroup] = []
        self._envs: list[_Env] = []

    # The trainer

    def register(self, trainer: TrainerRegistration) -> int:
        """Begin with a trainer; a second one joins the first, whose settings hold. Returns a number that names it.

        Raises:
            InvalidArgument: the batch size is none.
        """
        if trainer.batch_size < 1:
            raise InvalidArgument("batch_size", trainer.batch_size, "give how many rows a batch has, at least 1")
        if self.trainer is None:
            self.trainer = trainer
            self.step = trainer.starting_step
        return uuid.uuid4().int

    def next_batch(self) -> list[ScoredGroup] | None:
        """The groups of the next batch, oldest first; None where there are not enough.

        Each batch is a step. Whoever asks first opens the door for environments.

        Raises:
            InvalidArgument: no trainer is registered.
        """
        if self.trainer is None:
            raise InvalidArgument("trainer", None, "Trainer not registered. Call /register first.")
        self._started = True
        chosen = self._chosen(self.trainer.batch_size)
        if chosen is None:
            return None
        batch = [self._groups[index] for index in chosen]
        taken = set(chosen)
        self._groups = [group for index, group in enumerate(self._groups) if index not in taken]
        self.step += 1
        return batch

    def _chosen(self, size: int) -> list[int] | None:
        """Which groups make a batch: what environments are promised first, then whatever came first."""
        chosen: list[int] = []
        for env_id, least in self._promised(size).items():
            rows = 0
            for index, group in enumerate(self._groups):
                if rows >= least:
                    break
                if group.env_id == env_id and group.rows + self._rows(chosen) <= size:
                    chosen.append(index)
                    rows += group.rows
            if rows < least:
                return None
        others = [index for index in range(len(self._groups)) if index not in set(chosen)]
        more = pick([self._groups[index].rows for index in others], size - self._rows(chosen))
        return None if more is None else sorted([*chosen, *(others[index] for index in more)])

    def _promised(self, size: int) -> dict[int, int]:
        """The rows that each environment is promised in a batch; fewer for all where that is more than a batch."""
        shares = {env.id: env.registration.min_batch_allocation or 0.0 for env in self._envs if env.connected}
        total = max(1.0, sum(shares.values()))
        return {env_id: int(size * share / total) for env_id, share in shares.items() if share > 0}

    def _rows(self, indices: Iterable[int]) -> int:
        return sum(self._groups[index].rows for index in indices)

    # The environments

    def register_env(self, registration: EnvRegistration) -> dict[str, Any]:
        """Let an environment in, and tell it what it needs; or tell it to wait for the trainer."""
        if self.trainer is None or not self._started:
            return {"status": "wait for trainer to start"}
        wanted = registration.desired_name or "env"
        namesakes = sum((env.registration.desired_name or "env") == wanted for env in self._envs)
        env = _Env(len(self._envs), f"{wanted}_{namesakes}", registration)
        self._envs.append(env)
        return {
            "status": "success",
            "env_id": env.id,
            "wandb_name": env.name,
            "checkpoint_dir": self.trainer.checkpoint_dir,
            "starting_step": self.step,
            "checkpoint_interval": self.trainer.save_checkpoint_interval,
            "num_steps": self.trainer.num_steps,
        }

    def disconnect_env(self, env_id: int) -> None:
        """Let an environment go; what it sent stays.

        Raises:
            InvalidArgument: there is none of that number.
        """
        self._env(env_id).connected = False

    def add(self, *groups: ScoredGroup) -> dict[str, Any]:
        """Put groups in line, all or none.

        Raises:
            InvalidArgument: one has more rows than a batch, so that no batch could ever hold it.
            BufferError: too many groups wait.
        """
        for group in groups:
            if self.trainer is not None and group.rows > self.trainer.batch_size:
                cure = f"a batch has {self.trainer.batch_size}, so none could hold it: send smaller groups"
                raise InvalidArgument("rows", group.rows, cure)
        if len(self._groups) + len(groups) > self.most_groups:
            raise BufferError(f"{len(self._groups)} groups wait for the trainer: send more later")
        self._groups.extend(groups)
        self.latest = groups[-1] if groups else self.latest
        return {"status": "received"}

    def status(self) -> dict[str, Any]:
        """How far the trainer is, and how many groups wait."""
        return {"current_step": self.step, "queue_size": len(self._groups)}

    def status_env(self, env_id: int) -> dict[str, Any]:
        """What an environment needs to know to do its share, and no more.

        `queue_size` counts what waits in groups of its size, less what other environments are promised;
        `self_queue_size` its own alone; `env_weight` is its share of the work, `unallocated_fraction` what of a batch
        nobody is promised.

        Raises:
            InvalidArgument: there is none of that number.
        """
        env = self._env(env_id)
        by_env: dict[int | None, int] = {}
        for group in self._groups:
            by_env[group.env_id] = by_env.get(group.env_id, 0) + group.rows
        promised = self._promised(0 if self.trainer is None else self.trainer.batch_size)
        own = by_env.pop(env_id, 0)
        others = sum(max(0, rows - promised.get(other, 0)) for other, rows in by_env.items() if other is not None)
        others += by_env.get(None, 0)
        shares = sum(other.share for other in self._envs if other.connected)
        allocated = sum(other.registration.min_batch_allocation or 0.0 for other in self._envs if other.connected)
        return {
            "current_step": self.step,
            "queue_size": (own + others) // env.group_size,
            "unallocated_fraction": 1.0 - min(allocated, 1.0),
            "self_queue_size": own // env.group_size,
            "max_group_size": max((group.rows for group in self._groups), default=1),
            "env_weight": max(LEAST_WEIGHT, env.share / shares if shares else 0.0),
        }

    def _env(self, env_id: int) -> _Env:
        if not 0 <= env_id < len(self._envs):
            raise InvalidArgument("env_id", env_id, f"{len(self._envs)} environments are registered: register first")
        return self._envs[env_id]


def pick(sizes: Sequence[int], target: int) -> list[int] | None:
    """Which of these sizes make exactly `target`, early ones before late ones; None where none do.

    >>> pick([4, 4, 2, 2], 8), pick([3, 2, 2, 2], 6), pick([4, 4], 6)
    ([0, 1], [1, 2, 3], None)
    """
    chosen: list[int] = []
    total = 0
    if not target:
        return chosen
    for index, size in enumerate(sizes):
        if total + size <= target:
            chosen.append(index)
            total += size
        if total == target:
            return chosen
    if sum(sizes) < target:
        return None
    reached: dict[int, tuple[int, int]] = {0: (0, -1)}  # a sum -> the sum before it, and the item that led on
    for index, size in enumerate(sizes):
        for before in sorted(reached, reverse=True):
            if before + size <= target:
                reached.setdefault(before + size, (before, index))
        if target in reached:
            break
    else:
        return None
    chosen = []
    while target:
        target, index = reached[target]
        chosen.append(index)
    return chosen[::-1]
