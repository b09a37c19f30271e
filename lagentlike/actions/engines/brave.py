"""Brave's search."""

from __future__ import annotations

from typing import Any, Literal

from ..web_fetch import WebClient
from ..web_service import as_list, as_object, as_text, WebService
from .base import Found, SearchEngine

__all__ = ["BraveSearch"]


class BraveSearch(SearchEngine):
    """Brave's search API (https://api-dashboard.search.brave.com/app/documentation).

    Args:
        api_key: the key; `BRAVE_API_KEY` of the environment by default.
        region: a country, such as "DE"; "ALL" for all of them, None for what Brave takes.
        language: of the results, such as "en" or "zh-hans".
        extra_snippets: whether a summary has more of the page, where the plan has that.
        search_type: "web" or "news".
        **options: as for `SearchEngine`.
    """

    service = WebService("Brave Search", "BRAVE_API_KEY", "https://api-dashboard.search.brave.com")

    def __init__(
        self,
        api_key: str | None = None,
        region: str | None = None,
        language: str | None = None,
        extra_snippets: bool = False,
        search_type: Literal["web", "news"] = "web",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._key = self.service.key(api_key)
        self.endpoint = self.endpoint or f"https://api.search.brave.com/res/v1/{search_type}/search"
        given = {"country": region, "search_lang": language, "extra_snippets": "true" if extra_snippets else None}
        self._params = {"text_decorations": "false", **{name: value for name, value in given.items() if value}}

    async def _find(self, client: WebClient, query: str) -> list[Found]:
        answer = await self.service.ask(
            client,
            "GET",
            self.endpoint,
            params={"q": query, "count": str(min(20, self.topk)), **self._params},
            headers={"X-Subscription-Token": self._key, "Accept": "application/json"},
            secrets=[self._key],
        )
        if not isinstance(answer, dict):
            raise self.service.bad("no object")
        results = as_object(answer.get("web")).get("results") or answer.get(
            "results"
        )  # the second form is that of news
        return [
            {
                "url": as_text(page.get("url")),
                "title": as_text(page.get("title")),
                "summ": " ".join(filter(None, [as_text(page.get("description")), *_extra(page)])),
            }
            for page in as_list(results)
        ]


def _extra(page: Any) -> list[str]:
    snippets = page.get("extra_snippets")
    return [as_text(text) for text in snippets] if isinstance(snippets, list) else []
