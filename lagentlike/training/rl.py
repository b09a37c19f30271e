"""Reinforcement learning: the policy learns from what its own chains were worth."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, Literal

from ..agents.agent import AsyncAgent
from ..errors import InvalidArgument, LagentlikeError
from ..rollouts.queries import queries_of
from ..rollouts.result import RunResult
from ..rollouts.rows import tokenize_trajectories
from ..rollouts.runner import rollout
from ..trajectory import Trajectory
from . import advantages
from ._torch import torch
from .critic import Critic, token_rewards
from .loop import Metrics, positive, Trainer
from .losses import clipped, kl_estimate, LengthNorm, policy_gradient, token_weights
from .policy import check_sampling, Policy
from .sft import digest, shuffled

__all__ = ["Algorithm", "Objective", "RLTrainer"]

_OF_FIRST = ("ratio", "value")  # metrics that are told of the first update of a step
_ROUNDING = 1e-4  # nats: log-probabilities of the same weights that differ by less are the same

Tensor = torch.Tensor
Algorithm = Literal["reinforce", "rloo", "grpo", "ppo"]


@dataclass(frozen=True, slots=True)
class Objective:
    """What is maximised, and with which advantages.

    Attributes:
        algorithm: "reinforce": reward less a running mean of earlier rewards, plain policy gradient.
            "rloo": reward less the mean of the other chains of the query, plain policy gradient.
            "grpo": reward normalised among the chains of the query, clipped ratio.
            "ppo": reward normalised over the whole step, clipped ratio; with a `Critic`, generalised advantage
            estimates of every token in place of the reward.
        scale: whether "grpo" divides by the standard deviation of the group; Dr. GRPO does not.
        length_norm: how much each token counts; see `token_weights`.
        length: what "constant" divides by: about the most tokens that a chain samples.
        clip_low, clip_high: how far the ratio of "grpo" and "ppo" may fall below 1 and rise above it.
        kl: weight of the divergence from the weights that training began with.
        entropy: weight of the entropy, which is rewarded.
        updates: passes over the chains of a step; "grpo" and "ppo" can take more than one.
        decay: of the running mean of "reinforce".
        discount, smoothing: of "ppo" with a critic; see `advantages.gae`.
    """

    algorithm: Algorithm = "grpo"
    scale: bool = True
    length_norm: LengthNorm = "token"
    length: int = 256
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.0
    entropy: float = 0.0
    updates: int = 1
    decay: float = 0.9
    discount: float = 1.0
    smoothing: float = 0.95

    def __post_init__(self) -> None:
        for name, kinds in (("algorithm", Algorithm), ("length_norm", LengthNorm)):
            if getattr(self, name) not in get_args(kinds):
                raise InvalidArgument(name, getattr(self, name), f"give one of {', '.join(get_args(kinds))}")
        for name in ("clip_low", "clip_high", "kl", "entropy", "decay"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise InvalidArgument(name, value, "give a number of at least 0")
        for name in ("discount", "smoothing"):
            if not (isinstance(getattr(self, name), int | float) and 0 <= getattr(self, name) <= 1):
                raise InvalidArgument(name, getattr(self, name), "give a number from 0 to 1")
        positive("updates", self.updates)
        positive("length", self.length)
        if self.updates > 1 and not self.clips:
            raise InvalidArgument("updates", self.updates, f"{self.algorithm} takes one; 'grpo' and 'ppo' take more")

    @property
    def clips(self) -> bool:
        """Whether it bounds the ratio to the policy that was sampled from."""
        return self.algorithm in ("grpo", "ppo")


class RLTrainer(Trainer):
    """Teaches a policy by what the chains of an agent were worth: a rollout, then one update (or a few), a step.

    Args:
        policy: what is trained.
        agent: an async agent whose model it is: built on `policy.llm()`, or on the same directory, such as
            `AsyncReAct(AsyncTinyLM(), …)` for the embedded model; it then samples from the policy from here on.
        queries: conversations to go on from; see `lagentlike.rollouts.queries_of`.
        reward: what a chain is worth; as for `rollout`.
        objective: an `Objective`, or the name of an algorithm.
        critic: the value network of "ppo"; None for none. It takes as many updates as the policy.
        held_out: queries that are only evaluated on.
        held_out_chains: chains for each of them.
        batch: queries a step.
        group: chains for each query.
        rollout_options: options of `rollout`: `timeout`, `max_turns`, `environment`, `max_concurrency`, …
        **options: as for `Trainer`: `out`, `steps`, `seed`, `resume`, …

    Every token that the policy sampled is trained, with the log-probability it was sampled with. Chains without a
    reward (failed, cancelled, or whose reward failed) are left out; they never count as 0. Where several agents share
    the policy, the chains of a query are compared agent by agent. Rewards for single messages (`step_rewards`) are
    summed up from each turn on, and turns are compared with the same turn of the other chains. With a critic, rewards
    are given at the ends of answers, and nothing is compared.

    Metrics of a step: `reward`, `reward_std`, `chains`, `left_out`, `failures`, `turns`, `tokens`, `same` (share of
    groups whose chains were all worth the same, which teach "grpo" and "rloo" nothing), `ratio_mean` and `ratio_off`
    (mean and largest distance from 1 of the ratio at the first update: 1 and 0 but for rounding), `clip_fraction`,
    `kl`, `entropy` (where they are used), `value_loss` and `value_explained` (of a critic, before its updates: half the
    mean squared error, and the share of the variance of the returns that its values explain), `loss`, `grad_norm`,
    `lr`, `skipped`, `rollout_seconds`, `update_seconds`, `tokens_per_second` of the rollout; of an evaluation
    `eval/reward`, `eval/failures`.

    Raises:
        InvalidArgument: an argument is wrong, no unit of the agent asks this policy's model, or one samples otherwise
            than from its own distribution.
    """

    curves = ("reward", "eval/reward")

    def __init__(
        self,
        policy: Policy,
        agent: AsyncAgent,
        queries: Any,
        reward: Any,
        objective: Objective | Algorithm = "grpo",
        *,
        critic: Critic | None = None,
        held_out: Any = None,
        held_out_chains: int = 1,
        batch: int = 8,
        group: int = 8,
        rollout_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(policy, **options)
        for name, value in (("batch", batch), ("group", group), ("held_out_chains", held_out_chains)):
            positive(name, value)
        self.objective = objective if isinstance(objective, Objective) else Objective(objective)
        if group < 2 and self.objective.algorithm in ("rloo", "grpo"):
            raise InvalidArgument("group", group, f"{self.objective.algorithm} compares chains of a query: at least 2")
        if critic is not None and self.objective.algorithm != "ppo":
            raise InvalidArgument("critic", critic, f"{self.objective.algorithm} has none: take 'ppo', or leave it out")
        self.paths = set(policy.attach(agent))
        self.critic = critic
        self.agent, self.reward = agent, reward
        self.queries = _listed(queries)
        self.held_out = [] if held_out is None else _listed(held_out)
        self.held_out_chains = held_out_chains
        self.batch, self.group = batch, group
        self.rollout_options = dict(rollout_options or {})
        check_sampling("rollout_options['generation_config']", self.rollout_options.get("generation_config") or {})
        self._baseline: float | None = None

    @property
    def kind(self) -> str:  # type: ignore[override]  # of an object, not of the class
        """The algorithm."""
        return self.objective.algorithm

    async def _step(self, step: int) -> Metrics:
        picked = shuffled(len(self.queries), self.batch, self.seed, step)
        self.policy.begin(self.seed, step)
        result = await self._rollout([self.queries[index] for index in picked], self.group)
        metrics: Metrics = await self._work(self._learn, result)
        return metrics

    async def _evaluate(self) -> Metrics:
        if not self.held_out:
            return {}
        self.policy.begin(self.seed, -1)  # the same seeds each time
        result = await self._rollout(self.held_out, self.held_out_chains)
        return _summary(self._known(result), result)

    async def _rollout(self, queries: list[Any], chains: int) -> RunResult:
        options = {"max_concurrency": max(64, len(queries) * chains), **self.rollout_options}
        return await rollout(self.agent, queries, num_chains=chains, reward=self.reward, **options)

    def _known(self, result: RunResult) -> list[Trajectory]:
        """The trajectories to learn from: of the policy, with ids and with a reward."""
        known = [
            one
            for one in result
            if one.agent in self.paths and one.reward is not None and one.token_count and not one.counts.missing
        ]
        if known:
            return known
        why = next((one.error for one in result if one.error is not None), None)
        if why is None:
            why = "no chain has a reward" if self.reward is None else "the model gave no token ids"
        raise LagentlikeError(f"there is nothing to learn from at step {self.step}: {why}")

    def _learn(self, result: RunResult) -> Metrics:
        """One update, or a few, from the chains of a rollout."""
        began = time.perf_counter()
        known = sorted(self._known(result), key=_order)
        lesson = self._lesson(known)
        metrics = _summary(known, result)
        metrics["same"] = lesson.same
        metrics["tokens_per_second"] = metrics["tokens"] / max(result.wall_time, 1e-9)
        aim = self.objective
        taught = lesson.teaching(everything=bool(aim.kl or aim.entropy or self.critic is not None))
        reference = self.policy.reference_logprobs(taught.rows) if aim.kl else None
        for number in range(aim.updates):
            first = number == 0
            told = self._update(taught, reference, first) if len(taught.rows["input_ids"]) else {"skipped": 1.0}
            if self.critic is not None and lesson.returns is not None:
                value = self.critic.update(lesson.rows, lesson.returns, lesson.weights)
                told |= {"value_loss": value["loss"], "value_explained": lesson.explained}
            metrics |= {name: value for name, value in told.items() if first or not name.startswith(_OF_FIRST)}
        return metrics | {"rollout_seconds": result.wall_time, "update_seconds": time.perf_counter() - began}

    def _lesson(self, known: list[Trajectory]) -> _Lesson:
        rows = tokenize_trajectories(known, tensors="pt")
        if "logprobs" not in rows:
            raise LagentlikeError("the model gives no log-probabilities with its tokens: sample from policy.llm()")
        groups = _numbered([(one.query, one.agent) for one in known])
        same = _share_alike(known, groups.tolist())
        aim, mask = self.objective, rows["action_mask"]
        weights = token_weights(mask, rows["trajectory"], aim.length_norm, aim.length)
        if self.critic is not None:
            valued, brought = self.critic.current_values(rows), token_rewards(known, rows)
            found, returns = advantages.gae(brought, valued, mask, rows["trajectory"], aim.discount, aim.smoothing)
            explained = _explained(valued, returns, mask)
            return _Lesson(rows, advantages.normalised(found, mask), weights, same, returns, explained)
        if any(one.step_rewards is not None for one in known):
            worth = self._turn_advantages(known, groups)
        else:
            rewards = torch.tensor([float(one.reward or 0.0) for one in known])
            worth = [[value] * _turns(one) for value, one in zip(self._advantages(rewards, groups), known, strict=True)]
        taught = torch.zeros(rows["input_ids"].shape)
        row = 0
        for values, one in zip(worth, known, strict=True):
            turn = 0
            for segment in one.segments:
                for span in segment.turns:
                    taught[row, span.start : span.stop] = values[turn]
                    turn += 1
                row += 1
        return _Lesson(rows, taught, weights, same)

    def _advantages(self, rewards: Tensor, groups: Tensor) -> list[float]:
        algorithm = self.objective.algorithm
        if algorithm == "rloo":
            found = advantages.rloo(rewards, groups)
        elif algorithm == "grpo":
            found = advantages.grpo(rewards, groups, self.objective.scale)
        elif algorithm == "ppo":
            found = advantages.grpo(rewards, torch.zeros_like(groups))
        else:
            mean = float(rewards.mean())
            found = advantages.reinforce(rewards, mean if self._baseline is None else self._baseline)
            decay = self.objective.decay
            self._baseline = mean if self._baseline is None else decay * self._baseline + (1 - decay) * mean
        values: list[float] = found.tolist()
        return values

    def _turn_advantages(self, known: list[Trajectory], groups: Tensor) -> list[list[float]]:
        """The advantage of each turn, compared with the turns of the same number in its group."""
        returns, places = [], []
        for one, group in zip(known, groups.tolist(), strict=True):
            steps = one.step_rewards or []
            turns = [span.message for segment in one.segments for span in segment.turns]
            outcome = float(one.reward or 0.0) - sum(step for step in steps if step is not None)
            to_go = advantages.returns_to_go(steps, turns, outcome)
            returns += to_go
            places += [(group, number) for number in range(len(to_go))]
        found = iter(self._advantages(torch.tensor(returns), _numbered(places)))
        return [[next(found) for _ in range(_turns(one))] for one in known]

    def _update(self, lesson: _Lesson, reference: Tensor | None, first: bool) -> Metrics:
        """One step down the gradient, with what can be seen on the way.

        At the `first` the weights are those that were sampled from, and the module's own log-probabilities take the
        place of stored ones that differ by rounding: an engine's depend on what it happened to decode side by side.
        """
        aim, rows = self.objective, lesson.rows
        behaviour, mask = rows["logprobs"], rows["action_mask"].bool()
        seen = {"ratio": 0.0, "off": 0.0, "clip": 0.0, "kl": 0.0, "entropy": 0.0}

        def loss(picked: Tensor, logprobs: Tensor, entropies: Tensor | None) -> Tensor:
            length = logprobs.shape[1]
            old, worth, weights, trained = (
                part[picked, :length] for part in (behaviour, lesson.advantages, lesson.weights, mask)
            )
            ratio = (logprobs.detach() - old).exp()[trained]
            seen["ratio"] += float(ratio.sum())
            seen["off"] = max(seen["off"], float((ratio - 1).abs().max()))
            if first:
                now = logprobs.detach()
                behaviour[picked, :length] = old = torch.where((now - old).abs() < _ROUNDING, now, old)
            if aim.clips:
                outside = (ratio < 1 - aim.clip_low) | (ratio > 1 + aim.clip_high)
                seen["clip"] += float(outside.float().sum())
                value = clipped(logprobs, old, worth, weights, aim.clip_low, aim.clip_high)
            else:
                value = policy_gradient(logprobs, worth, weights)
            if reference is not None:
                divergence = (weights * kl_estimate(logprobs, reference[picked, :length])).sum()
                seen["kl"] += float(divergence.detach())
                value = value + aim.kl * divergence
            if entropies is not None:
                spread = (weights * entropies).sum()
                seen["entropy"] += float(spread.detach())
                value = value - aim.entropy * spread
            return value

        metrics = self.policy.update(rows, loss, entropy=bool(aim.entropy))
        tokens = max(int(mask.sum()), 1)
        metrics |= {"ratio_mean": seen["ratio"] / tokens, "ratio_off": seen["off"]}
        if aim.clips:
            metrics["clip_fraction"] = seen["clip"] / tokens
        return metrics | {name: seen[name] for name in ("kl", "entropy") if getattr(aim, name)}

    def _settings(self) -> dict[str, Any]:
        asked = digest([[query["messages"], {**query, "messages": None}] for query in self.queries])
        mine = {"batch": self.batch, "group": self.group, "queries": asked, "critic": self.critic is not None}
        return {**super()._settings(), **mine}

    def _state(self) -> dict[str, Any]:
        return {"baseline": self._baseline, "critic": None if self.critic is None else self.critic.state_dict()}

    def _load_state(self, state: Any) -> None:
        self._baseline = state["baseline"]
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])


@dataclass(frozen=True, slots=True)
class _Lesson:
    """The chains of a step as rows, with the advantage and the weight of each token, and what a critic is taught."""

    rows: dict[str, Tensor]
    advantages: Tensor
    weights: Tensor
    same: float
    returns: Tensor | None = None
    explained: float = 0.0

    def teaching(self, everything: bool) -> _Lesson:
        """The rows whose gradient is not zero anyhow."""
        if everything:
            return self
        keep = (self.advantages != 0).any(1)
        rows = {name: tensor[keep] for name, tensor in self.rows.items()}
        return replace(self, rows=rows, advantages=self.advantages[keep], weights=self.weights[keep])


def _summary(known: Sequence[Trajectory], result: RunResult) -> Metrics:
    rewards = torch.tensor([float(one.reward or 0.0) for one in known])
    return {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(correction=0)),
        "chains": float(len(known)),
        "left_out": float(len(result) - len(known)),
        "failures": float(len(result.failures)),
        "turns": sum(_turns(one) for one in known) / len(known),
        "tokens": float(sum(one.token_count for one in known)),
    }


def _explained(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """The share of the variance of the returns that the values explain; 0 where there is none."""
    kept = mask.bool()
    spread = float(returns[kept].var(correction=0))
    return 1 - float((returns - values)[kept].var(correction=0)) / spread if spread else 0.0


def _share_alike(known: Sequence[Trajectory], groups: Sequence[int]) -> float:
    """The share of the groups in which every chain was worth the same."""
    rewards: dict[int, set[float | None]] = {}
    for one, group in zip(known, groups, strict=True):
        rewards.setdefault(group, set()).add(one.reward)
    return sum(len(found) == 1 for found in rewards.values()) / len(rewards)


def _order(trajectory: Trajectory) -> Any:
    """Chains of a query in an order that does not depend on which of them was faster."""
    return trajectory.query, trajectory.agent, [segment.ids for segment in trajectory.segments]


def _turns(trajectory: Trajectory) -> int:
    return sum(len(segment.turns) for segment in trajectory.segments)


def _numbered(keys: Sequence[Any]) -> Tensor:
    """Equal keys as equal numbers."""
    numbers: dict[Any, int] = {}
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])


def _listed(queries: Any) -> list[dict[str, Any]]:
    return [{"messages": query.messages, **query.metadata} for query in queries_of(queries)]
