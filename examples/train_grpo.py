"""Reinforcement learning on two cores: an agent that guesses learns by GRPO to call its calculator.

1. A cold start spoils the embedded model: a short supervised run on answers that guess a number and call no tool.
2. GRPO: the agent tries each question several times, and what was right becomes more likely.
3. Before and after on questions that it was not trained on, a picture of the way there, and the model as a directory.
"""

import argparse
import asyncio
import random
import re
import time
from pathlib import Path
from typing import Any

import torch

from lagentlike.agents import AsyncReAct
from lagentlike.rollouts import reward, rollout
from lagentlike.tools import calculator
from lagentlike.training import AdamW, conversation, Policy, RLTrainer, SFTTrainer

FORMS = ("What is {}?", "Calculate {}.", "What is the result of {}?")
SPOILT = 0.12  # the cold start ends when no more than this share of the answers is right

Query = dict[str, Any]
Measured = tuple[float, float, float]


def questions(count: int, rng: random.Random) -> list[Query]:
    """Different sums, each asked in one of a few ways, with their answers."""
    found: dict[str, Query] = {}
    while len(found) < count:
        a, sign, b = rng.randrange(10, 1000), rng.choice("+-*"), rng.randrange(10, 1000)
        answer = {"+": a + b, "-": a - b, "*": a * b}[sign]
        term = f"{a} {sign} {b}"
        asked = [{"role": "user", "content": rng.choice(FORMS).format(term)}]
        found[term] = {"messages": asked, "term": term, "answer": str(answer)}
    return list(found.values())


@reward
def right(final_response: str, answer: str) -> float:
    """1 if the last number of the answer is the right one, else 0."""
    numbers = re.findall(r"-?\d+", final_response.replace(",", ""))
    return float(numbers[-1:] == [answer])


def agent_of(policy: Policy) -> AsyncReAct:
    """The agent: the policy with a calculator."""
    return AsyncReAct(policy.llm(max_new_tokens=64), [calculator], max_turn=3)


def tried(policy: Policy, queries: list[Query], temperature: float, chains: int) -> tuple[float, float]:
    """The shares of chains that are right, and that call the tool."""
    policy.begin(1000)
    with policy.decoding(temperature=temperature):
        result = asyncio.run(rollout(agent_of(policy), queries, num_chains=chains, reward=right, max_concurrency=256))
    calls = sum(any(message["role"] == "tool" for message in trajectory.messages) for trajectory in result)
    return sum(value or 0.0 for value in result.rewards) / len(result), calls / len(result)


def measured(policy: Policy, queries: list[Query]) -> Measured:
    """Shares of right answers, sampled and greedy, and of chains that call the tool."""
    (sampled, calls), (greedy, _) = tried(policy, queries, 1.0, 2), tried(policy, queries, 0.0, 1)
    return sampled, greedy, calls


def spoil(policy: Policy, queries: list[Query], rng: random.Random, most: int) -> None:
    """Teach a policy to guess, until it is hardly ever right, or for `most` updates."""
    tools = agent_of(policy).actions.tools()
    lessons = []
    for query in queries:
        digits = len(query["answer"].lstrip("-"))
        guess = f"The result of {query['term']} is {rng.randrange(10 ** (digits - 1), 10**digits)}."
        lessons.append(conversation(policy, [*query["messages"], {"role": "assistant", "content": guess}], tools))
    for number in range(0, most, 2):
        SFTTrainer(policy, lessons, batch=8, steps=2, seed=number).train()
        share, _ = tried(policy, queries[:64], temperature=1.0, chains=2)
        print(f"  after {number + 2:2} updates {share:6.1%} right", flush=True)
        if share <= SPOILT:
            return


def show(metrics: dict[str, float]) -> None:
    """Print a step."""
    if "reward" in metrics:
        held_out = f"held out {metrics['eval/reward']:6.1%}" if "eval/reward" in metrics else ""
        print(
            f"  step {metrics['step']:2}  right {metrics['reward']:6.1%}  {held_out:16}  "
            f"rollout {metrics['rollout_seconds']:4.1f} s, {metrics['tokens_per_second']:5.0f} tokens/s  "
            f"update {metrics['update_seconds']:4.1f} s",
            flush=True,
        )


def main() -> None:
    """Spoil, train, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24, help="updates by GRPO (24)")
    parser.add_argument("--out", type=Path, default=Path("runs/train_grpo"), help="for the results (runs/train_grpo)")
    parser.add_argument("--device", default="cpu", help="where it trains, such as cuda (cpu)")
    parser.add_argument("--dtype", default="float32", help="what it multiplies matrices in: bfloat16, or float32")
    parser.add_argument("--quick", action="store_true", help="a look at how it goes, too short to learn anything")
    options = parser.parse_args()
    began = time.perf_counter()
    rng = random.Random(1)
    held_out, train = questions(12 if options.quick else 100, rng), questions(400, rng)
    train = [query for query in train if query["term"] not in {other["term"] for other in held_out}]
    rows: list[tuple[str, Measured]] = []

    where = {"device": options.device, "dtype": options.dtype}
    parent = Policy(adamw=AdamW(lr=3e-4), **where)
    rows.append(("the embedded model", measured(parent, held_out)))
    print("cold start: it is taught to guess", flush=True)
    spoil(parent, train, rng, most=2 if options.quick else 60)

    policy = Policy(parent.save(options.out / "cold"), adamw=AdamW(lr=1e-4, warmup=3), **where)
    rows.append(("after the cold start", measured(policy, held_out)))
    steps, batch, group = (2, 2, 4) if options.quick else (options.steps, 8, 8)
    print(f"GRPO: {steps} steps of {batch} questions, {group} chains each", flush=True)
    trainer = RLTrainer(
        policy,
        agent_of(policy),
        train,
        right,
        "grpo",
        held_out=held_out,
        batch=batch,
        group=group,
        steps=steps,
        evaluate_every=4,
        out=options.out,
        on_step=show,
    )
    trainer.train()
    rows.append(("after GRPO", measured(policy, held_out)))

    print(
        f"\n{len(held_out)} questions it was not trained on, shares of right answers and of chains that call the tool:"
    )
    print(f"{'':22}{'sampled':>9}{'greedy':>9}{'calls':>9}")
    for name, shares in rows:
        print(f"{name:22}" + "".join(f"{share:9.1%}" for share in shares))
    print(
        "\nWhat this shows: the loop works, from rollouts with exact tokens to weights that call the tool again.\n"
        "What it does not: that the model learned to use a tool. It could before; the cold start hid the skill, and\n"
        "the reward brought it back. It makes likelier what is tried at times; what is never tried, it cannot teach.\n"
    )
    for name in ("curve.png", "metrics.jsonl", "model"):
        if (options.out / name).exists():
            print(f"{name.partition('.')[0] + ':':9}{options.out / name}")
    print(f"{time.perf_counter() - began:.0f} seconds, torch on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
