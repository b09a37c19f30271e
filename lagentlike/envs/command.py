"""The command line of an environment: serve, process, evaluate."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TYPE_CHECKING

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from .environment import AgentEnv
    from .runs import RunSummary

__all__ = ["ACTIONS", "add_settings", "config_of", "run_action", "run_command", "told"]

ACTIONS = ("serve", "process", "evaluate")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare what is done with an environment, and its settings."""
    parser.add_argument("--groups", type=int, default=8, metavar="N", help="process: how many tasks (8)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="process: the file, JSON lines (data/NAME.jsonl)")
    parser.add_argument("--trainer", metavar="URL", help="serve: the trajectory API (rollout_server_url of the config)")
    parser.add_argument("--token", help="serve: the token of that API, if it wants one")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as a JSON object")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, such as group_size=8; repeatable"
    )


def config_of(env_class: type[AgentEnv[Any]], options: argparse.Namespace) -> tuple[Any, Any]:
    """The config and the servers of an environment, with the settings of the command line.

    Raises:
        InvalidArgument: a setting cannot be read, or is none.
    """
    config, servers = env_class.config_init()
    given: dict[str, Any] = {}
    if options.config is not None:
        try:
            given = json.loads(options.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidArgument("--config", str(options.config), f"it cannot be read: {error}") from None
    for setting in options.set:
        name, sign, text = setting.partition("=")
        if not sign:
            raise InvalidArgument("--set", setting, "write NAME=VALUE, such as group_size=8")
        given[name] = _value(text)
    return type(config)(**{**config.flat(), **given}), servers


def _value(text: str) -> Any:
    """JSON, or else a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


async def run_action(env: AgentEnv[Any], options: argparse.Namespace) -> RunSummary | dict[str, float]:
    """Do what the command line says."""
    if options.action == "serve":
        return await env.serve(options.trainer, options.token)
    if options.action == "process":
        return await env.process(options.groups, options.out)
    began = time.time()
    async with env:
        metrics = await env.evaluate()
    if env.config.data_dir_to_save_evals is not None:
        _save(Path(env.config.data_dir_to_save_evals), env.title, metrics, time.time() - began)
    return metrics


def _save(folder: Path, title: str, metrics: dict[str, float], seconds: float) -> None:
    """Write metrics as atroposlib's environments do."""
    folder.mkdir(parents=True, exist_ok=True)
    general: dict[str, Any] = {
        "model_name": None,
        "total_evaluation_time_seconds": str(seconds),
        "generation_parameters": {},
    }
    results = {f"atropos|{title}_eval|0": metrics, "all": metrics}
    written = json.dumps({"config_general": general, "results": results}, indent=2)
    (folder / "metrics.json").write_text(written + "\n", encoding="utf-8")


def told(env: AgentEnv[Any], done: RunSummary | dict[str, float]) -> list[str]:
    """What was done, in lines for a person."""
    unanswered = [f"{count} tries came to no answer: {why}" for why, count in env.unanswered.most_common(3)]
    if isinstance(done, dict):
        found = [f"{name}: {value:.4g}" for name, value in done.items()] or ["this environment evaluates nothing"]
        return found + unanswered
    lines = [f"{done.groups} groups of {done.rows} rows"]
    if done.mean_score is not None:
        lines[0] += f", mean score {done.mean_score:.3f}"
    for count, why in (
        (done.alike, "left out, as all their scores were the same"),
        (done.too_long, "left out, as they were too long for the trainer"),
        (done.failed, "left out, as the environment failed"),
    ):
        if count:
            lines.append(f"{count} {why}")
    lines += unanswered
    for step, metrics in done.evaluations:
        lines.append(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    if done.path is not None:
        lines.append(str(done.path))
        page = done.path.with_suffix(".html")
        lines += [str(page)] if page.exists() else []
    return lines


def run_command(env_class: type[AgentEnv[Any]], arguments: Sequence[str] | None = None) -> list[str]:
    """The command line of one environment, on its own servers; what it tells."""
    parser = argparse.ArgumentParser(description=env_class.__doc__, allow_abbrev=False)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    add_settings(parser)
    options = parser.parse_args(arguments)
    config, servers = config_of(env_class, options)
    env = env_class(config, servers)
    return told(env, asyncio.run(run_action(env, options)))
