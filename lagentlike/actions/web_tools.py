"""Search the web and read pages by address: two flat tools over the search engines and the careful client."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ..errors import ToolError
from .base import BaseAction, tool_api
from .running import on_background
from .web_fetch import FetchError, WebClient
from .web_search import BingSearch, DuckDuckGoSearch, SearchEngine

__all__ = ["WebExtract", "WebSearch", "configured_engine", "search_unavailable", "web_tools"]

logger = logging.getLogger(__name__)

MAX_PAGE = 12_288
"""Most characters that are shown of one page."""

_BING_KEY = "BING_API_KEY"
_ENDPOINT = "LAGENTLIKE_SEARCH_ENDPOINT"


class WebSearch(BaseAction):
    """Search the web.

    Args:
        engine: a search engine; None for the one that the environment names, see `configured_engine`.
        timeout: seconds for a search.
        allow_private: also ask an engine at an address of a private network.
        name: its name.
    """

    read_only = True

    def __init__(
        self,
        engine: SearchEngine | None = None,
        timeout: float = 15,
        allow_private: bool = False,
        name: str | None = "web_search",
    ) -> None:
        super().__init__(None, name)
        self._engine = engine
        self._client = WebClient(timeout, allow_private)

    @tool_api
    async def run(self, query: str, limit: Annotated[int, Field(ge=1, le=20)] = 5) -> list[dict[str, str]]:
        """Search the web; gives title, address and summary of each page.

        Args:
            query: What to search for.
            limit: Most results, at most 20.
        """
        engine = self._engine or configured_engine()
        if engine is None:
            raise ToolError(str(search_unavailable()))
        found = await on_background(engine.search(self._client, query))
        if not found:
            raise ToolError("nothing was found: try other words")
        return [{"title": page["title"], "url": page["url"], "summary": page["summ"]} for page in found[:limit]]

    async def aclose(self) -> None:
        """Close the connections."""
        await on_background(self._client.close())


class WebExtract(BaseAction):
    """Read pages. Addresses of private networks are not fetched, and what is fetched was written by strangers.

    Args:
        timeout: seconds for a page.
        allow_private: also fetch from addresses of private networks.
        name: its name.
    """

    read_only = True

    def __init__(self, timeout: float = 15, allow_private: bool = False, name: str | None = "web_extract") -> None:
        super().__init__(None, name)
        self._client = WebClient(timeout, allow_private)

    @tool_api
    async def run(self, urls: Annotated[list[str], Field(min_length=1, max_length=5)]) -> list[dict[str, str]]:
        """Read pages; gives the text of each, or why there is none.

        Args:
            urls: Their addresses, at most 5.
        """
        return list(await asyncio.gather(*(self._page(url) for url in urls)))

    async def aclose(self) -> None:
        """Close the connections."""
        await on_background(self._client.close())

    async def _page(self, url: str) -> dict[str, str]:
        try:
            return {"url": url, "content": await on_background(self._client.page(url, MAX_PAGE))}
        except FetchError as error:
            return {"url": url, "error": str(error)}


def web_tools(engine: SearchEngine | None = None, timeout: float = 15, allow_private: bool = False) -> list[BaseAction]:
    """`WebSearch`, where there is an engine, and `WebExtract`.

    Args:
        engine: a search engine; None for the one that the environment names.
        timeout: seconds for a request.
        allow_private: also fetch from addresses of private networks.
    """
    extract = WebExtract(timeout, allow_private)
    reason = None if engine is not None else search_unavailable()
    if reason is not None:
        logger.info("the tool web_search is left out: %s", reason)
        return [extract]
    return [WebSearch(engine, timeout, allow_private), extract]


def configured_engine(environ: Mapping[str, str] | None = None, **options: Any) -> SearchEngine | None:
    """The search engine that the environment names; None if it names none.

    `BING_API_KEY` gives Bing, at `LAGENTLIKE_SEARCH_ENDPOINT` if that is set; `LAGENTLIKE_SEARCH_ENDPOINT` alone a
    page that answers as DuckDuckGo's does (`https://html.duckduckgo.com/html/` is DuckDuckGo's own).

    Args:
        environ: the environment; this process's by default.
        **options: of the engine.
    """
    found = os.environ if environ is None else environ
    endpoint = found.get(_ENDPOINT) or None
    if found.get(_BING_KEY):
        return BingSearch(found[_BING_KEY], endpoint=endpoint, **options)
    return None if endpoint is None else DuckDuckGoSearch(endpoint=endpoint, **options)


def search_unavailable() -> str | None:
    """Why the web cannot be searched; None if it can."""
    return None if configured_engine() is not None else f"searching needs {_BING_KEY} or {_ENDPOINT} in the environment"
