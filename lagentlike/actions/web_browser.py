"""Search the web and read pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from ..errors import FetchError, ToolError
from ..memory import SessionId
from ..memory.state import SessionValue
from ..schema import ActionReturn
from .base import tool_api
from .engines import engine_of
from .engines.base import SearchEngine
from .web_action import awaited, blocking, WebAction
from .web_page import PageReader

__all__ = ["AsyncWebBrowser", "WebBrowser"]

MAX_SELECTED = 4
MAX_QUERIES = 10

PageNumber = Annotated[int, Field(ge=1)]


class WebBrowser(WebAction):
    """Search the web and read pages.

    What it fetches was written by strangers: it may be wrong, and it may try to give a model orders. Addresses of
    private networks are not fetched.

    Args:
        searcher_type: the search engine: `"BraveSearch"`, `"SerperSearch"`, `"SearxngSearch"`, `"TencentSearch"`,
            `"BingSearch"`, `"DuckDuckGoSearch"`, which needs no key, or a `SearchEngine`.
        timeout: seconds for a page, and for a search.
        allow_private: also read pages at addresses of private networks: True for all, or a list of networks. The
            search engine may be anywhere.
        description: what models are told, in place of the docstrings.
        name: its name.
        cached: whether a page that was read is kept for ten minutes, for whoever asks.
        **options: of the search engine: `topk`, `black_list`, `endpoint`, `api_key` ….
    """

    read_only = False  # `select` needs what `search` found
    max_length = 65_536  # of four pages

    def __init__(
        self,
        searcher_type: str | SearchEngine | Mapping[str, Any] = "DuckDuckGoSearch",
        timeout: float = 10,
        allow_private: bool | Sequence[str] = False,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
        cached: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(timeout, description, name, allow_private)
        self.searcher = engine_of(searcher_type, options)
        self.results: SessionValue[list[dict[str, str]]] = SessionValue(list)
        self._reader = PageReader(self._web, cached)

    @tool_api
    @blocking
    async def search(
        self, query: str | Annotated[list[str], Field(min_length=1, max_length=MAX_QUERIES)], session_id: SessionId = 0
    ) -> ActionReturn:
        """Search the web; gives titles, addresses and summaries, numbered from 0.

        Args:
            query: What to search for, or a list of such.
        """
        found = await self.searcher.search_all(self._client, [query] if isinstance(query, str) else query)
        pages: dict[str, dict[str, str]] = {}
        for one in found:
            for page in one if isinstance(one, list) else []:
                if page["summ"] not in pages.setdefault(page["url"], page)["summ"]:
                    pages[page["url"]]["summ"] += f"\n{page['summ']}"
        errors = [one for one in found if isinstance(one, FetchError)]
        if not pages:
            raise errors[0] if errors else ToolError("nothing was found: try other words")
        self.results[session_id] = list(pages.values())
        return self._written({str(number): page for number, page in enumerate(pages.values())})

    @tool_api
    @blocking
    async def select(
        self, select_ids: Annotated[list[int], Field(min_length=1, max_length=MAX_SELECTED)], session_id: SessionId = 0
    ) -> ActionReturn:
        """Read pages that the last search found.

        Args:
            select_ids: The numbers of the pages, at most 4.
        """
        pages = self.results[session_id]
        unknown = [number for number in select_ids if not 0 <= number < len(pages)]
        if unknown:
            known = f"give numbers from 0 to {len(pages) - 1}" if pages else "search first"
            raise ToolError(f"there is no result {', '.join(map(str, unknown))}: {known}")
        chosen = {number: pages[number] for number in select_ids}
        texts = await asyncio.gather(*(self._beginning(page["url"]) for page in chosen.values()))
        errors = [text for text in texts if isinstance(text, FetchError)]
        if len(errors) == len(texts):
            raise FetchError("; ".join(map(str, errors)), status=errors[0].status)
        shown = {
            str(number): {**page, "content": text if isinstance(text, str) else f"({text})"}
            for (number, page), text in zip(chosen.items(), texts, strict=True)
        }
        return self._written(shown)

    @tool_api(read_only=True)
    @blocking
    async def open_url(self, url: str, page: PageNumber = 1) -> ActionReturn:
        """Read the page at an address; a long one is shown page by page.

        Args:
            url: The address.
            page: Which page of a long one.
        """
        text = (await self._reader.read(url)).part(page)
        return ActionReturn(type=self.name, url=url, result=[{"type": "text", "content": text}])

    async def _beginning(self, url: str) -> str | FetchError:
        """The beginning of a page, or why there is none."""
        try:
            return (await self._reader.read(url)).part(1)
        except FetchError as error:
            return error

    def _written(self, value: Any) -> ActionReturn:
        return ActionReturn(
            type=self.name, result=[{"type": "text", "content": json.dumps(value, ensure_ascii=False, indent=1)}]
        )


class AsyncWebBrowser(WebBrowser):
    """Search the web and read pages, awaited; see `WebBrowser`."""

    search = awaited(WebBrowser.search)  # type: ignore[assignment]  # awaited
    select = awaited(WebBrowser.select)  # type: ignore[assignment]  # awaited
    open_url = awaited(WebBrowser.open_url)  # type: ignore[assignment]  # awaited
