"""Calls of many trajectories, each in a lane and a sandbox slot of its own, sent to the backend in batches."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

from ..errors import InvalidArgument, SandboxError, SandboxUnavailable, SlotLost, ToolArgumentsError
from ..schema import ToolCall, ToolResult
from ..tracing import spans
from .base import Artifact, ArtifactEntry, ExecutionResult, MAX_ARTIFACT, Slot, SlotRequest, ToolBackend
from .settings import SandboxSettings
from .tool_server import ToolServerClient
from .tools import arguments_of, POLICY_FIELDS, SANDBOX_TOOLS, Tools, Where

__all__ = ["ToolExecutor"]

logger = logging.getLogger(__name__)


class ToolExecutor:
    """Runs the tool calls of many trajectories.

    A trajectory has a slot from `lease` or `acquire_trajectory` on, or from its first call of a sandbox tool, until it
    is released. Its calls run one after the other; those of different trajectories never wait for each other, but for a
    slot where there are fewer slots than trajectories. Calls that come within `tool_batch_window_ms` go to the backend
    together.

    What a model gets wrong (an unknown tool, arguments that do not fit), what a tool does, and a slot that is lost or
    cannot be had become results with `success=False`. `metadata` tells what no model is to blame for: `lost`, where the
    slot is gone with what was in it, or `unavailable`, where no slot or ToolServer was to be had. `lease` raises.

    Args:
        backend: where the slots are. It is started with this executor if `tools` has some that run in slots, or else
            when a slot is asked for, and stopped with it.
        tools: what may be called, a `ToolRegistry`. Sandbox tools run in slots, those marked external in the ToolServer
            that the settings name, the others in this process.
        config: `SandboxSettings`, or a dict or object with some of their names.

    Raises:
        SandboxUnavailable: the settings want a sandbox (or a stateful one) and the backend is none.
    """

    def __init__(self, backend: ToolBackend, tools: Tools, config: Any = None) -> None:
        self.backend = backend
        self.tools = tools
        self.settings = SandboxSettings.of(config)
        if self.settings.require_sandbox and not backend.isolated:
            raise SandboxUnavailable(f"require_sandbox is set, and the backend {backend.name!r} is no boundary")
        if self.settings.require_stateful_sandbox and not backend.stateful:
            raise SandboxUnavailable(f"require_stateful_sandbox is set, and {backend.name!r} keeps no processes")
        self._lanes: dict[str, _Lane] = {}
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()
        self._server: ToolServerClient | None = None
        self._running = False
        self._has_backend = False
        self._starting = asyncio.Lock()  # of the event loop in which it is started

    async def start(self) -> None:
        """Start what the tools need.

        Raises:
            SandboxUnavailable: the backend cannot work here.
            InvalidArgument: there is a ToolServer, and no token for it.
        """
        self._starting = asyncio.Lock()
        url = self.settings.tool_server_url
        if url is not None and url != IN_PROCESS:
            self._server = ToolServerClient(url, self.settings.tool_server_token)
        self._running = True
        if any(self.tools.where(name) == "sandbox" for name in self.tools.list_tools()):
            await self._start_backend()

    async def close(self) -> None:
        """End what is under way, whose callers get error results, and stop the backend."""
        self._running = False
        for lane in self._lanes.values():
            lane.close("the executor was closed")
        self._lanes.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._server is not None:
            await self._server.close()
        async with self._starting:
            if self._has_backend:
                self._has_backend = False
                await self.backend.stop(purge=self.settings.purge_job_on_shutdown)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def execute(self, trajectory_id: str, call: ToolCall, timeout_s: float | None = None) -> ToolResult:
        """Run a call; the result has the call's id.

        A caller that is cancelled stops waiting. What runs in the slot goes on until its time is up, and the next call
        of the trajectory waits for that; to release the trajectory ends it.

        Args:
            trajectory_id: whose call it is.
            call: the call, as a model made it.
            timeout_s: seconds it may take once it has a slot; what the settings say by default.
        """
        self._check_running()
        if timeout_s is not None and not 0 < timeout_s < math.inf:
            raise InvalidArgument("timeout_s", timeout_s, "give a number of seconds above 0")
        seconds = self.settings.call_seconds if timeout_s is None else timeout_s
        where = self.tools.where(call.name)
        if where == "server" and self.settings.tool_server_url == IN_PROCESS:
            where = "host"
        if not spans.tracers or where == "host":  # what runs here is told of where it runs
            return await self._result(trajectory_id, call, where, seconds, timeout_s)
        with spans.begin_tool(call.name, call.id, call.arguments) as span:
            result = await self._result(trajectory_id, call, where, seconds, timeout_s)
            span.returned(result)
            return result

    async def _result(
        self, trajectory_id: str, call: ToolCall, where: Where | None, seconds: float, timeout_s: float | None
    ) -> ToolResult:
        try:
            arguments = arguments_of(call)
            if where is None:
                raise ToolArgumentsError(f"there is no tool {call.name[:100]!r}: {_known(self.tools.list_tools())}")
            if where == "sandbox":
                tool = SANDBOX_TOOLS[call.name]
                arguments = {name: value for name, value in arguments.items() if name not in POLICY_FIELDS}
                result = await self._in_slot(trajectory_id, call.name, tool.validate(arguments), seconds)
                return _as_tool_result(result, call)
            checked = ToolCall(call.name, arguments, call.raw_text, call.id)
            if where == "host":
                return await self.tools.execute(checked, session_id=trajectory_id, timeout_s=timeout_s)
            return await self._served(trajectory_id, checked, seconds)
        except ToolArgumentsError as error:
            return ToolResult(False, error=str(error), id=call.id, name=call.name)
        except SandboxError as error:
            fault = {"lost" if isinstance(error, SlotLost) else "unavailable": True}
            return ToolResult(False, error=str(error), metadata=fault, id=call.id, name=call.name)

    @asynccontextmanager
    async def lease(self, trajectory_id: str, timeout_s: float | None = None) -> AsyncIterator[Slot]:
        """A slot for a trajectory, given back with its workspace reset, whatever happened.

        Two that have one id share its slot until one of them ends: give each an id of its own.

        Args:
            trajectory_id: whose it will be.
            timeout_s: seconds to wait for it; the settings' `acquire_timeout_s` by default.

        Raises:
            SlotTimeout: none came free in time.
            SandboxError: none can be had.
        """
        try:
            yield await self.acquire_trajectory(trajectory_id, timeout_s)
        finally:
            await asyncio.shield(self.release_trajectory(trajectory_id, reset_workspace=True))

    async def acquire_trajectory(self, trajectory_id: str, timeout_s: float | None = None) -> Slot:
        """The slot of a trajectory, which is leased now, in the order of asking, if it has none; raises as `lease`.

        Raises:
            SlotLost: it has one that cannot be used any more.
        """
        self._check_running()
        lane = self._lanes.setdefault(trajectory_id, _Lane())
        async with lane.turn:
            return await self._leased(trajectory_id, lane, timeout_s)

    async def release_trajectory(self, trajectory_id: str, reset_workspace: bool = False) -> None:
        """Give the slot of a trajectory back; nothing happens if it has none.

        Args:
            trajectory_id: whose slot.
            reset_workspace: end its processes and empty its workspace before others have it; so it is in any case when
                a call is still under way, which ends with an error.
        """
        lane = self._lanes.pop(trajectory_id, None)
        if lane is None:
            return
        busy = lane.close("the trajectory was released")
        if lane.slot is not None:
            slot, lane.slot = lane.slot, None
            await asyncio.shield(self.backend.release(slot, reset_workspace or busy))

    async def read_artifact(self, trajectory_id: str, path: str, max_bytes: int = MAX_ARTIFACT) -> Artifact:
        """A file of a trajectory's workspace; see `ToolBackend.read_artifact` for what is raised."""
        return await self.backend.read_artifact(await self.acquire_trajectory(trajectory_id), path, max_bytes)

    async def list_artifacts(self, trajectory_id: str, path: str = ".", recursive: bool = False) -> list[ArtifactEntry]:
        """What a trajectory's workspace holds; see `ToolBackend.list_artifacts` for what is raised."""
        return await self.backend.list_artifacts(await self.acquire_trajectory(trajectory_id), path, recursive)

    async def archive_artifacts(self, trajectory_id: str, path: str = ".") -> bytes:
        """A trajectory's workspace as a gzipped tar file; see `ToolBackend.archive_artifacts` for what is raised."""
        return await self.backend.archive_artifacts(await self.acquire_trajectory(trajectory_id), path)

    def get_stats(self) -> dict[str, Any]:
        """What was done: `calls`, `batches`, `largest_batch`, `trajectories`, and the backend's own under `backend`."""
        counts = {name: self._counts[name] for name in ("calls", "batches", "largest_batch")}
        return {**counts, "trajectories": len(self._lanes), "backend": self.backend.get_stats()}

    # In the sandbox

    async def _in_slot(
        self, trajectory_id: str, tool: str, arguments: dict[str, Any], seconds: float
    ) -> ExecutionResult:
        lane = self._lanes.setdefault(trajectory_id, _Lane())
        async with lane.turn:
            slot = await self._leased(trajectory_id, lane)
            answer: asyncio.Future[ExecutionResult] = asyncio.get_running_loop().create_future()
            lane.running = answer
            waiting = _Waiting(SlotRequest(slot, tool, arguments), seconds, answer)
            self._enqueue(waiting)
            try:
                return await asyncio.shield(answer)
            except asyncio.CancelledError:
                if waiting in self._waiting:  # it was not sent, and need not be
                    self._waiting.remove(waiting)
                    answer.cancel()
                raise

    async def _leased(self, trajectory_id: str, lane: _Lane, timeout_s: float | None = None) -> Slot:
        """The slot of a lane, once its last call has ended."""
        if lane.running is not None:
            await asyncio.wait([lane.running])
        lane.check()
        if lane.slot is None:
            await self._start_backend()
            slot = await self.backend.acquire(trajectory_id, timeout_s)
            if lane.closed:
                await asyncio.shield(self.backend.release(slot))
            lane.check()
            lane.slot = slot
        lane.slot.check()
        return lane.slot

    async def _start_backend(self) -> None:
        async with self._starting:
            if not self._has_backend:
                self._check_running()
                await self.backend.start()
                self._has_backend = True

    def _enqueue(self, waiting: _Waiting) -> None:
        self._counts["calls"] += 1
        self._waiting.append(waiting)
        if len(self._waiting) >= self.settings.tool_max_batch_size:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.settings.tool_batch_window_ms / 1000, self._flush)

    def _flush(self) -> None:
        """Send what waits, one batch for each time limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for seconds in dict.fromkeys(one.seconds for one in waiting):
            batch = [one for one in waiting if one.seconds == seconds and not one.answer.done()]
            if batch:
                task = asyncio.get_running_loop().create_task(self._send(batch, seconds))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _send(self, batch: list[_Waiting], seconds: float) -> None:
        self._counts["batches"] += 1
        self._counts["largest_batch"] = max(self._counts["largest_batch"], len(batch))
        fault = "the backend gave no result"
        try:
            stream = self.backend.run_batch([one.request for one in batch], seconds)
            async with aclosing(stream) as arriving:  # type: ignore[type-var]
                async for index, result in arriving:
                    batch[index].give(result)
        except SandboxError as error:
            fault = str(error)
        except Exception as error:  # whatever it is, nobody may wait for ever
            logger.exception("a batch of %d calls failed", len(batch))
            fault = f"the sandbox failed: {type(error).__name__}"
        finally:
            for one in batch:
                one.give(ExecutionResult.unavailable(fault))

    # Elsewhere

    async def _served(self, trajectory_id: str, call: ToolCall, seconds: float) -> ToolResult:
        if self._server is None:
            raise ToolArgumentsError(f"{call.name} runs in a ToolServer, and there is none: set tool_server_url")
        return await self._server.execute(call, trajectory_id, seconds)

    def _check_running(self) -> None:
        if not self._running:
            raise SandboxError("the executor is not running: await start(), or use async with")


IN_PROCESS = "inprocess"
"""The `tool_server_url` of tools that run in this process."""


@dataclass(eq=False)
class _Lane:
    """The calls of one trajectory: one at a time, in one slot."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    slot: Slot | None = None
    running: asyncio.Future[ExecutionResult] | None = None
    closed: str = ""

    def check(self) -> None:
        if self.closed:
            raise SandboxError(self.closed)

    def close(self, why: str) -> bool:
        """Let no more calls in; whether one was under way, which ends with an error."""
        self.closed = why
        if self.running is None or self.running.done():
            return False
        self.running.set_result(ExecutionResult.unavailable(why))
        return True


class _Waiting(NamedTuple):
    """A call that is to be sent."""

    request: SlotRequest
    seconds: float
    answer: asyncio.Future[ExecutionResult]

    def give(self, result: ExecutionResult) -> None:
        if not self.answer.done():
            self.answer.set_result(result)


def _as_tool_result(result: ExecutionResult, call: ToolCall) -> ToolResult:
    metadata = dict(result.metadata)
    if result.exit_code is not None:
        metadata["exit_code"] = result.exit_code
    for name in ("timed_out", "lost"):
        if getattr(result, name):
            metadata[name] = True
    return ToolResult(result.success, result.output, result.error, metadata, call.id, call.name)


def _known(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"the tools are {listed}" if listed else "there are no tools"
