"""`lagentlike rollout`: many conversations at once, their trajectories in a file."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TYPE_CHECKING

from .common import find, load_unit, Looks, UsageError

if TYPE_CHECKING:
    from ..agents import AsyncAgent
    from ..rollouts import RolloutEvent, RunResult

__all__ = ["add_options", "main", "read_queries", "reward_named"]

NAME = "rollout"
HELP = """run an agent over many conversations and keep what it did

Each line of --data is a JSON object with `messages` (or `prompt`, one user message) and whatever rewards need, such as
`answer`. Every chain runs in a session of its own; one that fails is kept with its error, and the others go on. The
trajectories, one JSON object a line, hold messages, token ids, log-probabilities and rewards. Until the run is over
they are in FILE.part."""

EXAMPLES = """examples:
  lagentlike rollout "What is the result of 12 * 34?" --chains 4 --temperature 1
  lagentlike rollout --data questions.jsonl --reward math_equality --out trajectories.jsonl
  lagentlike rollout --data questions.jsonl --agent my_agents.py:team --reward my_rewards.py:score
  lagentlike rollout --data questions.jsonl --model qwen3 --backend client --api-base http://127.0.0.1:8000/v1
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "question", nargs="*", help="questions, each a conversation of its own, where there is no --data"
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="conversations, one JSON object a line")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the trajectories go (default: not kept)")
    parser.add_argument("--force", action="store_true", help="overwrite the file of --out")
    parser.add_argument("--reward", metavar="NAME", help="a ready reward, or module:name or file.py:name of one")
    agent = parser.add_argument_group("agent")
    agent.add_argument("--agent", metavar="TARGET", help="module:name or file.py:name of an async agent")
    agent.add_argument("--model", default="tiny", metavar="NAME", help="a model with a calculator instead (tiny)")
    agent.add_argument("--backend", metavar="NAME", help="tiny, transformers, client, vllm, sglang or lmdeploy")
    agent.add_argument("--api-base", metavar="URL", help="the server of the backend")
    agent.add_argument("--server", metavar="NAME", help="engine behind a client: vllm, sglang, lmdeploy, llamacpp …")
    agent.add_argument("--tokenizer", metavar="DIR", help="tokenizer of a server's model (by default the model's name)")
    agent.add_argument("--system", metavar="TEXT", help="system prompt")
    run = parser.add_argument_group("run")
    run.add_argument("--chains", type=int, default=1, metavar="N", help="chains for each conversation (1)")
    run.add_argument("--max-turns", type=int, metavar="N", help="most answers of the model in a chain")
    run.add_argument("--concurrency", type=int, default=64, metavar="N", help="most chains that run at once (64)")
    run.add_argument("--timeout", type=float, metavar="S", help="seconds that a chain may take")
    run.add_argument("--temperature", type=float, metavar="T", help="0 for the likeliest answer, 1 for training")
    run.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer, in tokens")
    run.add_argument("--seed", type=int, metavar="N", help="makes sampling repeatable")


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code: 1 if every chain failed."""
    queries = _queries(options)
    reward = None if options.reward is None else reward_named(options.reward)
    agent = _agent(options)
    if options.out is not None and options.out.exists() and not options.force:
        raise UsageError(f"{str(options.out)!r} exists already: give another file, or --force to overwrite it")
    with _written(options.out) as out:
        progress = _Progress(len(queries) * options.chains, out)
        result = asyncio.run(_run(agent, queries, reward, options, progress))
    _report(result, options)
    return int(bool(result.trajectories) and len(result.failures) == len(result))


async def _run(
    agent: AsyncAgent, queries: list[Any], reward: Any, options: argparse.Namespace, progress: _Progress
) -> RunResult:
    from ..rollouts import rollout

    config = {
        name: getattr(options, name)
        for name in ("temperature", "max_new_tokens", "seed")
        if getattr(options, name) is not None
    }
    with progress:
        return await rollout(
            agent,
            queries,
            num_chains=options.chains,
            reward=reward,
            max_turns=options.max_turns,
            generation_config=config,
            max_concurrency=options.concurrency,
            timeout=options.timeout,
            on_event=progress.take,
        )


def read_queries(path: Path) -> list[dict[str, Any]]:
    """The conversations of a JSONL file.

    Raises:
        UsageError: a line is no conversation; the message says which and why.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error}") from None
    queries = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            queries.append(_read_query(line, f"{path}, line {number}"))
    if not queries:
        raise UsageError(f"{str(path)!r} holds no conversation")
    return queries


def _read_query(line: str, where: str) -> dict[str, Any]:
    try:
        query = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: this is no JSON: {error}") from None
    if not isinstance(query, dict) or ("messages" in query) == ("prompt" in query):
        raise UsageError(f"{where}: give an object with 'messages' or 'prompt'")
    if "prompt" in query:
        query["messages"] = query.pop("prompt")
    messages = query["messages"]
    if isinstance(messages, str):
        query["messages"] = [{"role": "user", "content": messages}]
    return query


def reward_named(name: str) -> Any:
    """The ready reward of a name, or the one that `module:name` names."""
    if ":" in name:
        return find(name)
    from ..errors import InvalidArgument
    from ..rollouts.rewards import get_reward

    try:
        return get_reward(name)
    except InvalidArgument as error:
        raise UsageError(f"--reward: {error}") from None


def _queries(options: argparse.Namespace) -> list[Any]:
    if (options.data is None) == (not options.question):
        raise UsageError("give questions, or --data with a file of conversations")
    return read_queries(options.data) if options.data is not None else list(options.question)


def _agent(options: argparse.Namespace) -> Any:
    if options.agent is not None:
        for name in ("backend", "api_base", "server", "tokenizer", "system"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} goes with --model: --agent names a whole agent")
        return load_unit(options.agent)
    from ..agents import HFAgent
    from ..tools import calculator

    config: dict[str, Any] = {}
    if options.backend is not None:
        config["backend"] = options.backend
    if options.api_base is not None:
        config = {"backend": "client", **config, "api_base": options.api_base}
    for name in ("server", "tokenizer"):
        if getattr(options, name) is not None:
            config[name] = getattr(options, name)
    return HFAgent(options.model, [calculator], backend_config=config or None, system_prompt=options.system)


@contextmanager
def _written(path: Path | None) -> Iterator[TextIO | None]:
    """A file that gets its name when it is whole; of a run that is cut short, what there is stays beside it."""
    if path is None:
        yield None
        return
    device = path.exists() and not path.is_file()  # such as /dev/stdout
    part = path if device else path.with_name(f"{path.name}.part")
    opened = part.open("w", encoding="utf-8", newline="\n")
    try:
        with opened as file:
            yield file
    except BaseException:
        if device:
            raise
        if part.stat().st_size:
            sys.stderr.write(f"the chains that ended are in {part}\n")
        else:
            part.unlink()
        raise
    if not device:
        part.replace(path)


class _Progress:
    """A bar with what there is to know, and the file that finished chains go to at once."""

    def __init__(self, total: int, out: TextIO | None) -> None:
        self._total = total
        self._out = out
        self._rewards: list[float] = []
        self._tokens = self._failures = 0
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        from tqdm import tqdm

        self._began = time.perf_counter()
        self._bar = tqdm(total=self._total, desc="rollout", unit="chain", disable=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def take(self, event: RolloutEvent) -> None:
        """Note something that happened."""
        if event.kind == "answer" and event.message is not None and event.message.usage is not None:
            self._tokens += event.message.usage.completion_tokens
        if event.kind != "end":
            return
        self._rewards += [one.reward for one in event.trajectories if one.reward is not None]
        self._failures += any(one.error is not None for one in event.trajectories)
        if self._out is not None:
            from ..rollouts.export.jsonl import as_line

            for one in event.trajectories:
                self._out.write(as_line(one) + "\n")
            self._out.flush()
        self._bar.set_postfix(self._told(), refresh=False)
        self._bar.update()

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {"tok/s": int(self._tokens / max(1e-9, time.perf_counter() - self._began))}
        if self._rewards:
            told["reward"] = f"{sum(self._rewards) / len(self._rewards):.3f}"
        if self._failures:
            told["failed"] = self._failures
        return told


def _report(result: RunResult, options: argparse.Namespace) -> None:
    looks = Looks(sys.stdout)
    if options.data is None:
        for trajectory in result:
            said = trajectory.final_response if trajectory.error is None else looks.red(trajectory.error)
            sys.stdout.write(f"{said}\n")
    tokens = sum(trajectory.token_count for trajectory in result)
    rate = int(tokens / max(result.wall_time, 1e-9))
    sys.stdout.write(looks.dim(f"{result!r}, {tokens:,} tokens in {result.wall_time:.1f} s ({rate:,} a second)") + "\n")
    for trajectory in result.failures[:3]:
        where = f"query {trajectory.query}, chain {trajectory.chain}"
        sys.stdout.write(looks.red(f"{where}: {trajectory.error}") + "\n")
    if options.out is not None:
        sys.stdout.write(f"trajectories: {options.out}\n")
