"""What every server of this package does the same: who may connect, how much and how long, errors as bodies, a stop."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast, Self
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from ..errors import InvalidArgument
from ..sandbox.http import checked_port, only_this_machine
from ..tracing.propagation import part_of
from .auth import Tokens
from .openai_protocol import BadRequest, error_body, failure

__all__ = ["HTTPFace", "Limits", "Put", "dumped", "json_response", "read_json"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a server takes, and how long it waits; times in seconds.

    Args:
        body: largest body of a request, in bytes.
        headers: most headers of a request.
        read: for a whole request to arrive, from the first byte or from when the connection was free.
        write: for a client to take anything of what was sent.
        ping: between two signs of life in a stream.
        grace: for what is under way when the server is told to stop; what takes longer is cancelled.
    """

    body: int = 2**20
    headers: int = 100
    read: float = 30.0
    write: float = 30.0
    ping: float = 15.0
    grace: float = 30.0

    def __post_init__(self) -> None:
        for name in ("body", "headers", "read", "write", "ping", "grace"):
            if not getattr(self, name) > 0:
                raise InvalidArgument(name, getattr(self, name), "give a number above 0")


class HTTPFace(ABC):
    """An HTTP server whose routes a subclass adds.

    Secure as it comes: it listens on this machine only, unless there is a token; on this machine it answers to no other
    host name (which is what DNS rebinding needs), and to no page of another origin; it sends no CORS headers.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one, which `port` then tells.
        token: clients must send it as `Authorization: Bearer …`; several go by the name of who has them. Needed
            wherever others can connect.
        max_concurrency: most requests worked on at once; more wait.
        hosts: further host names that it answers to, such as that of a proxy before it.
        limits: how much it takes, and how long it waits.

    Raises:
        InvalidArgument: `host` is open to others and there is no `token`.
    """

    open_paths: Collection[str] = ("/health",)  # what needs no token

    def __init__(
        self,
        *,
        host: str,
        port: int,
        token: str | Mapping[str, str] | None,
        max_concurrency: int,
        hosts: Collection[str] = (),
        limits: Limits | None = None,
    ) -> None:
        self._tokens = Tokens(token)
        if not self._tokens and not only_this_machine(host):
            raise InvalidArgument("host", host, "others can connect there: set a token as well, or listen on 127.0.0.1")
        if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
            raise InvalidArgument("max_concurrency", max_concurrency, "give a number of at least 1")
        self.host = host
        self.port = checked_port(port)
        self.limits = limits or Limits()
        self._hosts = {"localhost", "127.0.0.1", "::1", host.lower(), *map(str.lower, hosts)}
        self._any_host = not only_this_machine(host)
        self._slots = asyncio.Semaphore(max_concurrency)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._busy: set[asyncio.Task[Any]] = set()

    @abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add what the server does."""

    def failure(self, error: Exception) -> BadRequest:
        """The response that an error amounts to."""
        return failure(error)

    @property
    def address(self) -> str:
        """Where it listens, such as `http://127.0.0.1:8000`."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def app(self) -> web.Application:
        """The application, to be mounted or served by other means."""
        app = web.Application(client_max_size=self.limits.body, middlewares=[self._guarded])
        app.router.add_get("/health", self._health)
        self.add_routes(app.router)
        return app

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            InvalidArgument: the port is taken, or the host is not an address of this machine.
        """
        limits = self.limits
        runner = web.AppRunner(self.app(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        server = runner.server
        assert server is not None
        loop = asyncio.get_running_loop()

        def connection() -> _Connection:
            return _Connection(
                server,
                loop=loop,
                write_timeout=limits.write,
                keepalive_timeout=limits.read,
                max_headers=limits.headers,
                access_log=None,
                auto_decompress=False,
                lingering_time=2.0,
            )

        try:
            self._listener = await loop.create_server(connection, self.host, self.port, backlog=1024)
        except OSError as error:
            await runner.cleanup()
            raise InvalidArgument("port", self.port, f"cannot listen on {self.host}: {error.strerror}") from error
        self._runner = runner
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take nothing new, finish what is under way within the grace, cancel the rest, and close."""
        runner, self._runner = self._runner, None
        if runner is None or self._listener is None:
            return
        self._listener.close()
        await asyncio.sleep(0)  # what has just come in is under way
        if runner.server is not None:
            runner.server.pre_shutdown()
        if self._busy:
            await asyncio.wait(self._busy, timeout=self.limits.grace)
        for task in self._busy:
            task.cancel()
        if self._busy:
            logger.warning("%d requests took longer than the grace of %g s", len(self._busy), self.limits.grace)
            await asyncio.wait(self._busy, timeout=1.0)
        await runner.cleanup()

    async def serve(self, started: Callable[[], None] | None = None) -> None:
        """Serve until this process is told to stop, by Ctrl-C or SIGTERM; a second one does not wait for the grace.

        Args:
            started: called when the server listens.
        """
        async with self:
            if started is not None:
                started()
            await self.wait_for_signal(asyncio.Event())

    async def wait_for_signal(self, told: asyncio.Event) -> None:
        """Wait for an event, which SIGINT and SIGTERM set too; from then on they end the process at once."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        with suppress(NotImplementedError):  # where a loop takes no signals, Ctrl-C raises
            for number in numbers:
                loop.add_signal_handler(number, told.set)
        await told.wait()
        with suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stream(
        self, http: web.Request, produce: Callable[[Put], Awaitable[None]], headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """Answer with server-sent events.

        Args:
            http: the request.
            produce: is given what takes the events, each a JSON value or bytes. An error before the first event is an
                HTTP status of its own, a later one the last event. When the client is gone it is cancelled.
            headers: further headers of the response.
        """
        events = _Events(self.failure)
        work = asyncio.create_task(events.made_by(produce))
        response = web.StreamResponse(headers={**_STREAM_HEADERS, **(headers or {})})
        try:
            event = await events.first(work, self.limits.ping)
            await response.prepare(http)
            while event is not None:
                await response.write(event)
                event = await events.next(self.limits.ping)
            await response.write_eof()
        finally:
            events.gone = True
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return response

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Check who asks, and turn every error into a body that clients can read."""
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)
        try:
            self._check_origin(request)
            if request.path not in self.open_paths:
                self.owner(request)
            with part_of(request.headers.get("traceparent")):
                return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            error = BadRequest(f"the body is larger than {self.limits.body} bytes: send less", status=413)
        except web.HTTPException as http:
            error = BadRequest(f"{request.method} {request.path}: {http.reason}", status=http.status)
        except Exception as problem:
            if isinstance(problem, ConnectionError) and (request.transport is None or request.transport.is_closing()):
                raise  # the client is gone, so there is nobody to tell
            error = self.failure(problem)
            if error.status >= 500:
                logger.exception("a request failed")
        return json_response(error_body(error), status=error.status)

    def _check_origin(self, request: web.Request) -> None:
        """Refuse what only a page of elsewhere sends: a foreign Host (DNS rebinding), or a foreign Origin."""
        host = request.headers.get("Host", "")
        if not self._any_host and _host_name(host) not in self._hosts:
            raise BadRequest(f"this server does not answer to the host {host[:100]!r}", status=403, code="foreign_host")
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            raise BadRequest(f"pages of {origin[:100]!r} may not ask here", status=403, code="foreign_origin")

    def owner(self, request: web.Request) -> str:
        """Whose token a request has; "" where all share one, or there is none.

        Raises:
            BadRequest: it has nobody's.
        """
        owner = self._tokens.owner(request.headers.get("Authorization", ""))
        if owner is None:
            raise BadRequest("send the server's token as 'Authorization: Bearer …'", status=401, code="invalid_api_key")
        return owner

    async def _health(self, request: web.Request) -> web.Response:
        return json_response({"status": "ok"})


Put = Callable[[Any], Awaitable[None]]
"""What takes the events of a stream."""

_STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_PING = b": ping\n\n"  # a comment, as a sign of life


class _Events:
    """The events of one stream, in line between who makes them and who sends them."""

    def __init__(self, failure: Callable[[Exception], BadRequest]) -> None:
        self.gone = False  # whether nobody takes them any more
        self._failure = failure
        self._begun = False
        self._line: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1024)  # till then a slow reader slows nobody

    async def made_by(self, produce: Callable[[Put], Awaitable[None]]) -> None:
        """Let something put its events in line; its error is one too, unless it would be the first."""
        try:
            await produce(self._put)
        except Exception as problem:
            if self.gone or not self._begun:
                raise
            logger.exception("a stream broke off")
            await self._put(error_body(self._failure(problem)))
        if not self.gone:
            await self._line.put(None)

    async def first(self, work: asyncio.Task[None], patience: float) -> bytes | None:
        """The first event; an error before it is raised."""
        getting = asyncio.ensure_future(self._line.get())
        try:
            await asyncio.wait({getting, work}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not getting.done():
                await work  # which raises, unless its events are there by now
            self._begun = True
            return await getting if work.done() or getting.done() else _PING
        finally:
            getting.cancel()

    async def next(self, patience: float) -> bytes | None:
        """The next event; None at the end."""
        if not self._line.empty():
            return self._line.get_nowait()
        try:
            async with asyncio.timeout(patience):
                return await self._line.get()
        except TimeoutError:
            return _PING

    async def _put(self, event: Any) -> None:
        if self.gone:
            raise ConnectionResetError("the client is gone")
        self._begun = True
        await self._line.put(b"data: %b\n\n" % (event if isinstance(event, bytes) else dumped(event)))


class _Connection(web.RequestHandler):
    """One connection: it says 431 where headers are too many, and drops a client that takes nothing."""

    __slots__ = ("_peer", "_sending", "_unsent", "_write_timeout")

    def __init__(self, manager: web.Server, *, write_timeout: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._write_timeout = write_timeout
        self._peer: asyncio.Transport | None = None  # unlike `transport`, it is there until the connection is lost
        self._sending: asyncio.TimerHandle | None = None
        self._unsent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._peer = cast("asyncio.Transport", transport)
        self._peer.set_write_buffer_limits(high=0)  # so that we are told of every byte that is not taken
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_clock()
        self._peer = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_clock()

    def resume_writing(self) -> None:
        self._stop_clock()
        super().resume_writing()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is answered to a request that is no good HTTP."""
        if status != 400 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        told = str(message or "")
        too_long = isinstance(exc, LineTooLong) or told.startswith("Too many headers")
        logger.debug("a request that is no good HTTP: %s", type(exc).__name__)
        reason = "the headers are too long or too many" if too_long else "the request is no good HTTP/1.1"
        error = BadRequest(reason, status=431 if too_long else 400)
        response = json_response(error_body(error), status=error.status)
        response.force_close()
        return response

    def _start_clock(self) -> None:
        if self._peer is not None:
            self._unsent = self._peer.get_write_buffer_size()
            self._sending = self._loop.call_later(self._write_timeout, self._look)

    def _stop_clock(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _look(self) -> None:
        """Go on waiting if the client took something."""
        transport = self._peer
        if transport is None:
            return
        if transport.get_write_buffer_size() < self._unsent:
            self._start_clock()
        else:
            logger.info("a client took nothing for %g s, and is dropped", self._write_timeout)
            transport.abort()


async def read_json(http: web.Request, limits: Limits) -> Any:
    """The parsed body of a request.

    Raises:
        BadRequest: it is no JSON, too slow, or compressed.
    """
    if "Content-Encoding" in http.headers:
        raise BadRequest("the body is compressed: send it as it is", status=415)
    if (http.content_length or 0) > limits.body:
        raise web.HTTPRequestEntityTooLarge(limits.body, http.content_length or 0)
    try:
        async with asyncio.timeout(limits.read):
            body = await http.read()
    except TimeoutError:
        raise BadRequest(f"the body did not arrive within {limits.read:g} s", status=408) from None
    except web.RequestPayloadError as error:
        raise BadRequest("the body is no good HTTP/1.1") from error
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from error


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A response with a JSON body."""
    return web.Response(body=dumped(body), status=status, headers=headers, content_type="application/json")


def dumped(body: Any) -> bytes:
    """A body as JSON."""
    try:
        return orjson.dumps(body)
    except TypeError:  # lone surrogates, integers of more than 64 bits
        return json.dumps(body).encode()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _host_name(host: str) -> str:
    """The name in a `Host` header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
