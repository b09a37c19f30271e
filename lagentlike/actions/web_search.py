"""Search engines of the web."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

from ..errors import InvalidArgument
from ..registry import create_object
from .html import pieces
from .web_fetch import FetchError, WebClient
from .workers import submit_from_loop

__all__ = ["BingSearch", "DuckDuckGoSearch", "engine_of", "SearchEngine"]

BLACK_LIST = ("youtube.com", "bilibili.com", "researchgate.net")
"""Sites whose pages have little text to read."""


class SearchEngine(ABC):
    """Finds pages for a query.

    Args:
        topk: most results.
        black_list: sites that are left out.
        endpoint: address of the engine.
    """

    default_endpoint = ""

    def __init__(
        self, topk: int = 20, black_list: Sequence[str] = BLACK_LIST, endpoint: str | None = None, **options: Any
    ) -> None:
        if options:
            raise InvalidArgument("options", sorted(options), f"{type(self).__name__} has no such option")
        if isinstance(topk, bool) or not isinstance(topk, int) or topk < 1:
            raise InvalidArgument("topk", topk, "give a whole number of at least 1")
        self.topk = topk
        self.black_list = tuple(black_list)
        self.endpoint = endpoint or self.default_endpoint

    async def search(self, client: WebClient, query: str) -> list[dict[str, str]]:
        """Pages that fit, best first: `url`, `title`, `summ` (a summary).

        Raises:
            FetchError: the engine cannot be asked.
        """
        found = await self._find(client, query)
        kept = [page for page in found if not self._is_black(page["url"])]
        return kept[: self.topk]

    @abstractmethod
    async def _find(self, client: WebClient, query: str) -> list[dict[str, str]]:
        """All that the engine finds."""

    def _is_black(self, url: str) -> bool:
        host = urlsplit(url).hostname or ""
        return any(host == site or host.endswith(f".{site}") for site in self.black_list)


class BingSearch(SearchEngine):
    """Bing's web search API, or a service that speaks it.

    Args:
        api_key: the key.
        region: market of the results.
        **options: as for `SearchEngine`; `endpoint` is the address of the API.
    """

    default_endpoint = "https://api.bing.microsoft.com/v7.0/search"

    def __init__(self, api_key: str, region: str = "en-US", **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(api_key, str) or not api_key:
            raise InvalidArgument("api_key", "", "give the key of the search API")
        self._key = api_key
        self.region = region

    async def _find(self, client: WebClient, query: str) -> list[dict[str, str]]:
        answer = await client.request(
            "GET",
            self.endpoint,
            params={"q": query, "mkt": self.region, "count": str(self.topk * 2)},
            headers={"Ocp-Apim-Subscription-Key": self._key},
        )
        found = answer.json()
        pages = found.get("webPages") if isinstance(found, Mapping) else None
        values = pages.get("value", ()) if isinstance(pages, Mapping) else ()
        return [
            {"url": str(page["url"]), "title": str(page.get("name", "")), "summ": str(page.get("snippet", ""))}
            for page in values
            if isinstance(page, Mapping) and "url" in page
        ]


class DuckDuckGoSearch(SearchEngine):
    """DuckDuckGo's page for browsers without scripts; it needs no key.

    Args:
        **options: as for `SearchEngine`.
    """

    default_endpoint = "https://html.duckduckgo.com/html/"

    async def _find(self, client: WebClient, query: str) -> list[dict[str, str]]:
        answer = await client.request("POST", self.endpoint, form={"q": query})
        found = await submit_from_loop(_duckduckgo_results, answer.text, answer.url)
        if not found and "anomaly" in answer.text:
            raise FetchError("DuckDuckGo asks for a proof of being human: try again later")
        return found


def _duckduckgo_results(html: str, address: str) -> list[dict[str, str]]:
    """The results on a page: links of class `result__a`, each followed by a summary of class `result__snippet`."""
    found: list[dict[str, str]] = []
    reading = ""
    for kind, value, attributes in pieces(html):
        classes = attributes.get("class", "").split()
        if "result__a" in classes:
            found.append({"url": _target(urljoin(address, attributes.get("href", ""))), "title": "", "summ": ""})
            reading = "title"
        elif "result__snippet" in classes and found:
            reading = "summ"
        elif kind == "end" and value == "a":
            reading = ""
        elif kind == "text" and reading:
            found[-1][reading] += value
    return [page for page in found if page["url"]]


def _target(url: str) -> str:
    """Where a link leads, without the engine's own address around it; advertisements lead nowhere."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    target = parse_qs(parts.query).get("uddg")
    if target:
        return target[0]
    return "" if parts.path.startswith("/y.js") else url


def engine_of(searcher: Any, options: Mapping[str, Any]) -> SearchEngine:
    """The engine of that name, or the engine that is given.

    Raises:
        InvalidArgument: there is none of that name.
    """
    if isinstance(searcher, str) and "." not in searcher:
        kinds = {kind.__name__: kind for kind in (BingSearch, DuckDuckGoSearch)}
        if searcher not in kinds:
            raise InvalidArgument("searcher_type", searcher, f"give one of {', '.join(kinds)}, or a SearchEngine")
        return kinds[searcher](**options)
    engine = create_object(searcher, "searcher_type")
    if not isinstance(engine, SearchEngine) or options:
        raise InvalidArgument("searcher_type", searcher, "give a name with its options, or a SearchEngine")
    return engine
