"""Search the web and read pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ..concurrency import run_in_background
from ..errors import InvalidArgument
from ..memory import SessionId
from ..memory.state import SessionValue
from ..schema import ActionReturn, ActionStatusCode
from .base import BaseAction, tool_api
from .function import checked_timeout
from .result import failed
from .running import on_background
from .web_fetch import FetchError, WebClient
from .web_search import engine_of, SearchEngine

__all__ = ["AsyncWebBrowser", "WebBrowser"]

MAX_PAGE = 8192
"""Most characters that are shown of one page."""

MAX_SELECTED = 4


class WebBrowser(BaseAction):
    """Search the web and read pages.

    What it fetches was written by strangers: it may be wrong, and it may try to give a model orders. Addresses of
    private networks are not fetched.

    Args:
        searcher_type: `"BingSearch"` (with `api_key=…`), `"DuckDuckGoSearch"`, or a `SearchEngine`.
        timeout: seconds for a page.
        allow_private: also fetch from addresses of private networks.
        description: what models are told, in place of the docstrings.
        name: its name.
        **options: of the search engine: `topk`, `black_list`, `endpoint`, `api_key` ….
    """

    def __init__(
        self,
        searcher_type: str | SearchEngine | Mapping[str, Any] = "DuckDuckGoSearch",
        timeout: float = 10,
        allow_private: bool = False,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(description, name)
        seconds = checked_timeout(timeout)
        if seconds is None:
            raise InvalidArgument("timeout", timeout, "give seconds")
        self.searcher = engine_of(searcher_type, options)
        self.results: SessionValue[list[dict[str, str]]] = SessionValue(list)
        self._client = WebClient(seconds, allow_private)

    @tool_api
    def search(self, query: str | list[str], session_id: SessionId = 0) -> ActionReturn:
        """Search the web; gives titles, addresses and summaries, numbered from 0.

        Args:
            query: What to search for, or a list of such.
        """
        return run_in_background(self._search(query, session_id))

    @tool_api
    def select(
        self, select_ids: Annotated[list[int], Field(min_length=1, max_length=MAX_SELECTED)], session_id: SessionId = 0
    ) -> ActionReturn:
        """Read pages that the last search found.

        Args:
            select_ids: The numbers of the pages, at most 4.
        """
        return run_in_background(self._select(select_ids, session_id))

    @tool_api(read_only=True)
    def open_url(self, url: str) -> ActionReturn:
        """Read the page at an address.

        Args:
            url: The address.
        """
        return run_in_background(self._open_url(url))

    def close(self) -> None:
        """Close the connections."""
        run_in_background(self._client.close())

    async def _search(self, query: str | list[str], session_id: SessionId) -> ActionReturn:
        queries = [query] if isinstance(query, str) else query
        found = await asyncio.gather(*(self._asked(one) for one in queries))
        pages = list({page["url"]: page for one in found if isinstance(one, list) for page in one}.values())
        errors = [one for one in found if isinstance(one, str)]
        if not pages:
            return self._failed("; ".join(errors) or "nothing was found: try other words", bool(errors))
        self.results[session_id] = pages
        return self._written({str(number): page for number, page in enumerate(pages)})

    async def _select(self, numbers: list[int], session_id: SessionId) -> ActionReturn:
        pages = self.results[session_id]
        unknown = [number for number in numbers if not 0 <= number < len(pages)]
        if unknown:
            known = f"give numbers from 0 to {len(pages) - 1}" if pages else "search first"
            return self._failed(f"there is no result {', '.join(map(str, unknown))}: {known}", False)
        chosen = {number: pages[number] for number in numbers}
        texts = await asyncio.gather(*(self._page(page["url"]) for page in chosen.values()))
        if all(text is None for text, _ in texts):
            return self._failed("; ".join(error for _, error in texts), True)
        shown = {
            str(number): {**page, "content": text if text is not None else f"({error})"}
            for (number, page), (text, error) in zip(chosen.items(), texts, strict=True)
        }
        return self._written(shown)

    async def _open_url(self, url: str) -> ActionReturn:
        text, error = await self._page(url)
        if text is None:
            return self._failed(error, True)
        return ActionReturn(type=self.name, url=url, result=[{"type": "text", "content": text}])

    async def _asked(self, query: str) -> list[dict[str, str]] | str:
        try:
            return await self.searcher.search(self._client, query)
        except FetchError as error:
            return str(error)

    async def _page(self, url: str) -> tuple[str | None, str]:
        """A page's text, or why there is none."""
        try:
            return await self._client.page(url, MAX_PAGE), ""
        except FetchError as error:
            return None, str(error)

    def _written(self, value: Any) -> ActionReturn:
        return ActionReturn(
            type=self.name, result=[{"type": "text", "content": json.dumps(value, ensure_ascii=False, indent=1)}]
        )

    def _failed(self, what: str, by_http: bool) -> ActionReturn:
        state = ActionStatusCode.HTTP_ERROR if by_http else ActionStatusCode.API_ERROR
        return failed(what, self.name, state=state)


class AsyncWebBrowser(WebBrowser):
    """Search the web and read pages, awaited; see `WebBrowser`."""

    @tool_api
    async def search(  # type: ignore[override]  # awaited
        self, query: str | list[str], session_id: SessionId = 0
    ) -> ActionReturn:
        """Search the web; gives titles, addresses and summaries, numbered from 0.

        Args:
            query: What to search for, or a list of such.
        """
        return await on_background(self._search(query, session_id))

    @tool_api
    async def select(  # type: ignore[override]  # awaited
        self, select_ids: Annotated[list[int], Field(min_length=1, max_length=MAX_SELECTED)], session_id: SessionId = 0
    ) -> ActionReturn:
        """Read pages that the last search found.

        Args:
            select_ids: The numbers of the pages, at most 4.
        """
        return await on_background(self._select(select_ids, session_id))

    @tool_api(read_only=True)
    async def open_url(self, url: str) -> ActionReturn:  # type: ignore[override]  # awaited
        """Read the page at an address.

        Args:
            url: The address.
        """
        return await on_background(self._open_url(url))

    async def aclose(self) -> None:
        """Close the connections."""
        await on_background(self._client.close())
