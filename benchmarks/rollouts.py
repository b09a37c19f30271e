"""Measure what rollouts cost besides waiting: `python -m benchmarks.rollouts`.

A model that takes 50 ms for an answer and a tool that takes 20 ms make a chain of two answers and one call 120 ms long.
The ideal is that any number of chains takes as long as one; the figures are ratios to it, medians over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import statistics
import time
from pathlib import Path
from typing import Any

from lagentlike.agents import HFAgent
from lagentlike.llms import AsyncHFTransformer, AsyncScriptedLLM
from lagentlike.llms.tiny.engine import WEIGHTS
from lagentlike.rollouts import reward, rollout, RolloutEvent, tokenize_trajectories
from lagentlike.schema import ToolCall
from lagentlike.tools import calculator, tool

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parent
ANSWER_S, TOOL_S, REWARD_S = 0.05, 0.02, 0.03
CHAIN_S = 2 * ANSWER_S + TOOL_S
WAVES = 5
TEMPERATURES = (1.0, 1.5, 2.0, 2.5)


@tool
async def lookup(word: str) -> str:
    """Look a word up."""
    await asyncio.sleep(TOOL_S)
    return word.upper()


@reward
async def judged(final_response: str) -> float:
    """A reward that takes its time, as a judge does."""
    await asyncio.sleep(REWARD_S)
    return float(final_response == "done")


def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> Any:
    """One call, then the answer."""
    return "done" if messages[-1]["role"] == "tool" else ToolCall("lookup", {"word": "tea"}, id="call")


def scripted() -> HFAgent:
    """An agent whose model takes 50 ms for an answer."""
    return HFAgent(AsyncScriptedLLM(answer, latency=ANSWER_S), tools=[lookup])


async def chains_at_once(number: int) -> dict[str, float]:
    """`WAVES` times `number` chains, `number` of them at once."""
    agent = scripted()
    began, cpu = time.perf_counter(), time.process_time()
    await agent.run(["q"] * (number * WAVES), max_concurrent_chains=number)
    wall, spent = time.perf_counter() - began, time.process_time() - cpu
    return {
        "chains_per_s": number * WAVES / wall,
        "of_ideal": WAVES * CHAIN_S / wall,
        "cpu_ms_per_turn": 1000 * spent / (number * WAVES * 2),
    }


async def overlap(number: int = 64) -> dict[str, float]:
    """How much of answers, tools and rewards happens at once: 1.0 if rewards cost no time of the chains."""
    agent = scripted()
    began = time.perf_counter()
    await rollout(agent, ["q"] * (number * WAVES), reward=judged, max_concurrency=number)
    wall = time.perf_counter() - began
    return {"wall_s": wall, "of_ideal": (WAVES * CHAIN_S + REWARD_S) / wall}


async def drift(temperature: float, chains: int = 64) -> dict[str, float]:
    """Tokens that differ from what was sampled: in our rows, and in rows tokenized again from the text.

    The embedded model is so sure of itself that it writes what its tokenizer would until the temperature is high;
    larger models leave that way sooner.
    """
    agent = HFAgent(tools=[calculator])
    config = {"temperature": temperature, "seed": 5, "max_new_tokens": 64}
    questions = [f"What is {n} * {n + 7}?" for n in range(chains // 2)]
    questions += [f"Write about zor{chr(97 + n % 26)}vik{n} and tea." for n in range(chains // 2)]
    said: dict[tuple[int, int], list[int]] = {}

    def watch(event: RolloutEvent) -> None:
        if event.kind == "answer" and event.message is not None and event.message.tokens is not None:
            said.setdefault((event.query, event.chain), []).extend(event.message.tokens.ids)

    result = await agent.run(questions, max_turns=4, generation_config=config, on_event=watch)
    sampled = ours = again = chains_again = 0
    for trajectory in result:
        truth = said[trajectory.query, trajectory.chain]  # as the engine gave them, answer by answer
        rows = tokenize_trajectories([trajectory], tensors="np")
        spliced = rows["input_ids"][rows["action_mask"] == 1].tolist()
        written = agent.tokenize_trajectories([trajectory.messages], tensors="np")
        other = _differing(truth, written["input_ids"][written["action_mask"] == 1].tolist())
        sampled += len(truth)
        ours += _differing(truth, spliced)
        again += other
        chains_again += other > 0
    return {
        "sampled": sampled,
        "ours_percent": 100 * ours / sampled,
        "again_percent": 100 * again / sampled,
        "chains_again_percent": 100 * chains_again / len(result),
    }


def _differing(truth: list[int], other: list[int]) -> int:
    same = sum(block.size for block in difflib.SequenceMatcher(None, truth, other, False).get_matching_blocks())
    return len(truth) - same


async def turns(prefix_bytes: int | None, sessions: int = 8, number: int = 8) -> dict[str, float]:
    """Conversations with a model of transformers that begin one after another and go on from their own ids."""
    llm = AsyncHFTransformer(WEIGHTS, prefix_bytes=prefix_bytes, max_new_tokens=16, logprobs=True)
    question = llm.tokenize("\nWhat is 12 * 34, and what is the sum of its digits? " * 4)
    chat = [{"role": "user", "content": "Hello"}]

    async def session(place: int) -> None:
        await asyncio.sleep(0.05 * place)
        ids = llm.engine.render([{"role": "user", "content": f"I am number {place}. " * 20}])
        for _ in range(number):
            span = (await llm.chat(chat, prompt_ids=ids)).tokens
            assert span is not None
            ids = [*ids, *span.ids, *question]

    await llm.chat(chat)
    began = time.perf_counter()
    await asyncio.gather(*map(session, range(sessions)))
    wall = time.perf_counter() - began
    return {"turns_per_s": sessions * number / wall, "reused_tokens": float(llm.engine.prefixes.reused_tokens)}


def main() -> None:
    """Measure, print a table, and write the figures beside this file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollouts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=FOLDER / "rollouts.json")
    options = parser.parse_args()
    asyncio.run(chains_at_once(8))  # imports and first uses
    figures: dict[str, Any] = {"chains": {}}
    rounds: dict[int, list[dict[str, float]]] = {1: [], 8: [], 64: [], 512: []}
    for _ in range(options.rounds):
        for number, measured in rounds.items():
            measured.append(asyncio.run(chains_at_once(number)))
    print("chains at once   chains/s   of the ideal   CPU a turn")
    for number, measured in rounds.items():
        median = {name: statistics.median(one[name] for one in measured) for name in measured[0]}
        figures["chains"][str(number)] = median
        told = f"{median['chains_per_s']:8.1f}   {median['of_ideal']:12.2f}   {median['cpu_ms_per_turn']:7.2f} ms"
        print(f"{number:14}   {told}")
    overlaps = [asyncio.run(overlap()) for _ in range(options.rounds)]
    figures["overlap"] = {name: statistics.median(one[name] for one in overlaps) for name in overlaps[0]}
    print(f"with a reward of {REWARD_S * 1000:.0f} ms, 64 at once: {figures['overlap']['of_ideal']:.2f} of the ideal")
    figures["drift"] = {str(temperature): asyncio.run(drift(temperature)) for temperature in TEMPERATURES}
    print("temperature   tokens sampled   other tokens in our rows   tokenized again   chains that this touches")
    for temperature, found in figures["drift"].items():
        shares = [found[f"{name}_percent"] for name in ("ours", "again", "chains_again")]
        print(f"{temperature:>11}   {found['sampled']:14}   " + "{:22.2f} %   {:13.2f} %   {:22.0f} %".format(*shares))
    both = {"read_again": 0, "reused": None}  # most bytes that are kept
    measured_turns: dict[str, list[dict[str, float]]] = {name: [] for name in both}
    for _ in range(options.rounds):
        for name, most in both.items():
            measured_turns[name].append(asyncio.run(turns(most)))
    figures["turns"] = {
        name: {key: statistics.median(one[key] for one in told) for key in told[0]}
        for name, told in measured_turns.items()
    }
    slow, fast = (figures["turns"][name]["turns_per_s"] for name in both)
    print(f"transformers, 8 conversations of 8 turns: {fast:.1f} turns/s, {slow:.1f} where all is read again each turn")
    options.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
