"""`lagentlike batch`: an agent over a file of prompts, resumable after any crash."""

from __future__ import annotations

import argparse
import errno
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TYPE_CHECKING

from .common import load_unit, Looks, trace_to, UsageError

if TYPE_CHECKING:
    from ..agents import Agent
    from ..rollouts.batch import BatchResult

__all__ = ["add_options", "main"]

NAME = "batch"
HELP = """run an agent over a file of prompts, and keep its conversations for training

Each line of --dataset_file is a JSON object with `prompt` (or `messages`); its other keys are carried along. Everything
goes to data/RUN_NAME/: trajectories.jsonl (ShareGPT), records/ (everything there is to know), statistics.json,
report.html and the journal. A run that was killed goes on with --resume: no sample is lost, none is made twice.

Exit codes: 0 all samples are done or set aside, 1 none could be done, 69 the Ray cluster is gone, 74 the disk is full
or fails, 75 another runner works on this run, 130 and 143 stopped by SIGINT or SIGTERM."""

EXAMPLES = """examples:
  lagentlike batch --dataset_file=prompts.jsonl --batch_size=20 --num_workers=4 --run_name=my_run
  lagentlike batch --dataset_file=prompts.jsonl --run_name=my_run --resume
  lagentlike batch --dataset_file=prompts.jsonl --run_name=served --model qwen3 --base_url http://127.0.0.1:8000/v1
  lagentlike batch --dataset_file=prompts.jsonl --run_name=mine --agent my_agents.py:make --reward math_equality
  lagentlike batch --dataset_file=prompts.jsonl --run_name=wide --engine ray --ray_address auto --num_workers=64
"""

_FULL = {errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EFBIG}
_EX_UNAVAILABLE, _EX_IOERR, _EX_TEMPFAIL = 69, 74, 75  # sysexits.h


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""

    def option(group: Any, name: str, **details: Any) -> None:
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        group.add_argument(*spellings, **details)

    run = parser.add_argument_group("run")
    option(run, "dataset_file", required=True, type=Path, metavar="FILE", help="prompts, one JSON object a line")
    option(run, "run_name", required=True, metavar="NAME", help="names the folder of the run")
    option(run, "batch_size", type=int, default=20, metavar="N", help="samples at once, for each worker (20)")
    option(run, "num_workers", type=int, default=1, metavar="N", help="processes; 0 for a thread of this one (1)")
    option(run, "num_samples", type=int, default=1, metavar="N", help="samples for each prompt (1)")
    option(run, "max_samples", type=int, metavar="N", help="only so many of the first rows")
    option(run, "resume", action="store_true", help="go on with the run of that name, if there is one")
    option(run, "retry_failed", action="store_true", help="resume, and try samples that were set aside once more")
    option(run, "force", action="store_true", help="go on although the dataset or the options changed")
    option(run, "max_attempts", type=int, default=3, metavar="N", help="tries of a sample that fails (3)")
    option(run, "timeout", type=float, metavar="S", help="seconds that a sample may take")
    option(run, "reward", metavar="NAME", help="a ready reward, reckoned for each sample")
    option(run, "token_ids", action="store_true", help="keep token ids and log-probabilities, where there are any")
    option(run, "price", type=_price, metavar="IN,OUT", help="dollars for a million tokens, for the cost shown")
    option(run, "data_dir", default="data", metavar="DIR", help="where folders of runs are (data)")
    option(run, "engine", choices=("local", "ray"), default="local", help="where workers are (local: on this machine)")
    option(run, "ray_address", metavar="ADDR", help="a Ray cluster: host:port of its head, auto, or local")
    option(run, "worker_cpus", type=float, default=1, metavar="N", help="cores set aside for each worker on Ray (1)")
    option(run, "worker_gpus", type=float, default=0, metavar="N", help="GPUs set aside for each worker on Ray (0)")
    agent = parser.add_argument_group("agent")
    option(agent, "agent", metavar="TARGET", help="module:name or file.py:name of an agent; else an AIAgent is used")
    option(agent, "model", metavar="NAME", help="a model of the server; the embedded model by default")
    option(agent, "base_url", metavar="URL", help="an OpenAI-compatible server")
    option(agent, "max_turns", type=int, default=20, metavar="N", help="most answers of the model in a sample (20)")
    option(agent, "toolsets", metavar="NAMES", help="toolsets with commas between; a calculator by default")
    option(agent, "distribution", metavar="NAME", help="draw each sample's toolsets from this distribution")
    option(agent, "system_prompt", metavar="TEXT", help="what the agent is told first")
    option(agent, "tool_format", metavar="NAME", help="how a model without native calls writes them, such as hermes")
    option(agent, "temperature", type=float, metavar="T", help="0 for the likeliest answer, 1 for variety")
    option(agent, "max_new_tokens", type=int, metavar="N", help="longest answer, in tokens")


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from ..errors import ClusterLost
    from ..rollouts.batch import BatchRunner, BatchSettings, RayEngine, RunBusy

    source = _source(options)
    on_ray = RayEngine(options.ray_address, options.worker_cpus, options.worker_gpus)
    settings = BatchSettings(
        options.dataset_file,
        options.run_name,
        folder=options.data_dir,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        engine=on_ray if options.engine == "ray" else "local",
        num_samples=options.num_samples,
        max_samples=options.max_samples,
        resume=options.resume or options.retry_failed,
        retry_failed=options.retry_failed,
        force=options.force,
        config=asdict(source),
        reward=options.reward,
        timeout=options.timeout,
        max_attempts=options.max_attempts,
        keep_tokens=options.token_ids,
        price=options.price,
        progress=True,
    )
    make = source.with_server(options.base_url, options.batch_size)
    if options.trace_to is not None:
        make = partial(_traced, make, str(Path(options.trace_to).absolute()), options.trace_content)
    try:
        result = BatchRunner(make, settings).run()
    except RunBusy as error:
        return _refused(str(error), _EX_TEMPFAIL)
    except ClusterLost as error:
        return _refused(f"{error}; once there is a cluster, run the same command with --resume", _EX_UNAVAILABLE)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return _refused(f"{error}; make room and run the same command with --resume", _EX_IOERR)
    _report(result)
    return result.exit_code or int(bool(result.set_aside and not result.done))


def _traced(make: Callable[[], Any], path: str, content: bool) -> Any:
    """The agent, made in a process that writes what it does to a file."""
    trace_to(path, content)
    return make()


def _refused(text: str, code: int) -> int:
    sys.stderr.write(f"lagentlike: error: {text}\n")
    return code


@dataclass(frozen=True)
class _OwnAgent:
    """Makes the agent that `--agent` names."""

    agent: str
    unsafe_local: bool = False

    def __call__(self) -> Any:
        _isolate(self)
        return load_unit(self.agent)

    def with_server(self, *_: Any) -> _OwnAgent:
        place, colon, name = self.agent.rpartition(":")
        if place.endswith(".py"):  # a worker on a cluster is in another folder
            place = str(Path(place).absolute())
        return replace(self, agent=place + colon + name)


@dataclass(frozen=True)
class _ToolAgent:
    """Makes agents that work with tools; what is here is what a sample depends on."""

    model: str | None
    max_turns: int
    toolsets: str | None
    distribution: str | None
    system_prompt: str | None
    temperature: float | None
    max_new_tokens: int | None
    tool_format: str | None
    unsafe_local: bool = False

    def with_server(self, base_url: str | None, at_once: int) -> Any:
        return partial(_made, self, base_url, at_once)


def _made(options: _ToolAgent, base_url: str | None, at_once: int) -> Any:
    """The agent of all samples; with a distribution, what gives each sample's own."""
    from ..actions.toolsets import sample_toolsets
    from ..agents import AsyncAIAgent
    from ..tools import calculator

    _isolate(options)
    llm = _model(options, base_url, at_once)
    agents: dict[tuple[str, ...], Agent] = {}

    def agent_with(toolsets: tuple[str, ...], tools: list[Any]) -> Agent:
        if toolsets not in agents:
            agents[toolsets] = AsyncAIAgent(
                llm,
                max_turns=options.max_turns,
                enabled_toolsets=toolsets,
                tools=tools,
                system_prompt=options.system_prompt,
                tool_format=options.tool_format or "native",
            )
        return agents[toolsets]

    distribution = options.distribution
    if distribution is not None:
        return lambda key: agent_with(tuple(sample_toolsets(distribution, random.Random(key))), [])
    names = tuple(name.strip() for name in (options.toolsets or "").split(",") if name.strip())
    return agent_with(names, [] if names else [calculator])


def _isolate(options: _OwnAgent | _ToolAgent) -> None:
    """Run code in this process, which may be a worker's, as the command line says."""
    if options.unsafe_local:
        from ..sandbox import set_default_isolation

        set_default_isolation("unsafe_local")


def _model(options: _ToolAgent, base_url: str | None, at_once: int) -> Any:
    from ..llms import AsyncGPTAPI, AsyncTinyLM

    given: dict[str, Any] = {"temperature": options.temperature, "max_new_tokens": options.max_new_tokens}
    given["api_base"] = base_url
    chosen = {name: value for name, value in given.items() if value is not None}
    if options.model is None:
        return AsyncTinyLM(**chosen)
    from ..llms.transport import TransportOptions

    return AsyncGPTAPI(options.model, transport=TransportOptions(max_connections=max(100, at_once)), **chosen)


def _source(options: argparse.Namespace) -> Any:
    own = "model base_url toolsets distribution system_prompt tool_format temperature max_new_tokens".split()
    if options.agent is not None:
        for name in own:
            if getattr(options, name) is not None:
                raise UsageError(f"--{name} goes with --model: --agent names a whole agent")
        load_unit(options.agent)  # what is wrong with it is said before anything is written
        return _OwnAgent(options.agent, options.unsafe_local)
    if options.base_url is not None and options.model is None:
        raise UsageError("--base_url needs --model, the name of a model that the server has")
    if options.toolsets is not None and options.distribution is not None:
        raise UsageError("--toolsets and --distribution both choose the tools: give one of them")
    if options.tool_format is not None:
        from ..prompts.parsers import tool_format_names

        if options.tool_format not in (known := ["native", *tool_format_names()]):
            raise UsageError(f"--tool_format is one of {', '.join(known)}")
    names = (name for name in (*own, "unsafe_local") if name != "base_url")
    return _ToolAgent(max_turns=options.max_turns, **{name: getattr(options, name) for name in names})


def _price(text: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers such as 0.15,0.60") from None
    return first, second


def _report(result: BatchResult) -> None:
    looks = Looks(sys.stdout)
    told, recovery = result.statistics, result.recovery
    for damage in recovery.damages[:5]:
        sys.stdout.write(looks.yellow(f"found damaged: {damage}") + "\n")
    if recovery.done:
        sys.stdout.write(f"{recovery.done:,} samples were there already\n")
    if recovery.redone:
        sys.stdout.write(looks.yellow(f"{recovery.redone:,} damaged samples were made again") + "\n")
    usage = told["usage"]
    sys.stdout.write(
        f"{result.done:,} of {result.total:,} samples done, {result.set_aside:,} set aside, "
        f"{usage['prompt_tokens']:,} tokens read, {usage['completion_tokens']:,} written\n"
    )
    for failure in told["set_aside"][:3]:
        sys.stdout.write(looks.red(f"row {failure['row']}, sample {failure['sample']}: {failure['error']}") + "\n")
    if result.stopped_by is not None:
        sys.stdout.write(f"stopped by {result.stopped_by.name}; go on with --resume\n")
    sys.stdout.write(looks.dim(f"{result.folder}/trajectories.jsonl, statistics.json, report.html") + "\n")
