"""Bing's web search, or a service that speaks its protocol."""

from __future__ import annotations

from typing import Any

from ..web_fetch import WebClient
from ..web_service import as_list, as_object, as_text, WebService
from .base import Found, SearchEngine

__all__ = ["BingSearch"]


class BingSearch(SearchEngine):
    """Bing's web search API, version 7. Microsoft closed it in August 2025; services that speak it are left.

    Args:
        api_key: the key; `BING_API_KEY` of the environment by default.
        region: market of the results.
        **options: as for `SearchEngine`; `endpoint` is the address of the API.
    """

    service = WebService("Bing", "BING_API_KEY")
    default_endpoint = "https://api.bing.microsoft.com/v7.0/search"

    def __init__(self, api_key: str | None = None, region: str = "en-US", **options: Any) -> None:
        super().__init__(**options)
        self._key = self.service.key(api_key)
        self.region = region

    async def _find(self, client: WebClient, query: str) -> list[Found]:
        answer = await self.service.ask(
            client,
            "GET",
            self.endpoint,
            params={"q": query, "mkt": self.region, "count": str(min(50, self.topk * 2))},
            headers={"Ocp-Apim-Subscription-Key": self._key},
            secrets=[self._key],
        )
        if not isinstance(answer, dict):
            raise self.service.bad("no object")
        return [
            {"url": as_text(page.get("url")), "title": as_text(page.get("name")), "summ": as_text(page.get("snippet"))}
            for page in as_list(as_object(answer.get("webPages")).get("value"))
        ]
