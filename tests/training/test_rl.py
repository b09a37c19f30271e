"""Reinforcement learning: rollouts of real agents, advantages on the right tokens, and policies that get better."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from lagentlike.actions import calculator
from lagentlike.agents import AsyncAgent, AsyncReAct, AsyncSequential
from lagentlike.errors import InvalidArgument, LagentlikeError
from lagentlike.ledger import Segment
from lagentlike.llms import AsyncTinyLM
from lagentlike.llms.scripted import AsyncScriptedLLM
from lagentlike.rollouts import reward, RunResult
from lagentlike.training import AdamW, Objective, Policy, RLTrainer
from lagentlike.training.advantages import grpo
from lagentlike.trajectory import Trajectory

QUERIES = [{"messages": [{"role": "user", "content": f"{number}?"}], "answer": str(number)} for number in range(6)]


@reward
def even(trajectory: Trajectory) -> float:
    """The share of the sampled tokens whose number is even."""
    [segment] = trajectory.segments
    ids = [i for i, sampled in zip(segment.ids, segment.mask, strict=True) if sampled]
    return sum(i % 2 == 0 for i in ids) / len(ids)


def agent_of(policy: Policy, tokens: int = 3) -> AsyncAgent:
    return AsyncAgent(policy.llm(max_new_tokens=tokens), name="sayer")


def trainer_of(small: Path, objective: Any = "grpo", lr: float = 1e-2, **options: Any) -> RLTrainer:
    policy = Policy(small, adamw=AdamW(lr=lr))
    return RLTrainer(policy, agent_of(policy), QUERIES, even, objective, **{"batch": 4, "group": 4, **options})


def sampled(logprobs: list[float], worth: float | None, query: int = 0, agent: str = "", **more: Any) -> Trajectory:
    """A trajectory with one answer after a prompt of two tokens."""
    segment = Segment()
    segment.read([5, 6])
    segment.sample([7 + len(logprobs)] * len(logprobs), logprobs, 1)
    return Trajectory([{}, {}], [segment], reward=worth, query=query, agent=agent, **more)


@pytest.mark.parametrize(
    "objective",
    [
        "reinforce",
        "rloo",
        "grpo",
        "ppo",
        Objective("grpo", scale=False, length_norm="constant"),
        Objective("grpo", length_norm="sequence", clip_high=0.3, updates=2),
        Objective("rloo", kl=0.01, entropy=0.001),
    ],
    ids=str,
)
def test_every_objective_makes_the_reward_rise(small: Path, objective: Any) -> None:
    trainer = trainer_of(
        small, objective, lr=2e-2, group=8, steps=15, held_out=QUERIES, held_out_chains=8, evaluate_every=15
    )
    history = trainer.train()
    assert history[-1]["eval/reward"] > history[0]["eval/reward"] + 0.15
    assert history[1]["ratio_mean"] == pytest.approx(1.0, abs=1e-3)
    assert history[1]["ratio_off"] < 1e-3


def test_a_calculator_agent_is_trained_on_exactly_what_it_sampled() -> None:
    policy = Policy()
    agent = AsyncReAct(AsyncTinyLM(), [calculator])
    queries = [{"messages": [{"role": "user", "content": "What is 12 * 34?"}], "answer": "408"}]

    @reward
    def right(final_response: str, answer: str) -> float:
        return float(answer in final_response)

    trainer = RLTrainer(policy, agent, queries, right, batch=1, group=4, steps=1)
    history = trainer.train()
    assert history[1]["reward"] > 0
    assert history[1]["turns"] > 1.0
    assert history[1]["tokens"] > 40
    if history[1].get("skipped") != 1.0:  # all chains alike teach nothing
        assert history[1]["ratio_mean"] == pytest.approx(1.0, abs=1e-3)


def test_updates_after_the_first_are_off_policy_and_clipped(small: Path) -> None:
    trainer = trainer_of(small, Objective("ppo", updates=4), steps=2)
    history = trainer.train()
    assert history[1]["ratio_off"] < 1e-3  # of the first
    assert history[2]["clip_fraction"] > 0  # of the last
    assert trainer.policy.steps == 8


def test_chains_without_a_reward_are_left_out_and_not_taken_as_zero(small: Path) -> None:
    known = [sampled([-1.0] * n, worth) for n, worth in ((1, 1.0), (2, 0.5), (3, 0.5))]
    failed = sampled([-1.0] * 4, None, finish_reason="error", error="ToolTimeout")
    cut = Trajectory([{}], finish_reason="cancelled", error="CancelledError")
    weights = []
    for trajectories in (known, [failed, *known, cut]):
        trainer = trainer_of(small)
        metrics = trainer._learn(RunResult(trajectories, 1.0))
        weights.append(trainer.policy.state_dict()["trained"])
    assert metrics["left_out"] == metrics["failures"] == 2
    assert metrics["chains"] == 3
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])


def test_a_reward_that_fails_for_a_chain_leaves_that_chain_out(small: Path) -> None:
    @reward
    def picky(trajectory: Trajectory) -> float:
        if trajectory.chain == 1:
            raise RuntimeError("no idea")
        return float(trajectory.chain)

    policy = Policy(small)
    history = RLTrainer(policy, agent_of(policy), QUERIES, picky, batch=2, group=4, steps=1).train()
    assert history[1]["failures"] == history[1]["left_out"] == 2
    assert history[1]["reward"] == pytest.approx((0 + 2 + 3) / 3)


def test_when_every_chain_fails_the_first_error_is_told(small: Path) -> None:
    @reward
    def broken(trajectory: Trajectory) -> float:
        raise RuntimeError("the judge is away")

    policy = Policy(small)
    with pytest.raises(LagentlikeError, match=r"nothing to learn from at step 0.*the judge is away"):
        RLTrainer(policy, agent_of(policy), QUERIES, broken, steps=1).train()


def test_advantages_are_on_the_sampled_tokens_of_their_own_group(small: Path) -> None:
    trainer = trainer_of(small)
    known = [
        sampled([-1.0], 1.0, query=0),
        sampled([-1.0] * 3, 0.0, query=0),
        sampled([-1.0] * 2, 5.0, query=1),
        sampled([-1.0] * 2, 6.0, query=1),
        sampled([-1.0] * 2, 9.0, query=1, agent="critic"),
        sampled([-1.0] * 2, 7.0, query=1, agent="critic"),
    ]
    lesson = trainer._lesson(known)
    for first in (0, 2, 4):
        rewards = torch.tensor([one.reward for one in known[first : first + 2]])
        wanted = grpo(rewards, torch.tensor([0, 0]))
        for row, value in zip((first, first + 1), wanted, strict=True):
            trained = lesson.rows["action_mask"][row].bool()
            assert torch.allclose(lesson.advantages[row][trained], value)
            assert (lesson.advantages[row][~trained] == 0).all()


def test_rewards_of_messages_are_summed_from_each_turn_on(small: Path) -> None:
    def two_turns(steps: list[float | None]) -> Trajectory:
        segment = Segment()
        segment.read([1, 2])
        segment.sample([3, 4], [-1.0, -1.0], 1)
        segment.read([5])
        segment.sample([6], [-1.0], 3)
        total = sum(step for step in steps if step is not None)
        return Trajectory([{}] * 4, [segment], reward=total + 10.0, step_rewards=steps)

    trainer = trainer_of(small, Objective("grpo", scale=False))
    lesson = trainer._lesson([two_turns([None, 1.0, None, 0.0]), two_turns([None, 0.0, None, 4.0])])
    # to go: 11 and 10 of one chain, 14 and 14 of the other; means 12.5 at the first turn, 12 at the second
    assert lesson.advantages.tolist() == [[0, 0, -1.5, -1.5, 0, -2.0], [0, 0, 1.5, 1.5, 0, 2.0]]


def test_rows_that_teach_nothing_change_nothing_but_the_time(small: Path) -> None:
    mixed = [
        sampled([-1.0], 1.0),
        sampled([-1.0] * 2, 0.0),
        sampled([-1.0] * 3, 1.0, query=1),
        sampled([-1.0] * 4, 1.0, query=1),
    ]
    gradients = []
    for everything in (False, True):
        trainer = trainer_of(small)
        lesson = trainer._lesson(mixed).teaching(everything)
        trainer._update(lesson, reference=None, first=True)
        gradients.append((len(lesson.advantages), copy.deepcopy(trainer.policy.state_dict()["trained"])))
    assert [count for count, _ in gradients] == [2, 4]
    for name, value in gradients[0][1].items():
        assert torch.allclose(value, gradients[1][1][name], atol=1e-4)


def test_agents_that_share_the_policy_are_each_trained_and_others_are_not(small: Path) -> None:
    policy = Policy(small)
    pair = AsyncSequential(
        AsyncAgent(policy.llm(max_new_tokens=4), name="writer"), AsyncAgent(policy.llm(max_new_tokens=4), name="critic")
    )
    judged = AsyncSequential(pair, AsyncAgent(AsyncScriptedLLM(lambda messages, params: "good"), name="judge"))
    trainer = RLTrainer(policy, judged, QUERIES, lambda trajectory: float(trajectory.chain), batch=2, group=3, steps=1)
    assert len(trainer.paths) == 2
    history = trainer.train()
    assert history[1]["chains"] == 2 * 3 * 2
    assert history[1]["left_out"] == 2 * 3  # the judge's
    assert history[1]["same"] == 0.0


def test_arguments_that_make_no_sense_are_named(small: Path) -> None:
    with pytest.raises(InvalidArgument, match="algorithm='gpro'"):
        trainer_of(small, "gpro")
    with pytest.raises(InvalidArgument, match="group=1"):
        trainer_of(small, "rloo", group=1)
    with pytest.raises(InvalidArgument, match="updates=3"):
        Objective("rloo", updates=3)
    with pytest.raises(InvalidArgument, match="kl=-1"):
        Objective(kl=-1)
    with pytest.raises(InvalidArgument, match=r"policy\.llm"):
        RLTrainer(Policy(small), AsyncAgent(AsyncScriptedLLM(["x"])), QUERIES, even)


@pytest.mark.parametrize("changed", [{"top_p": 0.9}, {"top_k": 20}, {"repetition_penalty": 1.1}])
def test_sampling_that_is_not_of_the_models_own_distribution_is_refused(small: Path, changed: dict[str, Any]) -> None:
    policy = Policy(small)
    [(name, value)] = changed.items()
    told = rf"sayer\.llm: {name}={value}: it changes the distribution.*set {name}="
    theirs = AsyncAgent(AsyncTinyLM(small, temperature=0.3, **changed), name="sayer")
    pair = AsyncSequential(AsyncAgent(AsyncTinyLM(small), name="first"), theirs)
    llms = [unit.llm for unit in pair.children()]
    with pytest.raises(InvalidArgument, match=told.replace("sayer", r"\S+")):
        RLTrainer(policy, pair, QUERIES, even)
    assert [unit.llm for unit in pair.children()] == llms  # nothing was changed
    with pytest.raises(InvalidArgument, match=told.replace("sayer", "agent")):
        RLTrainer(policy, AsyncAgent(policy.llm(**changed)), QUERIES, even)
    with pytest.raises(InvalidArgument, match=rf"rollout_options\['generation_config'\]: {name}={value}"):
        RLTrainer(policy, agent_of(policy), QUERIES, even, rollout_options={"generation_config": changed})
    neutral = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1}
    RLTrainer(policy, AsyncAgent(AsyncTinyLM(small, **neutral)), QUERIES, even)


def test_a_policys_own_model_must_sample_at_temperature_1_to_be_trained(small: Path) -> None:
    policy = Policy(small)
    with pytest.raises(InvalidArgument, match=r"agent\.llm: temperature=0\.7"):
        RLTrainer(policy, AsyncAgent(policy.llm(temperature=0.7)), QUERIES, even)


def test_the_shared_engine_is_never_changed(small: Path) -> None:
    shared = AsyncTinyLM(small)
    before = shared.engine.logprobs([1, 2, 3]).tolist()
    policy = Policy(small, adamw=AdamW(lr=1e-2))
    RLTrainer(
        policy,
        AsyncAgent(shared),
        QUERIES,
        even,
        steps=1,
        batch=2,
        group=4,
        rollout_options={"generation_config": {"max_new_tokens": 4}},
    ).train()
    assert shared.engine.logprobs([1, 2, 3]).tolist() == before


def test_lora_is_trained_by_reinforcement_too(small: Path) -> None:
    policy = Policy(small, lora={"r": 8}, adamw=AdamW(lr=1e-2))
    side = policy.weights()["model.embed_tokens.weight"][:, 0] > 0  # what a change of the layers can prefer

    @reward
    def on_that_side(trajectory: Trajectory) -> float:
        [segment] = trajectory.segments
        return float(side[segment.ids[-3:]].float().mean())

    history = RLTrainer(policy, agent_of(policy), QUERIES, on_that_side, batch=4, group=8, steps=20).train()
    assert sum(row["reward"] for row in history[-3:]) / 3 > history[1]["reward"] + 0.12
    assert all(row["ratio_off"] < 1e-3 for row in history[1:])
