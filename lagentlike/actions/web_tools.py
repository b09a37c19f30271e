"""Search the web and read pages by address: two flat tools over the search engines and the careful client."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from ..errors import FetchError, ToolError
from .base import BaseAction, tool_api
from .engines import engine_of
from .engines.base import SearchEngine
from .running import on_background
from .web_action import WebAction
from .web_page import PageReader

__all__ = ["WebExtract", "WebSearch", "configured_engine", "search_unavailable", "web_tools"]

logger = logging.getLogger(__name__)

ENDPOINT = "LAGENTLIKE_SEARCH_ENDPOINT"
ENGINES = {
    "BING_API_KEY": "BingSearch",
    "BRAVE_API_KEY": "BraveSearch",
    "SERPER_API_KEY": "SerperSearch",
    "TENCENT_SECRET_KEY": "TencentSearch",
    "SEARXNG_URL": "SearxngSearch",
    ENDPOINT: "DuckDuckGoSearch",
}
"""The variables of the environment that name an engine, in the order in which they are looked at."""


class WebSearch(WebAction):
    """Search the web.

    Args:
        engine: a search engine, at whatever address; None for the one that the environment names, see
            `configured_engine`.
        timeout: seconds for a search.
        name: its name.
    """

    def __init__(
        self, engine: SearchEngine | None = None, timeout: float = 15, name: str | None = "web_search"
    ) -> None:
        super().__init__(timeout, None, name)
        self._engine = engine

    @tool_api
    async def run(self, query: str, limit: Annotated[int, Field(ge=1, le=20)] = 5) -> list[dict[str, str]]:
        """Search the web; gives title, address and summary of each page.

        Args:
            query: What to search for.
            limit: Most results, at most 20.
        """
        if self._engine is None:
            self._engine = configured_engine()  # kept, with what it finds
        if self._engine is None:
            raise ToolError(str(search_unavailable()))
        found = await on_background(self._engine.search(self._client, query))
        if not found:
            raise ToolError("nothing was found: try other words")
        return [{"title": page["title"], "url": page["url"], "summary": page["summ"]} for page in found[:limit]]


class WebExtract(WebAction):
    """Read pages. Addresses of private networks are not fetched, and what is fetched was written by strangers.

    Args:
        timeout: seconds for a page.
        allow_private: also fetch from addresses of private networks: True for all, or a list of networks.
        name: its name.
    """

    max_length = 65_536  # of five pages

    def __init__(
        self, timeout: float = 15, allow_private: bool | Sequence[str] = False, name: str | None = "web_extract"
    ) -> None:
        super().__init__(timeout, None, name, allow_private)
        self._reader = PageReader(self._web)

    @tool_api
    async def run(
        self,
        urls: Annotated[list[str], Field(min_length=1, max_length=5)],
        page: Annotated[int, Field(ge=1)] = 1,
    ) -> list[dict[str, str]]:
        """Read pages; gives the text of each, or why there is none.

        Args:
            urls: Their addresses, at most 5.
            page: Which page of long ones.
        """
        return list(await on_background(self._pages(urls, page)))

    async def _pages(self, urls: list[str], number: int) -> list[dict[str, str]]:
        return await asyncio.gather(*(self._page(url, number) for url in urls))

    async def _page(self, url: str, number: int) -> dict[str, str]:
        try:
            return {"url": url, "content": (await self._reader.read(url)).part(number)}
        except FetchError as error:
            return {"url": url, "error": str(error)}


def web_tools(
    engine: SearchEngine | None = None, timeout: float = 15, allow_private: bool | Sequence[str] = False
) -> list[BaseAction]:
    """`WebSearch`, where there is an engine, and `WebExtract`.

    Args:
        engine: a search engine; None for the one that the environment names.
        timeout: seconds for a request.
        allow_private: also read pages at addresses of private networks.
    """
    extract = WebExtract(timeout, allow_private)
    reason = None if engine is not None else search_unavailable()
    if reason is not None:
        logger.info("the tool web_search is left out: %s", reason)
        return [extract]
    return [WebSearch(engine, timeout), extract]


def configured_engine(environ: Mapping[str, str] | None = None, **options: Any) -> SearchEngine | None:
    """The search engine that the environment names; None if it names none.

    `BING_API_KEY`, `BRAVE_API_KEY`, `SERPER_API_KEY`, `TENCENT_SECRET_KEY` (with `TENCENT_SECRET_ID`) and `SEARXNG_URL`
    each name one, in this order. `LAGENTLIKE_SEARCH_ENDPOINT` is another address of it; alone, of a page that answers
    as DuckDuckGo's does (`https://html.duckduckgo.com/html/` is DuckDuckGo's own).

    Args:
        environ: the environment; this process's by default.
        **options: of the engine.

    Raises:
        InvalidArgument: a key is there, and its other half is missing.
    """
    found = os.environ if environ is None else environ
    variable = next((name for name in ENGINES if found.get(name)), None)
    if variable is None:
        return None
    endpoint = found.get(ENDPOINT) or None
    if variable == "SEARXNG_URL":
        endpoint = found[variable]
    elif variable == "TENCENT_SECRET_KEY":
        options = {"secret_id": found.get("TENCENT_SECRET_ID", ""), "secret_key": found[variable], **options}
    elif variable != ENDPOINT:
        options = {"api_key": found[variable], **options}
    return engine_of(ENGINES[variable], {"endpoint": endpoint, **options})


def search_unavailable() -> str | None:
    """Why the web cannot be searched; None if it can."""
    if any(os.environ.get(name) for name in ENGINES):
        return None
    return f"searching needs {', '.join(list(ENGINES)[:-1])} or {ENDPOINT} in the environment"
