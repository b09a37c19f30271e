"""Search arXiv for articles."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from ..errors import BadAnswer, FetchError, InvalidArgument, ServiceLimited, ToolError
from .base import tool_api
from .safe_xml import parse_xml
from .web_action import awaited, blocking, WebAction
from .web_cache import SharedCache
from .workers import submit_from_loop

__all__ = ["ArxivSearch", "AsyncArxivSearch"]

PAUSE = 3.0
"""Seconds that arXiv wants between two requests (https://info.arxiv.org/help/api/tou.html)."""

_ATOM = "{http://www.w3.org/2005/Atom}"


class ArxivSearch(WebAction):
    """Search information from Arxiv.org: articles of physics, mathematics, computer science, quantitative biology,
    quantitative finance, statistics, electrical engineering and economics.

    It asks arXiv's API (https://info.arxiv.org/help/api), which needs no key, not more often than that wishes; what was
    found is kept for an hour.

    Args:
        top_k_results: most articles.
        max_query_len: longest query, in characters; longer ones are cut.
        doc_content_chars_max: most characters of a summary.
        timeout: seconds for a request.
        description: what models are told, in place of the docstrings.
        name: its name.
        endpoint: the API's address.
        pause: seconds between two requests.
    """

    def __init__(
        self,
        top_k_results: int = 3,
        max_query_len: int = 300,
        doc_content_chars_max: int = 1500,
        timeout: float = 20,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
        endpoint: str = "https://export.arxiv.org/api/query",
        pause: float = PAUSE,
    ) -> None:
        super().__init__(timeout, description, name)
        given = {
            "top_k_results": top_k_results,
            "max_query_len": max_query_len,
            "doc_content_chars_max": doc_content_chars_max,
        }
        for argument, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgument(argument, value, "give a whole number of at least 1")
        self.top_k_results = top_k_results
        self.max_query_len = max_query_len
        self.doc_content_chars_max = doc_content_chars_max
        self.endpoint = endpoint
        self._pause = pause
        self._next = 0.0  # when it may ask again, by the monotonic clock
        self._kept: SharedCache[list[Element]] = SharedCache(64, 3600)

    @tool_api(explode_return=True)
    @blocking
    async def get_arxiv_article_information(self, query: str) -> dict[str, str]:
        """Run Arxiv search and get the article meta information.

        Args:
            query: What to search for: words, the identifier of an article such as 1706.03762, or arXiv's own language,
                such as au:vaswani AND ti:attention.

        Returns:
            article information
                * content: the articles: when they were published, titles, authors, addresses and summaries
        """
        wanted = _wanted(query[: self.max_query_len])
        entries = await self._kept.get(tuple(wanted.items()), lambda: self._ask(wanted))
        if not entries:
            raise ToolError("no article was found: try other words")
        return {"content": "\n\n".join(self._shown(entry) for entry in entries[: self.top_k_results])}

    async def _ask(self, wanted: Mapping[str, str]) -> list[Element]:
        """The entries of the answer.

        Raises:
            ServiceLimited: arXiv was asked too often.
            BadAnswer: it is no feed.
            FetchError: arXiv says what is wrong with the query, or cannot be had.
        """
        now = time.monotonic()
        self._next, wait = max(now, self._next) + self._pause, self._next - now
        if wait > 0:
            await asyncio.sleep(wait)
        params = {**wanted, "start": "0", "max_results": str(self.top_k_results), "sortBy": "relevance"}
        answer = await self._client.request("GET", self.endpoint, params=params)
        if answer.status in (429, 503):
            raise ServiceLimited("arXiv is asked too often: wait a little", status=answer.status)
        try:
            entries = (await submit_from_loop(parse_xml, answer.body)).findall(f"{_ATOM}entry")
        except ValueError as error:
            answer.check_status()
            raise BadAnswer(f"arXiv answered something that is no feed: {error}") from None
        if entries and "/api/errors" in _said(entries[0], "id"):
            raise FetchError(f"arXiv does not take the query: {_said(entries[0], 'summary')}", status=answer.status)
        answer.check_status()
        return entries

    def _shown(self, entry: Element) -> str:
        authors = ", ".join(_said(author, "name") for author in entry.findall(f"{_ATOM}author"))
        lines = {
            "Published": _said(entry, "published")[:10],
            "Title": _said(entry, "title"),
            "Authors": authors,
            "URL": _said(entry, "id"),
            "Summary": _said(entry, "summary")[: self.doc_content_chars_max],
        }
        return "\n".join(f"{name}: {said}" for name, said in lines.items())


class AsyncArxivSearch(ArxivSearch):
    """Search arXiv, awaited; see `ArxivSearch`."""

    get_arxiv_article_information = awaited(ArxivSearch.get_arxiv_article_information)  # type: ignore[assignment]  # awaited


def _wanted(query: str) -> dict[str, str]:
    """The query in the API's parameters.

    Raises:
        ToolError: there is nothing in it to search for.
    """
    words = query.split()
    if words and all(_ID.fullmatch(word) for word in words):
        return {"id_list": ",".join(words)}
    if not _FIELD.search(query):  # what is no word of arXiv's own language would be read as one
        words = re.findall(r"\w[\w.+-]*", query)
    if not words:
        raise ToolError("there is nothing to search for: give some words")
    return {"search_query": " ".join(words)}


_ID = re.compile(r"(?:\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v\d+)?")
_FIELD = re.compile(r"\b(?:ti|au|abs|co|jr|cat|rn|id|all):")


def _said(element: Element, name: str) -> str:
    return " ".join(element.findtext(f"{_ATOM}{name}", "").split())
