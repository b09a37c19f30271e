"""One HTTP exchange on aiohttp's connections, without the layers that its client session puts above them.

The session builds a request, a payload, a task that writes it and a response for each POST, which costs as much as all
the rest. What is kept of aiohttp is what is hard: the pool, name look-up, TLS, proxies, and the parser.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from yarl import URL

from ..errors import BadResponse, InvalidArgument

__all__ = ["Pool", "Response", "Stages", "pool_of_loop", "pools_of_process", "post"]


class Stages(Protocol):
    """Who is told how far an exchange has come."""

    def waiting_for_connection(self) -> None:
        """All connections are in use."""

    def connecting(self) -> None:
        """A new connection is being made."""

    def connected(self) -> None:
        """There is a connection, and the request goes out."""


class Response:
    """The head of an answer, and the stream of its body."""

    __slots__ = ("_connection", "content", "headers", "status")

    def __init__(self, connection: Connection, status: int, headers: Mapping[str, str], content: StreamReader) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self.content = content

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def close(self) -> None:
        """Close the connection, unless the body was read to its end and it is free again."""
        self._connection.close()


async def post(
    pool: Pool,
    url: URL,
    headers: Mapping[str, str],
    body: bytes,
    proxy: str | None,
    stages: Stages,
    method: str = "POST",
) -> Response:
    """Send a request with a JSON body; the answer, its head read.

    Raises:
        aiohttp.ClientError, OSError: there is no connection, or it was lost.
        BadResponse: the answer is no HTTP.
    """
    head = pool.head(url, headers, proxy, method)
    target = pool.target(url, proxy)
    token = _stages.set(stages)
    try:
        connection = await pool.connector.connect(target, [], _NO_TIMEOUT)
    finally:
        _stages.reset(token)
    stages.connected()
    try:
        protocol = connection.protocol
        if protocol is None or protocol.transport is None:
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=_BUFFER)
        protocol.transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        message, content = await protocol.read()
        while 100 <= message.code < 200:  # an interim answer
            message, content = await protocol.read()
    except HttpProcessingError as error:
        connection.close()
        reason = str(error.message)
    except BaseException:
        connection.close()
        raise
    else:
        content.on_eof(connection.release)
        return Response(connection, message.code, message.headers, content)
    raise BadResponse(f"{url.host} does not answer in HTTP: {reason[:200]}")


_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None)
_BUFFER = 2**16


def _head(url: URL, headers: Mapping[str, str], proxy: str | None, method: str) -> bytes:
    """Request line and headers but for the length; a plain request through a proxy names the whole URL."""
    path = url.raw_path_qs
    if proxy is not None and url.scheme == "http":
        path = str(url)
        headers = {**headers, **_proxy_authorization(URL(proxy))}
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise InvalidArgument("headers", sorted(headers), "none of them may hold a line break")
    first = f"{method} {path} HTTP/1.1\r\nHost: {url.raw_authority}\r\n"
    return f"{first}{_HEADERS}{lines}".encode()


_HEADERS = (
    "Accept: */*\r\nAccept-Encoding: gzip\r\nUser-Agent: lagentlike\r\nContent-Type: application/json\r\n"
)  # fmt: skip


def _proxy_authorization(proxy: URL) -> dict[str, str]:
    if proxy.user is None:
        return {}
    credentials = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {credentials}"}


class Pool:
    """The connections of one event loop, kept alive between requests."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_connections: int) -> None:
        self.pid = os.getpid()
        self.loop = loop
        self.connector = _Connector(limit=max_connections, keepalive_timeout=30, ttl_dns_cache=60)
        self._targets: dict[URL, aiohttp.ClientRequest] = {}
        self._heads: dict[int, _Head] = {}

    @property
    def closed(self) -> bool:
        return self.connector.closed

    def target(self, url: URL, proxy: str | None) -> aiohttp.ClientRequest:
        """Where to connect to, in the form that aiohttp's pool takes."""
        if proxy is not None:  # it notes the proxy's credentials on it: one for each request
            return aiohttp.ClientRequest("POST", url, loop=self.loop, proxy=URL(proxy))
        target = self._targets.get(url)
        if target is None:
            if len(self._targets) >= _MOST_HEADS:
                self._targets.clear()
            target = self._targets[url] = _Target("POST", url, loop=self.loop)
        return target

    def head(self, url: URL, headers: Mapping[str, str], proxy: str | None, method: str) -> bytes:
        """What a request begins with, made once for the headers of one model."""
        known = self._heads.get(id(headers))
        if (
            known is not None
            and known.url is url
            and known.headers == headers
            and known.proxy == proxy
            and known.method == method
        ):
            return known.head
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        made = self._heads[id(headers)] = _Head(_head(url, headers, proxy, method), dict(headers), url, proxy, method)
        return made.head


class _Target(aiohttp.ClientRequest):
    """Where to connect to without a proxy, which never changes."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key


class _Head(NamedTuple):
    """What requests with these headers begin with."""

    head: bytes
    headers: Mapping[str, str]
    url: URL
    proxy: str | None
    method: str

    def __repr__(self) -> str:
        return "_Head(***)"


_MOST_HEADS = 64


_stages: ContextVar[Stages] = ContextVar("lagentlike_stages")


class _Connector(aiohttp.TCPConnector):
    """Tells the exchange it works for what it is doing."""

    async def _wait_for_available_connection(self, *args: Any, **kwargs: Any) -> None:
        _stages.get().waiting_for_connection()
        await super()._wait_for_available_connection(*args, **kwargs)

    async def _create_connection(self, *args: Any, **kwargs: Any) -> ResponseHandler:
        _stages.get().connecting()
        return await super()._create_connection(*args, **kwargs)


class _Kept(NamedTuple):
    pool: Pool
    keeper: AsyncGenerator[None, None]


_Key = tuple[asyncio.AbstractEventLoop, int]
_kept: dict[_Key, _Kept] = {}


async def pool_of_loop(loop: asyncio.AbstractEventLoop, max_connections: int) -> Pool:
    """The pool of this loop, opened on first use and closed with the loop."""
    key = (loop, max_connections)
    kept = _kept.get(key)
    if kept is not None and not kept.pool.closed:
        return kept.pool
    for closed in [key for key in _kept if key[0].is_closed()]:
        del _kept[closed]  # of a loop that was closed without a word to its async generators
    pool = Pool(loop, max_connections)
    keeper = _keep(pool, key)
    _kept[key] = _Kept(pool, keeper)
    await anext(keeper)  # does not suspend, so nobody opens a second one meanwhile
    return pool


async def _keep(pool: Pool, key: _Key) -> AsyncGenerator[None, None]:
    """Close the pool when the loop shuts its async generators down, which is the last thing a loop does."""
    try:
        yield
    finally:
        kept = _kept.get(key)
        if kept is not None and kept.pool is pool:
            del _kept[key]
        await pool.connector.close()
        await asyncio.sleep(0)  # lets the sockets go


def pools_of_process() -> list[tuple[asyncio.AbstractEventLoop, Callable[[], Any]]]:
    """The loops that have a pool, each with what closes it (a coroutine function)."""
    return [(kept.pool.loop, kept.keeper.aclose) for kept in list(_kept.values()) if kept.pool.pid == os.getpid()]
