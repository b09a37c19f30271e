"""The critic of PPO: values of the right states, targets by hand, and policies that get better by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lagentlike.agents import AsyncAgent
from lagentlike.errors import InvalidArgument, StateError
from lagentlike.ledger import Segment
from lagentlike.rollouts import reward, tokenize_trajectories
from lagentlike.training import AdamW, advantages, Critic, Objective, Policy, RLTrainer
from lagentlike.training.critic import token_rewards
from lagentlike.trajectory import Trajectory

QUERIES = [{"messages": [{"role": "user", "content": f"{number}?"}]} for number in range(6)]


@reward
def even(trajectory: Trajectory) -> float:
    """The share of the sampled tokens whose number is even."""
    [segment] = trajectory.segments
    ids = [i for i, sampled in zip(segment.ids, segment.mask, strict=True) if sampled]
    return sum(i % 2 == 0 for i in ids) / len(ids)


def trainer_of(small: Path, objective: Any = "ppo", lr: float = 1e-2, critic: bool = True, **options: Any) -> RLTrainer:
    policy = Policy(small, adamw=AdamW(lr=lr))
    agent = AsyncAgent(policy.llm(max_new_tokens=3), name="sayer")
    options = {"batch": 4, "group": 4, **options}
    return RLTrainer(policy, agent, QUERIES, even, objective, critic=Critic(policy) if critic else None, **options)


def two_turns(worth: float, steps: list[float | None] | None = None, first: int = 7) -> Trajectory:
    """Two answers, of two tokens and of one, with what a tool said between them."""
    segment = Segment()
    segment.read([5, 6])
    segment.sample([first, 8], [-1.0, -2.0], 1)
    segment.read([9])
    segment.sample([10], [-0.5], 3)
    return Trajectory([{}] * 4, [segment], reward=worth, step_rewards=steps)


def lively(critic: Critic, seed: int = 0) -> Critic:
    """The same critic, whose head is not 0."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic.model.get_output_embeddings().weight.normal_(0, 0.3)
    return critic


def test_rewards_are_given_at_the_ends_of_answers() -> None:
    known = [two_turns(1.0), two_turns(3.0, [None, 0.5, 0.25, None]), two_turns(2.0, [None, 0.5, None, 1.0])]
    rewards = token_rewards(known, tokenize_trajectories(known, tensors="pt"))
    assert rewards.tolist() == [[0, 0, 0, 0, 0, 1.0], [0, 0, 0, 0.75, 0, 2.25], [0, 0, 0, 0.5, 0, 1.5]]


def test_the_reward_is_on_the_last_token_sampled_where_the_last_answer_has_none() -> None:
    chain = two_turns(1.0)
    chain.segments[0].sample([], [], 5)
    given = token_rewards([chain], tokenize_trajectories([chain], tensors="pt"))
    assert given.nonzero().tolist() == [[0, chain.segments[0].turns[-2].stop - 1]]


def test_rewards_of_a_chain_with_several_segments_are_in_the_right_rows() -> None:
    parts = []
    for message, ids in ((1, [7, 8]), (3, [9])):
        segment = Segment()
        segment.read([5] * message)
        segment.sample(ids, [-1.0] * len(ids), message)
        parts.append(segment)
    known = [two_turns(1.0), Trajectory([{}] * 4, parts, reward=4.0, step_rewards=[None, 1.0, None, None])]
    rewards = token_rewards(known, tokenize_trajectories(known, tensors="pt"))
    assert rewards.tolist() == [[0, 0, 0, 0, 0, 1.0], [0, 0, 1.0, 0, 0, 0], [0, 0, 0, 3.0, 0, 0]]


def test_a_value_is_that_of_the_state_before_its_token(small: Path) -> None:
    critic = lively(Critic(Policy(small)))
    known = [two_turns(1.0), two_turns(0.0, first=20), two_turns(0.0)]
    rows = tokenize_trajectories(known, tensors="pt")
    values = critic.current_values(rows)
    for row in range(3):
        with torch.no_grad():
            states = critic.model(rows["input_ids"][row : row + 1]).logits[0, :, 0]
        wanted = torch.where(rows["action_mask"][row].bool(), torch.cat([torch.zeros(1), states[:-1]]), 0.0)
        assert values[row].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    assert values[0, 2] == pytest.approx(float(values[1, 2]), abs=1e-5)  # the first token is not known yet
    assert abs(values[0, 3] - values[1, 3]) > 1e-3


def test_a_critic_begins_with_the_policys_weights_of_the_moment_and_values_of_0(small: Path) -> None:
    policy = Policy(small, lora={"r": 4})
    with torch.no_grad():
        for name, value in policy.model.named_parameters():
            if "lora_B" in name:
                value.fill_(0.1)
    critic = Critic(policy)
    wanted = policy.weights()
    for name, value in critic.model.state_dict().items():
        assert name == "lm_head.weight" or name == "lm_head.bias" or torch.equal(value, wanted[name])
    assert (critic.current_values(tokenize_trajectories([two_turns(1.0)], tensors="pt")) == 0).all()


def test_the_lesson_of_a_small_batch_is_that_of_the_formulas(small: Path) -> None:
    trainer = trainer_of(small, Objective("ppo", discount=0.9, smoothing=0.8))
    assert trainer.critic is not None
    lively(trainer.critic)
    known = [two_turns(1.0), two_turns(0.5, [None, 0.25, None, None], first=20)]
    lesson = trainer._lesson(known)
    values = trainer.critic.current_values(lesson.rows)
    estimates, targets = [], []
    for row, brought in enumerate(([0.0, 0.0, 1.0], [0.0, 0.25, 0.25])):
        v1, v2, v3 = values[row, [2, 3, 5]].tolist()
        d1, d2, d3 = brought[0] + 0.9 * v2 - v1, brought[1] + 0.9 * v3 - v2, brought[2] - v3
        a3 = d3
        a2 = d2 + 0.72 * a3
        a1 = d1 + 0.72 * a2
        estimates += [a1, a2, a3]
        targets += [a1 + v1, a2 + v2, a3 + v3]
    mean = sum(estimates) / 6
    deviation = (sum((one - mean) ** 2 for one in estimates) / 5) ** 0.5
    taught = lesson.rows["action_mask"].bool()
    assert lesson.advantages[taught].tolist() == pytest.approx([(a - mean) / deviation for a in estimates], abs=1e-4)
    assert lesson.returns is not None
    assert lesson.returns[taught].tolist() == pytest.approx(targets, abs=1e-5)
    told = trainer.critic.update(lesson.rows, lesson.returns, lesson.weights)
    errors = [(a - b) ** 2 / 2 for a, b in zip(values[taught].tolist(), targets, strict=True)]
    assert told["loss"] == pytest.approx(sum(errors) / 6, abs=1e-5)


def test_a_critic_learns_what_chains_are_worth(small: Path) -> None:
    critic = Critic(Policy(small), AdamW(lr=1e-2))
    known = [two_turns(1.0), two_turns(-1.0, first=20)]
    rows = tokenize_trajectories(known, tensors="pt")
    mask, owner = rows["action_mask"], rows["trajectory"]
    weights = mask / mask.sum()
    for _ in range(60):
        values = critic.current_values(rows)
        _, returns = advantages.gae(token_rewards(known, rows), values, mask, owner, smoothing=1.0)
        critic.update(rows, returns, weights)
    values = critic.current_values(rows)
    assert values[0, [3, 5]].tolist() == pytest.approx([1.0, 1.0], abs=0.3)
    assert values[1, [3, 5]].tolist() == pytest.approx([-1.0, -1.0], abs=0.3)
    assert abs(values[0, 2]) < 0.3  # nobody can tell yet


def test_ppo_with_a_critic_makes_the_reward_rise(small: Path) -> None:
    trainer = trainer_of(
        small,
        Objective("ppo", updates=2),
        lr=2e-2,
        group=8,
        steps=15,
        held_out=QUERIES,
        held_out_chains=8,
        evaluate_every=15,
    )
    history = trainer.train()
    assert history[-1]["eval/reward"] > history[0]["eval/reward"] + 0.15
    assert history[1]["ratio_off"] < 1e-3
    assert history[-1]["value_loss"] < history[1]["value_loss"]
    assert trainer.critic is not None
    assert trainer.critic.steps == trainer.policy.steps == 30


def test_a_critic_is_kept_in_checkpoints_and_goes_on_to_the_bit(small: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"rollout_options": {"max_concurrency": 1}, "checkpoint_every": 2}
    whole = trainer_of(small, steps=4, out=tmp_path / "whole", **options)
    whole.train()
    trainer_of(small, steps=2, out=tmp_path / "cut", **options).train()
    rest = trainer_of(small, steps=4, out=tmp_path / "cut", resume=True, **options)
    rest.train()
    assert whole.critic is not None
    assert rest.critic is not None
    for one, other in ((whole.policy, rest.policy), (whole.critic, rest.critic)):
        for name, value in one.state_dict()["trained"].items():
            assert torch.equal(value, other.state_dict()["trained"][name]), name
    with pytest.raises(StateError, match="critic=True"):
        trainer_of(small, critic=False, steps=6, out=tmp_path / "cut", resume=True).train()


def test_a_critic_where_none_is_used_is_refused(small: Path) -> None:
    with pytest.raises(InvalidArgument, match="grpo has none"):
        trainer_of(small, "grpo")
    with pytest.raises(InvalidArgument, match=r"smoothing=1\.5"):
        Objective("ppo", smoothing=1.5)
