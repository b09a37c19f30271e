"""Losses against loops that spell the formulas out, and their gradients against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name

from lagentlike.training import losses

MASK = torch.tensor([[0, 1, 1, 0, 1], [0, 0, 1, 0, 0], [0, 1, 1, 1, 1]])
OWNER = torch.tensor([4, 4, 9])  # the first two rows are segments of one trajectory
ROWS, LENGTH = MASK.shape


@pytest.fixture
def numbers() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    logprobs = -draw(ROWS, LENGTH).abs()
    return {
        "logprobs": logprobs,
        "behaviour": logprobs + 0.3 * draw(ROWS, LENGTH),
        "reference": logprobs + 0.5 * draw(ROWS, LENGTH),
        "advantages": draw(ROWS, LENGTH),
        "weights": losses.token_weights(MASK, OWNER).double(),
    }


def spelled_out(function: Callable[[int, int], float], weights: torch.Tensor) -> float:
    total = 0.0
    for row in range(ROWS):
        for place in range(LENGTH):
            if MASK[row, place]:
                total += float(weights[row, place]) * function(row, place)
    return total


def test_token_logprobs_and_entropy_are_those_of_the_softmax() -> None:
    logits, ids = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(1)), torch.tensor([[0, 6, 3], [1, 1, 2]])
    chosen, entropy = losses.token_logprobs(logits, ids), losses.token_entropy(logits)
    for row in range(2):
        for place in range(3):
            total = sum(math.exp(value) for value in logits[row, place].tolist())
            shares = [math.exp(value) / total for value in logits[row, place].tolist()]
            assert float(chosen[row, place]) == pytest.approx(math.log(shares[ids[row, place]]), abs=1e-5)
            assert float(entropy[row, place]) == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-5)


@pytest.mark.parametrize(
    ("norm", "wanted"),
    [
        ("token", [1 / 8, 1 / 8, 1 / 8]),
        ("sequence", [1 / (2 * 4), 1 / (2 * 4), 1 / (2 * 4)]),
        ("constant", [1 / (2 * 10), 1 / (2 * 10), 1 / (2 * 10)]),
    ],
)
def test_weights_of_equal_trajectories(norm: Any, wanted: list[float]) -> None:
    weights = losses.token_weights(MASK, OWNER, norm, 10)
    assert torch.allclose(weights, torch.tensor(wanted).unsqueeze(1) * MASK)


def test_sequence_weights_let_a_short_trajectory_count_as_much_as_a_long_one() -> None:
    mask, owner = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0]]), torch.tensor([0, 1])
    assert losses.token_weights(mask, owner, "sequence").sum(1).tolist() == pytest.approx([0.5, 0.5])
    assert losses.token_weights(mask, owner, "token").sum(1).tolist() == pytest.approx([0.75, 0.25])
    assert losses.token_weights(mask, owner, "constant", 4).sum(1).tolist() == pytest.approx([3 / 8, 1 / 8])


def test_constant_weights_need_their_constant() -> None:
    with pytest.raises(ValueError, match="length=None"):
        losses.token_weights(MASK, OWNER, "constant")
    with pytest.raises(ValueError, match="'tokens'"):
        losses.token_weights(MASK, OWNER, "tokens")  # type: ignore[arg-type]  # on purpose


def test_supervised_is_the_cross_entropy_of_the_labels() -> None:
    random = torch.Generator().manual_seed(2)
    logits, ids = torch.randn(ROWS, LENGTH, 11, generator=random), torch.randint(11, (ROWS, LENGTH), generator=random)
    labels = torch.where(MASK.bool(), ids, -100)
    wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    logprobs = F.pad(losses.token_logprobs(logits[:, :-1], ids[:, 1:]), (1, 0))
    assert float(losses.supervised(logprobs, losses.token_weights(MASK, OWNER))) == pytest.approx(
        float(wanted), rel=1e-5
    )


def test_policy_gradient_is_its_formula(numbers: dict[str, torch.Tensor]) -> None:
    logprobs, worth, weights = numbers["logprobs"], numbers["advantages"], numbers["weights"]
    wanted = spelled_out(lambda i, t: -float(worth[i, t]) * float(logprobs[i, t]), weights)
    assert float(losses.policy_gradient(logprobs, worth, weights)) == pytest.approx(wanted)


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.4)])
def test_clipped_is_its_formula(numbers: dict[str, torch.Tensor], low: float, high: float) -> None:
    logprobs, old, worth, weights = (numbers[name] for name in ("logprobs", "behaviour", "advantages", "weights"))
    regimes = set()

    def one(i: int, t: int) -> float:
        ratio, advantage = math.exp(float(logprobs[i, t]) - float(old[i, t])), float(worth[i, t])
        bounded = min(max(ratio, 1 - low), 1 + high)
        regimes.add((ratio < 1 - low, ratio > 1 + high, advantage > 0))
        return -min(ratio * advantage, bounded * advantage)

    assert float(losses.clipped(logprobs, old, worth, weights, low, high)) == pytest.approx(spelled_out(one, weights))
    assert len(regimes) >= 4  # inside and outside, good and bad


def test_kl_estimate_is_its_formula_and_never_negative(numbers: dict[str, torch.Tensor]) -> None:
    logprobs, reference = numbers["logprobs"], numbers["reference"]
    found = losses.kl_estimate(logprobs, reference)
    for i in range(ROWS):
        for t in range(LENGTH):
            log_ratio = float(reference[i, t]) - float(logprobs[i, t])
            assert float(found[i, t]) == pytest.approx(math.exp(log_ratio) - log_ratio - 1)
    assert (found >= 0).all()
    assert losses.kl_estimate(logprobs, logprobs).abs().max() == 0


def test_kl_estimate_has_the_divergence_as_its_mean() -> None:
    random = torch.Generator().manual_seed(4)
    mine, theirs = torch.log_softmax(torch.randn(2, 6, generator=random, dtype=torch.float64), -1)
    exact = float((mine.exp() * (mine - theirs)).sum())
    assert float((mine.exp() * losses.kl_estimate(mine, theirs)).sum()) == pytest.approx(exact)


def test_gradients_are_those_of_finite_differences(numbers: dict[str, torch.Tensor]) -> None:
    old, worth, weights = numbers["behaviour"], numbers["advantages"], numbers["weights"]
    logprobs = numbers["logprobs"].clone().requires_grad_()
    for loss in (
        lambda value: losses.supervised(value, weights),
        lambda value: losses.policy_gradient(value, worth, weights),
        lambda value: losses.clipped(value, old, worth, weights),
        lambda value: (weights * losses.kl_estimate(value, numbers["reference"])).sum(),
    ):
        assert torch.autograd.gradcheck(loss, (logprobs,))
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: losses.token_logprobs(value, torch.tensor([3, 0])), (logits,))
    assert torch.autograd.gradcheck(losses.token_entropy, (logits,))


def test_at_the_policy_that_was_sampled_from_all_objectives_have_the_same_gradient(
    numbers: dict[str, torch.Tensor],
) -> None:
    worth, weights = numbers["advantages"], numbers["weights"]
    gradients = []
    for clips in (False, True):
        logprobs = numbers["logprobs"].clone().requires_grad_()
        value = (
            losses.clipped(logprobs, numbers["logprobs"], worth, weights)
            if clips
            else losses.policy_gradient(logprobs, worth, weights)
        )
        value.backward()  # type: ignore[no-untyped-call]  # torch's own
        gradients.append(logprobs.grad)
    assert torch.allclose(gradients[0], gradients[1])


def test_a_ratio_out_of_bounds_teaches_nothing_more() -> None:
    logprobs = torch.zeros(1, 4, requires_grad=True)
    old = torch.tensor([[-0.5, 0.5, -0.5, 0.5]])  # ratios 1.6, 0.6, 1.6, 0.6
    worth = torch.tensor([[1.0, -1.0, -1.0, 1.0]])
    losses.clipped(logprobs, old, worth, torch.ones(1, 4)).backward()  # type: ignore[no-untyped-call]  # torch's own
    assert logprobs.grad is not None
    assert (logprobs.grad != 0).tolist() == [[False, False, True, True]]
