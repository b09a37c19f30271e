"""SearXNG, a search engine that one runs oneself."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from ...errors import FetchError, InvalidArgument
from ..web_fetch import WebClient
from ..web_service import as_list, as_text, WebService
from .base import Found, SearchEngine

__all__ = ["SearxngSearch"]


class SearxngSearch(SearchEngine):
    """A server of SearXNG (https://docs.searxng.org/dev/search_api.html), whose `search.formats` must have `json`.

    Args:
        endpoint: its address; `SEARXNG_URL` of the environment by default.
        language: of the results, such as "en".
        categories: such as "general" or "science", parted by commas.
        engines: those that it asks, parted by commas; what its settings say by default.
        api_key: what a proxy before it wants, if one does.
        auth_name: the header in which that is sent.
        **options: as for `SearchEngine`.
    """

    service = WebService("SearXNG", "SEARXNG_URL")

    def __init__(
        self,
        endpoint: str | None = None,
        language: str | None = None,
        categories: str = "general",
        engines: str | None = None,
        api_key: str | None = None,
        auth_name: str = "Authorization",
        **options: Any,
    ) -> None:
        address = endpoint or os.environ.get("SEARXNG_URL")
        if not address:
            raise InvalidArgument("endpoint", endpoint, "give the address of a SearXNG server, or set SEARXNG_URL")
        address = address.rstrip("/") + ("" if urlsplit(address).path.strip("/") else "/search")
        super().__init__(endpoint=address, **options)
        given = {"language": language, "categories": categories, "engines": engines}
        self._params = {"format": "json", **{name: value for name, value in given.items() if value}}
        self._key = api_key
        self._headers = {auth_name: api_key} if api_key else {}

    async def _find(self, client: WebClient, query: str) -> list[Found]:
        try:
            answer = await self.service.ask(
                client,
                "GET",
                self.endpoint,
                params={"q": query, **self._params},
                headers=self._headers,
                secrets=[self._key] if self._key else [],
            )
        except FetchError as error:
            if error.status == 403:
                cure = "name json in search.formats of its settings"
                raise FetchError(f"SearXNG does not answer with JSON: {cure}", status=403) from None
            raise
        if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
            raise self.service.bad("no results")
        silent = answer.get("unresponsive_engines")
        if not answer["results"] and isinstance(silent, list) and silent:
            names = ", ".join(
                ": ".join(map(str, engine)) if isinstance(engine, list) else str(engine) for engine in silent
            )
            raise FetchError(f"no engine that SearXNG asks has answered ({names[:300]})")
        return [
            {"url": as_text(page.get("url")), "title": as_text(page.get("title")), "summ": as_text(page.get("content"))}
            for page in as_list(answer["results"])
        ]
