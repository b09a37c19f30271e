"""Answers of the web, by one client that keeps away from private addresses."""

from __future__ import annotations

import asyncio
import json
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http.client import responses
from typing import Any, TYPE_CHECKING
from urllib.parse import urljoin

from ..errors import BadAnswer, FetchError
from .charset import decoded
from .web_address import AddressGuard, origin

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

__all__ = ["Response", "WebClient"]

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of the largest answer, unpacked."""

MAX_REDIRECTS = 5
_USER_AGENT = "Mozilla/5.0 (compatible; lagentlike)"
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Response:
    """What a server answered.

    Attributes:
        url: where it came from in the end.
        status: its HTTP status.
        kind: its media type, such as `text/html`.
        headers: by name, in whatever case.
        body: at most as many bytes as the request wanted.
        label: the charset that the server named; "" if none.
    """

    url: str
    status: int
    kind: str
    headers: Mapping[str, str]
    body: bytes
    label: str = ""

    @cached_property
    def text(self) -> str:
        return decoded(self.body, self.label)

    def json(self) -> Any:
        """The body's value.

        Raises:
            BadAnswer: it is no JSON.
        """
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise BadAnswer(f"{origin(self.url)} answered something that is no JSON: {error}") from None

    def check_status(self) -> None:
        """Raise `FetchError` if the answer is an error."""
        if self.status >= 400:
            name = responses.get(self.status, "")
            raise FetchError(f"{origin(self.url)} answered {self.status} {name}".rstrip(), status=self.status)


class WebClient:
    """Asks servers of the web, from one event loop at a time.

    Only http and https, and only addresses of the public internet, also after redirects: a name is looked up for each
    connection, all the addresses it leads to are checked, and the connection is made to one of those and no other. It
    keeps no cookies, and follows no proxy that the environment names.

    Args:
        timeout: seconds for a whole request, redirects and body included.
        allow_private: also ask private addresses (loopback, local networks): all, or those of a list of networks.
        max_redirects: how many redirects a GET follows.
        resolver: looks names up, as for aiohttp's connector; the system's by default. What it answers is checked too.
    """

    def __init__(
        self,
        timeout: float,
        allow_private: bool | Sequence[str] = False,
        max_redirects: int = MAX_REDIRECTS,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._timeout = timeout
        self._guard = AddressGuard(allow_private)
        self._max_redirects = max_redirects
        self._resolver = resolver
        self._session: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Response:
        """Make a request; only a GET follows redirects, and `headers` are not sent to where they lead.

        It is made again, once, where the connection ends without an answer: as a kept one does that the server has
        closed meanwhile.

        Args:
            method: GET or POST.
            url: the address.
            params: added to the address.
            form: fields of a form, as the body.
            body: the body itself.
            headers: more headers.
            max_bytes: most bytes of an answer, as it comes and unpacked.

        Returns:
            The answer, whatever its status.

        Raises:
            AddressRefused: the address, or one that it leads to, is not fetched.
            FetchError: no connection, no answer in time, too many redirects, too large an answer; the message is for a
                model.
        """
        import aiohttp

        data = form if body is None else body
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._follow(method, url, params, data, headers, max_bytes)
                except aiohttp.ServerDisconnectedError:
                    return await self._follow(method, url, params, data, headers, max_bytes)
        except TimeoutError:
            raise FetchError(f"{origin(url)} did not answer within {self._timeout:g} seconds") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchError(f"{origin(url)} cannot be reached: {str(error) or type(error).__name__}") from None

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _follow(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        data: Any,
        headers: Mapping[str, str] | None,
        max_bytes: int,
    ) -> Response:
        """The answer at the end of the redirects."""
        start = origin(url)
        for _ in range(self._max_redirects + 1):
            address = self._guard.check(url)
            async with self._opened().request(
                method, address, params=params, data=data, headers=headers, allow_redirects=False
            ) as answer:
                target = answer.headers.get("Location")
                if method != "GET" or answer.status not in _REDIRECTS or not target:
                    return await _read(answer, max_bytes)
                url, params, headers = urljoin(str(answer.url), target), None, None
        times = f"more than {self._max_redirects} times" if self._max_redirects else "elsewhere"
        raise FetchError(f"{start} redirects {times}")

    def _opened(self) -> Any:
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_checking_resolver(self._guard, self._resolver), use_dns_cache=False, limit=16
                ),
                headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "gzip, deflate"},
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,  # that is done here, with a limit
            )
        return self._session


def _checking_resolver(guard: AddressGuard, resolver: AbstractResolver | None) -> AbstractResolver:
    """A resolver that refuses names which lead to addresses that are refused."""
    from aiohttp.abc import AbstractResolver, ResolveResult
    from aiohttp.resolver import ThreadedResolver

    class CheckingResolver(AbstractResolver):
        def __init__(self) -> None:
            self._inner = ThreadedResolver() if resolver is None else resolver

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            found = await self._inner.resolve(host, port, family)
            guard.check_host(host, [item["host"] for item in found])
            return found

        async def close(self) -> None:
            await self._inner.close()

    return CheckingResolver()


async def _read(answer: Any, max_bytes: int) -> Response:
    """The answer with its body.

    Raises:
        FetchError: it is larger than that.
        BadAnswer: it is packed in a way that was not asked for, or damaged.
    """
    if (answer.content_length or 0) > max_bytes:
        answer.close()
        raise _too_large(answer, max_bytes)
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    unpack = _unpacker(encoding)
    if unpack is None:
        raise BadAnswer(f"{origin(answer.url)} answered in the encoding {encoding[:40]!r}, which was not asked for")
    body = bytearray()
    try:
        async for piece in answer.content.iter_chunked(65536):
            for part in unpack(piece):
                body += part
                if len(body) > max_bytes:
                    answer.close()
                    raise _too_large(answer, max_bytes)
    except zlib.error as error:
        answer.close()
        raise BadAnswer(f"{origin(answer.url)} answered something that cannot be unpacked: {error}") from None
    headers, label = answer.headers.copy(), answer.charset or ""
    return Response(str(answer.url), answer.status, answer.content_type, headers, bytes(body), label)


def _too_large(answer: Any, max_bytes: int) -> FetchError:
    return FetchError(f"{origin(answer.url)} answered more than {max_bytes:,} bytes, which is not read")


def _unpacker(encoding: str) -> Callable[[bytes], Iterator[bytes]] | None:
    """A function that unpacks pieces of a body, never much at once; None for an unknown encoding.

    aiohttp would unpack too, but how much of it at once depends on its version.
    """
    if encoding in ("", "identity"):
        return lambda piece: iter([piece])
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    stream: Any = None

    def unpack(piece: bytes) -> Iterator[bytes]:
        nonlocal stream
        more = False
        while piece or more:
            if stream is None:  # the first piece, or the next member of a gzip file
                raw = encoding == "deflate" and piece[0] & 15 != 8  # as some servers send it
                stream = zlib.decompressobj(-15 if raw else 47)
            part = stream.decompress(piece, 65536)
            piece, more = stream.unconsumed_tail, len(part) == 65536
            if stream.eof:
                piece, more, stream = stream.unused_data.lstrip(b"\0"), False, None
            yield part

    return unpack
