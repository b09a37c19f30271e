"""The one place that talks HTTP: connections, deadlines, size caps and retries."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import random
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TYPE_CHECKING, TypeVar

import aiohttp
from yarl import URL

from ..errors import (
    BadResponse,
    ConnectFailed,
    InvalidArgument,
    LimiterTimeout,
    LLMError,
    QuotaExhausted,
    RateLimited,
    RequestTimeout,
    ResponseTooLarge,
    ServerError,
    StreamTruncated,
)
from ..tracing import spans
from .exchange import pool_of_loop, pools_of_process, post, Response
from .ndjson import LineParser
from .refusals import mask_error, masked, refusal, retry_after
from .sse import EventParser

if TYPE_CHECKING:
    from .limits import Lease, RateLimiter

__all__ = ["Assembler", "Call", "Opener", "PartStream", "Request", "Transport", "TransportOptions", "refused"]

logger = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How long to wait, how much to take, how often to try; times in seconds.

    Args:
        connect: for a connection: name look-up, TCP and TLS.
        first_byte: from there to the answer's first byte (a model that does not stream has done all its work by then).
        idle: between two pieces of the answer.
        total: for the whole call, its retries and the pauses between them included.
        max_retries: how often a request that failed in a way that may pass is made again.
        backoff: width of the random pause before the first retry; it doubles with each. At least a quarter second (or
            `backoff`, if that is less) passes before a retry.
        max_backoff: widest pause.
        max_retry_after: longest wait the server may ask for; when it asks for more the call fails at once.
        max_bytes: most bytes of an answer, after decompression.
        max_connections: most connections open at once in one event loop; further calls wait for one.
    """

    connect: float = 10.0
    first_byte: float = 600.0
    idle: float = 60.0
    total: float = 600.0
    max_retries: int = 2
    backoff: float = 1.0
    max_backoff: float = 30.0
    max_retry_after: float = 60.0
    max_bytes: int = 32 * 2**20
    max_connections: int = 1000

    def __post_init__(self) -> None:
        for name in ("connect", "first_byte", "idle", "total"):
            if not getattr(self, name) > 0:
                raise InvalidArgument(name, getattr(self, name), "give seconds, more than 0")
        for name in ("max_retries", "backoff", "max_backoff", "max_retry_after"):
            if not getattr(self, name) >= 0:
                raise InvalidArgument(name, getattr(self, name), "give a number of at least 0")
        for name in ("max_bytes", "max_connections"):
            if not getattr(self, name) >= 1:
                raise InvalidArgument(name, getattr(self, name), "give a number of at least 1")


class Request(NamedTuple):
    """One request with a JSON body.

    Attributes:
        secrets: texts that no error may show.
        read_error: what an answer's body tells where its status is not 2xx: an error to raise as it is, without another
            try; or None, where the status says what to do.
        tokens: roughly what it will take, for a limiter.
    """

    url: URL
    headers: Mapping[str, str]
    body: bytes
    proxy: str | None = None
    secrets: tuple[str, ...] = ()
    method: str = "POST"
    read_error: Callable[[bytes], Exception | None] | None = None
    tokens: int = 0

    def __repr__(self) -> str:
        return f"Request({str(self.url)!r}, {len(self.body)} bytes)"


class Assembler(Protocol[T]):
    """What turns the events of one stream into parts for the caller."""

    @property
    def parser(self) -> type[EventParser] | type[LineParser]:
        """What finds events in bytes; made with the most bytes that one may have."""

    def feed(self, events: list[bytes]) -> list[T]:
        """The parts that these events complete."""

    def close(self) -> list[T]:
        """The last part, now that the stream is over; raises `LLMError` if it was over too early."""

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""

    @property
    def partial(self) -> str:
        """The text so far."""


class Opener(Protocol):
    """What sends a request and waits for the head of its answer: our own HTTP, or a provider's SDK."""

    async def open(self, request: Request, call: Call) -> Response:
        """The answer, its status good; its `content` is read as aiohttp's is. Raises `LLMError` where there is none."""

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""


class Transport:
    """Makes requests: the owner of connections and of retries.

    Connections are kept alive and shared by all transports of an event loop; they close when the loop ends, or with
    `aclose`. A request is made again after 408, 409, 429, 5xx, a refused or lost connection or an unreadable answer, as
    long as nothing of the answer was handed out, with random pauses that double, `Retry-After` obeyed. A connection
    that the server had closed while it was idle is replaced without counting. In an outage a budget keeps the requests
    made below 1.2 times the calls.

    Args:
        options: deadlines, caps and retries.
        limiter: lets each attempt through, and learns from its answer. The wait for it is no part of a call's time.
        opener: what makes an attempt, where that is not our own HTTP.
    """

    def __init__(
        self,
        options: TransportOptions | None = None,
        limiter: RateLimiter | None = None,
        opener: Opener | None = None,
    ) -> None:
        self.options = options or TransportOptions()
        self.limiter = limiter
        self._opener = opener
        self._open = _open if opener is None else opener.open
        self._budget = _RetryBudget()

    def post(self, request: Request, parse: Callable[[bytes], T]) -> Coroutine[Any, Any, T]:
        """What `parse` makes of the answer's body; it raises `BadResponse` if that cannot be read.

        Raises:
            LLMError: the request failed, and failed again where it was made again.
        """
        return self._persist(request, _whole, parse)

    def stream(self, request: Request, assembler: Callable[[], Assembler[T]]) -> Coroutine[Any, Any, PartStream[T]]:
        """The parts of a streamed answer, its first ones already received; close it if not read to the end.

        Raises:
            LLMError: the stream failed before its first part.
        """
        return self._persist(request, _streamed, assembler)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; what needs one later opens it anew."""
        if self._opener is not None:
            await self._opener.aclose()
            return
        running = asyncio.get_running_loop()
        for loop, close in pools_of_process():
            if loop is running:
                await close()

    async def _persist(self, request: Request, receive: Callable[[Response, Call, R], Awaitable[T]], read: R) -> T:
        """Make the request, and make it again where that may help: the only retry loop there is."""
        if spans.tracers:
            from ..tracing.propagation import traced  # what only this needs

            request = request._replace(headers=traced(request.headers))
        options, limiter = self.options, self.limiter
        loop = asyncio.get_running_loop()
        deadline = loop.time() + options.total
        self._budget.deposit()
        failures = replaced = 0
        while True:
            call = Call(request, options, loop, deadline)
            try:
                if limiter is None:
                    result = await receive(await self._open(request, call), call, read)
                else:
                    result = await _let_through(limiter, self._open, call, receive, read, first=failures > 0)
            except LLMError as error:
                if call.stale and isinstance(error, ConnectFailed) and replaced < _MOST_REPLACED:
                    replaced += 1
                    continue
                failures += 1
                mask_error(error, request.secrets)
                pause = self._pause(error, failures, call)
                if limiter is not None:
                    _heed(limiter, error, call.retry_after, pause)
                if pause is None:
                    raise
                logger.info("%s; attempt %d follows in %.2f s", error, failures + 1, pause)
                spans.note_retry()
            else:
                if failures:
                    self._budget.refund()
                return result
            deadline = call.deadline
            await asyncio.sleep(pause)

    def _pause(self, error: LLMError, failures: int, call: Call) -> float | None:
        """Seconds to wait before the next attempt; None where the error is final."""
        options = self.options
        if call.final or failures > min(options.max_retries, _most_retries(error)):
            return None
        floor = min(_SHORTEST_PAUSE, options.backoff)
        if call.retry_after is not None:
            if call.retry_after > options.max_retry_after:
                return None
            pause = max(floor, call.retry_after) + random.uniform(0, min(floor, 0.2))
        else:
            pause = floor + random.uniform(0, min(options.max_backoff, options.backoff * 2.0 ** min(failures - 1, 30)))
        if call.remaining() <= pause:
            return None
        # Waiting is what a 429 asks for, and does not add to an outage: it is not charged.
        if not isinstance(error, RateLimited) and not self._budget.take():
            logger.warning("%s; not tried again: too many requests fail", error)
            return None
        return pause


_SHORTEST_PAUSE = 0.25
_MOST_REPLACED = 64


def _most_retries(error: LLMError) -> int:
    """How often a request that failed like this may be made again at most."""
    if isinstance(error, QuotaExhausted | LimiterTimeout):
        return 0
    if isinstance(error, RateLimited | ServerError | StreamTruncated) or error.status in (408, 409):
        return 1_000_000
    if isinstance(error, ConnectFailed):
        return 2
    return 1 if isinstance(error, BadResponse) else 0


class _RetryBudget:
    """Retries that calls have earned: a share of one each, given back by retries that succeed."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = _MOST_TOKENS

    def deposit(self) -> None:
        self._tokens = min(_MOST_TOKENS, self._tokens + _TOKENS_PER_CALL)

    def take(self) -> bool:
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def refund(self) -> None:
        self._tokens = min(_MOST_TOKENS, self._tokens + 1)


_MOST_TOKENS = 50.0
_TOKENS_PER_CALL = 0.15


class Call:
    """One attempt: its deadlines, and what is learnt on the way."""

    __slots__ = (
        "answered",
        "clock",
        "deadline",
        "final",
        "lease",
        "loop",
        "options",
        "request",
        "retry_after",
        "reused",
        "stage",
    )

    def __init__(
        self, request: Request, options: TransportOptions, loop: asyncio.AbstractEventLoop, deadline: float
    ) -> None:
        self.request = request
        self.options = options
        self.loop = loop
        self.deadline = deadline
        self.clock: _Clock | None = None
        self.lease: Lease | None = None
        self.stage = "first_byte"
        self.retry_after: float | None = None
        self.reused = True  # until a new connection is made
        self.answered = False
        self.final = False

    @property
    def host(self) -> str:
        url = self.request.url
        return f"{url.host}:{url.port}"

    @property
    def stale(self) -> bool:
        """Whether it failed because the server had closed a connection that was kept alive."""
        return self.reused and not self.answered

    def remaining(self) -> float:
        return self.deadline - self.loop.time()

    def until(self, seconds: float) -> float:
        """When `seconds` from now, or the whole call's time, are over."""
        return min(self.loop.time() + seconds, self.deadline)

    def waiting_for_connection(self) -> None:
        self._wait_for("a free connection", math.inf)

    def connecting(self) -> None:
        self.reused = False
        self._wait_for("connect", self.options.connect)

    def connected(self) -> None:
        if self.stage != "first_byte":
            self._wait_for("first_byte", self.options.first_byte)

    def _wait_for(self, stage: str, seconds: float) -> None:
        self.stage = stage
        if self.clock is not None:
            self.clock.move(self.until(seconds))

    def timed_out(self) -> LLMError:
        self.answered = True  # a slow server is no closed connection
        if self.remaining() <= 0:
            return RequestTimeout(f"{self.host} did not finish within the {self.options.total:g} s of the call (total)")
        if self.stage == "connect":
            return ConnectFailed(f"no connection to {self.host} within {self.options.connect:g} s (connect)")
        return RequestTimeout(
            f"{self.host} sent nothing for {getattr(self.options, self.stage):g} s ({self.stage}): "
            "if that is normal for this model, raise the timeout"
        )

    def failed(self, error: Exception) -> LLMError:
        """An error of the HTTP library as ours, without a trace of the request's headers."""
        reason = masked(str(error), self.request.secrets) or type(error).__name__
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
            self.answered = self.final = True
            return ConnectFailed(f"no secure connection to {self.host}: {reason}")
        if isinstance(error, aiohttp.ClientHttpProxyError):
            self.answered = self.final = True
            return ConnectFailed(f"the proxy refuses a connection to {self.host}: {error.status}")
        if isinstance(error, aiohttp.ClientConnectorError):
            self.answered = True
            return ConnectFailed(f"no connection to {self.host}: {reason}")
        if isinstance(error, aiohttp.ClientPayloadError) or (self.answered and isinstance(error, OSError)):
            return StreamTruncated(f"the answer of {self.host} broke off: {reason}")
        return ConnectFailed(f"{self.host} closed the connection without an answer: {reason}")


class _Clock:
    """A deadline on what the running task awaits: `asyncio.timeout` without its two coroutines."""

    __slots__ = ("_cancelling", "_handle", "_loop", "_task", "expired")

    def __init__(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a request can only be made from within a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = loop
        self._handle = loop.call_at(when, self._expire)
        self.expired = False

    def move(self, when: float) -> None:
        if not self.expired:
            self._handle.cancel()
            self._handle = self._loop.call_at(when, self._expire)

    def stop(self) -> bool:
        """End it; whether it was this deadline, and nothing else, that cancelled the task."""
        self._handle.cancel()
        if not self.expired:
            return False
        self.expired = False
        return self._task.uncancel() <= self._cancelling

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()


async def _open(request: Request, call: Call) -> Response:
    """The answer to a request, its headers read and its status good.

    Raises:
        LLMError: there was none, or it is an error.
    """
    pool = await pool_of_loop(call.loop, call.options.max_connections)
    clock = call.clock = _Clock(call.loop, call.until(call.options.first_byte))
    try:
        response = await post(pool, request.url, request.headers, request.body, request.proxy, call, request.method)
    except asyncio.CancelledError:
        if not clock.stop():
            raise
        failure: Exception = call.timed_out()
    except (aiohttp.ClientError, OSError) as error:
        failure = call.failed(error)
    else:
        call.answered = True
        if call.lease is not None:
            call.lease.limiter.observe(response.headers)
        status = response.status
        if status == 200 or 200 <= status < 300:
            return response
        failure = await refused(response, call)
    finally:
        clock.stop()
        call.clock = None
    raise failure


async def _let_through(
    limiter: RateLimiter,
    open_: Callable[[Request, Call], Awaitable[Response]],
    call: Call,
    receive: Callable[[Response, Call, R], Awaitable[T]],
    read: R,
    first: bool,
) -> T:
    """Make the attempt when there is room for it; a stream keeps the lease until it is closed."""
    lease = call.lease = await limiter.acquire(call.request.tokens, first=first)
    call.deadline += lease.waited
    try:
        result = await receive(await open_(call.request, call), call, read)
    except BaseException:
        lease.settle(0)
        lease.release()
        raise
    if not isinstance(result, PartStream):
        _settle(lease, result)
        lease.release()
    return result


def _heed(limiter: RateLimiter, error: LLMError, retry_after: float | None, pause: float | None) -> None:
    """Let everybody wait where the server says that too much is asked of it."""
    if isinstance(error, QuotaExhausted | LimiterTimeout):
        return
    if isinstance(error, RateLimited):
        limiter.pause(retry_after if retry_after is not None else pause or 0.0)
    elif retry_after is not None and error.status in _OVERLOADED:
        limiter.pause(retry_after)


_OVERLOADED = (503, 529)


def _settle(lease: Lease, answer: Any) -> None:
    """Correct what was supposed that a request takes, where its answer tells."""
    usage = getattr(answer, "usage", None)
    if usage is not None:
        lease.settle(usage.total_tokens)


async def _whole(response: Response, call: Call, parse: Callable[[bytes], T]) -> T:
    return parse(await _body(response, call))


async def _streamed(response: Response, call: Call, assembler: Callable[[], Assembler[T]]) -> PartStream[T]:
    stream = PartStream(response, call, assembler())
    await stream.begin()
    return stream


async def refused(response: Response, call: Call) -> Exception:
    """What an answer that is an error means; no more of it is read than an error shows."""
    headers = response.headers
    call.retry_after = retry_after(headers)
    try:
        body = await _body(response, call, _ERROR_BYTES)
    except LLMError as error:
        if isinstance(error, RequestTimeout):
            return error
        body = b""  # cut off or too long: the status says enough
    told = None if call.request.read_error is None else call.request.read_error(body)
    if told is not None:
        call.final = True
        return told
    return refusal(response.status, headers, body, secrets=call.request.secrets, where=call.host)


_ERROR_BYTES = 256 * 2**10


async def _body(response: Response, call: Call, max_bytes: int | None = None) -> bytes:
    """The whole body, decompressed."""
    content = response.content
    if content.is_eof() and "Content-Encoding" not in response.headers:  # it came with the headers
        data = content.read_nowait()
        if len(data) <= (max_bytes or call.options.max_bytes):
            return data
        raise _too_large(call)
    reader = _Reader(response, call, max_bytes or call.options.max_bytes)
    pieces = []
    try:
        while (piece := await reader.read()) is not None:
            pieces.append(piece)
    finally:
        reader.close()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Reader:
    """The bytes of one answer as they come, with their deadlines and their cap."""

    __slots__ = ("_call", "_content", "_inflate", "_left", "_response")

    def __init__(self, response: Response, call: Call, max_bytes: int) -> None:
        self._response = response
        self._content = response.content
        self._call = call
        self._left = max_bytes
        encoding = response.headers.get("Content-Encoding")
        self._inflate = None if encoding is None else _inflater(encoding)

    async def read(self) -> bytes | None:
        """What has arrived, waiting for it if need be; None at the end."""
        content, call = self._content, self._call
        try:
            data = content.read_nowait()
            if not data:
                if content.at_eof():
                    return None
                call.stage = "idle"
                async with asyncio.timeout_at(call.until(call.options.idle)):
                    data = await content.readany()
                if not data and content.at_eof():
                    return None
        except TimeoutError:
            failure = call.timed_out()
        except (aiohttp.ClientError, OSError) as error:
            failure = call.failed(error)
        else:
            if self._inflate is not None:
                data = self._inflate(data, self._left)
            self._left -= len(data)
            if self._left < 0:
                raise _too_large(call)
            return data
        raise failure

    async def drain(self, seconds: float) -> None:
        """Read what little is left, so that the connection can be used again."""
        content = self._content
        try:
            content.read_nowait()
            if not content.at_eof():
                async with asyncio.timeout_at(self._call.until(seconds)):
                    while await content.readany():
                        continue
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            logger.debug("the connection to %s is not kept: %r", self._call.host, error)

    def close(self) -> None:
        """Give the connection back if the answer was read to its end, else close it."""
        if not self._content.at_eof():
            self._response.close()


def _too_large(call: Call) -> ResponseTooLarge:
    return ResponseTooLarge(f"the answer of {call.host} passes the cap on its size: raise max_bytes if it is right")


def _inflater(encoding: str) -> Callable[[bytes, int], bytes] | None:
    """What undoes a content encoding, giving at most one byte more than allowed; None for no encoding."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in ("gzip", "x-gzip", "deflate"):
        raise BadResponse(f"the answer is compressed with {encoding!r}, which was not asked for")
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def inflate(data: bytes, limit: int) -> bytes:
        try:
            return stream.decompress(data, limit + 1)
        except zlib.error as error:
            raise BadResponse(f"the answer's {name} data is damaged: {error}") from None

    return inflate


class PartStream(AsyncIterator[list[T]]):
    """The parts of a streamed answer, in lists of those that arrived together."""

    def __init__(self, response: Response, call: Call, assembler: Assembler[T]) -> None:
        self._response = response
        self._call = call
        self._assembler = assembler
        self._events = assembler.parser(call.options.max_bytes)
        self._reader: _Reader | None = None
        self._first: list[T] = []
        self._head = b""
        self._over = False

    async def begin(self) -> None:
        """Read on until there is something to hand out."""
        try:
            self._reader = _Reader(self._response, self._call, self._call.options.max_bytes)
            while not self._first and not self._over:
                self._first = await self._next(self._reader)
        except BaseException as error:
            if isinstance(error, LLMError):
                error.raw = error.raw or self._head.decode("utf-8", "backslashreplace")[:1024]
                error.partial = self._assembler.partial
            self.close()
            raise

    def __aiter__(self) -> AsyncIterator[list[T]]:
        return self

    async def __anext__(self) -> list[T]:
        if self._first:
            parts, self._first = self._first, []
            return parts
        reader = self._reader
        try:
            while reader is not None and not self._over:
                parts = await self._next(reader)
                if parts:
                    return parts
            if reader is not None:
                await reader.drain(_DRAIN_SECONDS)
        except LLMError as error:
            self._over = True
            self.close()
            error.partial = self._assembler.partial
            mask_error(error, self._call.request.secrets)
            raise
        self.close()
        raise StopAsyncIteration

    def close(self) -> None:
        """Let go of the connection."""
        if self._reader is not None:
            self._reader.close()
        else:
            self._response.close()
        if self._call.lease is not None:
            self._call.lease.release()

    def _last(self) -> list[T]:
        """The last parts, whose answer tells what the request took."""
        parts = self._assembler.close()
        if parts and self._call.lease is not None:
            _settle(self._call.lease, parts[-1][-1])  # type: ignore[index]  # models' parts end with the answer so far
        return parts

    async def _next(self, reader: _Reader) -> list[T]:
        """The parts made by the next bytes, which may be none."""
        try:
            data = await reader.read()
            if data is not None and not self._head and self._is_whole(data):
                data += await _rest(reader)
                self._head = data[:_HEAD_BYTES]
                return self._assembler.feed([data]) + self._end()
        except (StreamTruncated, RequestTimeout, ResponseTooLarge) as error:
            return self._cut(error)
        if data is None:
            return self._end()
        if len(self._head) < _HEAD_BYTES:
            self._head += data[:_HEAD_BYTES]
        events = self._events.feed(data)
        parts = self._assembler.feed(events) if events else []
        if self._assembler.done:
            self._over = True
            parts += self._last()
        return parts

    def _is_whole(self, data: bytes) -> bool:
        """Whether the server does not stream, whatever it says of that: no event begins like a JSON object."""
        return self._assembler.parser is EventParser and data.lstrip().startswith(b"{")

    def _end(self) -> list[T]:
        """The last parts, once the server has closed the stream."""
        self._over = True
        parts: list[T] = []
        tail = self._events.close()
        if tail is not None:  # an event without its blank line counts if it is whole
            try:
                parts = self._assembler.feed([tail])
            except BadResponse as error:
                logger.debug("the stream of %s ends within an event: %s", self._call.host, error)
        return parts + self._last()

    def _cut(self, error: LLMError) -> list[T]:
        """The last part if the answer was complete when the stream broke."""
        self._over = True
        try:
            return self._last()
        except LLMError:
            raise error from None


_DRAIN_SECONDS = 0.2
_HEAD_BYTES = 1024


async def _rest(reader: _Reader) -> bytes:
    pieces = []
    while (piece := await reader.read()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


@atexit.register
def _close_what_still_runs() -> None:
    """The background loop never ends by itself: close its connections with the process."""
    for loop, close in pools_of_process():
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(_finish(close), loop).result(timeout=2)


async def _finish(close: Callable[[], Awaitable[None]]) -> None:
    await close()
