"""`lagentlike train`: a small model taught by examples, or by what its own chains are worth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, TYPE_CHECKING

from .common import load_unit, Looks, UsageError
from .rollout import read_queries, reward_named

if TYPE_CHECKING:
    from ..training import Policy, Trainer
    from ..trajectory import Trajectory

__all__ = ["add_options", "main"]

NAME = "train"
HELP = """teach a small model by examples, or by what its chains are worth

sft learns to say what the file's conversations say. The other methods let an agent try each question several times and
make more likely what was worth more:
  grpo       chains of a question compared with each other; the usual choice
  rloo       the same, with a plain policy gradient
  reinforce  compared with a running mean of earlier rewards
  ppo        compared with all chains of the step, with a clipped ratio

It trains for real on a CPU, models of some million parameters; for large models, export the trajectories instead."""

EXAMPLES = """examples:
  lagentlike train sft --data trajectories.jsonl --min-reward 1 --out runs/sft
  lagentlike train sft --data data/my_run --min-reward 1 --out runs/sft
  lagentlike train grpo --data questions.jsonl --reward math_equality --steps 30 --out runs/grpo
  lagentlike train grpo --data questions.jsonl --reward my_rewards.py:score --agent my_agents.py:team --lora 8
  lagentlike train ppo --data questions.jsonl --reward math_equality --critic --updates 4 --out runs/ppo
  lagentlike train grpo --data questions.jsonl --reward math_equality --out runs/grpo --resume

questions.jsonl: {"prompt": "What is 12 * 34?", "answer": "408"} on each line (or "messages" in place of "prompt").
trajectories.jsonl: what `lagentlike rollout --out` writes, or {"messages": [...]} with the answers in it.
data/my_run: what `lagentlike batch` wrote; with --token_ids, the very tokens are learnt from."""

METHODS = ("sft", "grpo", "rloo", "reinforce", "ppo")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("method", choices=METHODS, help="how it learns")
    parser.add_argument("--data", type=Path, metavar="FILE", required=True, help="what to learn from, JSON lines")
    parser.add_argument("--held-out", type=Path, metavar="FILE", help="the same kind of file, to evaluate on only")
    parser.add_argument(
        "--model", metavar="DIR", help="Hugging Face directory of the model; the embedded one by default"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("runs/train"), help="for the results (runs/train)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    run = parser.add_argument_group("learning")
    run.add_argument("--steps", type=int, default=50, metavar="N", help="how many updates in all (50)")
    run.add_argument("--batch", type=int, default=8, metavar="N", help="questions, or conversations, a step (8)")
    run.add_argument("--lr", type=float, default=1e-4, metavar="X", help="learning rate; too high forgets (1e-4)")
    run.add_argument("--warmup", type=int, default=0, metavar="N", help="steps until the learning rate is reached (0)")
    run.add_argument("--lora", type=int, metavar="R", help="train low-rank matrices of rank R instead of all weights")
    run.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of the data and of sampling (0)")
    run.add_argument("--eval-every", type=int, default=10, metavar="N", help="steps between evaluations (10)")
    run.add_argument("--save-every", type=int, default=10, metavar="N", help="steps between checkpoints (10)")
    run.add_argument("--threads", type=int, metavar="N", help="threads for the updates; all cores by default")
    chains = parser.add_argument_group("chains (all methods but sft)")
    chains.add_argument("--reward", metavar="NAME", help="a ready reward, or module:name or file.py:name of one")
    chains.add_argument("--agent", metavar="TARGET", help="module:name or file.py:name of an async agent on that model")
    chains.add_argument("--group", type=int, default=8, metavar="N", help="chains for each question (8)")
    chains.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="longest answer, in tokens (128)")
    chains.add_argument("--timeout", type=float, metavar="S", help="seconds that a chain may take")
    chains.add_argument("--kl", type=float, default=0.0, metavar="X", help="weight of staying near the start (0)")
    chains.add_argument("--entropy", type=float, default=0.0, metavar="X", help="weight of staying undecided (0)")
    chains.add_argument("--updates", type=int, default=1, metavar="N", help="passes over the chains of a step (1)")
    chains.add_argument("--critic", action="store_true", help="ppo with a value network of its own")
    examples = parser.add_argument_group("examples (sft)")
    examples.add_argument("--min-reward", type=float, metavar="X", help="leave out trajectories worth less")


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    _check(options)
    from ..training import AdamW, Policy

    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    lora = None if options.lora is None else {"r": options.lora, "lora_alpha": 2 * options.lora}
    policy = Policy(options.model, lora=lora, adamw=AdamW(lr=options.lr, warmup=options.warmup), seed=options.seed)
    printer = _Printer(options.steps)
    shared: dict[str, Any] = {
        "out": options.out,
        "steps": options.steps,
        "seed": options.seed,
        "batch": options.batch,
        "checkpoint_every": options.save_every,
        "evaluate_every": options.eval_every,
        "resume": options.resume,
        "progress": sys.stderr.isatty(),
        "on_step": None if sys.stderr.isatty() else printer.show,
    }
    trainer = _sft(options, policy, shared) if options.method == "sft" else _rl(options, policy, shared)
    try:
        trainer.train()
    except KeyboardInterrupt:
        if trainer.step >= options.save_every:
            sys.stderr.write(f"\nstopped after step {trainer.step}; the same command with --resume goes on\n")
        raise
    _report(trainer, options.out)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot work before anything slow is done."""
    checkpoint = options.out / "checkpoint.pt"
    if options.resume and not checkpoint.exists():
        raise UsageError(f"--resume: there is no checkpoint in {str(options.out)!r} to go on from")
    if not options.resume and checkpoint.exists():
        raise UsageError(f"{str(options.out)!r} holds a run: --resume goes on with it, or give another --out")
    if options.method == "sft":
        for name in ("reward", "agent"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name} is for methods with chains: sft learns from the file alone")
        if options.critic:
            raise UsageError("--critic is for ppo: sft learns from the file alone")
    elif options.critic and options.method != "ppo":
        raise UsageError(f"--critic is for ppo: {options.method} has no value network")
    elif options.reward is None:
        raise UsageError(f"{options.method} needs --reward, which says what a chain is worth")
    elif options.min_reward is not None:
        raise UsageError("--min-reward is for sft: the other methods learn from all chains")


def _sft(options: argparse.Namespace, policy: Policy, shared: dict[str, Any]) -> Trainer:
    from ..training import SFTTrainer

    held_out = [] if options.held_out is None else _trajectories(options.held_out, policy, None)
    return SFTTrainer(policy, _trajectories(options.data, policy, options.min_reward), held_out=held_out, **shared)


def _rl(options: argparse.Namespace, policy: Policy, shared: dict[str, Any]) -> Trainer:
    from ..agents import AsyncReAct
    from ..tools import calculator
    from ..training import Critic, Objective, RLTrainer

    queries = read_queries(options.data)
    held_out = None if options.held_out is None else read_queries(options.held_out)
    agent: Any
    if options.agent is None:
        agent = AsyncReAct(policy.llm(max_new_tokens=options.max_new_tokens), [calculator], max_turn=4)
    else:
        agent = load_unit(options.agent)
    objective = Objective(options.method, kl=options.kl, entropy=options.entropy, updates=options.updates)
    rollout_options = {} if options.timeout is None else {"timeout": options.timeout}
    return RLTrainer(
        policy,
        agent,
        queries,
        reward_named(options.reward),
        objective,
        critic=Critic(policy) if options.critic else None,
        held_out=held_out,
        group=options.group,
        rollout_options=rollout_options,
        **shared,
    )


def _trajectories(path: Path, policy: Policy, min_reward: float | None) -> list[Any]:
    """The trajectories of a file, or its conversations as such; a batch run's folder stands for its records."""
    from ..errors import LagentlikeError
    from ..records import records_beside

    if path.is_dir():
        path = records_beside(path / "trajectories.jsonl")
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_trajectory(line, policy))
        except (ValueError, KeyError, TypeError, LagentlikeError) as error:
            raise UsageError(f"{path}, line {number}: {error}") from None
    if min_reward is not None:
        found = [one for one in found if one.reward is not None and one.reward >= min_reward]
    if not found:
        raise UsageError(f"{str(path)!r} holds nothing to learn from" + (" above --min-reward" if min_reward else ""))
    return found


def _trajectory(line: bytes, policy: Policy) -> Trajectory:
    """What a line holds: a trajectory, a record, a conversation in ShareGPT form, or one as chat messages."""
    from ..records import ConversationRecord, from_sharegpt, to_openai, to_trajectory
    from ..training import conversation
    from ..trajectory import Trajectory

    saved = json.loads(line)
    if isinstance(saved, dict) and "segments" in saved:
        return Trajectory.from_dict(saved)
    reward = None
    if isinstance(saved, dict) and ("conversations" in saved or "sum" in saved):
        record = from_sharegpt(saved) if "conversations" in saved else ConversationRecord.from_line(line)
        found = to_trajectory(record)
        if found.segments:
            return found
        saved, reward = to_openai(record), found.reward
    if not isinstance(saved, dict) or "messages" not in saved:
        raise ValueError("give an object with 'messages'")
    made = conversation(policy, saved["messages"], saved.get("tools"))
    made.reward = saved.get("reward", reward)
    return made


class _Printer:
    """A line for each step, where there is no terminal to draw a bar on."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._begin: tuple[float, float] | None = None

    def show(self, metrics: dict[str, float]) -> None:
        step, seconds = metrics["step"], metrics["seconds"]
        if self._begin is None:
            self._begin = step, seconds
        told = [f"step {step:.0f}/{self._steps}"]
        for name, label in (
            ("reward", "reward"),
            ("loss", "loss"),
            ("eval/reward", "held-out"),
            ("eval/loss", "held-out loss"),
        ):
            if name in metrics and not (name == "loss" and "reward" in metrics):
                told.append(f"{label} {metrics[name]:.3f}")
        if "tokens_per_second" in metrics:
            told.append(f"{metrics['tokens_per_second']:,.0f} tokens/s, {metrics['failures']:.0f} failed")
        if len(told) == 1:  # the beginning, with nothing held out
            return
        done = step - self._begin[0]
        if done > 0:
            left = (seconds - self._begin[1]) / done * (self._steps - step)
            told.append(f"{int(left // 60)}:{int(left % 60):02d} left")
        sys.stdout.write("  ".join(told) + "\n")
        sys.stdout.flush()


def _report(trainer: Trainer, out: Path) -> None:
    looks = Looks(sys.stdout)
    first, last = trainer.history[0], trainer.history[-1]
    for name, label in (("eval/reward", "reward, held out"), ("eval/loss", "loss, held out")):
        if name in first and name in last:
            sys.stdout.write(looks.bold(f"{label}: {first[name]:.3f} before, {last[name]:.3f} after") + "\n")
    steps = [row for row in trainer.history if "same" in row]
    if steps and trainer.kind in ("grpo", "rloo") and all(row["same"] == 1.0 for row in steps):
        _nothing_learnt(looks, "all chains of a question were worth the same", "or raise --group")
    elif steps and all(row["skipped"] == 1.0 for row in steps):
        _nothing_learnt(looks, "all chains were worth what was expected of them", "or raise --batch")
    sys.stdout.write(f"model:   {out / 'model'}  (try: lagentlike chat --model {out / 'model'})\n")
    sys.stdout.write(f"metrics: {out / 'metrics.jsonl'}\n")
    if (out / "curve.png").exists():
        sys.stdout.write(f"curve:   {out / 'curve.png'}\n")


def _nothing_learnt(looks: Looks, why: str, cure: str) -> None:
    told = f"nothing was learnt: in every step, {why}; look at the reward, make the questions easier or harder, {cure}"
    sys.stdout.write(looks.yellow(told) + "\n")
