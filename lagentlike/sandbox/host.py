"""A place with slots, such as a machine or a container, behind one interface."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from .base import ExecutionResult

__all__ = ["HostCall", "SlotHost", "as_they_end"]


class HostCall(NamedTuple):
    """A call of a tool in a slot of a host, by the slot's name there."""

    slot: str
    tool: str
    arguments: Mapping[str, Any]


class SlotHost(ABC):
    """Runs tools in slots that it has by name; `id` is its own name."""

    id: str

    @abstractmethod
    def slots(self) -> dict[str, str]:
        """Its slots by name, each with the path of its workspace as tools see it."""

    @abstractmethod
    def run_batch(self, calls: Sequence[HostCall], timeout_s: float) -> AsyncIterator[tuple[int, ExecutionResult]]:
        """Run calls side by side; `(index, result)` of each as soon as it is there."""

    @abstractmethod
    async def ask(self, slot: str, action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do something with the files of a slot: `artifacts/read`, `artifacts/list` or `artifacts/archive`.

        Raises:
            ArtifactError: it cannot be done.
            SlotLost: the slot is gone.
        """

    @abstractmethod
    async def reset(self, slot: str) -> str:
        """End what runs in a slot and empty its workspace; the name of the clean slot, which may be another one.

        Raises:
            SandboxError: there is no clean slot to be had in place of this one.
        """

    async def alive(self) -> bool:
        """Whether it is still there, as far as can be seen at once."""
        return True

    @abstractmethod
    async def ended(self) -> str:
        """Wait until the host is gone; why it is."""

    @abstractmethod
    async def close(self) -> None:
        """End all slots."""


async def as_they_end(tasks: Sequence[asyncio.Task[ExecutionResult]]) -> AsyncIterator[tuple[int, ExecutionResult]]:
    """The results of tasks with their indices, as they come; who stops asking cancels the others."""
    place = {task: index for index, task in enumerate(tasks)}
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield place[task], task.result()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
