"""Limits that many calls share: requests a minute, tokens a minute, and how many run at once."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from ..concurrency import result_of
from ..errors import InvalidArgument, LimiterTimeout

__all__ = ["Lease", "RateLimiter", "likely_tokens"]

logger = logging.getLogger(__name__)


class RateLimiter:
    """What an account may ask of its server, shared by all models that are given this object.

    A call waits in line until there is room for it: first come, first served, from any thread, task and event loop.
    Requests and tokens are counted in buckets that fill up steadily, as servers count them. Where the server says that
    too much was asked (429 with `Retry-After`, or `x-ratelimit-*` and `anthropic-ratelimit-*` headers that tell that
    nothing is left), everybody waits, instead of each request failing by itself.

    Args:
        requests_per_minute: most requests a minute, each retry counted.
        tokens_per_minute: most tokens a minute, of prompts and answers together. A call is counted as what its prompt
            roughly has and what its answer may have (`max_new_tokens`); once it is answered, as what it had.
        concurrent: most requests under way at once; a stream is until it is read or closed.
        burst: most requests made at once after a quiet time; a minute's worth by default, 1 spreads them evenly.
        timeout: seconds that a call may wait in line; None for ever. They do not count as the call's own time.
        name: what `repr` and errors call it.

    Raises:
        InvalidArgument: a number is out of range.
        LimiterTimeout: from a call: it would wait longer than `timeout`.

    A copy of a model shares the limiter; another process has its own.

    >>> limiter = RateLimiter(requests_per_minute=500, tokens_per_minute=200_000, concurrent=32, name="openai")
    >>> from lagentlike.llms import GPTAPI
    >>> small, large = (GPTAPI(name, key="k", limiter=limiter) for name in ("gpt-4o-mini", "gpt-4o"))
    >>> with limiter.hold(tokens=100) as lease:  # around a request that is made by other means
    ...     lease.settle(tokens=80)
    >>> limiter
    RateLimiter('openai', requests_per_minute=500, tokens_per_minute=200000, concurrent=32)
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        concurrent: int | None = None,
        burst: int | None = None,
        timeout: float | None = 600.0,
        name: str = "",
    ) -> None:
        self._limits = {
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "concurrent": concurrent,
            "burst": burst,
        }
        for argument, value in self._limits.items():
            whole = argument in ("concurrent", "burst")
            if value is not None and not (_is_number(value) and value > 0 and (not whole or isinstance(value, int))):
                cure = f"give a {'whole ' if whole else ''}number above 0, or None for no limit"
                raise InvalidArgument(argument, value, cure)
        if timeout is not None and not (_is_number(timeout) and timeout >= 0):
            raise InvalidArgument("timeout", timeout, "give seconds, at least 0, or None to wait for ever")
        self.name = name
        self.timeout = timeout
        now = _now()
        self._requests = _Bucket(requests_per_minute, burst, now)
        self._tokens = _Bucket(tokens_per_minute, None, now)
        self._most = math.inf if concurrent is None else concurrent
        self._running = 0
        self._paused_until = -math.inf
        self._line: deque[_Ticket] = deque()
        self._guard = threading.RLock()  # a stream that the garbage collector closes lets go of its lease anywhere

    @property
    def waiting(self) -> int:
        """How many calls stand in line."""
        return len(self._line)

    @property
    def running(self) -> int:
        """How many requests are under way."""
        return self._running

    def hold(self, tokens: int = 0) -> _Hold:
        """A block, `with` or `async with`, in which one request may be made; its value is the `Lease`.

        Args:
            tokens: roughly what the request will take; `lease.settle` says later what it took.
        """
        return _Hold(self, tokens)

    async def acquire(self, tokens: int = 0, *, first: bool = False) -> Lease:
        """Wait for room for one request, without a block; `release` the lease when it is done.

        Args:
            tokens: roughly what the request will take.
            first: stand in front of the line, as a request that is made again may.
        """
        ticket = self._line_up(tokens, first)
        try:
            while (woken := self._turn(ticket)) is not None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.wrap_future(woken), ticket.seconds)
        except BaseException:
            self._leave(ticket)
            raise
        return Lease(self, ticket.tokens, _now() - ticket.since)

    def pause(self, seconds: float) -> None:
        """Let nobody begin a request for so long; one that is longer already stays."""
        seconds = min(_checked("seconds", seconds), _LONGEST_PAUSE)
        with self._guard:
            until = _now() + seconds
            if until <= self._paused_until:
                return
            self._paused_until = until
            for ticket in self._line:  # who cannot wait that long need not
                ticket.wake()
        if seconds >= 1:
            logger.info("%r pauses for %.1f s", self, seconds)

    def resume(self) -> None:
        """End a pause."""
        with self._guard:
            self._paused_until = -math.inf
            self._wake_first()

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's headers what the server has left for this account.

        Args:
            headers: any case, if the mapping does not care; else lower case.
        """
        pause = 0.0
        with self._guard:
            now = _now()
            for bucket, names in ((self._requests, _REQUESTS_LEFT), (self._tokens, _TOKENS_LEFT)):
                for name in names:
                    left = headers.get(name)
                    if left is None or not _COUNT.fullmatch(left):
                        continue
                    if bucket.limited:
                        bucket.lower(int(left), now)
                    elif int(left) == 0:
                        pause = max(pause, _seconds(headers.get(name.replace("remaining", "reset"))))
        if pause:
            self.pause(min(pause, _LONGEST_PAUSE))

    def _line_up(self, tokens: int, first: bool) -> _Ticket:
        ticket = _Ticket(_checked("tokens", tokens), _now(), self.timeout)
        with self._guard:
            if first:
                self._line.appendleft(ticket)
            else:
                self._line.append(ticket)
        return ticket

    def _turn(self, ticket: _Ticket) -> Future[None] | None:
        """None if the ticket's holder may go ahead, which takes what it needs; else what to wait for, for so long.

        Raises:
            LimiterTimeout: it would have to wait too long.
        """
        with self._guard:
            now = _now()
            is_first = self._line[0] is ticket
            wait = self._wait(ticket.tokens, now) if is_first else math.inf
            if wait <= _RESOLUTION:
                self._line.popleft()
                self._requests.take(1, now)
                self._tokens.take(ticket.tokens, now)
                self._running += 1
                self._wake_first()
                return None
            left = ticket.deadline - now
            sure = max(self._paused_until - now, wait if wait < math.inf else 0.0)
            if left <= _RESOLUTION or sure > left:
                raise LimiterTimeout(
                    f"{self!r} has no room within its timeout of {self.timeout:g} s"
                    + (f": the next is in {sure:.1f} s" if sure > 0 else f" ({len(self._line)} calls wait)")
                    + "; raise timeout, or ask for less at once",
                    retry_after=max(sure, 0.0) or None,
                )
            return ticket.wait(min(wait, left))

    def _wait(self, tokens: int, now: float) -> float:
        """Seconds until the first in line may go; infinity where another request must end first."""
        if self._running >= self._most:
            return math.inf
        return max(self._paused_until - now, self._requests.wait(1, now), self._tokens.wait(tokens, now))

    def _leave(self, ticket: _Ticket) -> None:
        with self._guard:
            if ticket in self._line:
                self._line.remove(ticket)
                self._wake_first()

    def _release(self) -> None:
        with self._guard:
            self._running -= 1
            self._wake_first()

    def _give(self, tokens: int) -> None:
        with self._guard:
            self._tokens.take(-tokens, _now())
            self._wake_first()

    def _wake_first(self) -> None:
        if self._line:
            self._line[0].wake()

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> Any:
        return _restored, ({**self._limits, "timeout": self.timeout, "name": self.name},)

    def __repr__(self) -> str:
        told = [repr(self.name)] if self.name else []
        told += [f"{name}={value!r}" for name, value in self._limits.items() if value is not None]
        return f"RateLimiter({', '.join(told)})"


_now = time.monotonic
_RESOLUTION = 1e-6  # what is closer than that is now: clocks and timers are not that exact
_LONGEST_PAUSE = 3600.0  # a server that asks for more is asked again after that


class Lease:
    """Leave to make one request, until it is released.

    Attributes:
        limiter: whose it is.
        waited: seconds it was waited for.
    """

    __slots__ = ("_is_held", "_tokens", "limiter", "waited")

    def __init__(self, limiter: RateLimiter, tokens: int, waited: float) -> None:
        self.limiter = limiter
        self._tokens = tokens
        self._is_held = True
        self.waited = waited

    def settle(self, tokens: int) -> None:
        """Say how many tokens the request took, which is counted instead of what was supposed."""
        spare, self._tokens = self._tokens - _checked("tokens", tokens), tokens
        if spare:
            self.limiter._give(spare)

    def release(self) -> None:
        """Say that the request is done; once is enough, and more do no harm."""
        if self._is_held:
            self._is_held = False
            self.limiter._release()


class _Hold:
    """A block with a lease; tokens of a request that failed are given back."""

    def __init__(self, limiter: RateLimiter, tokens: int) -> None:
        self._limiter = limiter
        self._tokens = tokens
        self._lease: Lease | None = None
        self._is_in_use = False

    def __enter__(self) -> Lease:
        limiter = self._limiter
        with self._used():
            ticket = limiter._line_up(self._tokens, False)
            try:
                while (woken := limiter._turn(ticket)) is not None:
                    with suppress(TimeoutError):
                        result_of(woken, ticket.seconds)
            except BaseException:
                limiter._leave(ticket)
                raise
            self._lease = Lease(limiter, self._tokens, _now() - ticket.since)
            return self._lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease = self._lease
        assert lease is not None
        if error is not None:
            lease.settle(0)
        lease.release()
        self._is_in_use = False

    async def __aenter__(self) -> Lease:
        with self._used():
            self._lease = await self._limiter.acquire(self._tokens)
            return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    @contextmanager
    def _used(self) -> Iterator[None]:
        """Take it for one block; give it back if that does not begin."""
        if self._is_in_use:
            raise InvalidArgument("hold", self._limiter, "it is in use: call hold() for each block")
        self._is_in_use = True
        try:
            yield
        except BaseException:
            self._is_in_use = False
            raise


class _Bucket:
    """An allowance that fills up steadily; it may be overdrawn, which is made up for before the next take."""

    __slots__ = ("_at", "_level", "_rate", "capacity", "limited")

    def __init__(self, per_minute: float | None, capacity: float | None, now: float) -> None:
        self.limited = per_minute is not None
        self._rate = (per_minute or 0) / 60
        self.capacity = max(1.0, (per_minute or 0) if capacity is None else capacity)
        self._level = self.capacity
        self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until there is so much; of more than it holds, until it is full."""
        if not self.limited:
            return 0.0
        self._fill(now)
        return max(0.0, (min(amount, self.capacity) - self._level) / self._rate)

    def take(self, amount: float, now: float) -> None:
        if self.limited:
            self._fill(now)
            self._level = min(self.capacity, self._level - amount)

    def lower(self, level: float, now: float) -> None:
        """Hold no more than so much."""
        self._fill(now)
        self._level = min(self._level, level)

    def _fill(self, now: float) -> None:
        self._level = min(self.capacity, self._level + (now - self._at) * self._rate)
        self._at = now


class _Ticket:
    """A place in the line.

    Attributes:
        seconds: how long its holder waits before it looks again, unless it is woken; None for ever.
    """

    __slots__ = ("_woken", "deadline", "seconds", "since", "tokens")

    def __init__(self, tokens: int, since: float, timeout: float | None) -> None:
        self.tokens = tokens
        self.since = since
        self.deadline = math.inf if timeout is None else since + timeout
        self.seconds: float | None = None
        self._woken: Future[None] | None = None

    def wait(self, seconds: float) -> Future[None]:
        """What is done when its holder is to look again; the limiter's guard is held."""
        self.seconds = None if seconds == math.inf else seconds
        self._woken = Future()
        self._woken.set_running_or_notify_cancel()  # so that a task that is cancelled does not cancel it too
        return self._woken

    def wake(self) -> None:
        """Have its holder look again; the limiter's guard is held."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


def likely_tokens(body: bytes) -> int:
    """Roughly the tokens of a request's prompt: one for four bytes, and a thousand for each picture in it."""
    plain, pictures = (body, 0) if len(body) < _PICTURE else _ENCODED.subn(b"", body)
    return len(plain) // 4 + 1000 * pictures


_PICTURE = 2048  # bytes in base64
_ENCODED = re.compile(rb"[A-Za-z0-9+/=]{%d,}" % _PICTURE)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _checked(name: str, value: Any) -> Any:
    if not _is_number(value) or value < 0:
        raise InvalidArgument(name, value, "give a number of at least 0")
    return value


def _restored(options: dict[str, Any]) -> RateLimiter:
    return RateLimiter(**options)


# What servers say they have left. `reset` in place of `remaining` names when there is more again.
_REQUESTS_LEFT = ("x-ratelimit-remaining-requests", "anthropic-ratelimit-requests-remaining")
_TOKENS_LEFT = (
    "x-ratelimit-remaining-tokens",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-output-tokens-remaining",
)


def _seconds(text: str | None) -> float:
    """How long until a moment that a header names: `6m0s`, `20ms`, `12`, a time since 1970, or a date; 0 if unclear."""
    if not text:
        return 0.0
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    with suppress(ValueError):
        number = float(text)
        since_1970 = number / 1000 if number > 1e11 else number
        return max(0.0, since_1970 - time.time() if number > 1e9 else number)
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text)
        return max(0.0, moment.timestamp() - time.time())
    return 0.0


_COUNT = re.compile(r"\d{1,15}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
