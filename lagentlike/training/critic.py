"""The critic of PPO: a network that says what a chain is still worth, seen from before each token it samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..trajectory import Trajectory
from ._torch import torch
from .learner import AdamW, Learner, read_model, Rows
from .policy import Policy

__all__ = ["Critic", "token_rewards"]

Tensor = torch.Tensor


class Critic(Learner):
    """A value network: the network of a policy with a head that gives one number, 0 at first.

    The number at a token is `V(s)` of the state in which the token was sampled: it is computed from all before it.

    Args:
        policy: whose weights it begins with; it learns apart from it.
        adamw: how it learns; None takes the policy's.

    >>> critic = Critic(Policy())
    >>> critic.model.get_output_embeddings().out_features
    1
    """

    def __init__(self, policy: Policy, adamw: AdamW | None = None) -> None:
        model = read_model(policy.folder)
        model.load_state_dict(policy.weights())
        width = model.get_output_embeddings().in_features
        head = torch.nn.Linear(width, 1)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.zero_()
        model.set_output_embeddings(head)
        super().__init__(model, adamw or policy.adamw, policy.micro_batch, policy.device, policy.dtype)

    def values(self, rows: Rows) -> Tensor:
        """The value before each trained token, with gradients, float32 `[rows, length]`, 0.0 on other tokens."""
        return self._of_trained(self.model, rows, lambda outputs, _: [outputs[..., 0]])[0]

    def current_values(self, rows: Rows) -> Tensor:
        """The same without gradients, for any number of rows."""
        return self._gathered(rows, self.values)

    def update(self, rows: Rows, returns: Tensor, weights: Tensor) -> dict[str, float]:
        """Take one step towards the returns: `sum of w_t (V_t - R_t)^2 / 2` (Schulman et al. 2017, equation 9).

        Args:
            rows: what `tokenize_trajectories` gives, as torch tensors.
            returns: what came of each trained token, `[rows, length]`.
            weights: how much each token counts, `[rows, length]`; see `token_weights`.

        Returns:
            As `Policy.update`.
        """

        def loss(picked: Tensor, part: Rows) -> Tensor:
            values = self.values(part)
            wanted, weight = (given[picked, : values.shape[1]] for given in (returns, weights))
            return 0.5 * (weight * (values - wanted) ** 2).sum()

        return self._descend(rows, loss)


def token_rewards(trajectories: Sequence[Trajectory], rows: Rows) -> Tensor:
    """What each sampled token brought, `[rows, length]`: rewards are given at the end of an answer.

    The reward of a message is given with the last token of the answer that it is or that it came after; what the whole
    chain was worth besides, with its very last one.

    Args:
        trajectories: those that the rows are of, each with a reward.
        rows: what `tokenize_trajectories` gives of them.
    """
    given = torch.zeros(rows["action_mask"].shape)
    first = 0
    for trajectory in trajectories:
        ends = [
            (turn.message, first + number, turn.stop - 1)
            for number, segment in enumerate(trajectory.segments)
            for turn in segment.turns
            if len(turn)
        ]
        first += len(trajectory.segments)
        steps: Any = trajectory.step_rewards or []
        for message, reward in enumerate(steps):
            if reward is not None:
                _, row, place = max((end for end in ends if end[0] <= message), default=ends[0])
                given[row, place] += reward
        _, row, place = ends[-1]
        given[row, place] += float(trajectory.reward or 0.0) - sum(step for step in steps if step is not None)
    return given
