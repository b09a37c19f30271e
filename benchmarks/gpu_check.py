"""Check models and training of this process on a GPU, and measure them: `python -m benchmarks.gpu_check`.

It needs torch, transformers and the embedded model, no network, and some two minutes. One JSON object is printed; the
exit code is 1 if a check in it failed. `--device cpu` goes through the same steps anywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from lagentlike.agents import AsyncAgent
from lagentlike.llms import AsyncHFTransformer, TinyLM
from lagentlike.llms.tiny.engine import WEIGHTS
from lagentlike.rollouts import rollout, RunResult, tokenize_trajectories
from lagentlike.schema import Completion, TokenSpan
from lagentlike.training import AdamW, conversation, Objective, Policy, RLTrainer, SFTTrainer
from lagentlike.trajectory import Trajectory

__all__ = ["main"]

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "train_grpo.py"
CLOSE = 1e-4  # what float32 on two devices may differ in
CLOSE_BF16 = 0.3  # in nats, of single log-probabilities

Figures = dict[str, Any]


def asked(count: int) -> list[list[dict[str, str]]]:
    """Different questions, whose answers are of different lengths."""
    forms = ("What is {} + {}?", "Tell me about {} and {}.", "Name {} towns with {} letters.")
    return [[{"role": "user", "content": forms[n % len(forms)].format(n + 3, 7 * n)}] for n in range(count)]


async def answered(llm: Any, count: int, **params: Any) -> list[Completion]:
    """Answers to questions that are asked at once, with their tokens."""
    return list(await asyncio.gather(*(llm.chat(said, logprobs=True, **params) for said in asked(count))))


def tokens(answer: Completion) -> TokenSpan:
    """The tokens that an answer came with."""
    assert answer.tokens is not None
    return answer.tokens


def recomputed(model: Any, answer: Completion) -> torch.Tensor:
    """The log-probabilities of an answer's tokens, by one pass over prompt and answer."""
    span = tokens(answer)
    prompt, ids = span.prompt_ids or [], span.ids
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + ids[:-1]], device=model.device)).logits[0, len(prompt) - 1 :]
    found = torch.log_softmax(logits.float(), -1)
    return found[torch.arange(len(ids)), torch.tensor(ids, device=found.device)].cpu()


def largest(model: Any, answers: list[Completion]) -> float:
    """The largest distance of the stored log-probabilities from recomputed ones."""
    return max(float((recomputed(model, one) - torch.tensor(tokens(one).logprobs)).abs().max()) for one in answers)


def exact_tokens(device: str) -> Figures:
    """Sampled ids and log-probabilities: what was stored is what the model says of them, here and on the CPU."""
    figures: Figures = {}
    on_cpu = AsyncHFTransformer(WEIGHTS, device="cpu").engine.model
    for dtype in ("float32", "bfloat16"):
        llm = AsyncHFTransformer(WEIGHTS, device=device, dtype=dtype, temperature=1.0, max_new_tokens=24)
        answers = asyncio.run(answered(llm, 24, seed=1))
        figures[dtype] = {
            "tokens": sum(len(tokens(one).ids) for one in answers),
            "off_own_recompute": largest(llm.engine.model, answers),
            "off_cpu_float32": largest(on_cpu, answers),
        }
        if dtype == "float32":
            tiny = TinyLM(max_new_tokens=24)
            greedy = asyncio.run(answered(llm, 24, temperature=0.0))
            same = [
                tokens(one).ids == tokens(tiny.chat(said, logprobs=True)).ids
                for one, said in zip(greedy, asked(24), strict=True)
            ]
            figures["greedy_as_numpy"] = sum(same) / len(same)
    figures["ok"] = (
        figures["float32"]["off_own_recompute"] < CLOSE
        and figures["float32"]["off_cpu_float32"] < CLOSE
        and figures["bfloat16"]["off_own_recompute"] < CLOSE_BF16
        and figures["greedy_as_numpy"] >= 0.95  # a tie may fall to the other side
    )
    return figures


def throughput(device: str, dtype: str, chains: tuple[int, ...]) -> Figures:
    """Tokens a second of rollouts whose chains are decoded together, each with an answer of 64 tokens."""
    llm = AsyncHFTransformer(WEIGHTS, device=device, dtype=dtype, temperature=1.0, max_new_tokens=64)
    llm.engine.stops = frozenset()
    agent = AsyncAgent(llm)

    async def once(number: int) -> tuple[int, int, float]:
        queries = [said[0]["content"] for said in asked(number)]
        began = time.perf_counter()
        result = await rollout(agent, queries, max_concurrency=number)
        return sum(one.token_count for one in result), len(result.failures), time.perf_counter() - began

    asyncio.run(once(4))
    figures: Figures = {"ok": True}
    for number in chains:
        tokens, failures, seconds = asyncio.run(once(number))
        figures[str(number)] = {"tokens_per_second": tokens / seconds, "tokens": tokens, "seconds": seconds}
        figures["ok"] = figures["ok"] and not failures
    return figures


def lessons(policy: Policy, count: int) -> list[Trajectory]:
    """What supervised training learns from."""
    return [
        conversation(policy, [*said, {"role": "assistant", "content": f"That is {number}."}])
        for number, said in enumerate(asked(count))
    ]


def sampled(count: int) -> list[Trajectory]:
    """Chains of the untrained model on the CPU, four for each question, with a reward."""
    policy = Policy()
    policy.begin(0)
    agent = AsyncAgent(policy.llm(max_new_tokens=16))
    result = asyncio.run(rollout(agent, [said[0]["content"] for said in asked(count)], num_chains=4))
    for one in result:
        one.reward = sum(token % 2 for segment in one.segments for token in segment.ids) / 50
    return list(result)


def losses(device: str) -> Figures:
    """Losses, gradients and weights after an update: as on the CPU."""
    chains = sampled(4)
    figures: Figures = {"ok": True}
    for name, lora in (("whole", None), ("lora", {"r": 4})):
        policies = [Policy(lora=lora, adamw=AdamW(lr=1e-3), device=place) for place in ("cpu", device)]
        for kind in ("sft", "grpo"):
            told, weights = [], []
            for policy in policies:
                if kind == "sft":
                    trainer: Any = SFTTrainer(policy, lessons(policy, 8))
                    told.append(trainer._learn(trainer.trajectories))
                else:
                    agent = AsyncAgent(policy.llm())
                    trainer = RLTrainer(policy, agent, ["?"], None, Objective("grpo", kl=0.1, entropy=0.01))
                    told.append(trainer._learn(RunResult(chains)))
                weights.append(policy.weights())
            off = {key: abs(told[0][key] - told[1][key]) / max(1.0, abs(told[0][key])) for key in ("loss", "grad_norm")}
            moved = max(float((weights[0][key] - weights[1][key].cpu()).abs().max()) for key in weights[0])
            figures[f"{kind}_{name}"] = {"loss": told[0]["loss"], "off": off, "weights_off": moved}
            figures["ok"] = figures["ok"] and all(value < CLOSE for value in off.values())
    return figures


def bfloat16_losses(device: str) -> Figures:
    """How far log-probabilities of training are off with matrices multiplied in bfloat16."""
    rows = tokenize_trajectories(sampled(4), tensors="pt")
    exact = Policy(device=device).current_logprobs(rows)
    off = (Policy(device=device, dtype="bfloat16").current_logprobs(rows) - exact).abs()
    figures = {"mean": float(off[rows["action_mask"].bool()].mean()), "largest": float(off.max())}
    return {**figures, "ok": figures["mean"] < CLOSE_BF16}


def grpo(device: str, steps: int, updates: int) -> Figures:
    """`examples/train_grpo.py` in short: a cold start, and the first steps from there in float32 and in bfloat16."""
    spec = importlib.util.spec_from_file_location("train_grpo", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rng = random.Random(1)
    queries = example.questions(200, rng)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, redirected():
        parent = Policy(adamw=AdamW(lr=3e-4), device=device)
        example.spoil(parent, queries, rng, most=updates)
        cold = parent.save(folder)
        figures: Figures = {"cold_start_seconds": time.perf_counter() - began, "ok": True}
        for dtype in ("float32", "bfloat16"):
            began = time.perf_counter()
            policy = Policy(cold, adamw=AdamW(lr=1e-4, warmup=3), device=device, dtype=dtype)
            trainer = RLTrainer(policy, example.agent_of(policy), queries, example.right, "grpo", steps=steps)
            history = trainer.train()[1:]
            figures[dtype] = {
                "reward": [row["reward"] for row in history],
                "skipped": [row["skipped"] for row in history],
                "ratio_off": max(row.get("ratio_off", 0.0) for row in history),
                "rollout_seconds": [round(row["rollout_seconds"], 3) for row in history],
                "update_seconds": [round(row["update_seconds"], 3) for row in history],
                "tokens_per_second": [round(row["tokens_per_second"]) for row in history],
                "seconds": time.perf_counter() - began,
            }
            learnt = any(row["skipped"] == 0 for row in history)  # a step whose chains were all worth the same does not
            figures["ok"] = figures["ok"] and learnt and not any(row["failures"] for row in history)
    return figures


class redirected:  # noqa: N801  # used as a function
    """What is printed in a block goes to stderr, so that stdout is the JSON alone."""

    def __enter__(self) -> None:
        self._stdout, sys.stdout = sys.stdout, sys.stderr

    def __exit__(self, *_: object) -> None:
        sys.stdout = self._stdout


def checked(step: Callable[[], Figures]) -> Figures:
    """A step's figures with its time, or its error: the other steps are made in any case."""
    began = time.perf_counter()
    try:
        figures = step()
    except Exception as error:  # noqa: BLE001  # it is part of the report
        traceback.print_exc()
        figures = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    return {**figures, "took": round(time.perf_counter() - began, 2)}


def main(arguments: list[str] | None = None) -> int:
    """Run all checks and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to run")
    parser.add_argument("--chains", type=int, nargs="+", default=[1, 8, 64, 512], help="how many at once")
    parser.add_argument("--only", nargs="+", metavar="CHECK", help="not all checks, but these")
    parser.add_argument("--steps", type=int, default=6, help="of GRPO (6)")
    parser.add_argument("--updates", type=int, default=40, help="most updates of the cold start before GRPO (40)")
    options = parser.parse_args(arguments)
    switch: Any = transformers.utils.logging
    switch.disable_progress_bar()
    began = time.perf_counter()
    device, chains = options.device, tuple(options.chains)
    steps: dict[str, Callable[[], Figures]] = {
        "exact_tokens": lambda: exact_tokens(device),
        "losses": lambda: losses(device),
        "bfloat16_losses": lambda: bfloat16_losses(device),
        "throughput_float32": lambda: throughput(device, "float32", chains),
        "throughput_bfloat16": lambda: throughput(device, "bfloat16", chains),
        "grpo": lambda: grpo(device, options.steps, options.updates),
    }
    steps = {name: step for name, step in steps.items() if not options.only or name in options.only}
    figures: Figures = {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    for name, step in steps.items():
        figures[name] = checked(step)
        print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)
    figures["ok"] = all(figures[name]["ok"] for name in steps)
    figures["seconds"] = time.perf_counter() - began
    print(json.dumps(figures, indent=2))
    return 0 if figures["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
