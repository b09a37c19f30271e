"""Advantages: how much better a chain, or a turn of it, was than could be expected."""

from __future__ import annotations

from collections.abc import Sequence

from ._torch import torch

__all__ = ["gae", "grpo", "normalised", "reinforce", "returns_to_go", "rloo"]

Tensor = torch.Tensor


def reinforce(rewards: Tensor, baseline: float = 0.0) -> Tensor:
    """Rewards less a baseline: `A_i = r_i - b`.

    Unbiased for any baseline that does not depend on the chain itself (Williams 1992, "Simple statistical
    gradient-following algorithms for connectionist reinforcement learning", section 3).

    Args:
        rewards: `[n]`; NaN where a chain has none, and then so is its advantage.
        baseline: what could be expected, such as the mean reward of earlier steps.
    """
    return rewards - baseline


def rloo(rewards: Tensor, groups: Tensor) -> Tensor:
    """Rewards less the mean of the others in the group: `A_i = r_i - 1/(k-1) * sum over j != i of r_j`.

    Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in
    LLMs", equation 9 (after Kool et al. 2019).

    Args:
        rewards: `[n]`; NaN where a chain has none: it is left out of its group, and its advantage is NaN.
        groups: number of the group that each is in, int `[n]`.

    Returns:
        `[n]`; 0 for a chain that is alone in its group, as there is nothing to compare it with.
    """
    count, mean = _group_means(rewards, groups)
    # r - (k m - r) / (k - 1)  =  (r - m) k / (k - 1)
    return torch.where(count > 1, (rewards - mean) * count / (count - 1).clamp(min=1), rewards * 0)


def grpo(rewards: Tensor, groups: Tensor, scale: bool = True, epsilon: float = 1e-6) -> Tensor:
    """Rewards normalised in their group: `A_i = (r_i - mean) / (std + epsilon)`.

    Shao et al. 2024, "DeepSeekMath", section 4.1.2. `std` is that of a sample (divided by k - 1), as in TRL and verl.

    Args:
        rewards: `[n]`; NaN where a chain has none: it is left out of its group, and its advantage is NaN.
        groups: number of the group that each is in, int `[n]`.
        scale: whether to divide by the standard deviation; without, it is the advantage of Dr. GRPO (Liu et al. 2025,
            "Understanding R1-Zero-Like Training: A Critical Perspective", equation 3), which gives questions that are
            almost always or almost never solved no extra weight.
        epsilon: keeps the quotient finite where all rewards are equal.

    Returns:
        `[n]`; 0 for a chain that is alone in its group.
    """
    count, mean = _group_means(rewards, groups)
    centred = rewards - mean
    if not scale:
        return centred
    _, mean_square = _group_means(centred * centred, groups)
    deviation = (mean_square * count / (count - 1).clamp(min=1)).sqrt()
    return centred / (deviation + epsilon)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, owner: Tensor, discount: float = 1.0, smoothing: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates over the sampled tokens of each chain: `A_t = d_t + g l A_(t+1)`.

    `d_t = r_t + g V_(t+1) - V_t`, with `V = 0` behind the last token (Schulman et al. 2016, "High-Dimensional
    Continuous Control Using Generalized Advantage Estimation", equation 16). A step is a token that the policy sampled:
    the one after the end of an answer is the first of the next answer, whatever tools and users said in between.

    Args:
        rewards: what each token brought, `[rows, length]`; see `token_rewards`.
        values: of the state in which each token was sampled, `[rows, length]`.
        mask: 1 on sampled tokens, `[rows, length]`.
        owner: number of the chain that each row is of, int `[rows]`; rows of one chain are in order.
        discount: g, of what comes a token later.
        smoothing: l; 0 trusts the values alone, 1 the rewards alone.

    Returns:
        Advantages, and the returns that values are taught (`A_t + V_t`), both `[rows, length]`, 0 outside the mask.
    """
    advantages = torch.zeros(rewards.shape)
    for chain in torch.unique(owner).tolist():
        rows, places = ((owner == chain).unsqueeze(1) & mask.bool()).nonzero(as_tuple=True)
        reward, value = rewards[rows, places].tolist(), values[rows, places].tolist()
        found = [0.0] * len(reward)
        later = ahead = 0.0
        for step in range(len(reward) - 1, -1, -1):
            later = reward[step] + discount * ahead - value[step] + discount * smoothing * later
            found[step], ahead = later, value[step]
        advantages[rows, places] = torch.tensor(found)
    return advantages, torch.where(mask.bool(), advantages + values, 0.0)


def normalised(values: Tensor, mask: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Values with mean 0 and standard deviation 1 over the mask, 0 outside."""
    kept = values[mask.bool()]
    spread = kept.std() if len(kept) > 1 else kept.new_zeros(())
    return torch.where(mask.bool(), (values - kept.mean()) / (spread + epsilon), 0.0)


def returns_to_go(step_rewards: Sequence[float | None], turns: Sequence[int], outcome: float = 0.0) -> list[float]:
    """What came after each turn: the rewards of its message and of all later ones, and the outcome.

    The reward-to-go of policy gradients (Sutton and Barto, "Reinforcement Learning", 2nd edition, equation 13.8), not
    discounted, for conversations are short.

    Args:
        step_rewards: one for each message, None where nothing was said.
        turns: numbers of the messages that the model wrote.
        outcome: what the whole was worth besides, given at the end.

    >>> returns_to_go([None, 0.5, None, 1.0], turns=[1, 3])
    [1.5, 1.0]
    """
    return [outcome + sum(reward for reward in step_rewards[turn:] if reward is not None) for turn in turns]


def _group_means(values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """For each entry how many of its group are not NaN, and their mean (NaN where there are none)."""
    _, place = torch.unique(groups, return_inverse=True)
    known = ~torch.isnan(values)
    size = int(place.max()) + 1 if len(place) else 0
    count = torch.zeros(size, dtype=values.dtype).index_add_(0, place, known.to(values.dtype))
    total = torch.zeros(size, dtype=values.dtype).index_add_(0, place, torch.where(known, values, 0.0))
    return count[place], (total / count)[place]
