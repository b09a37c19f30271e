"""Environments of chains: stateful objects, leased one to a chain from pools with a cap and with deadlines."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Self

from ..concurrency import TurnQueue
from ..errors import EnvironmentFailed, InvalidArgument, LeaseExpired, PoolClosed, PoolTimeout
from .calling import begin, is_async, Outcome, stop

__all__ = [
    "EnvironmentPool",
    "LeasedEnvironment",
    "current_context",
    "current_environment",
    "entered",
    "in_context",
]

logger = logging.getLogger(__name__)

GRACE_SECONDS = 1.0
"""How long a call that nobody waits for any more may take to end before its environment is closed regardless."""

CLOSE_SECONDS = 10.0
"""How long closing an environment may take before it is given up."""


class EnvironmentPool:
    """Environments, at most `size` of them alive, leased one to a chain.

    An environment is any object; its methods may be plain or async. `reset` is called before each lease, with those of
    the lease's `given` values that it names; `close` when the pool is done with it; `healthy`, if there is one, before
    it is leased again. Plain methods run in a thread. An environment that raised, that was left in the middle of a
    call, or whose lease expired is closed and another takes its place.

    A pool belongs to one event loop at a time.

    Args:
        factory: makes an environment; plain (it runs in a thread) or async.
        size: most environments alive at once.
        lease_timeout: seconds a lease may last; then its holder gets `LeaseExpired`.
        idle_timeout: seconds after which an environment that nobody uses is closed.
        call_timeout: seconds that making an environment or a call of one of its methods may take.

    >>> import asyncio
    >>> class Counter:
    ...     def reset(self):
    ...         self.count = 0
    ...     def step(self, by):
    ...         self.count += by
    ...         return self.count
    >>> async def play():
    ...     async with EnvironmentPool(Counter, 2) as pool, pool.lease(timeout=5) as environment:
    ...         await environment.step(2)
    ...         return await environment.step(3)
    >>> asyncio.run(play())
    5
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        size: int,
        *,
        lease_timeout: float | None = None,
        idle_timeout: float | None = None,
        call_timeout: float | None = None,
    ) -> None:
        if not callable(factory):
            raise InvalidArgument("factory", factory, "give a class or function that makes an environment")
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidArgument("size", size, "give a whole number of at least 1")
        self.factory = factory
        self.size = size
        self.lease_timeout = _seconds("lease_timeout", lease_timeout)
        self.idle_timeout = _seconds("idle_timeout", idle_timeout)
        self.call_timeout = _seconds("call_timeout", call_timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alive = 0  # places taken: leased, idle, being made or closed
        self._idle: deque[_Slot] = deque()
        self._waiters: deque[asyncio.Future[_Slot | None]] = deque()
        self._leases: set[LeasedEnvironment] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def leased(self) -> int:
        """How many environments are leased."""
        return len(self._leases)

    @property
    def alive(self) -> int:
        """How many environments there are, with those that are being made or closed."""
        return self._alive

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return sum(not waiter.done() for waiter in self._waiters)

    @asynccontextmanager
    async def lease(
        self, *, timeout: float | None = None, given: Mapping[str, Any] | None = None
    ) -> AsyncIterator[LeasedEnvironment]:
        """Hold an environment for the length of a block; who comes first gets one first.

        Args:
            timeout: seconds that waiting for one, making and resetting it may take.
            given: values that the environment's `reset` may ask for by name, such as the metadata of a query.

        Raises:
            PoolTimeout: there was none in time.
            EnvironmentFailed: it could not be made or reset.
            LeaseExpired: the block took longer than `lease_timeout`; the block is cancelled, as by `asyncio.timeout`.
            PoolClosed: the pool is closed.
        """
        self._bind()
        slot = await self._ready(_seconds("timeout", timeout), given or {})
        lease = LeasedEnvironment(self, slot)
        self._leases.add(lease)
        loop = asyncio.get_running_loop()
        timer = None if self.lease_timeout is None else loop.call_later(self.lease_timeout, self._expire, lease)
        before = _held.get()
        _held.set({**before, self: lease})
        limit = asyncio.timeout(self.lease_timeout)
        try:
            async with limit:
                yield lease
        except TimeoutError:
            if limit.expired():
                raise self._expired() from None
            raise
        finally:
            _held.set(before)
            if timer is not None:
                timer.cancel()
            self._give_back(lease, LeaseExpired("the lease of this environment is over"))

    async def close(self) -> None:
        """Close every environment; who holds one or waits for one gets `PoolClosed`."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(PoolClosed(f"{self!r} was closed"))
        for lease in list(self._leases):
            lease._slot.broken = True
            self._give_back(lease, PoolClosed(f"{self!r} was closed while this environment was leased"))
        while self._idle:
            self._discard(self._idle.popleft())
        while self._tasks:
            await asyncio.wait(self._tasks)
            await asyncio.sleep(0)  # what ended may have left something to close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        name = getattr(self.factory, "__name__", type(self.factory).__name__)
        return f"EnvironmentPool({name}, {self.size})"

    # Getting one

    def _bind(self) -> None:
        if self._closed:
            raise PoolClosed(f"{self!r} is closed")
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._leases or self._tasks or self.waiting:
            raise EnvironmentFailed(f"{self!r} is in use in another event loop: give each loop a pool of its own")
        self._loop = loop
        for slot in self._idle:
            slot.ended, slot.running = loop.create_future(), None
            self._start_idling(slot)

    async def _ready(self, timeout: float | None, given: Mapping[str, Any]) -> _Slot:
        """An environment that is reset, in time."""
        doing = "waiting for one"
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                slot = await self._take()
                doing = "making it ready"
                if slot is not None and not await self._is_healthy(slot):
                    slot = None
                if slot is None:
                    slot = await self._made()
                await self._reset(slot, given)
                return slot
        except TimeoutError:
            if not limit.expired():
                raise
        raise PoolTimeout(
            f"no environment of {self!r} within {timeout:g} seconds, spent on {doing}: "
            f"{self.leased} are leased, {self.waiting} wait; give a longer timeout or a larger pool"
        )

    async def _take(self) -> _Slot | None:
        """An idle environment, or a free place for a new one (None)."""
        if not self.waiting:
            if self._idle:
                return self._stop_idling(self._idle.pop())
            if self._alive < self.size:
                self._alive += 1
                return None
        waiter: asyncio.Future[_Slot | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._offer(waiter.result())  # it was given one in the moment it was cancelled
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _offer(self, slot: _Slot | None) -> None:
        """Give an environment or a free place to who waits longest; else keep it idle, or leave the place empty."""
        if not self._closed:
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.done():
                    waiter.set_result(slot)
                    return
        if slot is None:
            self._alive -= 1
        elif self._closed:
            self._discard(slot)
        else:
            self._idle.append(slot)
            self._start_idling(slot)

    async def _made(self) -> _Slot:
        """A new environment; if nobody waits for it any more when it is there, it goes to somebody else."""
        making = self._spawn(self._make())
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._late)
            raise

    def _late(self, making: asyncio.Task[_Slot]) -> None:
        if not making.cancelled() and making.exception() is None:
            self._offer(making.result())

    async def _make(self) -> _Slot:
        started = begin(self.factory, {})
        try:
            done, _ = await asyncio.wait([started], timeout=self.call_timeout)
            if not done:
                started.add_done_callback(self._close_late)
                raise EnvironmentFailed(
                    f"{self!r}: making an environment took longer than {self.call_timeout:g} seconds"
                )
            try:
                return _Slot(started.result().value())
            except Exception as error:
                raise EnvironmentFailed(
                    f"{self!r}: making an environment failed: {type(error).__name__}: {error}"
                ) from error
        except BaseException:
            self._offer(None)
            raise

    def _close_late(self, made: asyncio.Future[Outcome]) -> None:
        if not made.cancelled() and made.result().error is None:
            self._spawn(self._close_slot(_Slot(made.result().returned)))

    async def _is_healthy(self, slot: _Slot) -> bool:
        """Whether an environment may be used again; one that may not is closed."""
        check = getattr(slot.environment, "healthy", None)
        if check is None:
            return True
        try:
            if await self._call(slot, "healthy", check, (), {}):
                return True
        except EnvironmentFailed as error:
            logger.info("an environment is replaced: %s", error)
        except BaseException:
            self._discard(slot)
            raise
        closing = self._spawn(self._close_slot(slot))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            closing.add_done_callback(lambda _: self._offer(None))
            raise
        return False

    async def _reset(self, slot: _Slot, given: Mapping[str, Any]) -> None:
        reset = getattr(slot.environment, "reset", None)
        try:
            if reset is not None:
                slot.observation = await self._call(slot, "reset", reset, (), _accepted(reset, given))
        except BaseException:
            self._discard(slot)
            raise

    async def _call(
        self, slot: _Slot, name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of an environment.

        Raises:
            EnvironmentFailed: it raised, took too long, or its lease ended; the environment is not used again.
        """
        started = slot.running = begin(method if not args else _with(method, args), kwargs)
        whole = f"{type(slot.environment).__name__}.{name}"
        slot.broken = True  # until it has come back
        try:
            either: list[asyncio.Future[Any]] = [started, slot.ended]
            done, _ = await asyncio.wait(either, timeout=self.call_timeout, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await stop(started)
            raise
        if started not in done:
            await stop(started)
            if slot.ended.done():
                raise slot.ended.result()
            raise EnvironmentFailed(f"{whole} took longer than {self.call_timeout:g} seconds")
        try:
            value = started.result().value()
        except Exception as error:
            raise EnvironmentFailed(f"{whole} failed: {type(error).__name__}: {error}") from error
        slot.broken = False
        return value

    # Giving one back

    def _give_back(self, lease: LeasedEnvironment, reason: EnvironmentFailed) -> None:
        if lease not in self._leases:
            return  # it expired, or the pool was closed
        self._leases.remove(lease)
        slot = lease._slot
        if not slot.ended.done():
            slot.ended.set_result(reason)
        if slot.broken or not slot.is_at_rest():
            self._discard(slot)
        else:
            self._offer(_Slot(slot.environment))

    def _expire(self, lease: LeasedEnvironment) -> None:
        lease._slot.broken = True
        self._give_back(lease, self._expired())

    def _expired(self) -> LeaseExpired:
        return LeaseExpired(
            f"an environment of {self!r} was held longer than its lease of {self.lease_timeout:g} seconds"
        )

    def _start_idling(self, slot: _Slot) -> None:
        if self.idle_timeout is not None:
            slot.timer = asyncio.get_running_loop().call_later(self.idle_timeout, self._idled_out, slot)

    def _stop_idling(self, slot: _Slot) -> _Slot:
        if slot.timer is not None:
            slot.timer.cancel()
        return slot

    def _idled_out(self, slot: _Slot) -> None:
        if slot in self._idle:
            self._idle.remove(slot)
            self._discard(slot)

    def _discard(self, slot: _Slot) -> None:
        """Close an environment in a task of its own; its place is free when that is done."""
        self._stop_idling(slot)
        self._spawn(self._close_slot(slot)).add_done_callback(lambda _: self._offer(None))

    async def _close_slot(self, slot: _Slot) -> None:
        closing: asyncio.Future[Outcome] | None = None
        close = getattr(slot.environment, "close", None)
        try:
            if slot.running is not None and not slot.running.done():
                await asyncio.wait([slot.running], timeout=GRACE_SECONDS)
            if close is None:
                return
            closing = begin(close, {})
            done, _ = await asyncio.wait([closing], timeout=CLOSE_SECONDS)
        except asyncio.CancelledError:  # the loop ends
            if close is not None and closing is None and not is_async(close):
                begin(close, {})
            raise
        if not done:
            logger.warning("closing a %s takes longer than %g seconds", type(slot.environment).__name__, CLOSE_SECONDS)
        elif closing.result().error is not None:
            logger.warning("closing a %s failed", type(slot.environment).__name__, exc_info=closing.result().error)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Slot:
    """An environment in a pool, and what is going on in it."""

    __slots__ = ("broken", "ended", "environment", "observation", "running", "timer")

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.observation: Any = None
        self.running: asyncio.Future[Outcome] | None = None
        self.broken = False
        self.ended: asyncio.Future[EnvironmentFailed] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None

    def is_at_rest(self) -> bool:
        return self.running is None or self.running.done()


class LeasedEnvironment:
    """An environment as its holder sees it: its methods and attributes, as long as the lease lasts.

    In async code its methods are awaited; in a thread without an event loop (a plain tool or reward) they block. Calls
    from several tasks or threads queue up. What a method raises comes as `EnvironmentFailed`, with the error itself as
    its cause.

    Attributes:
        first_observation: what `reset` returned.
        unwrapped: the environment itself.
    """

    __slots__ = ("_loop", "_pool", "_queue", "_slot", "first_observation")

    def __init__(self, pool: EnvironmentPool, slot: _Slot) -> None:
        self._pool = pool
        self._slot = slot
        self._loop = asyncio.get_running_loop()
        self._queue = TurnQueue()
        self.first_observation = slot.observation

    @property
    def unwrapped(self) -> Any:
        self._check()
        return self._slot.environment

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "close":
            raise AttributeError("an environment is closed by its pool: leave the block of the lease")
        self._check()
        value = getattr(self._slot.environment, name)
        if not inspect.isroutine(value):
            return value

        def method(*args: Any, **kwargs: Any) -> Any:
            work = self._call(name, value, args, kwargs)
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return asyncio.run_coroutine_threadsafe(work, self._loop).result()
            return (
                work if loop is self._loop else asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
            )

        return method

    async def _call(
        self, name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        await self._queue.acquire_async()
        try:
            self._check()
            if self._slot.broken:
                raise EnvironmentFailed(f"this {type(self._slot.environment).__name__} has failed: lease another")
            return await self._pool._call(self._slot, name, method, args, kwargs)
        finally:
            self._queue.release()

    def _check(self) -> None:
        if self._slot.ended.done():
            raise self._slot.ended.result()

    def __repr__(self) -> str:
        over = ", its lease is over" if self._slot.ended.done() else ""
        return f"LeasedEnvironment({type(self._slot.environment).__name__}{over})"


_held: ContextVar[Mapping[EnvironmentPool, LeasedEnvironment]] = ContextVar("held", default={})  # noqa: B039  # not edited
_context: ContextVar[Any] = ContextVar("context", default=None)


def current_environment(pool: EnvironmentPool | None = None) -> LeasedEnvironment:
    """The environment that this chain has leased: for tools, also those that run in threads.

    Args:
        pool: from which pool, where the chain holds environments of several.

    Raises:
        EnvironmentFailed: none is leased here, or several are and no pool is given.
    """
    held = _held.get()
    if pool is not None:
        if pool not in held:
            raise EnvironmentFailed(
                f"no environment of {pool!r} is leased here: use it inside `async with pool.lease()`"
            )
        return held[pool]
    if not held:
        raise EnvironmentFailed("no environment is leased here: give rollout(…, environment=EnvironmentPool(…))")
    if len(held) > 1:
        raise EnvironmentFailed(f"environments of {', '.join(map(repr, held))} are leased here: say of which pool")
    return next(iter(held.values()))


def current_context() -> Any:
    """The chain that is being played, for tools and hooks; None outside of a rollout."""
    return _context.get()


@contextmanager
def in_context(context: Any) -> Iterator[None]:
    """Make `context` what `current_context()` gives, in this task and what it starts."""
    before = _context.get()
    _context.set(context)
    try:
        yield
    finally:
        _context.set(before)


@asynccontextmanager
async def entered(pool: EnvironmentPool | None, chain: Any) -> AsyncIterator[None]:
    """Play a chain in here: it is the current context, and its `environment` is leased from the pool, if there is one.

    Args:
        pool: where the environment comes from.
        chain: has `metadata` (what `reset` may ask for) and `environment`, which is set.
    """
    with in_context(chain):
        if pool is None:
            yield
            return
        async with pool.lease(given=chain.metadata) as environment:
            chain.environment = environment
            yield


def _accepted(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given values that a function names.

    Raises:
        EnvironmentFailed: it wants one that is not there.
    """
    accepted: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            return {**given, **accepted}
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.name in given:
            accepted[parameter.name] = given[parameter.name]
        elif parameter.default is parameter.empty:
            there = ", ".join(map(repr, given)) or "nothing"
            raise EnvironmentFailed(
                f"reset wants {parameter.name!r}, and there is {there}: put it into the query's metadata, "
                "or give it a default"
            )
    return accepted


def _with(method: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    """The method with its positional arguments given, of the same colour."""
    if is_async(method):

        async def awaited(**kwargs: Any) -> Any:
            return await method(*args, **kwargs)

        return awaited
    return lambda **kwargs: method(*args, **kwargs)


def _seconds(argument: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidArgument(argument, value, "give seconds greater than 0, or None for no limit")
    return float(value)
