"""`lagentlike env`: RL environments, and the trajectory API between them and trainers."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from typing import Any, TYPE_CHECKING

from .common import add_model_options, announced, find, make_model, UsageError

if TYPE_CHECKING:
    from ..envs import AgentEnv

__all__ = ["add_options", "main"]

NAME = "env"
HELP = """run an RL environment, or the trajectory API that trainers fetch from

  serve     sends groups of scored tries to a trainer, as many as it can use, until it has made its steps
  process   writes groups to a file, JSON lines, and a page to read them on beside it
  evaluate  measures the model on the environment's evaluation
  api       the trajectory API itself, in the place of atroposlib's run-api

The embedded model plays, unless the environment or --model says otherwise. Training needs token ids, which the embedded
model gives; a model behind a chat server is for process and evaluate."""

EXAMPLES = """examples:
  lagentlike env process examples/envs/arithmetic.py:Arithmetic --groups 4 --out data/sums.jsonl
  lagentlike env evaluate examples/envs/arithmetic.py:Arithmetic --set digits=3
  lagentlike env api --port 8000
  lagentlike env serve my_envs.py:Coding --trainer http://127.0.0.1:8000 --set group_size=8 --set tool_pool_mode=bwrap
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    from ..envs.command import ACTIONS, add_settings

    parser.add_argument("action", choices=(*ACTIONS, "api"), help="what to do")
    parser.add_argument("target", nargs="?", help="module:name or file.py:name of an environment's class")
    add_settings(parser)
    parser.add_argument("--host", default="127.0.0.1", help="api: address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="api: port to listen on, 0 for any free one (8000)")
    add_model_options(parser)


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code, 1 where the environment failed in all that it did."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    if options.action == "api":
        asyncio.run(_serve_api(options))
        return 0
    if options.target is None:
        raise UsageError(f"name the environment: lagentlike env {options.action} file.py:Class")
    return _run(_environment(options), options)


def _environment(options: argparse.Namespace) -> AgentEnv[Any]:
    from ..envs import AgentEnv
    from ..envs.command import config_of

    env_class = find(options.target, of=AgentEnv)
    if not isinstance(env_class, type) or not issubclass(env_class, AgentEnv):
        raise UsageError(f"{options.target!r} is no class derived from AgentEnv")
    if options.temperature is not None:
        options.set.append(f"agent_temperature={options.temperature}")
    config, servers = config_of(env_class, options)
    chosen = options.model is not None or options.api_base is not None
    return env_class(config, make_model(options) if chosen else servers)


def _run(env: AgentEnv[Any], options: argparse.Namespace) -> int:
    from ..envs.command import run_action, told

    done = asyncio.run(run_action(env, options))
    for line in told(env, done):
        sys.stdout.write(line + "\n")
    for _, why in env.failures[-1:]:
        sys.stderr.write(f"the environment failed, the last time so: {why}\n")
    return int(not isinstance(done, dict) and done.failed > 0 and not done.groups)


async def _serve_api(options: argparse.Namespace) -> None:
    from ..envs import TrajectoryServer

    await announced(TrajectoryServer(host=options.host, port=options.port, token=options.token), "the trajectory API")
