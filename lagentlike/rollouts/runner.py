"""Rollouts: an agent run over many conversations at once, each chain on its own, in sessions of their own."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from ..agents.agent import Agent, AsyncAgent
from ..errors import ColourError, InvalidArgument
from ..schema import AgentMessage
from ..tracing import spans
from ..trajectory import as_parts, FinishReason, text_of, Trajectory
from .environments import entered, EnvironmentPool
from .queries import queries_of, Query
from .result import RunResult
from .rewards import check_reward, score, wants

__all__ = ["Chain", "Plays", "RolloutEvent", "rollout", "stream_rollout"]


@dataclass(frozen=True, slots=True)
class RolloutEvent:
    """Something that happened in a rollout.

    Attributes:
        kind: "start" of a chain, an "answer" of its model, the "results" of its tools, or its "end".
        query, chain: which chain.
        message: the answer or the results.
        trajectories: at the end, one for each agent of the chain.
    """

    kind: Literal["start", "answer", "results", "end"]
    query: int
    chain: int
    message: AgentMessage | None = None
    trajectories: tuple[Trajectory, ...] = ()


@dataclass(slots=True)
class Chain:
    """One chain of a rollout, as the agent that plays it sees it.

    Attributes:
        query, number: which query it is for, and which of that query's chains it is.
        session_id: its session.
        messages: the conversation to go on from, chat messages.
        metadata: what came with it.
        max_turns: most answers of the model; None for the agent's own limit.
        generation_config: generation parameters.
        environment: what it has leased from the rollout's pool, if there is one.
    """

    query: int
    number: int
    session_id: str
    messages: list[dict[str, Any]]
    metadata: dict[str, Any]
    max_turns: int | None = None
    generation_config: dict[str, Any] = field(default_factory=dict)
    environment: Any = None
    on_event: Callable[[RolloutEvent], Any] | None = None

    def tell(
        self,
        kind: Literal["start", "answer", "results", "end"],
        message: AgentMessage | None = None,
        trajectories: tuple[Trajectory, ...] = (),
    ) -> None:
        """Tell whoever watches the rollout."""
        if self.on_event is not None:
            self.on_event(RolloutEvent(kind, self.query, self.number, message, trajectories))


@runtime_checkable
class Plays(Protocol):
    """An agent that plays a chain step by step itself; any other is called once with the last user message."""

    async def play(self, chain: Chain) -> FinishReason:
        """Play a chain to its end in the session `chain.session_id`, and say why it ended."""
        ...


async def rollout(
    agent: AsyncAgent,
    messages: Any,
    *,
    num_chains: int = 1,
    reward: Any = None,
    environment: EnvironmentPool | None = None,
    max_turns: int | None = None,
    generation_config: Mapping[str, Any] | None = None,
    max_concurrency: int = 64,
    timeout: float | None = None,
    reward_timeout: float | None = 60.0,
    strict: bool = False,
    on_event: Callable[[RolloutEvent], Any] | None = None,
) -> RunResult:
    """Run an agent over conversations, several chains for each, and reward what it did.

    Each chain has a session of its own, which is forgotten at its end. A chain that fails (its model, a tool, the
    reward, the environment, a deadline) ends alone, with `finish_reason` and `error`; the others go on. Cancelling the
    rollout cancels every chain and gives back what it held.

    Args:
        agent: any async agent: `HFAgent`, `AsyncReAct`, a workflow of your own.
        messages: one conversation or a list of them; see `queries_of`.
        num_chains: chains for each conversation.
        reward: a function made by `@reward`, a group of them, or the name of a ready one; None for none.
        environment: pool from which each chain leases an environment.
        max_turns: most answers of the model in a chain, for agents that play step by step.
        generation_config: generation parameters, such as `temperature=1.0`.
        max_concurrency: most chains that run at once.
        timeout: seconds that a chain may take, tools included.
        reward_timeout: seconds that the reward of a trajectory may take.
        strict: raise the first failure instead of recording it; the other chains are cancelled.
        on_event: called with each `RolloutEvent`; it must not block.

    Returns:
        The trajectories in the order of queries and chains.

    Raises:
        InvalidArgument: an argument is wrong, or the reward wants what no query has.
        ColourError: the agent is not async.
    """
    queries = queries_of(messages)
    if not isinstance(generation_config, Mapping | None):
        raise InvalidArgument("generation_config", generation_config, "give a dict such as {'temperature': 1.0}")
    settings = _Settings(max_turns, dict(generation_config or {}), timeout, reward, reward_timeout, strict, on_event)
    _check(agent, num_chains, max_concurrency, settings)
    check_reward(reward, [set(query.metadata) for query in queries])
    began = time.perf_counter()
    run = _Run(agent, environment, settings)
    with _training(agent):
        await run.all(queries, num_chains, max_concurrency)
    return RunResult(
        [trajectory for key in sorted(run.done) for trajectory in run.done[key]], time.perf_counter() - began
    )


async def stream_rollout(agent: AsyncAgent, messages: Any, **options: Any) -> AsyncIterator[RolloutEvent]:
    """The events of a rollout as they happen; options as for `rollout`. Leaving the loop early cancels the rollout."""
    events: asyncio.Queue[RolloutEvent | None] = asyncio.Queue()
    task = asyncio.ensure_future(rollout(agent, messages, on_event=events.put_nowait, **options))
    task.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])


@dataclass(slots=True)
class _Settings:
    max_turns: int | None
    generation_config: dict[str, Any]
    timeout: float | None
    reward: Any
    reward_timeout: float | None
    strict: bool
    on_event: Callable[[RolloutEvent], Any] | None


class _Run:
    """One rollout under way."""

    def __init__(self, agent: AsyncAgent, environments: EnvironmentPool | None, settings: _Settings) -> None:
        self.agent = agent
        self.environments = environments
        self.settings = settings
        self.done: dict[tuple[int, int], list[Trajectory]] = {}
        self._name = uuid.uuid4().hex[:12]
        self._looks_at_environment = (
            environments is not None and settings.reward is not None and wants(settings.reward, "environment")
        )

    async def all(self, queries: list[Query], num_chains: int, max_concurrency: int) -> None:
        """Work off all chains, `max_concurrency` of them at once; rewards do not hold their place."""
        waiting = ((index, number, query) for index, query in enumerate(queries) for number in range(num_chains))
        rewarding = asyncio.Semaphore(max_concurrency)

        async def work(group: asyncio.TaskGroup) -> None:
            for index, number, query in waiting:
                chain = self._chain(index, number, query)
                trajectories = await self._play(chain)
                await rewarding.acquire()
                group.create_task(self._finish(chain, trajectories, rewarding))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(max_concurrency, len(queries) * num_chains)):
                    group.create_task(work(group))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def _chain(self, index: int, number: int, query: Query) -> Chain:
        settings = self.settings
        return Chain(
            index,
            number,
            f"rollout-{self._name}-{index}-{number}",
            query.messages,
            query.metadata,
            settings.max_turns,
            settings.generation_config,
            on_event=settings.on_event,
        )

    async def _play(self, chain: Chain) -> list[Trajectory]:
        """Play a chain and read what it did from memory; its session is forgotten."""
        began = time.perf_counter()
        chain.tell("start")
        try:
            return await self._within_limits(chain, began)
        except (Exception, asyncio.CancelledError) as error:
            if _is_cancelled(error) or self.settings.strict:
                raise
            return self._trajectories(chain, _reason_of(error), began, error)
        finally:
            self.agent.reset(chain.session_id, recursive=True)

    async def _within_limits(self, chain: Chain, began: float) -> list[Trajectory]:
        async with asyncio.timeout(self.settings.timeout) as deadline:
            try:
                async with entered(self.environments, chain):
                    if isinstance(self.agent, Plays):
                        reason = await _played(self.agent, chain)
                    else:
                        reason = await _call_once(self.agent, chain)
                    trajectories = self._trajectories(chain, reason, began)
                    if self._looks_at_environment:  # while the chain still has it
                        await self._reward(chain, trajectories)
                    return trajectories
            except TimeoutError as error:
                if not deadline.expired():
                    raise _InnerTimeout(error) from error
                raise

    def _trajectories(
        self, chain: Chain, reason: FinishReason, began: float, failure: BaseException | None = None
    ) -> list[Trajectory]:
        """What a chain did, from memory; what it was asked, if there is nothing."""
        trajectories = self.agent.trajectories(chain.session_id) or [Trajectory(_conversation(chain, failure))]
        for trajectory in trajectories:
            if failure is not None or isinstance(self.agent, Plays):
                trajectory.finish_reason = reason
            trajectory.error = None if failure is None else _told(failure)
            trajectory.query, trajectory.chain = chain.query, chain.number
            trajectory.metadata = dict(chain.metadata)
            trajectory.wall_time = time.perf_counter() - began
        return trajectories

    async def _finish(self, chain: Chain, trajectories: list[Trajectory], rewarding: asyncio.Semaphore) -> None:
        """Reward the trajectories of a chain, and put them where they belong."""
        try:
            if not self._looks_at_environment:
                await self._reward(chain, trajectories)
        finally:
            rewarding.release()
        self.done[chain.query, chain.number] = trajectories
        chain.tell("end", trajectories=tuple(trajectories))

    async def _reward(self, chain: Chain, trajectories: list[Trajectory]) -> None:
        """Score what went well; a reward that fails marks its trajectory, which is never taken for 0."""
        settings = self.settings
        context = {"chain": chain, "environment": chain.environment, "trajectories": trajectories}
        for trajectory in trajectories:
            if settings.reward is None or trajectory.error is not None:
                continue
            try:
                value = await score(settings.reward, trajectory, context, timeout=settings.reward_timeout)
            except (Exception, asyncio.CancelledError) as error:
                if _is_cancelled(error) or settings.strict:
                    raise
                trajectory.finish_reason = "error"
                trajectory.error = f"the reward failed: {_told(error)}"
                continue
            trajectory.reward, trajectory.reward_extras = value.reward, value.extras
            trajectory.step_rewards = value.step_rewards


class _InnerTimeout(Exception):
    """A timeout that was not the chain's own deadline."""


async def _played(agent: Any, chain: Chain) -> FinishReason:
    """Let an agent play a chain, which tracers are told of as of one turn."""
    if not spans.tracers:
        reason: FinishReason = await agent.play(chain)
        return reason
    with spans.begin_turn(agent, chain.session_id, tuple(chain.messages)) as span:
        reason = span.attributes["finish_reason"] = await agent.play(chain)
        return reason


async def _call_once(agent: AsyncAgent, chain: Chain) -> FinishReason:
    """Play a chain of an agent that knows nothing of chains: one call with the user's message."""
    if len(chain.messages) != 1 or chain.messages[0]["role"] != "user":
        raise InvalidArgument(
            "messages", chain.messages, f"{type(agent).__name__} is called with one user message; HFAgent takes any"
        )
    reply = await agent(asked_by(chain.messages[0]), session_id=chain.session_id, **chain.generation_config)
    chain.tell("answer", reply)
    return "terminal"


def asked_by(message: Mapping[str, Any]) -> str | AgentMessage:
    """What an agent is called with for a chat message: its text; with its parts where some are no text."""
    content = message["content"]
    if isinstance(content, str) or all(
        isinstance(part, Mapping) and part.get("type", "text") == "text" for part in content
    ):
        return text_of(message)
    return AgentMessage(content=content)


def _check(agent: Any, num_chains: Any, max_concurrency: Any, settings: _Settings) -> None:
    if not isinstance(agent, AsyncAgent) or agent.colour.is_streaming:
        if isinstance(agent, Agent):
            raise ColourError(
                f"agent={agent.name!r}: a rollout awaits its agent: give the async form of {type(agent).__name__}"
            )
        raise InvalidArgument("agent", agent, "give an async agent, such as HFAgent(…) or AsyncReAct(…)")
    for name, value in (("num_chains", num_chains), ("max_concurrency", max_concurrency)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidArgument(name, value, "give a whole number of at least 1")
    for name in ("timeout", "reward_timeout"):
        value = getattr(settings, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise InvalidArgument(name, value, "give seconds, or None for no limit")
    turns = settings.max_turns
    if turns is not None and (isinstance(turns, bool) or not isinstance(turns, int) or turns < 1):
        raise InvalidArgument("max_turns", turns, "give how often the model may answer, at least 1")
    if turns is not None and not isinstance(agent, Plays):
        raise InvalidArgument("max_turns", turns, f"{type(agent).__name__} has its own limit: set that")


_in_training: dict[int, int] = {}  # how many rollouts are under way on an agent that was not in train() mode


@contextlib.contextmanager
def _training(agent: AsyncAgent) -> Iterator[None]:
    """Keep an agent in `train()` mode, so that models give token ids, as long as any rollout of it needs it."""
    key = id(agent)
    if agent.training and key not in _in_training:
        yield
        return
    agent.train()
    _in_training[key] = _in_training.get(key, 0) + 1
    try:
        yield
    finally:
        _in_training[key] -= 1
        if not _in_training[key]:
            del _in_training[key]
            agent.eval()


def _is_cancelled(error: BaseException) -> bool:
    """Whether this task is cancelled, rather than something inside raised a CancelledError of its own."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _reason_of(error: BaseException) -> FinishReason:
    if isinstance(error, TimeoutError):
        return "timeout"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "error"


def _told(error: BaseException) -> str:
    if isinstance(error, _InnerTimeout):
        error = error.args[0]
    if isinstance(error, TimeoutError) and not str(error):
        return "TimeoutError: the chain passed its deadline"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _conversation(chain: Chain, failure: BaseException | None) -> list[dict[str, Any]]:
    """The messages of a chain whose agent left no memory: what it was asked, and what the error kept."""
    messages = [as_parts(message) for message in chain.messages]
    for produced in getattr(failure, "produced", ()):
        if produced.sender == "user":
            continue
        if produced.tool_results is not None:
            messages += [
                as_parts({"role": "tool", "tool_call_id": one.id, "name": one.name, "content": one.text})
                for one in produced.tool_results
            ]
        else:
            calls = [call.as_openai() for call in produced.tool_calls or ()]
            content = produced.content if isinstance(produced.content, str) else str(produced.content)
            messages.append(as_parts({"role": "assistant", "content": content, "tool_calls": calls}))
    return messages
