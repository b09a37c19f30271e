"""Slots on this machine."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, InvalidArgument, SandboxError, SlotLost
from .base import ExecutionResult
from .bubblewrap import Bwrap
from .folders import OwnedFolder, remove_tree
from .host import as_they_end, HostCall, SlotHost
from .isolation import Isolation, isolation_of, SCRATCH
from .limits import Limits, MIB
from .pooled import PooledBackend
from .settings import SandboxSettings
from .slot_process import SlotProcess

__all__ = ["BwrapBackend", "LocalBackend", "MachineHost"]

logger = logging.getLogger(__name__)


class MachineHost(SlotHost):
    """Slots on this machine: each a workspace and, from its first call on, an isolated process of its own.

    In bubblewrap a workspace is in memory, and full at half of what the slot may have of it, unless `root` is given.
    Elsewhere it is a directory.

    Args:
        isolation: how the processes are held back from the machine and from each other.
        count: how many slots there are.
        limits: how much of the machine each may use; the isolation's by default.
        root: a directory, made if it is missing, for those of the slots; the system's one for such things by default.
        env: environment variables that tools get in addition.

    Raises:
        InvalidArgument: there are to be no slots.
    """

    id = "machine"

    def __init__(
        self,
        isolation: Isolation,
        count: int,
        limits: Limits | None = None,
        *,
        root: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidArgument("count", count, "give how many slots there are, at least 1")
        self.isolation = isolation
        self._limits = isolation.limits if limits is None else limits
        self._env = dict(env or {})
        if root is not None:
            root.mkdir(parents=True, exist_ok=True)
        in_memory = root is None and isinstance(isolation, Bwrap)
        self._root = None if in_memory else OwnedFolder("slots", root, 0o711)  # a slot's user must get through
        self._made = 0
        self._slots: dict[str, _Place] = {}
        self._cleaning: set[asyncio.Task[None]] = set()
        for _ in range(count):
            self._add()

    def slots(self) -> dict[str, str]:
        return {name: place.workspace for name, place in self._slots.items()}

    async def run_batch(
        self, calls: Sequence[HostCall], timeout_s: float
    ) -> AsyncIterator[tuple[int, ExecutionResult]]:
        tasks = [asyncio.create_task(self.run(*call, timeout_s)) for call in calls]
        async with aclosing(as_they_end(tasks)) as arriving:  # type: ignore[type-var]
            async for arrived in arriving:
                yield arrived

    async def run(self, slot: str, tool: str, arguments: Mapping[str, Any], timeout_s: float) -> ExecutionResult:
        """Run one tool in a slot."""
        try:
            process = await self._process(slot)
            reply = await process.run(tool, arguments, timeout_s)
            try:
                return ExecutionResult.read(reply)
            except SandboxError as error:
                process.kill(str(error))
                return ExecutionResult.slot_lost(str(error))
        except (SandboxError, OSError) as error:
            return ExecutionResult.slot_lost(str(error))

    async def ask(self, slot: str, action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        process = await self._process(slot)
        reply = await process.run(action, arguments, ASK_SECONDS)
        if reply.get("success") is not True:
            raise ArtifactError(str(reply.get("error", ""))[:1000] or "the file cannot be given out")
        return reply

    async def reset(self, slot: str) -> str:
        place = self._slots.pop(slot, None)
        if place is None:
            raise SlotLost(f"there is no slot {slot!r}")
        cleaning = asyncio.create_task(self._clean(slot, place))
        self._cleaning.add(cleaning)
        cleaning.add_done_callback(self._cleaning.discard)
        await asyncio.shield(cleaning)  # whoever asked for it may leave
        return self._add()

    async def ended(self) -> str:
        await asyncio.Event().wait()
        return "this machine stays"

    async def close(self) -> None:
        places, self._slots = list(self._slots.values()), {}
        outcomes = await asyncio.gather(*self._cleaning, *(place.close() for place in places), return_exceptions=True)
        if self._root is not None:
            await asyncio.to_thread(self._root.remove)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _clean(self, slot: str, place: _Place) -> None:
        try:
            await place.close()
            if place.folder is not None:
                await asyncio.to_thread(remove_tree, place.folder)
        except (SandboxError, OSError) as error:
            logger.warning("%s cannot be cleaned and is never used again: %s", slot, error)

    def _add(self) -> str:
        """One more slot, with a name and a directory that no other one had."""
        self._made += 1
        name = f"slot-{self._made}"
        self._slots[name] = _Place(None if self._root is None else self._root.path / name)
        return name

    async def _process(self, slot: str) -> SlotProcess:
        place = self._slots.get(slot)
        if place is None:
            raise SlotLost(f"there is no slot {slot!r}")
        return await place.process(self.isolation, self._limits, self._env)


ASK_SECONDS = 60.0
"""How long it may take to read files of a slot."""


class _Place:
    """The directory of a slot, if it has one, and its process, which is started once."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._starting: asyncio.Task[SlotProcess] | None = None

    @property
    def workspace(self) -> str:
        return SCRATCH if self.folder is None else str(self.folder / "workspace")

    async def process(self, isolation: Isolation, limits: Limits, env: Mapping[str, str]) -> SlotProcess:
        if self._starting is None:
            if self.folder is not None:
                self.folder.mkdir(mode=0o711)
            self._starting = asyncio.create_task(SlotProcess.start(isolation, self.folder, limits, env))
        return await asyncio.shield(self._starting)

    async def close(self) -> None:
        if self._starting is None:
            return
        try:
            process = await self._starting
        except (SandboxError, OSError):  # it never ran
            return
        await process.close()


class _MachineBackend(PooledBackend):
    """Slots on this machine, which has as many as all containers would have."""

    isolation_name: str

    def __init__(self, settings: Any = None) -> None:
        super().__init__(SandboxSettings.of(settings), 1, 1)
        self.stateful = shutil.which("tmux") is not None

    async def _launch(self) -> SlotHost:
        settings = self.settings
        isolation = isolation_of(self.isolation_name)
        await asyncio.to_thread(isolation.check)
        memory = settings.memory_mb * MIB
        limits = Limits(
            memory=memory,
            disk=memory // 2,
            processes=settings.max_processes,
            output=settings.max_output_bytes,
            network=settings.allow_network,
        )
        return MachineHost(isolation, settings.slots_per_container * settings.max_containers, limits)


class BwrapBackend(_MachineBackend):
    """Slots on this machine, each in bubblewrap.

    Args:
        settings: `SandboxSettings`, or a dict or object with some of their names.
    """

    name = "bwrap"
    isolation_name = "bwrap"


class LocalBackend(_MachineBackend):
    """Slots on this machine that are no boundary at all: what runs there has the rights of this process.

    Args:
        settings: `SandboxSettings`, or a dict or object with some of their names.
    """

    name = "local"
    isolated = False
    isolation_name = "unsafe_local"

    async def _open(self) -> None:
        logger.warning("the sandbox backend 'local' is no boundary: commands run with the rights of this process")
