"""Losses: pure functions of log-probabilities, `[rows, length]`, whose gradient teaches the model."""

from __future__ import annotations

from typing import Literal

from ._torch import torch

__all__ = [
    "LengthNorm",
    "clipped",
    "kl_estimate",
    "policy_gradient",
    "supervised",
    "token_entropy",
    "token_logprobs",
    "token_weights",
]

Tensor = torch.Tensor
LengthNorm = Literal["token", "sequence", "constant"]


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """The log-probability of each id under the logits of its place, `[…]` of `[…, vocab]`."""
    chosen = logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(logits, -1)


def token_entropy(logits: Tensor) -> Tensor:
    """The entropy of each distribution in nats, `[…]` of `[…, vocab]`: `-sum of p log p` (Shannon 1948)."""
    logprobs = torch.log_softmax(logits, -1)
    return -(logprobs.exp() * logprobs).sum(-1)


def token_weights(mask: Tensor, owner: Tensor, norm: LengthNorm = "token", length: int | None = None) -> Tensor:
    """How much each trained token counts, so that a loss is the sum of weight times the token's loss.

    As weights they are the same however the rows are cut into micro-batches.

    Args:
        mask: 1 on trained tokens, `[rows, length]`.
        owner: number of the trajectory that each row is of, int `[rows]`.
        norm: "token": every token counts alike, `1 / all tokens` (DAPO, Yu et al. 2025, equation 8).
            "sequence": every trajectory counts alike, its tokens sharing that: `1 / (trajectories * its tokens)`
            (GRPO, Shao et al. 2024, equation 3).
            "constant": `1 / (trajectories * length)`, the same for long and short ones (Dr. GRPO, Liu et al. 2025,
            section 3.2).
        length: the constant of "constant": most tokens that a trajectory may have.

    Returns:
        Float `[rows, length]`, 0 outside the mask.
    """
    mask = mask.to(torch.float32)
    if norm == "token":
        return mask / mask.sum().clamp(min=1)
    _, place = torch.unique(owner, return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 1
    if norm == "constant":
        if length is None or length < 1:
            raise ValueError(f"length={length!r}: norm='constant' needs the number of tokens to divide by, at least 1")
        return mask / (count * length)
    if norm != "sequence":
        raise ValueError(f"norm={norm!r}: give 'token', 'sequence' or 'constant'")
    tokens = torch.zeros(count).index_add_(0, place, mask.sum(1)).clamp(min=1)
    return mask / (count * tokens[place]).unsqueeze(1)


def supervised(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the trained tokens: `-sum of w_t log p(y_t)`."""
    return -(weights * logprobs).sum()


def policy_gradient(logprobs: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    """A loss whose gradient is REINFORCE's: `-sum of w_t A_t log p(y_t)` (Williams 1992; for RLOO see `rloo`).

    Args:
        logprobs: of the sampled tokens under the policy that is trained, `[rows, length]`.
        advantages: of each token, `[rows, length]`, or of each row, `[rows, 1]`.
        weights: see `token_weights`.
    """
    return -(weights * advantages * logprobs).sum()


def clipped(
    logprobs: Tensor, behaviour: Tensor, advantages: Tensor, weights: Tensor, low: float = 0.2, high: float = 0.2
) -> Tensor:
    """The clipped objective of PPO, as a loss: `-sum of w_t min(q_t A_t, clip(q_t, 1 - low, 1 + high) A_t)`.

    `q_t` is the probability of the token now over what it was when it was sampled (Schulman et al. 2017, "Proximal
    Policy Optimization Algorithms", equation 7). A `high` above `low` is the "clip-higher" of DAPO (Yu et al. 2025).

    Args:
        logprobs: of the sampled tokens under the policy that is trained, `[rows, length]`.
        behaviour: their log-probabilities when they were sampled, `[rows, length]`.
        advantages: of each token, `[rows, length]`, or of each row, `[rows, 1]`.
        weights: see `token_weights`.
        low, high: how far the ratio may fall below 1, or rise above it, before it teaches nothing more.
    """
    ratio = (logprobs - behaviour).exp()
    bounded = ratio.clamp(1 - low, 1 + high)
    return -(weights * torch.minimum(ratio * advantages, bounded * advantages)).sum()


def kl_estimate(logprobs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of KL(policy || reference) at each sampled token: `r - 1 - log r` with `r = reference / policy`.

    Never negative, and of low variance ("k3" of Schulman 2020, "Approximating KL Divergence",
    http://joschu.net/blog/kl-approx.html; Shao et al. 2024, equation 4).
    """
    log_ratio = reference - logprobs
    return log_ratio.exp() - 1 - log_ratio
