"""The sandboxes of an environment: a slot for each try, had when it is first needed and given back in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from ..errors import EnvironmentFailed
from ..sandbox.backends import create_tool_backend
from ..sandbox.executor import ToolExecutor
from ..sandbox.settings import SandboxSettings
from ..sandbox.tools import SANDBOX_TOOLS
from ..schema import ToolCall, ToolResult
from ..tools import ToolRegistry

__all__ = ["ExecTool", "Sandboxes"]


class ExecTool(Protocol):
    """Runs a tool call of one try, for `timeout_s` seconds at most."""

    def __call__(self, call: ToolCall, timeout_s: float | None = None) -> Awaitable[ToolResult]: ...


class Sandboxes:
    """Runs the tools of tries, each try in a slot of its own.

    No more tries are under way than there are slots, so that none waits in vain for one.

    Args:
        settings: what sandboxes there are.
        tools: what models are offered.
    """

    def __init__(self, settings: SandboxSettings, tools: ToolRegistry) -> None:
        self._settings = settings
        self._tools = tools
        self._executor: ToolExecutor | None = None
        self._begin()

    async def start(self) -> None:
        """Start them, if the tools that models are offered need some.

        Raises:
            SandboxUnavailable: there are none here.
        """
        self._begin()
        if any(self._tools.where(name) != "host" for name in self._tools.list_tools()):
            await self._started()

    def _begin(self) -> None:
        """What belongs to one event loop; there may be another one the next time."""
        self._starting = asyncio.Lock()
        self._places = asyncio.Semaphore(_slots(self._settings))

    async def close(self) -> None:
        """End them."""
        executor, self._executor = self._executor, None
        if executor is not None:
            await executor.close()

    @asynccontextmanager
    async def place(self, trajectory_id: str) -> AsyncIterator[tuple[ExecTool, ExecTool]]:
        """What runs the calls of a model in the slot of a try, and what runs any; the slot is reset in the end."""
        async with self._places:
            try:
                yield self.exec_tool(trajectory_id, of_model=True), self.exec_tool(trajectory_id, of_model=False)
            finally:
                if self._executor is not None:
                    await asyncio.shield(self._executor.release_trajectory(trajectory_id, reset_workspace=True))

    def exec_tool(self, trajectory_id: str, of_model: bool) -> ExecTool:
        """What runs tool calls in the slot of a try.

        Args:
            trajectory_id: which try.
            of_model: whether only the tools that models are offered are there; else those of the sandbox are, too.
        """

        async def execute(call: ToolCall, timeout_s: float | None = None) -> ToolResult:
            where = self._tools.where(call.name)
            if where == "host" or (where is None and (of_model or call.name not in SANDBOX_TOOLS)):
                return await self._tools.execute(call, session_id=trajectory_id, timeout_s=timeout_s)
            executor = await self._started()
            if where != "server":
                await executor.acquire_trajectory(trajectory_id)  # a slot that cannot be had is no fault of the model's
            result = await executor.execute(trajectory_id, call, timeout_s)
            if result.metadata.get("lost"):
                raise EnvironmentFailed(f"the sandbox of a try is gone: {result.error}")
            if result.metadata.get("unavailable"):
                raise EnvironmentFailed(f"{call.name} cannot be had: {result.error}")
            return result

        return execute

    async def _started(self) -> ToolExecutor:
        async with self._starting:
            if self._executor is None:
                executor = ToolExecutor(create_tool_backend(self._settings), _AllTools(self._tools), self._settings)
                await executor.start()
                self._executor = executor
            return self._executor


class _AllTools:
    """Tools that models are offered, and all those of the sandbox."""

    def __init__(self, tools: ToolRegistry) -> None:
        self._tools = tools
        self.list_tools = tools.list_tools
        self.get_schemas = tools.get_schemas
        self.execute = tools.execute

    def where(self, name: str) -> Literal["sandbox", "host", "server"] | None:
        return self._tools.where(name) or ("sandbox" if name in SANDBOX_TOOLS else None)


def _slots(settings: SandboxSettings) -> int:
    """How many slots there are when all are made."""
    if settings.tool_pool_mode == "modal":
        return settings.modal_slots_per_sandbox * settings.modal_max_sandboxes
    return settings.slots_per_container * settings.max_containers
