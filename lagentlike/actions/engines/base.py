"""What a search engine is."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from html import unescape
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ...errors import FetchError, InvalidArgument
from ..html import visible
from ..web_cache import SharedCache
from ..web_fetch import WebClient
from ..web_service import WebService

__all__ = ["BLACK_LIST", "Found", "SearchEngine", "plain"]

BLACK_LIST = ("youtube.com", "bilibili.com", "researchgate.net")
"""Sites whose pages have little text to read."""

AT_ONCE = 4
"""Queries that one engine is asked side by side."""

KEPT_QUERIES = 128
MAX_SUMMARY = 1000
"""Most characters of a summary."""

Found = dict[str, str]
"""A page that was found: its `url`, its `title`, and `summ`, a summary."""


class SearchEngine(ABC):
    """Finds pages for a query. One of your own says in `_find` how it is asked, and what its answer means.

    Args:
        topk: most results.
        black_list: sites that are left out, with those below them.
        endpoint: address of the engine, on the internet or within.
        kept_seconds: how long results are good for whoever asks the same; 0 for not at all.
    """

    service: ClassVar[WebService] = WebService("the search engine")
    default_endpoint: ClassVar[str] = ""

    def __init__(
        self,
        topk: int = 20,
        black_list: Sequence[str] | None = BLACK_LIST,
        endpoint: str | None = None,
        kept_seconds: float = 600,
        **options: Any,
    ) -> None:
        if options:
            raise InvalidArgument("options", sorted(options), f"{type(self).__name__} has no such option")
        if isinstance(topk, bool) or not isinstance(topk, int) or topk < 1:
            raise InvalidArgument("topk", topk, "give a whole number of at least 1")
        if isinstance(black_list, str):
            raise InvalidArgument("black_list", black_list, "give a list of sites, such as ['youtube.com']")
        self.topk = topk
        self.black_list = tuple(black_list or ())
        self.endpoint = endpoint or self.default_endpoint
        self._kept: SharedCache[list[Found]] = SharedCache(KEPT_QUERIES if kept_seconds > 0 else 0, kept_seconds)

    async def search(self, client: WebClient, query: str) -> list[Found]:
        """Pages that fit, best first, each once; none if there are none.

        Raises:
            FetchError: the engine cannot be asked, or refuses; see `WebService.ask`.
        """
        query = " ".join(query.split())
        if not query:
            raise FetchError("there is nothing to search for: give some words")
        return [dict(page) for page in await self._kept.get(query, lambda: self._sifted(client, query))]

    async def search_all(self, client: WebClient, queries: Iterable[str]) -> list[list[Found] | FetchError]:
        """What each query finds, or why it finds nothing: a few at once, in order."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def ask(query: str) -> list[Found] | FetchError:
            async with slots:
                try:
                    return await self.search(client, query)
                except FetchError as error:
                    return error

        return await asyncio.gather(*(ask(query) for query in queries))

    @abstractmethod
    async def _find(self, client: WebClient, query: str) -> Iterable[Found]:
        """All that the engine finds; titles and summaries may have marks of HTML in them."""

    async def _sifted(self, client: WebClient, query: str) -> list[Found]:
        pages: dict[str, Found] = {}
        for page in await self._find(client, query):
            url = page["url"]
            if self._is_fit(url) and url not in pages and len(pages) < self.topk:
                pages[url] = {"url": url, "title": plain(page["title"]), "summ": plain(page["summ"])[:MAX_SUMMARY]}
        return list(pages.values())

    def _is_fit(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        host = parts.hostname or ""
        black = any(host == site or host.endswith(f".{site}") for site in self.black_list)
        return parts.scheme in ("http", "https") and bool(host) and not black


def plain(text: str) -> str:
    """A line of text without the marks of HTML that engines put around the words they found."""
    return " ".join(visible(unescape(_TAG.sub("", text))).split())


_TAG = re.compile(r"</?(?:strong|b|em|i|span|mark|br|p)(?:\s[^<>]{0,200})?/?>", re.IGNORECASE)
