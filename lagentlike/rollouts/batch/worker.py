"""A worker: runs an agent on the samples that come through a pipe, many at once, and sends back what it did."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ...actions.workers import submit_from_loop
from ...agents.agent import Agent
from ...agents.recording import record_of
from ...errors import AuthenticationFailed, InvalidArgument, RequestRefused
from ...records import ConversationRecord, to_trajectory
from ...records.encoding import decoded, encoded
from ...records.files import sharegpt_line
from ...schema import AgentMessage
from ..rewards import score
from ..runner import asked_by, Chain
from .statistics import summary_of

__all__ = ["LINES", "STOPPING", "WorkerSettings", "work"]

LINES = 3
"""Lines of a result: what it is, its record, its ShareGPT form; the last two are empty for a failure."""

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a run."""

_WITHOUT_PROMPT = ("prompt", "messages")


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told when it starts."""

    batch_size: int
    reward: Any
    reward_timeout: float | None
    timeout: float | None
    keep_tokens: bool


def work(connection: Connection, source: Any, settings: WorkerSettings, own_process: bool) -> None:
    """Run samples until the pipe says `cancel`, or is closed; after `drain` none is begun.

    Args:
        connection: lists of samples come in, results go out.
        source: an agent, or what is called to get one.
        settings: what all samples have in common.
        own_process: whether this process is for nothing else.
    """
    if own_process:
        for number in STOPPING:  # they reach the whole group: the runner decides
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    with contextlib.closing(connection):
        asyncio.run(_Worker(connection, source, settings, own_process).serve())


class _Worker:
    def __init__(self, connection: Connection, source: Any, settings: WorkerSettings, own_process: bool) -> None:
        self._connection = connection
        self._source = source
        self._settings = settings
        self._own_process = own_process
        self._agent_of: Callable[[str], Agent]
        self._out: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._told: list[bytes] = []  # what goes out together
        self._waiting: deque[dict[str, Any]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = self._ending = False
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        sender = threading.Thread(target=self._send, name="lagentlike-batch-send", daemon=True)
        sender.start()
        try:
            self._agent_of = _agents(self._source, self._settings)
        except Exception as error:  # noqa: BLE001  # the runner tells it
            self._tell({"fatal": _told(error)})
        else:
            self._tell({"ready": True})
            if self._own_process:
                _collect_less_often()
            reader = threading.Thread(
                target=self._receive, args=(loop,), name="lagentlike-batch-receive", daemon=True
            )  # fmt: skip
            reader.start()
            await self._ended.wait()
        self._flush()
        self._out.put(None)
        await asyncio.to_thread(sender.join)

    def _begin(self) -> None:
        """Run as many samples as may run at once."""
        while self._waiting and len(self._running) < self._settings.batch_size:
            running = asyncio.create_task(self._sample(self._waiting.popleft()))
            self._running.add(running)
            running.add_done_callback(self._go_on)

    def _go_on(self, done: asyncio.Task[None]) -> None:
        self._running.discard(done)
        self._begin()
        if self._ending and not self._running:
            self._ended.set()

    async def _sample(self, task: dict[str, Any]) -> None:
        key = task["key"]
        try:
            async with asyncio.timeout(self._settings.timeout):
                record, reward = await self._made(self._agent_of(key), task)
            summary = record.metadata["summary"] = summary_of(record, reward)
            self._tell({"key": key, "summary": summary}, record.to_line(), sharegpt_line(record))
        except asyncio.CancelledError:
            if _is_cancelled():
                self._tell({"key": key, "given_up": True})
            else:
                self._fail(key, RuntimeError("the agent was cancelled from inside"))
        except AuthenticationFailed as error:
            self._tell({"fatal": _told(error)})
        except Exception as error:  # noqa: BLE001  # a failure is a result: the others go on
            self._fail(key, error)

    def _fail(self, key: str, error: Exception) -> None:
        hopeless = isinstance(error, RequestRefused | InvalidArgument)
        self._tell({"key": key, "error": _told(error), "hopeless": hopeless})

    async def _made(self, agent: Agent, task: dict[str, Any]) -> tuple[ConversationRecord, float | None]:
        """Run a sample and make its record."""
        key, row = task["key"], task["row"]
        carried = {name: value for name, value in row.items() if name not in _WITHOUT_PROMPT}
        metadata = {"row": task["number"], "sample": task["sample"], "input": carried}
        began = time.time()
        try:
            reply = await _reply(agent, row, key)
            record = record_of(
                agent, key, reply, id=key, started_at=began, ended_at=time.time(), metadata=metadata
            )  # fmt: skip
        finally:
            agent.reset(key, recursive=True)
        reward = None
        if self._settings.reward is not None:
            trajectory = to_trajectory(record, metadata=carried)
            scored = await score(self._settings.reward, trajectory, timeout=self._settings.reward_timeout)
            reward = scored.reward
            record.metadata["reward"] = {"reward": reward, "extras": scored.extras}
        return record, reward

    # The pipe

    def _tell(self, head: dict[str, Any], record: bytes = b"", derived: bytes = b"") -> None:
        if not self._told:  # one wake-up of the other thread for all that is told in a round of the loop
            asyncio.get_running_loop().call_soon(self._flush)
        self._told.append(b"%b\n%b\n%b" % (encoded(head), record, derived))

    def _flush(self) -> None:
        told, self._told = self._told, []
        if told:
            self._out.put(told)

    def _send(self) -> None:
        """Send what was told."""
        while (told := self._out.get()) is not None:
            try:
                self._connection.send_bytes(b"\n".join(told))
            except OSError:
                self._abandon()
                return

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while True:
                given = decoded(self._connection.recv_bytes())
                loop.call_soon_threadsafe(self._take, given)
                if given == "cancel":
                    return
        except (EOFError, OSError):
            self._abandon()
            with contextlib.suppress(RuntimeError):  # the loop is over already
                loop.call_soon_threadsafe(self._take, "cancel")

    def _abandon(self) -> None:
        """The runner is gone: nobody wants the results."""
        if self._own_process:
            os._exit(1)

    def _take(self, given: Any) -> None:
        if isinstance(given, list):
            self._waiting += given
        else:
            self._stopped = True
        if self._stopped:
            for task in self._waiting:
                self._tell({"key": task["key"], "given_up": True})
            self._waiting.clear()
        self._begin()
        if given == "cancel":
            self._ending = True
            for running in self._running:
                running.cancel()
            if not self._running:
                self._ended.set()


def _collect_less_often() -> None:
    """Have the collector look at new objects less often, and never again at what is there before the first sample.

    Hundreds of samples under way are many objects that live for a while; it found no garbage among them, and took a
    sixth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _reply(agent: Agent, row: Mapping[str, Any], key: str) -> AgentMessage | None:
    """Run an agent of any colour on a row in the session `key`."""
    messages = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
    if hasattr(agent, "play"):  # it `Plays`, which is slow to ask
        carried = {name: value for name, value in row.items() if name not in _WITHOUT_PROMPT}
        await agent.play(Chain(0, 0, key, messages, carried))
        return None
    content = asked_by(messages[-1])
    if len(messages) == 1:
        reply: AgentMessage | None = await _called(agent, agent, content, session_id=key)
        return reply
    if not hasattr(agent, "run_conversation"):
        raise InvalidArgument(
            "messages",
            messages,
            f"{type(agent).__name__} takes one user message; AIAgent and HFAgent take any",
        )
    told = await _called(agent, agent.run_conversation, content, conversation_history=messages[:-1], task_id=key)
    if told["finish_reason"] == "error":
        raise RuntimeError(told["detail"])
    return AgentMessage(content=told["final_response"], finish_reason=told["finish_reason"])


async def _called(agent: Agent, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function of an agent gives: awaited, or run in a thread; of a stream, the last message."""
    if agent.colour.is_async:
        made = function(*args, **kwargs)
        if hasattr(made, "__aiter__"):
            last = None
            async for last in made:  # noqa: B007  # the last one is what is wanted
                continue
            return last
        return await made
    return await submit_from_loop(_last, function, args, kwargs)


def _last(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    made = function(*args, **kwargs)
    if not hasattr(made, "__next__"):
        return made
    last = None
    for last in made:  # noqa: B007  # the last one is what is wanted
        continue
    return last


def _agents(source: Any, settings: WorkerSettings) -> Callable[[str], Agent]:
    """What gives the agent of a sample."""
    made = source if isinstance(source, Agent) else source()

    def prepared(agent: Any) -> Agent:
        if not isinstance(agent, Agent):
            raise InvalidArgument("agent", agent, "give an agent, or a function that makes one")
        if settings.keep_tokens and not agent.training:
            agent.train()
        return agent

    if callable(made) and not isinstance(made, Agent):
        return lambda key: prepared(made(key))
    agent = prepared(made)
    return lambda _: agent


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _told(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "TimeoutError: the sample took longer than its time limit"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
