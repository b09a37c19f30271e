"""Google's results, by Serper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from ...errors import InvalidArgument
from ..web_fetch import WebClient
from ..web_service import as_list, as_object, as_text, WebService
from .base import Found, SearchEngine

__all__ = ["RESULTS", "SERPER", "SearchType", "SerperSearch", "ask_serper", "summary_of"]

SERPER = WebService("Serper", "SERPER_API_KEY", "https://serper.dev")
SearchType = Literal["search", "news", "images", "places", "scholar"]

RESULTS: dict[str, str] = {
    "search": "organic",
    "news": "news",
    "images": "images",
    "places": "places",
    "scholar": "organic",
}
"""Where the results of each type stand in an answer."""


class SerperSearch(SearchEngine):
    """Google's results by Serper's API (https://serper.dev); Lagent calls it `GoogleSearch`.

    Args:
        api_key: the key; `SERPER_API_KEY` of the environment by default.
        search_type: "search", "news", "images" (whose `url` is that of the image), "places" or "scholar".
        region: a country in two letters, such as "de".
        language: of the results, such as "en".
        **options: as for `SearchEngine`; `endpoint` is the API's address without the type.
    """

    service = SERPER
    default_endpoint = "https://google.serper.dev"

    def __init__(
        self,
        api_key: str | None = None,
        search_type: SearchType = "search",
        region: str | None = None,
        language: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if search_type not in RESULTS:
            raise InvalidArgument("search_type", search_type, f"give one of {', '.join(RESULTS)}")
        self._key = self.service.key(api_key)
        self.search_type = search_type
        self._more = {name: value for name, value in {"gl": region, "hl": language}.items() if value}

    async def _find(self, client: WebClient, query: str) -> list[Found]:
        wanted = {"q": query, "num": min(100, self.topk), **self._more}
        answer = await ask_serper(client, self.endpoint, self.search_type, self._key, wanted)
        graph = as_object(answer.get("knowledgeGraph"))
        first = [
            {"link": graph.get("descriptionLink"), "title": graph.get("title"), "snippet": graph.get("description")}
        ]
        results = as_list(answer.get(RESULTS[self.search_type]))
        return [
            {
                "url": as_text(
                    page.get("imageUrl") if self.search_type == "images" else page.get("link") or page.get("website")
                ),
                "title": as_text(page.get("title")),
                "summ": summary_of(page),
            }
            for page in [*(first if graph.get("descriptionLink") else []), *results]
        ]


async def ask_serper(
    client: WebClient, endpoint: str, search_type: str, key: str, wanted: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What Serper answers.

    Args:
        client: asks.
        endpoint: the API's address without the type.
        search_type: `search`, `news` and the like.
        key: for the API.
        wanted: what is wanted, `q` above all.
    """
    answer = await SERPER.ask(
        client,
        "POST",
        f"{endpoint.rstrip('/')}/{search_type}",
        body=json.dumps(wanted).encode(),
        headers={"X-API-KEY": key, "Content-Type": "application/json"},
        secrets=[key],
    )
    if not isinstance(answer, dict):
        raise SERPER.bad("no object")
    return answer


def summary_of(page: Mapping[str, Any]) -> str:
    """What a result says of its page, in one line."""
    said = [as_text(page.get(name)) for name in ("date", "publicationInfo", "snippet", "address")]
    attributes = [f"{name}: {as_text(value)}" for name, value in as_object(page.get("attributes")).items()]
    return " · ".join(text for text in [*said, *attributes] if text)
