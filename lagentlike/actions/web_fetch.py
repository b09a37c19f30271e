"""Pages from the web, by one client that keeps away from private addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..errors import ToolError

__all__ = ["FetchError", "page_text", "Response", "WebClient"]

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


def page_text(html: str) -> str:
    """The readable text of an HTML page, its title first."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    title = " ".join("".join(reader.title).split())
    lines = (" ".join(line.split()) for line in "".join(reader.text).split("\n"))
    body = "\n".join(line for line in lines if line)
    return f"{title}\n\n{body}".strip()


class _Reader(HTMLParser):
    """Collects the text of a page, with a line for each block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.text: list[str] = []
        self._skipped: str | None = None
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipped is None and tag in _UNSEEN:
            self._skipped = tag
        elif tag == "title":
            self._in_title = True
        elif tag in _BLOCKS:
            self.text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._skipped:
            self._skipped = None
        elif tag == "title":
            self._in_title = False
        elif tag in _BLOCKS:
            self.text.append("\n")

    def handle_data(self, data: str) -> None:
        if self._skipped is None:
            (self.title if self._in_title else self.text).append(data)


_UNSEEN = frozenset(("script", "style", "noscript", "template", "svg", "iframe"))
_BLOCKS = frozenset(
    "address article aside blockquote br dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p "
    "pre section table td th tr ul".split()
)


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
    for text in addresses:
        try:
            address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
        except ValueError:
            continue  # a name
        mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
        if not mapped.is_global or mapped.is_multicast or (not address.is_global and mapped is address):
            raise FetchError(f"{host} is an address of a private network, which is not fetched")


def _origin(url: str) -> str:
    """Scheme and host of an address: what can be shown of it without its keys."""
    found = re.match(r"https?://[^/?#@]+", url)
    return found.group() if found else "the address"


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, FetchError) else error
    return str(cause) or type(cause).__name__
