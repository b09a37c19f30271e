"""Pages from the web, by one client that keeps away from private addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..errors import ToolError
from .html import page_text
from .result import shortened
from .workers import submit_from_loop

__all__ = ["FetchError", "Response", "WebClient"]

MAX_BYTES = 2 * 1024 * 1024
MAX_REDIRECTS = 5
_USER_AGENT = "Mozilla/5.0 (compatible; lagentlike)"


class FetchError(ToolError):
    """A page could not be fetched."""


@dataclass(frozen=True)
class Response:
    """What a server answered.

    Attributes:
        url: where it came from in the end.
        text: the body, at most `MAX_BYTES` of it.
        kind: its media type.
    """

    url: str
    text: str
    kind: str

    def json(self) -> Any:
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise FetchError(f"{_origin(self.url)} answered something that is no JSON: {error}") from None


class WebClient:
    """Fetches pages, used from one event loop.

    Only http and https, and only addresses of the public internet, also after redirects: a name is looked up once, the
    addresses are checked, and the connection is made to those.

    Args:
        timeout: seconds for a whole request.
        allow_private: also fetch from private addresses (loopback, local networks).
    """

    def __init__(self, timeout: float, allow_private: bool = False) -> None:
        self._timeout = timeout
        self._allow_private = allow_private
        self._session: Any = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Make a request; only a GET follows redirects, and `headers` are not sent to where they lead.

        Raises:
            FetchError: no connection, an error status, a refused address; the message is for a model.
        """
        import aiohttp

        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(MAX_REDIRECTS + 1):
                    self._check(url)
                    async with self._opened().request(
                        method, url, params=params, data=form, headers=headers, allow_redirects=False
                    ) as answer:
                        target = answer.headers.get("Location")
                        if method == "GET" and 300 <= answer.status < 400 and target:
                            url, params, headers = urljoin(str(answer.url), target), None, None
                            continue
                        return await _read(answer)
        except TimeoutError:
            raise FetchError(f"{_origin(url)} did not answer within {self._timeout:g} seconds") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchError(f"{_origin(url)} cannot be reached: {_reason(error)}") from None
        raise FetchError(f"{_origin(url)} redirects more than {MAX_REDIRECTS} times")

    async def page(self, url: str, max_length: int) -> str:
        """The text of a page; a long one keeps its head and its tail.

        Raises:
            FetchError: as for `request`, or it is no text.
        """
        answer = await self.request("GET", url)
        text = answer.text
        if "html" in answer.kind or text[:200].lstrip().lower().startswith(("<!doctype", "<html")):
            text = await submit_from_loop(page_text, text)
        elif not answer.kind.startswith("text/") and "json" not in answer.kind and "xml" not in answer.kind:
            raise FetchError(f"{url} is no text ({answer.kind})")
        return shortened(text, max_length)

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _check(self, url: str) -> None:
        """Refuse what is no public web address by its look; names are checked when they are looked up."""
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            host, parts = None, urlsplit("")
        if parts.scheme not in ("http", "https") or not host:
            raise FetchError(f"{url[:200]!r} is no web address: give one that starts with https://")
        if not self._allow_private:
            _refuse_private(host, [host])

    def _opened(self) -> Any:
        import aiohttp

        if self._session is None:
            resolver = _public_resolver(self._allow_private)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver, limit=16),
                headers={"User-Agent": _USER_AGENT},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _read(answer: Any) -> Response:
    """The body, as far as the cap."""
    body = bytearray()
    async for piece in answer.content.iter_chunked(65536):
        body += piece
        if len(body) >= MAX_BYTES:
            answer.close()
            break
    if answer.status >= 400:
        raise FetchError(f"{_origin(str(answer.url))} answered {answer.status} {answer.reason or ''}".rstrip())
    encoding = answer.get_encoding() if "charset" in answer.headers.get("Content-Type", "") else "utf-8"
    return Response(str(answer.url), bytes(body[:MAX_BYTES]).decode(encoding, "replace"), answer.content_type)


def _public_resolver(allow_private: bool) -> Any:
    from aiohttp.resolver import ThreadedResolver

    class Resolver(ThreadedResolver):
        """Looks names up, and refuses those that lead to private addresses."""

        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> Any:
            found = await super().resolve(host, port, family)
            if not allow_private:
                _refuse_private(host, [item["host"] for item in found])
            return found

    return Resolver()


def _refuse_private(host: str, addresses: list[str]) -> None:
    """Refuse a host when one of its addresses is not of the public internet; names are let pass."""
    for text in addresses:
        address = _address(text)
        if address is None:
            continue
        inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
        if not inner.is_global or inner.is_multicast:
            raise FetchError(f"{host} is an address of a private network, which is not fetched")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a text is, also in the old forms (`2130706433`, `0x7f.1`); None for a name."""
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(text))
        except OSError:
            return None


def _origin(url: str) -> str:
    """Scheme and host of an address: what can be shown of it without its keys."""
    found = re.match(r"https?://[^/?#@]+", url)
    return found.group() if found else "the address"


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, FetchError) else error
    return str(cause) or type(cause).__name__
