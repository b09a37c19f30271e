"""Advantages against loops that spell the formulas out."""

from __future__ import annotations

import math
import random

import pytest
import torch

from lagentlike.training import advantages

NAN = math.nan


def batch(seed: int) -> tuple[list[float], list[int]]:
    """Rewards of 17 chains in 5 groups of different sizes, one of a single chain; some chains have none."""
    rng = random.Random(seed)
    groups = [0] * 4 + [7] * 5 + [3] * 3 + [9] + [2] * 4
    rng.shuffle(groups)
    rewards = [rng.gauss(0, 1) for _ in groups]
    for place in rng.sample([i for i, group in enumerate(groups) if group in (7, 2)], 2):
        rewards[place] = NAN
    return rewards, groups


def others(rewards: list[float], groups: list[int], i: int, itself: bool) -> list[float]:
    return [
        reward
        for j, (reward, group) in enumerate(zip(rewards, groups, strict=True))
        if group == groups[i] and not math.isnan(reward) and (itself or j != i)
    ]


def same(found: torch.Tensor, wanted: list[float]) -> bool:
    return torch.allclose(found, torch.tensor(wanted, dtype=found.dtype), atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("seed", range(3))
def test_rloo_compares_each_chain_with_the_mean_of_the_others(seed: int) -> None:
    rewards, groups = batch(seed)
    wanted = []
    for i, reward in enumerate(rewards):
        rest = others(rewards, groups, i, itself=False)
        wanted.append(NAN if math.isnan(reward) else reward - sum(rest) / len(rest) if rest else 0.0)
    assert same(advantages.rloo(torch.tensor(rewards), torch.tensor(groups)), wanted)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_grpo_normalises_each_group(seed: int, scale: bool) -> None:
    rewards, groups = batch(seed)
    wanted = []
    for i, reward in enumerate(rewards):
        group = others(rewards, groups, i, itself=True)
        mean = sum(group) / len(group)
        spread = math.sqrt(sum((one - mean) ** 2 for one in group) / max(len(group) - 1, 1))
        wanted.append((reward - mean) / (spread + 1e-6) if scale else reward - mean)
    assert same(advantages.grpo(torch.tensor(rewards), torch.tensor(groups), scale), wanted)


def test_a_chain_without_a_reward_changes_nothing_for_the_others() -> None:
    rewards, groups = torch.tensor([1.0, 0.0, NAN, 1.0]), torch.tensor([0, 0, 0, 0])
    kept = ~torch.isnan(rewards)
    for function in (advantages.rloo, advantages.grpo):
        found = function(rewards, groups)
        assert torch.equal(found[kept], function(rewards[kept], groups[kept]))
        assert math.isnan(found[2])
        assert not torch.equal(found[kept], function(rewards.nan_to_num(0.0), groups)[kept])  # as 0 it would


@pytest.mark.parametrize("function", [advantages.rloo, advantages.grpo])
def test_equal_rewards_teach_nothing(function: object) -> None:
    assert callable(function)
    assert function(torch.ones(4), torch.tensor([0, 0, 1, 2])).tolist() == [0.0] * 4


def test_reinforce_subtracts_its_baseline() -> None:
    assert advantages.reinforce(torch.tensor([1.0, 0.0]), 0.25).tolist() == [0.75, -0.25]


def test_returns_count_what_came_from_a_turn_on() -> None:
    steps = [None, 1.0, 0.25, None, -2.0, 4.0]
    turns = [1, 3, 5]
    wanted = []
    for turn in turns:
        total = 10.0
        for place in range(turn, len(steps)):
            total += steps[place] or 0.0
        wanted.append(total)
    assert advantages.returns_to_go(steps, turns, outcome=10.0) == wanted == [13.25, 12.0, 14.0]


def by_hand(rewards: list[float], values: list[float], discount: float, smoothing: float) -> list[float]:
    """Estimates of one chain, as the sum that defines them: `sum over k of (g l)^k d_(t+k)`."""
    steps = len(rewards)
    deltas = [rewards[t] + discount * (values[t + 1] if t + 1 < steps else 0.0) - values[t] for t in range(steps)]
    return [sum((discount * smoothing) ** (k - t) * deltas[k] for k in range(t, steps)) for t in range(steps)]


@pytest.mark.parametrize(("discount", "smoothing"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_generalised_advantages_pass_over_what_was_not_sampled_and_over_segments(
    discount: float, smoothing: float
) -> None:
    mask = torch.tensor([[0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0]])
    owner = torch.tensor([0, 1, 1])  # a chain of one row, and a chain of two segments
    rewards = torch.tensor([[0, 0, 0.5, 0, 0, 1.0], [0, 0, -1.0, 0, 0, 0], [0, 0, 0, 0, 2.0, 0]])
    values = torch.tensor([[9, 0.1, 0.2, 9, 9, 0.4], [9, 9, 0.3, 9, 9, 9], [9, -0.5, 9, 0.6, 1.0, 9]])
    found, returns = advantages.gae(rewards, values, mask, owner, discount, smoothing)
    first = by_hand([0.0, 0.5, 1.0], [0.1, 0.2, 0.4], discount, smoothing)
    second = by_hand([-1.0, 0.0, 0.0, 2.0], [0.3, -0.5, 0.6, 1.0], discount, smoothing)
    assert found[0][mask[0].bool()].tolist() == pytest.approx(first, abs=1e-6)
    assert [*found[1][mask[1].bool()].tolist(), *found[2][mask[2].bool()].tolist()] == pytest.approx(second, abs=1e-6)
    assert (found[~mask.bool()] == 0).all()
    assert (returns[~mask.bool()] == 0).all()
    assert returns[mask.bool()].tolist() == pytest.approx((found + values)[mask.bool()].tolist())
    if smoothing == discount == 1.0:  # what really came
        assert returns[0][mask[0].bool()].tolist() == pytest.approx([1.5, 1.5, 1.0])


def test_normalised_values_have_mean_0_and_deviation_1_where_they_count() -> None:
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]])
    values = advantages.normalised(torch.tensor([[1.0, 99.0, 2.0], [3.0, 6.0, -99.0]]), mask)
    kept = values[mask.bool()]
    assert float(kept.mean()) == pytest.approx(0, abs=1e-6)
    assert float(kept.std()) == pytest.approx(1, abs=1e-4)
    assert (values[~mask.bool()] == 0).all()
    assert (advantages.normalised(torch.ones(1, 3), torch.ones(1, 3)) == 0).all()
    assert (advantages.normalised(torch.ones(1, 1), torch.ones(1, 1)) == 0).all()
