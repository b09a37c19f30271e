"""A backend whose slots are in hosts that come and go."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ..errors import ArtifactError, InvalidArgument, SandboxError, SlotLost
from .base import Artifact, ArtifactEntry, ExecutionResult, MAX_ARTIFACT, Slot, SlotRequest, ToolBackend
from .host import HostCall, SlotHost
from .settings import SandboxSettings
from .slots import SlotPool

__all__ = ["PooledBackend"]

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""How long after a host could not be made the next one is tried, if somebody waits."""

MAX_PATH = 4096
"""Longest path that Linux takes, in bytes."""


class PooledBackend(ToolBackend):
    """Leases the slots of its hosts, makes more hosts when somebody waits, and replaces those that end.

    A subclass says how a host is made (`_launch`) and what has to be done for all of them (`_open`, `_close`). A slot
    that is given back without being reset is kept for its trajectory until somebody else needs it, who gets it clean.

    Args:
        settings: what the pool is like.
        least, most: how many hosts there are.
        idle_s: seconds after which a host that nobody uses is ended, where there are more than the least.
    """

    def __init__(self, settings: SandboxSettings, least: int, most: int, idle_s: float = math.inf) -> None:
        self.settings = settings
        self._least = least
        self._most = most
        self._idle_s = idle_s
        self._hosts: dict[str, SlotHost] = {}
        self._places: dict[Slot, str] = {}  # the name of each slot at its host
        self._kept: dict[str, Slot] = {}  # by the trajectory that had it, oldest first
        self._pool = SlotPool(self._wanted)
        self._launching = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._working: dict[str, set[asyncio.Task[None]]] = {}  # by host
        self._ending: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()
        self._running = False

    @abstractmethod
    async def _launch(self) -> SlotHost:
        """Make one more host.

        Raises:
            SandboxError: it cannot be made.
        """

    def _may_end(self, host: SlotHost) -> bool:
        """Whether a host that nobody uses can be ended without harm to others."""
        return True

    async def _open(self) -> None:
        """Get ready to make hosts."""

    async def _close(self, purge: bool) -> None:
        """Leave nothing behind, when all hosts are closed."""

    async def start(self) -> None:
        if self._running:
            raise SandboxError("the backend is running already")
        self._pool = SlotPool(self._wanted)
        await self._open()
        self._running = True
        try:  # all of them end, so that none is left behind when one fails
            self._launching = self._least
            outcomes = await asyncio.gather(*(self._grow() for _ in range(self._least)), return_exceptions=True)
            failed = next((outcome for outcome in outcomes if outcome is not None), None)
            if failed is not None:
                raise failed
        except BaseException:
            await self.stop()
            raise
        if self._idle_s < math.inf:
            self._spawn(self._shrink())

    async def stop(self, purge: bool = False) -> None:
        self._running = False
        self._pool.close("the sandbox backend was stopped")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        hosts, self._hosts = list(self._hosts.values()), {}
        self._places.clear()
        self._kept.clear()
        await asyncio.gather(*(self._undone(host.close()) for host in hosts))
        if self._ending:  # for somebody who gave up
            await asyncio.wait(self._ending)
        await self._close(purge)

    async def acquire(self, trajectory_id: str, timeout_s: float | None = None) -> Slot:
        if not self._running:
            raise SandboxError("the sandbox backend is not running: await start(), or use async with")
        held = self._pool.held_by(trajectory_id)
        if held is not None:
            return held
        kept = self._kept.pop(trajectory_id, None)
        if kept is not None and not kept.lost:
            self._pool.take(kept, trajectory_id)
            return kept
        patience = self._patience() if timeout_s is None else timeout_s
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            slot = await self._pool.lease(trajectory_id, max(deadline - asyncio.get_running_loop().time(), 0))
            host = self._hosts.get(slot.container)
            try:
                alive = host is not None and await host.alive()
            except asyncio.CancelledError:
                self._pool.give_back(slot)
                self._pool.add(slot)
                raise
            if alive:
                return slot
            self._pool.give_back(slot)
            if host is not None:
                await self._drop(host, "it does not answer any more")

    async def release(self, slot: Slot, reset_workspace: bool = False) -> None:
        trajectory_id = slot.trajectory_id
        if not self._pool.give_back(slot) or not self._running:
            return
        if reset_workspace or slot.lost or self._pool.waiting or trajectory_id is None:
            renewing = self._spawn(self._renew(slot))
            await asyncio.wait([renewing])  # which goes on if this is cancelled
        else:
            self._kept[trajectory_id] = slot

    async def run_batch(
        self, requests: Sequence[SlotRequest], timeout_s: float
    ) -> AsyncIterator[tuple[int, ExecutionResult]]:
        self._counts["batches"] += 1
        self._counts["calls"] += len(requests)
        by_host: dict[str, dict[int, SlotRequest]] = {}
        for index, request in enumerate(requests):
            if request.slot.lost or request.slot not in self._places:
                yield index, ExecutionResult.slot_lost(request.slot.lost or "the slot was given back")
            else:
                by_host.setdefault(request.slot.container, {})[index] = request
        arrived: asyncio.Queue[tuple[int, ExecutionResult]] = asyncio.Queue()
        count = sum(map(len, by_host.values()))
        tasks = {host: self._run_on(host, missing, timeout_s, arrived) for host, missing in by_host.items()}
        try:
            for _ in range(count):
                yield await arrived.get()
        finally:
            for host, task in tasks.items():
                task.cancel()
                self._working.get(host, set()).discard(task)
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def read_artifact(self, slot: Slot, path: str, max_bytes: int = MAX_ARTIFACT) -> Artifact:
        if max_bytes < 0:
            raise InvalidArgument("max_bytes", max_bytes, "give a number of bytes, 0 or more")
        reply = await self._ask(slot, "artifacts/read", {"path": path, "max_bytes": min(max_bytes, MAX_ARTIFACT)})
        content, size = _content(reply), reply.get("size")
        if not isinstance(size, int) or len(content) > max_bytes:
            raise SlotLost("the sandbox answered with what is no artifact")
        return Artifact(path, content, max(size, len(content)))

    async def list_artifacts(self, slot: Slot, path: str = ".", recursive: bool = False) -> list[ArtifactEntry]:
        reply = await self._ask(slot, "artifacts/list", {"path": path, "recursive": recursive})
        try:
            return [
                ArtifactEntry(str(name), str(kind), int(size), float(at)) for name, kind, size, at in reply["entries"]
            ]
        except (KeyError, TypeError, ValueError):
            raise SlotLost("the sandbox answered with what is no list of artifacts") from None

    async def archive_artifacts(self, slot: Slot, path: str = ".") -> bytes:
        return _content(await self._ask(slot, "artifacts/archive", {"path": path, "max_bytes": MAX_ARTIFACT}))

    def get_stats(self) -> dict[str, Any]:
        """`containers`, `slots` by state, how many are `waiting`, and counts: `calls`, `batches`, `resets`, `lost`."""
        counts = {name: self._counts[name] for name in ("calls", "batches", "resets", "lost")}
        slots = {"free": self._pool.free, "kept": len(self._kept), "leased": self._pool.leased}
        return {
            "backend": self.name,
            "containers": len(self._hosts),
            "slots": slots,
            "waiting": self._pool.waiting,
            **counts,
        }

    def _run_on(
        self,
        host_id: str,
        missing: dict[int, SlotRequest],
        timeout_s: float,
        arrived: asyncio.Queue[tuple[int, ExecutionResult]],
    ) -> asyncio.Task[None]:
        """Run what is for one host; each request gets its result, also when the host ends before it has begun."""

        async def run() -> None:
            indices = list(missing)
            calls = [HostCall(self._places[slot], tool, arguments) for slot, tool, arguments in missing.values()]
            stream = self._hosts[host_id].run_batch(calls, timeout_s)
            async with aclosing(stream) as arriving:  # type: ignore[type-var]
                async for place, result in arriving:
                    request = missing.pop(indices[place], None)
                    if request is None:
                        raise SandboxError("the sandbox answered one request twice")
                    if result.lost:
                        self._lost(request.slot, result.error)
                    arrived.put_nowait((indices[place], result))

        def settle(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            fault = str(error) if isinstance(error, SandboxError) else "the sandbox gave no result"
            lost = isinstance(error, SlotLost) or not isinstance(error, SandboxError)
            for index, request in missing.items():
                if lost:
                    self._lost(request.slot, fault)
                result = ExecutionResult.slot_lost(request.slot.lost) if lost else ExecutionResult.unavailable(fault)
                arrived.put_nowait((index, result))

        task = self._spawn(run())
        task.add_done_callback(settle)
        self._working.setdefault(host_id, set()).add(task)
        return task

    async def _ask(self, slot: Slot, action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        slot.check()
        if slot not in self._places:
            raise SlotLost("the slot was given back")
        _check_path(arguments["path"])
        try:
            return await self._hosts[slot.container].ask(self._places[slot], action, arguments)
        except SlotLost as error:
            self._lost(slot, str(error))
            raise

    def _lost(self, slot: Slot, why: str) -> None:
        if not slot.lost:
            slot.lost = why
            self._counts["lost"] += 1

    # Slots that come and go

    async def _renew(self, slot: Slot) -> None:
        """Take a slot out, and bring the clean one that takes its place."""
        name = self._places.pop(slot, None)
        host = self._hosts.get(slot.container)
        if host is not None and name is not None:
            self._counts["resets"] += 1
            try:
                self._take_in(host, await host.reset(name))
                return
            except SandboxError as error:
                logger.warning("the slot %s is thrown away: %s", slot.id, error)
            if not any(other.container == host.id for other in self._places):
                await self._drop(host, "none of its slots can be used")
        self._wanted()

    def _take_in(self, host: SlotHost, name: str) -> None:
        slot = Slot(f"{host.id}/{name}", host.id, host.slots()[name])
        self._places[slot] = name
        self._pool.add(slot)

    def _wanted(self) -> None:
        """Somebody waits: clean a slot that is kept for one who may not come again, or make another host."""
        if not self._running or not self._pool.waiting:
            return
        if self._kept:
            slot = self._kept.pop(next(iter(self._kept)))
            self._spawn(self._renew(slot))
            return
        each = max((len(host.slots()) for host in self._hosts.values()), default=1)
        if len(self._hosts) + self._launching < self._most and self._pool.waiting > self._launching * each:
            self._launching += 1
            self._spawn(self._grow_or_tell())

    async def _grow_or_tell(self) -> None:
        """One more host; if there is none at all, who waits is told why."""
        try:
            await self._grow()
        except SandboxError as error:
            logger.warning("no more sandboxes can be made: %s", error)
            if not self._hosts and not self._launching:
                self._pool.fail_waiting(error)
            await asyncio.sleep(RETRY_SECONDS)
        self._wanted()

    async def _grow(self) -> None:
        """One more host, which is counted in `_launching` already."""
        try:
            host = await self._launch()
        finally:
            self._launching -= 1
        if not self._running:  # it was stopped meanwhile, and does not know of this one
            await self._undone(host.close())
            raise SandboxError("the sandbox backend was stopped")
        self._hosts[host.id] = host
        self._spawn(self._watch(host))
        for name in host.slots():
            self._take_in(host, name)

    async def _watch(self, host: SlotHost) -> None:
        """Wait for the end of a host, and for what was in it fail at once."""
        why = await host.ended()
        await self._drop(host, why)
        if len(self._hosts) + self._launching < self._least:
            self._launching += 1
            await self._grow_or_tell()
        self._wanted()

    async def _shrink(self) -> None:
        """End hosts that nobody has used for long."""
        unused: dict[str, float] = {}  # since when
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._idle_s / 4)
            for host in list(self._hosts.values()):
                mine = [slot for slot in self._places if slot.container == host.id]
                if self._pool.waiting or any(slot.trajectory_id is not None for slot in mine):
                    unused.pop(host.id, None)
                    continue
                idle_s = clock() - unused.setdefault(host.id, clock())
                if idle_s >= self._idle_s and len(self._hosts) > self._least and self._may_end(host):
                    await self._drop(host, "nobody used it")

    async def _drop(self, host: SlotHost, why: str) -> None:
        if self._hosts.pop(host.id, None) is None:
            return
        logger.info("the sandbox host %s is gone: %s", host.id, why)
        for slot in [slot for slot in self._places if slot.container == host.id]:
            self._lost(slot, why)
            del self._places[slot]
        self._kept = {owner: slot for owner, slot in self._kept.items() if not slot.lost}
        self._pool.forget_lost()
        for task in self._working.pop(host.id, ()):
            task.cancel()
        await self._undone(host.close())

    async def _undone(self, ending: Coroutine[Any, Any, None]) -> None:
        """Wait until something is ended, which goes on if this is cancelled, and is logged if it fails."""

        async def end() -> None:
            try:
                await ending
            except Exception as error:  # noqa: BLE001  # it is not ours any more, however it ends
                logger.warning("a sandbox could not be ended: %s", error)

        task = asyncio.get_running_loop().create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        await asyncio.wait([task])

    def _patience(self) -> float:
        return self.settings.acquire_timeout_s

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _check_path(path: str) -> None:
    try:
        if not 0 < len(path.encode()) <= MAX_PATH:
            raise ArtifactError(f"the path has {len(path)} characters: give 1 to {MAX_PATH}")
    except UnicodeEncodeError:
        raise ArtifactError(f"{path!r} is no text: files of such names are in archives alone") from None


def _content(reply: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(reply["content"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise SlotLost("the sandbox answered with what is no artifact") from None
