"""Leases of slots, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ..errors import SandboxError, SlotTimeout
from .base import Slot

__all__ = ["SlotPool"]


class SlotPool:
    """Slots that are free, slots that are leased, and who waits for one.

    Whoever waited longest gets the next slot. A slot passes from hand to hand within one loop step, so that no caller
    that comes later can take it, and a caller that is cancelled or gives up at the moment in which it was given one
    passes it on.

    Args:
        wanted: called when somebody has to wait, so that more slots can be made.
    """

    def __init__(self, wanted: Callable[[], None] = lambda: None) -> None:
        self._wanted = wanted
        self._free: deque[Slot] = deque()
        self._leased: dict[str, Slot] = {}
        self._waiting: deque[_Waiter] = deque()
        self._closed = ""

    @property
    def free(self) -> int:
        """How many slots nobody has."""
        return len(self._free)

    @property
    def leased(self) -> int:
        """How many slots somebody has."""
        return len(self._leased)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    def held_by(self, trajectory_id: str) -> Slot | None:
        """The slot that a trajectory has."""
        return self._leased.get(trajectory_id)

    async def lease(self, trajectory_id: str, timeout_s: float) -> Slot:
        """A slot for a trajectory, which keeps the one that it has.

        Args:
            trajectory_id: whose it will be.
            timeout_s: seconds to wait.

        Raises:
            SlotTimeout: none came free in time.
            SandboxError: the pool was closed.
        """
        if self._closed:
            raise SandboxError(self._closed)
        if trajectory_id in self._leased:
            return self._leased[trajectory_id]
        if any(waiter.trajectory_id == trajectory_id for waiter in self._waiting):
            raise SandboxError(f"the trajectory {trajectory_id!r} waits for a slot already: ask for one at a time")
        if self._free and not self._waiting:
            return self._given(self._free.popleft(), trajectory_id)
        waiter = _Waiter(trajectory_id, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._wanted()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.slot
        except TimeoutError:
            self._give_up(waiter)
            raise SlotTimeout(
                f"no sandbox slot came free within {timeout_s:.3g} seconds: {self.leased} are in use and "
                f"{self.waiting} others wait; raise acquire_timeout_s, or have more slots"
            ) from None
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def add(self, slot: Slot) -> None:
        """Take in a slot that is ready to be used, for whoever waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.slot.done():
                waiter.slot.set_result(self._given(slot, waiter.trajectory_id))
                return
        self._free.append(slot)

    def take(self, slot: Slot, trajectory_id: str) -> None:
        """Lease a slot that is in nobody's hands to a trajectory."""
        self._given(slot, trajectory_id)

    def give_back(self, slot: Slot) -> bool:
        """End a lease; whether there was one. The slot is nobody's until it is added again."""
        if slot.trajectory_id is None or self._leased.get(slot.trajectory_id) is not slot:
            return False
        del self._leased[slot.trajectory_id]
        slot.trajectory_id = None
        return True

    def forget_lost(self) -> None:
        """Keep no free slot that cannot be used any more."""
        self._free = deque(slot for slot in self._free if not slot.lost)

    def close(self, why: str) -> None:
        """Let nobody in any more, and send away who waits."""
        self._closed = why
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.slot.done():
                waiter.slot.set_exception(SandboxError(why))
        self._free.clear()

    def fail_waiting(self, error: SandboxError) -> None:
        """Tell who waits that no slot can be had now."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.slot.done():
                waiter.slot.set_exception(error)

    def _given(self, slot: Slot, trajectory_id: str) -> Slot:
        slot.trajectory_id = trajectory_id
        self._leased[trajectory_id] = slot
        return slot

    def _give_up(self, waiter: _Waiter) -> None:
        """Leave the queue, and pass on a slot that was given at this very moment."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        if waiter.slot.done() and not waiter.slot.cancelled() and waiter.slot.exception() is None:
            slot = waiter.slot.result()
            self.give_back(slot)
            self.add(slot)


class _Waiter:
    """Who waits for a slot."""

    __slots__ = ("slot", "trajectory_id")

    def __init__(self, trajectory_id: str, slot: asyncio.Future[Slot]) -> None:
        self.trajectory_id = trajectory_id
        self.slot = slot
