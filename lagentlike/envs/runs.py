"""Runs of an environment: groups to a trainer, as many as it can use, or to a file."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TYPE_CHECKING

from ..errors import EnvironmentFailed, InvalidArgument, MissingTokens, RewardError, SandboxError, TrajectoryAPIError
from ..schema import to_plain
from .groups import ScoredGroup
from .page import write_page
from .trajectory_api.client import TrajectoryClient

if TYPE_CHECKING:
    from .environment import AgentEnv, Item

__all__ = ["RunSummary", "process", "serve"]

logger = logging.getLogger(__name__)

_PAUSE = 0.2  # seconds between two looks at the trainer
_TELLING = frozenset(4**power for power in range(1, 16))  # after how many groups that were left out it is told
_PATIENCE = 600.0  # seconds that the trajectory API may be away
_AWAY = (None, 429, 502, 503, 504)  # what is told of one that is; None: nothing


@dataclass
class RunSummary:
    """What became of the tasks of a run.

    Attributes:
        groups: groups that were sent or written; `rows` in them.
        alike: groups that were left out because all their scores were the same.
        too_long: groups that were left out because a row was longer than the trainer takes.
        failed: tasks whose group was left out because the environment failed.
        score_sum: sum of the scores of all groups but those that failed, `scored` of them.
        steps: steps that the trainer had made in the end.
        evaluations: `(step, metrics)` of each evaluation.
        path: the file that was written.
    """

    groups: int = 0
    rows: int = 0
    alike: int = 0
    too_long: int = 0
    failed: int = 0
    score_sum: float = 0.0
    scored: int = 0
    steps: int = 0
    evaluations: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    path: Path | None = None

    @property
    def mean_score(self) -> float | None:
        """Mean score of all tries; None where there were none."""
        return self.score_sum / self.scored if self.scored else None


async def serve(env: AgentEnv[Any], url: str | None = None, token: str | None = None) -> RunSummary:
    """Send groups to a trainer, as many as it can use, until it has made its steps or there are no more tasks.

    An API that goes away is waited for; one that comes back and knows nobody is told of the environment again, as soon
    as its trainer is there. A group that the API does not take is left out.

    Args:
        env: the environment, set up.
        url: the trajectory API; `rollout_server_url` of the config by default.
        token: its token.

    Raises:
        TrajectoryAPIError: the API cannot be reached, at first or for ten minutes.
        InvalidArgument: the URL is none, a batch of the trainer is smaller than a group, or no group could be sent.
    """
    if env.config.group_size == 1 and env.config.ensure_scores_are_not_same:
        cure = "the one score of a group is always the same: give 2, or ensure_scores_are_not_same=False"
        raise InvalidArgument("group_size", 1, cure)
    api = TrajectoryClient(url or env.config.rollout_server_url, token=token)
    serving = _Serving(env, api)
    try:
        await serving.join()
        return await serving.run()
    finally:
        await serving.stop()


class _Serving:
    """A run of `serve` under way."""

    def __init__(self, env: AgentEnv[Any], api: TrajectoryClient) -> None:
        self.env = env
        self.api = api
        self.env_id = -1
        self.batch_size = self.most_tokens = 0
        self.last_step = math.inf
        self.workers = _Workers(env)
        self.evaluating: asyncio.Task[dict[str, float]] | None = None
        saved = env.config.data_path_to_save_groups
        self.file = None if saved is None else _GroupFile(Path(saved))
        self.summary = RunSummary(path=None if self.file is None else self.file.path)

    async def join(self) -> None:
        """Tell the API of the environment, as soon as a trainer is there, and learn what the trainer wants."""
        config, told = self.env.config, None
        while told is None:
            told = await self.api.register_env(
                config.wandb_name or self.env.title,
                group_size=config.group_size,
                max_token_length=config.max_token_length,
                weight=config.inference_weight,
                min_batch_allocation=config.min_batch_allocation,
            )
            if told is None:
                await asyncio.sleep(_PAUSE)
        info = await self.api.info()
        self.env_id = int(told["env_id"])
        self.batch_size, self.most_tokens = int(info["batch_size"]), int(info["max_token_len"])
        limits = [steps for steps in (config.total_steps, int(told["num_steps"])) if steps >= 0]
        self.last_step = min(limits, default=math.inf)
        self.summary.steps = int(told["starting_step"])

    async def run(self) -> RunSummary:
        while True:
            if self.env.config.group_size > self.batch_size:
                cure = f"a batch of the trainer has {self.batch_size} rows: make groups smaller"
                raise InvalidArgument("group_size", self.env.config.group_size, cure)
            status = await self._status()
            self._evaluate(int(status["current_step"]))
            if self.summary.steps >= self.last_step:
                break
            await self.workers.fill(self._room(status))
            if self.workers.done:
                break
            for item, groups in await self.workers.finished(_PAUSE):
                await self._send(item, groups)
        if self.evaluating is not None:
            await asyncio.wait([self.evaluating])
            self._evaluate(self.summary.steps)
        return self.summary

    async def _status(self) -> dict[str, Any]:
        """How far the trainer is, as soon as the API is there and knows the environment."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return await self.api.status_env(self.env_id)
            except TrajectoryAPIError as error:
                if error.status in (401, 403) or time.monotonic() > until:
                    raise
                logger.warning("the trajectory API is away, or was started again: %s", error)
                if error.status in _AWAY:
                    continue
            with suppress(TrajectoryAPIError):  # it is asked again
                await self.join()

    async def stop(self) -> None:
        await self.workers.stop()
        if self.evaluating is not None:
            self.evaluating.cancel()
            await asyncio.wait([self.evaluating])
        if self.file is not None:
            self.file.close()
        if self.env_id >= 0:
            with suppress(TrajectoryAPIError):  # it may be what ended this run
                await self.api.disconnect_env(self.env_id)

    def _room(self, status: dict[str, Any]) -> int:
        """How many groups may be under way."""
        config, size = self.env.config, self.env.config.group_size
        wanted = config.max_batches_offpolicy * self.batch_size
        room = wanted // size - int(status["queue_size"])
        if config.min_batch_allocation is not None:
            room = max(room, math.ceil(config.min_batch_allocation * wanted / size) - int(status["self_queue_size"]))
        if self.summary.steps + status["queue_size"] * size // self.batch_size >= self.last_step:
            return 0
        most = self.env.most_groups
        if self.evaluating is not None and not self.evaluating.done():
            most = {"STOP_TRAIN": 0, "LIMIT_TRAIN": int(most * config.eval_limit_ratio)}.get(config.eval_handling, most)
        return int(min(room, most))

    def _evaluate(self, step: int) -> None:
        """Take note of the trainer's step; begin an evaluation, or keep what the last one found, if it is time."""
        every, before = self.env.config.steps_per_eval, self.summary.steps
        self.summary.steps = step
        if self.evaluating is not None and self.evaluating.done():
            evaluated, self.evaluating = self.evaluating, None
            try:
                self.summary.evaluations.append((step, evaluated.result()))
            except (EnvironmentFailed, RewardError, SandboxError) as error:
                self.env.mark("evaluate()", error)
        if every > 0 and step // every > before // every and self.evaluating is None:
            self.evaluating = asyncio.create_task(self.env.evaluate())

    async def _send(self, item: Item, groups: list[dict[str, Any]]) -> None:
        """Send the groups of one task, unless they teach nothing or do not fit."""
        summary = self.summary
        if not groups:
            summary.failed += 1
            return
        _count_scores(summary, groups[0])
        if self.file is not None:
            self.file.write(item, groups)
        if self.env.config.ensure_scores_are_not_same and len(set(groups[0]["scores"])) == 1:
            summary.alike += 1
            self._warn()
            return
        try:
            read = [ScoredGroup.read({**group, "env_id": self.env_id}) for group in groups]
            if 0 < self.most_tokens < max(len(tokens) for group in read for tokens in group.tokens):
                summary.too_long += 1
                self._warn()
                return
            _check_tokens(read)
            await self.api.send(read[0] if len(read) == 1 else read)
        except (InvalidArgument, MissingTokens, TrajectoryAPIError) as error:  # the next look tells if the API is away
            summary.failed += 1
            self.env.mark(item, error)
        else:
            summary.groups += len(read)
            summary.rows += sum(group.rows for group in read)

    def _warn(self) -> None:
        """Say now and then that nothing has been sent so far."""
        alike, too_long = self.summary.alike, self.summary.too_long
        if not self.summary.groups and (alike + too_long) in _TELLING:
            logger.warning(
                "no group was sent so far: %d were left out as all their scores were the same, and %d as they had a "
                "row of more tokens than the %d that the trainer takes",
                *(alike, too_long, self.most_tokens),
            )


async def process(env: AgentEnv[Any], groups: int, path: str | Path | None = None) -> RunSummary:
    """Write the groups of some tasks to a file, and a page to read them on beside it.

    Each line of the file is a group, in the shape of atroposlib's, with `item` (the task) and `metadata` besides. Tasks
    whose environment failed are in `NAME.failures.jsonl`. A file that is there already is not touched: another name is
    taken. The conversations are in it, whatever `include_messages` says.

    Args:
        env: the environment, set up.
        groups: how many tasks; fewer where there are no more.
        path: the file; `data_path_to_save_groups` of the config by default, or `data/NAME.jsonl`.

    Raises:
        InvalidArgument: there are to be no groups.
    """
    if groups < 1:
        raise InvalidArgument("groups", groups, "give how many tasks, at least 1")
    chosen = path or env.config.data_path_to_save_groups or f"data/{env.title}.jsonl"
    include_messages, env.config.include_messages = env.config.include_messages, True
    summary, workers, begun = RunSummary(), _Workers(env), 0
    file = _GroupFile(Path(chosen))
    summary.path = file.path
    try:
        while not workers.done:
            begun += await workers.fill(min(env.most_groups, len(workers.running) + groups - begun))
            if not workers.running:
                break
            for item, found in await workers.finished():
                if not found:
                    summary.failed += 1
                    file.write_failure(item, next((why for one, why in reversed(env.failures) if one is item), ""))
                    continue
                _count_scores(summary, found[0])
                summary.groups += len(found)
                summary.rows += sum(len(group["tokens"]) for group in found)
                file.write(item, found)
    finally:
        env.config.include_messages = include_messages
        await workers.stop()
        file.close()
        write_page(file.path, file.path.with_suffix(".html"))
    return summary


class _Workers:
    """Tasks of an environment that are being worked on."""

    def __init__(self, env: AgentEnv[Any]) -> None:
        self.env = env
        self.running: dict[asyncio.Task[tuple[list[dict[str, Any]], list[Item]]], Item] = {}
        self.again: deque[Item] = deque()
        self.exhausted = False

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.exhausted and not self.again and not self.running

    async def fill(self, most: int) -> int:
        """Begin with tasks until `most` are under way; how many were begun."""
        begun = 0
        while len(self.running) < most:
            if self.again:
                item = self.again.popleft()
            elif self.exhausted:
                break
            else:
                item = await self.env.get_next_item()
                if item is None:
                    self.exhausted = True
                    continue
            self.running[asyncio.create_task(_collected(self.env, item))] = item
            begun += 1
        return begun

    async def finished(self, timeout: float | None = None) -> list[tuple[Item, list[dict[str, Any]]]]:
        """The tasks that are done, as soon as one is, with their groups: none where the environment failed."""
        if not self.running:
            await asyncio.sleep(timeout or 0)
            return []
        done, _ = await asyncio.wait(self.running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        found = []
        for task in done:
            item = self.running.pop(task)
            groups, again = task.result()
            self.again.extend(again)
            found.append((item, groups))
        return found

    async def stop(self) -> None:
        """Give up what is under way."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        self.running.clear()


async def _collected(env: AgentEnv[Any], item: Item) -> tuple[list[dict[str, Any]], list[Item]]:
    """The groups of one task, in the time that it may take, and tasks that should be done again."""
    seconds = env.config.worker_timeout
    try:
        async with asyncio.timeout(seconds if seconds > 0 else None):
            groups, again = await env.collect_trajectories(item)
    except TimeoutError:
        env.mark(item, TimeoutError(f"its group took longer than worker_timeout={seconds:g} seconds"))
        return [], []
    return groups if isinstance(groups, list) else [] if groups is None else [groups], again


def _count_scores(summary: RunSummary, group: dict[str, Any]) -> None:
    summary.score_sum += sum(group["scores"])
    summary.scored += len(group["scores"])


def _check_tokens(groups: list[ScoredGroup]) -> None:
    if not all(tokens for group in groups for tokens in group.tokens):
        raise MissingTokens(
            "the model's server gives no token ids, so there is nothing to train on: use AsyncTokenAPI, or a server of "
            "atroposlib that gives them"
        )


class _GroupFile:
    """A file of groups, JSON lines, and one of failures, if there are any."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = _free(path)
        self._file = self.path.open("x", encoding="utf-8")

    def write(self, item: Item, groups: list[dict[str, Any]]) -> None:
        for group in groups:
            self._file.write(_line({**group, "item": _shown(item)}))
        self._file.flush()

    def write_failure(self, item: Item, why: str) -> None:
        with self.path.with_suffix(".failures.jsonl").open("a", encoding="utf-8") as failures:
            failures.write(_line({"item": _shown(item), "error": why}))

    def close(self) -> None:
        self._file.close()


def _free(path: Path) -> Path:
    """This path, or one like it that nothing has."""
    free, number = path, 0
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}_{number}")
    return free


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def _shown(item: Item) -> Any:
    """A task as JSON data, as well as that goes."""
    try:
        return to_plain(item, "item")
    except TypeError:
        return repr(item)
