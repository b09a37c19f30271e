"""An RL environment: tasks for an agent with tools, each try in a sandbox slot of its own and scored before it goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import numbers
import sys
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from ..errors import BudgetExceeded, EnvironmentFailed, InvalidArgument, RewardError, SandboxError
from ..schema import to_plain
from ..tools import build_tool_registry, ToolRegistry
from .agent import AtroposAgent
from .command import run_command
from .config import AgentEnvConfig
from .groups import group_of
from .result import AgentConfig, AgentResult
from .runs import process, RunSummary, serve
from .sandboxes import ExecTool, Sandboxes
from .servers import server_of

__all__ = ["AgentEnv", "Try"]

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=AgentEnvConfig)
T = TypeVar("T")
Item = Any
"""A task, in whatever form an environment likes."""


@dataclass(slots=True)
class Try:
    """One try at a task.

    Attributes:
        result: what the agent did.
        score: what it was worth; 0.0 where the agent came to no answer.
        metadata: what the scoring said besides, JSON data.
    """

    result: AgentResult
    score: float
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The whole conversation."""
        return [*self.result.prompt, *self.result.to_messages()]


class AgentEnv(ABC, Generic[C]):
    """Tasks for an agent with tools, and what its answers are worth.

    A subclass says what the tasks are (`get_next_item`, `build_task`) and how an answer is scored (`score_trajectory`,
    or `verify_and_score_trajectory`, which looks into the sandbox). `serve` then sends groups of scored tries to a
    trainer, `process` writes them to a file, and `collect_trajectories` gives one group. `over_atropos` (in
    `lagentlike.envs.atropos`) puts it on atroposlib's `BaseEnv`.

    A try in which the agent fails (its model, too many steps) is worth 0.0. One in which the environment fails (no
    sandbox, a hook that raises, a score that is no number) is worth nothing: its group is not sent, and is told in
    `failures`. The slot of a try is given back with its workspace reset, whatever happened.

    Args:
        config: how it runs; by default what `config_init` gives.
        server_configs: where answers come from: a model of ours, `AsyncTinyLM()` by default; a `ServerManager` or an
            API server of atroposlib; or its `APIServerConfig`s, of which a `ServerManager` is made.
        slurm, testing: as for atroposlib's `ServerManager`.
        tokenizer: of the model behind a server of atroposlib; the server's own by default.

    Attributes:
        tools: what the model is offered.
        failures: what became of groups that were not sent: `(item, why)`, the last thousand.
        unanswered: why tries came to no answer, which makes them worth 0.0, and how many did.

    `async with env:` sets it up and closes it.
    """

    name: ClassVar[str | None] = None
    """What a trainer calls it; the class's name by default."""

    env_config_cls: ClassVar[type[AgentEnvConfig]] = AgentEnvConfig

    def __init__(
        self,
        config: C | None = None,
        server_configs: Any = None,
        slurm: bool = False,
        testing: bool = False,
        *,
        tokenizer: Any = None,
    ) -> None:
        default, servers = self.config_init()
        chosen = default if config is None else config
        if not isinstance(chosen, self.env_config_cls):
            raise InvalidArgument("config", config, f"give a {self.env_config_cls.__name__}")
        self.config: C = chosen  # type: ignore[assignment]  # of the class that the subclass names
        self.server = server_of(servers if server_configs is None else server_configs, slurm, testing)
        self.tokenizer = tokenizer
        self.tools: ToolRegistry = self.build_tools()
        if not isinstance(self.tools, ToolRegistry):
            raise InvalidArgument("build_tools()", self.tools, "have it give a ToolRegistry of the tools")
        self.failures: list[tuple[Item, str]] = []
        self.unanswered: Counter[str] = Counter()
        self._sandboxes = Sandboxes(self.config.sandbox, self.tools)
        self._entered = 0

    @property
    def title(self) -> str:
        """What trainers and files call it."""
        return self.name or type(self).__name__

    @property
    def most_groups(self) -> int:
        """Most groups that may be under way at once."""
        config = self.config
        return config.max_num_workers if config.max_num_workers > 0 else config.max_num_workers_per_node

    # What a subclass says

    @classmethod
    def config_init(cls) -> tuple[AgentEnvConfig, Any]:
        """The config and the servers that are used where none are given."""
        return cls.env_config_cls(), None

    @abstractmethod
    async def get_next_item(self) -> Item | None:
        """The next task; None where there are no more."""

    @abstractmethod
    def build_task(self, item: Item) -> str:
        """What the agent is told to do."""

    @abstractmethod
    async def score_trajectory(self, item: Item, final_response: str) -> float:
        """What an answer is worth; `verify_and_score_trajectory` asks this by default."""

    @abstractmethod
    async def setup_agent_env(self) -> None:
        """Get ready, once, after the sandboxes are: read a data set, say."""

    def build_tools(self) -> ToolRegistry:
        """The tools that the model is offered: by default those of the toolsets in the config."""
        config = self.config
        return build_tool_registry(config.enabled_toolsets, config.disabled_toolsets, config.tool_server_url)

    def build_agent_config(self, item: Item) -> AgentConfig:
        """How the agent works on a task: by default as the config says."""
        return self.config.agent

    async def setup_trajectory_workspace(
        self, item: Item, *, trajectory_id: str, exec_tool: ExecTool
    ) -> dict[str, Any]:
        """Prepare the slot of a try before the agent begins: put files there, say.

        Returns:
            What `verify_and_score_trajectory` is given as `workspace_meta`.
        """
        return {}

    async def verify_and_score_trajectory(
        self,
        item: Item,
        final_response: str,
        *,
        trajectory_id: str,
        exec_tool: ExecTool,
        agent_result: AgentResult | None = None,
        workspace_meta: dict[str, Any] | None = None,
    ) -> tuple[float, dict[str, Any]]:
        """What a try is worth, by a look into its slot, which is given back afterwards.

        Returns:
            The score, and what else there is to say; `overrides` in it are settings of its rows for the trainer.
        """
        return await self.score_trajectory(item, final_response), {}

    async def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics on tasks that are not trained on; none by default. See `mean_score` and `play`."""
        return {}

    # Runs

    async def serve(self, url: str | None = None, token: str | None = None) -> RunSummary:
        """Send groups to a trainer until it has made its steps; see `runs.serve`."""
        async with self:
            return await serve(self, url, token)

    async def process(self, groups: int, path: str | Path | None = None) -> RunSummary:
        """Write groups to a file, and a page to read them on; see `runs.process`."""
        async with self:
            return await process(self, groups, path)

    @classmethod
    def cli(cls, arguments: Sequence[str] | None = None) -> None:
        """The command line `serve | process | evaluate`, with `--set NAME=VALUE` for any setting.

        Args:
            arguments: those of the process by default.
        """
        for line in run_command(cls, arguments):
            sys.stdout.write(line + "\n")

    # Its life

    async def setup(self) -> None:
        """Start the sandboxes, if the model's tools need some, and get ready.

        Raises:
            SandboxUnavailable: there are none here.
        """
        await self._sandboxes.start()
        await self.setup_agent_env()

    async def close(self) -> None:
        """End the sandboxes."""
        await self._sandboxes.close()

    async def __aenter__(self) -> Self:
        self._entered += 1
        if self._entered == 1:
            try:
                await self.setup()
            except BaseException:
                self._entered = 0
                await self.close()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered:
            await self.close()

    # Tries

    async def play(self, item: Item) -> Try:
        """One try at a task.

        Raises:
            EnvironmentFailed, RewardError, SandboxError: the environment failed, so that nothing can be said of the
                agent.
        """
        trajectory_id = str(uuid.uuid4())
        async with self._sandboxes.place(trajectory_id) as (of_model, exec_tool):
            with _part("setup_trajectory_workspace"):
                meta = await self.setup_trajectory_workspace(item, trajectory_id=trajectory_id, exec_tool=exec_tool)
            with _part("build_task"):
                task, config = self.build_task(item), self.build_agent_config(item)
            result = await self._agent(config, of_model).run(task)
            if not result.success:
                why = str(result.error)[:500]
                self.unanswered[why if len(self.unanswered) < 100 else "other errors"] += 1
                return Try(result, 0.0, {"error": result.error})
            with _part("verify_and_score_trajectory"):
                score, metadata = await self.verify_and_score_trajectory(
                    item,
                    result.final_response,
                    trajectory_id=trajectory_id,
                    exec_tool=exec_tool,
                    agent_result=result,
                    workspace_meta=meta,
                )
                return Try(result, _checked_score(score), to_plain(metadata or {}, "metadata"))

    async def mean_score(self, items: Iterable[Item]) -> float:
        """The mean score of one try at each of some tasks, `max_eval_workers` of them at once; for `evaluate`.

        Raises:
            InvalidArgument: there are no tasks.
            EnvironmentFailed, RewardError, SandboxError: the environment failed in one of them.
        """
        places = asyncio.Semaphore(self.config.max_eval_workers)

        async def score(item: Item) -> float:
            async with places:
                return (await self.play(item)).score

        scores = await _all([score(item) for item in items])
        if not scores:
            raise InvalidArgument("items", [], "give at least one task")
        return sum(scores) / len(scores)

    async def collect_trajectory(self, item: Item) -> tuple[dict[str, Any] | None, list[Item]]:
        """One try at a task, as a row for a trainer.

        Returns:
            `tokens`, `masks`, `scores`, `inference_logprobs`, `messages`, `overrides` and `metadata`, and `earlier`:
            the rows before it, where its tokens are no unbroken run. And tasks that should be done again: none.
        """
        played = await self.play(item)
        rows = played.result.to_scored_rows(played.score)
        last = rows[-1] if rows else {"tokens": [], "masks": [], "logprobs": []}
        row = {
            **_tokens(last),
            "scores": played.score,
            "messages": played.messages,
            "overrides": played.metadata.get("overrides") or {},
            "metadata": played.metadata,
            "earlier": [_tokens(one) for one in rows[:-1]],
        }
        return row, []

    async def collect_trajectories(self, item: Item) -> tuple[dict[str, Any] | list[dict[str, Any]] | None, list[Item]]:
        """`group_size` tries at a task, at once, as a group for a trainer.

        Returns:
            The group, in the shape of atroposlib's `ScoredDataGroup`; several of them, of `group_size` rows each, where
            the tokens of some try are no unbroken run: the n-th has the n-th run of each, and rows without a trained
            token for tries that have fewer. None where the environment failed. And tasks that should be done again.
        """
        try:
            tries = await _all([self.collect_trajectory(item) for _ in range(self.config.group_size)])
        except (EnvironmentFailed, RewardError, SandboxError) as error:
            self.mark(item, error)
            return None, []
        backlog = [one for _, again in tries for one in again]
        rows = [row for row, _ in tries]
        if any(row is None for row in rows):
            return None, backlog
        try:
            groups = group_of([row for row in rows if row is not None], self.config.include_messages)
        except InvalidArgument as error:  # of rows that a subclass made
            self.mark(item, error)
            return None, backlog
        return (groups[0] if len(groups) == 1 else groups), backlog

    async def run_agent(self, task: str, *, trajectory_id: str | None = None) -> tuple[str, dict[str, Any]]:
        """The agent's answer to a task that is in no data set.

        Args:
            task: what it is told to do.
            trajectory_id: work in the slot of this try, which goes on; by default in a slot of its own.

        Returns:
            The answer, and `success`, `error` and `tool_calls` (how many).
        """
        if trajectory_id is None:
            async with self._sandboxes.place(str(uuid.uuid4())) as (of_model, _):
                result = await self._agent(self.config.agent, of_model).run(task)
        else:
            of_model = self._sandboxes.exec_tool(trajectory_id, of_model=True)
            result = await self._agent(self.config.agent, of_model).run(task)
        told = {"success": result.success, "error": result.error, "tool_calls": result.total_tool_calls}
        return result.final_response, told

    def _agent(self, config: AgentConfig, execute: ExecTool) -> AtroposAgent:
        return AtroposAgent(self.server, self.tools, config, self.tokenizer, execute)

    def mark(self, item: Item, error: BaseException) -> None:
        """Remember that the environment failed, so that its group is worth nothing."""
        text = f"{type(error).__name__}: {error}"
        logger.error("the environment failed, so a group is left out: %s", text, exc_info=error)
        self.failures.append((item, text))
        del self.failures[:-1000]


async def _all(tries: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What tries give that go on at once; the first error ends them."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one) for one in tries]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [one.result() for one in running]


@contextlib.contextmanager
def _part(what: str) -> Iterator[None]:
    """Tell of an error in a hook which hook it was."""
    try:
        yield
    except (BudgetExceeded, EnvironmentFailed, RewardError, SandboxError):
        raise
    except Exception as error:
        raise EnvironmentFailed(f"{what} raised {type(error).__name__}: {error}") from error


def _checked_score(score: Any) -> float:
    if isinstance(score, numbers.Real) and math.isfinite(score):
        return float(score)
    raise RewardError("verify_and_score_trajectory", f"it gave {score!r}, which is no finite number")


def _tokens(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"tokens": row["tokens"], "masks": row["masks"], "inference_logprobs": row["logprobs"]}
