"""A small trainer: it fetches batches from a trajectory API and teaches the embedded model what was worth more.

    python examples/envs/trainer.py                            everything in one process: API, environment, trainer
    python examples/envs/trainer.py --api http://127.0.0.1:8000    with an API that runs already, such as atroposlib's

The environment (`arithmetic.py`) samples from the very policy that is trained, and its groups reach the trainer over
HTTP. What was sampled from older weights than those it meets is taken for what it is by a clipped ratio.

The weights are shaken first: the embedded model is hardly ever wrong, and where all tries are right there is nothing to
learn.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import torch
from arithmetic import Arithmetic  # type: ignore[import-not-found]  # it is beside this file

from lagentlike.envs import ScoredGroup, TrajectoryClient, TrajectoryServer
from lagentlike.training import AdamW, Policy
from lagentlike.training.advantages import grpo
from lagentlike.training.losses import clipped, token_weights


def rows_of(groups: Sequence[ScoredGroup]) -> dict[str, torch.Tensor]:
    """A batch as padded rows `[rows, length]`, with the advantage of each row in its group `[rows]`."""
    flat = [
        (number, tokens, masks, logprobs)
        for number, group in enumerate(groups)
        for tokens, masks, logprobs in zip(group.tokens, group.masks, group.inference_logprobs or (), strict=True)
    ]
    shape = len(flat), max(len(tokens) for _, tokens, _, _ in flat)
    rows = {name: torch.zeros(shape, dtype=torch.int64) for name in ("input_ids", "attention_mask", "action_mask")}
    rows["logprobs"] = torch.zeros(shape)
    for row, (_, tokens, masks, logprobs) in enumerate(flat):
        sampled = torch.tensor(masks) != -100
        rows["input_ids"][row, : len(tokens)] = torch.tensor(tokens)
        rows["attention_mask"][row, : len(tokens)] = 1
        rows["action_mask"][row, : len(tokens)] = sampled
        rows["logprobs"][row, : len(tokens)] = torch.where(sampled, torch.tensor(logprobs), 0.0)
    scores = torch.tensor([score for group in groups for score in group.scores])
    rows["advantages"] = grpo(scores, torch.tensor([number for number, *_ in flat]))
    return rows


def learn(policy: Policy, groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """One update: GRPO, every token alike."""
    rows = rows_of(groups)
    weights = token_weights(rows["action_mask"], torch.arange(len(rows["input_ids"])))
    off = 0.0

    def loss(picked: torch.Tensor, logprobs: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        nonlocal off
        length = logprobs.shape[1]
        old, weight, trained = (part[picked, :length] for part in (rows["logprobs"], weights, rows["action_mask"]))
        off = max(off, float(((logprobs.detach() - old).exp() - 1).abs()[trained.bool()].max()))
        return clipped(logprobs, old, rows["advantages"][picked].unsqueeze(1), weight)

    told = policy.update(rows, loss)
    scores = [score for group in groups for score in group.scores]
    return {**told, "score": sum(scores) / len(scores), "off": off, "rows": len(scores)}


def shake(policy: Policy, noise: float) -> None:
    """Add noise to all weights, a share of how much they differ from each other."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in policy.model.parameters():
            weights.add_(torch.randn_like(weights) * weights.std() * noise)
    policy.publish()


@contextlib.asynccontextmanager
async def trajectory_api(url: str | None) -> AsyncIterator[str]:
    """The URL of an API: one that runs already, or one of our own."""
    if url is not None:
        yield url
        return
    async with TrajectoryServer(port=0) as server:
        yield server.url


async def train(policy: Policy, steps: int, batch_size: int, url: str | None) -> list[dict[str, float]]:
    """Let the environment serve while the trainer makes its steps; what each step told."""
    env = Arithmetic(server_configs=policy.llm())
    async with env:
        before = await env.evaluate()
    history: list[dict[str, float]] = []
    async with trajectory_api(url) as api:
        trainer = TrajectoryClient(api)
        await trainer.register(batch_size=batch_size, max_token_len=1024, num_steps=steps)
        await trainer.batch()  # which lets environments in
        async with asyncio.TaskGroup() as tasks:  # if one fails, the other does not wait for ever
            serving = tasks.create_task(env.serve(api))
            while len(history) < steps:
                groups = await trainer.wait_for_batch(timeout=300)
                history.append(await asyncio.to_thread(learn, policy, groups))
                told = history[-1]
                print(
                    f"step {len(history)}: {told['rows']:.0f} rows, mean score {told['score']:.2f}, loss "
                    f"{told['loss']:+.4f}, ratio at most {told['off']:.3f} off",
                    flush=True,
                )
        done = serving.result()
    async with env:
        after = await env.evaluate()
    print(f"the environment sent {done.groups} groups and left {done.alike} out: all scores the same")
    print(f"right answers to other sums: {before['eval/right']:.0%} before, {after['eval/right']:.0%} after")
    return history


def main() -> None:
    """Train, and keep the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", metavar="URL", help="a trajectory API that runs already")
    parser.add_argument("--steps", type=int, default=8, help="updates (8)")
    parser.add_argument("--batch", type=int, default=16, help="rows of an update, groups of four (16)")
    parser.add_argument("--noise", type=float, default=0.3, help="how much the weights are shaken (0.3)")
    parser.add_argument("--out", type=Path, help="a directory for the model")
    options = parser.parse_args()
    policy = Policy(adamw=AdamW(lr=3e-5))
    shake(policy, options.noise)
    asyncio.run(train(policy, options.steps, options.batch, options.api))
    if options.out is not None:
        print(f"model: {policy.save(options.out)}")


if __name__ == "__main__":
    main()
