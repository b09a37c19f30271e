"""Supervised training: the policy learns to say what trajectories say."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidArgument
from ..ledger import Segment
from ..rollouts.rows import tokenize_trajectories
from ..trajectory import Trajectory
from ._torch import torch
from .loop import Metrics, positive, Trainer
from .losses import LengthNorm, supervised, token_weights
from .policy import Policy

__all__ = ["SFTTrainer", "conversation"]

Tensor = torch.Tensor


class SFTTrainer(Trainer):
    """Teaches a policy to say what trajectories say: cross-entropy on the tokens that a model, or a person, wrote.

    Args:
        policy: what is trained.
        trajectories: what to learn from, with token ids: of a rollout, or made of messages by `conversation`.
        held_out: trajectories that only the loss is measured on.
        batch: trajectories a step.
        length_norm: how much each token counts; see `token_weights`.
        **options: as for `Trainer`: `out`, `steps`, `seed`, `resume`, …

    Metrics of a step: `loss` (nats a token), `tokens`, `grad_norm`, `lr`, `skipped`; of an evaluation `eval/loss`.

    >>> policy = Policy()
    >>> lesson = conversation(policy, [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}])
    >>> history = SFTTrainer(policy, [lesson], steps=2).train()
    >>> history[-1]["loss"] < history[-2]["loss"]
    True
    """

    kind = "sft"
    curves = ("loss", "eval/loss")

    def __init__(
        self,
        policy: Policy,
        trajectories: Sequence[Trajectory],
        *,
        held_out: Sequence[Trajectory] = (),
        batch: int = 16,
        length_norm: LengthNorm = "token",
        **options: Any,
    ) -> None:
        super().__init__(policy, **options)
        positive("batch", batch)
        if length_norm not in ("token", "sequence"):
            raise InvalidArgument("length_norm", length_norm, "give 'token' or 'sequence'")
        self.trajectories = _teaching("trajectories", trajectories)
        self.held_out = _teaching("held_out", held_out) if held_out else []
        self.batch = batch
        self.length_norm: LengthNorm = length_norm

    async def _step(self, step: int) -> Metrics:
        picked = shuffled(len(self.trajectories), self.batch, self.seed, step)
        metrics: Metrics = await self._work(self._learn, [self.trajectories[index] for index in picked])
        return metrics

    def _learn(self, trajectories: list[Trajectory]) -> Metrics:
        rows = tokenize_trajectories(trajectories, tensors="pt")
        weights = token_weights(rows["action_mask"], rows["trajectory"], self.length_norm)

        def loss(picked: Tensor, logprobs: Tensor, _: Tensor | None) -> Tensor:
            return supervised(logprobs, weights[picked, : logprobs.shape[1]])

        return {**self.policy.update(rows, loss), "tokens": float(rows["action_mask"].sum())}

    async def _evaluate(self) -> Metrics:
        if not self.held_out:
            return {}
        loss: float = await self._work(self._loss_of, self.held_out)
        return {"loss": loss}

    def _loss_of(self, trajectories: list[Trajectory]) -> float:
        rows = tokenize_trajectories(trajectories, tensors="pt")
        logprobs = self.policy.current_logprobs(rows)
        return float(supervised(logprobs, token_weights(rows["action_mask"], rows["trajectory"], self.length_norm)))

    def _settings(self) -> dict[str, Any]:
        learnt = digest([segment.ids for trajectory in self.trajectories for segment in trajectory.segments])
        return {**super()._settings(), "batch": self.batch, "length_norm": self.length_norm, "trajectories": learnt}


def conversation(
    policy: Policy, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
) -> Trajectory:
    """A conversation as a trajectory to learn from, written with the chat template of the policy's model.

    Args:
        policy: whose tokenizer and template are used.
        messages: chat messages; what the assistant says in them is what is taught.
        tools: JSON schemas of the tools on offer.
    """
    ids, mask = policy.tokenizer.rows(messages, tools)
    segment = Segment(list(ids), [bool(sampled) for sampled in mask], None)
    return Trajectory([dict(message) for message in messages], [segment], [dict(tool) for tool in tools or ()])


def shuffled(size: int, batch: int, seed: int, step: int) -> list[int]:
    """The numbers that a step takes of `size` items: each item once an epoch, every epoch in another order.

    They depend on the arguments alone, so that a run goes on after a crash as it would have.
    """
    first, last = step * batch // size, ((step + 1) * batch - 1) // size
    order: list[int] = []
    for epoch in range(first, last + 1):
        fresh = list(range(size))
        random.Random(f"{seed}:{epoch}").shuffle(fresh)
        order += fresh
    begin = step * batch - first * size
    return order[begin : begin + batch]


def digest(plain: Any) -> str:
    """A short name of plain data, so that a checkpoint can tell whether it is the same."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _teaching(argument: str, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those of the trajectories with a token to learn."""
    kept = [one for one in trajectories if any(any(segment.mask) for segment in one.segments)]
    if not kept:
        raise InvalidArgument(argument, f"{len(trajectories)} trajectories", "none of them has a token to learn from")
    return kept
