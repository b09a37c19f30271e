"""Search Google, and get an answer to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from ..errors import InvalidArgument, ToolError
from .base import tool_api
from .engines.serper import ask_serper, RESULTS, SearchType, SERPER, summary_of
from .web_action import awaited, blocking, WebAction
from .web_service import as_list, as_object, as_text

__all__ = ["AsyncGoogleSearch", "GoogleSearch"]


class GoogleSearch(WebAction):
    """Search Google by Serper's API (https://serper.dev), and get its short answer and what it found.

    Args:
        api_key: the key; `SERPER_API_KEY` of the environment by default.
        timeout: seconds for a search.
        search_type: "search", "news", "images", "places" or "scholar".
        description: what models are told, in place of the docstring.
        name: its name.
        endpoint: the API's address without the type.
    """

    def __init__(
        self,
        api_key: str | None = None,
        timeout: float = 5,
        search_type: SearchType = "search",
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
        endpoint: str = "https://google.serper.dev",
    ) -> None:
        super().__init__(timeout, description, name)
        if search_type not in RESULTS:
            raise InvalidArgument("search_type", search_type, f"give one of {', '.join(RESULTS)}")
        self._key = SERPER.key(api_key)
        self.search_type = search_type
        self.endpoint = endpoint

    @tool_api
    @blocking
    async def run(self, query: str, k: Annotated[int, Field(ge=1, le=100)] = 10) -> str:
        """Search Google; gives its short answer, if it has one, and titles, addresses and summaries of what it found.

        Args:
            query: What to search for.
            k: Most results.
        """
        answer = await ask_serper(self._client, self.endpoint, self.search_type, self._key, {"q": query, "num": k})
        found = [*_answers(answer), *_results(answer, self.search_type, k)]
        if not found:
            raise ToolError("nothing was found: try other words")
        return "\n\n".join(found)


class AsyncGoogleSearch(GoogleSearch):
    """Search Google, awaited; see `GoogleSearch`."""

    run = awaited(GoogleSearch.run)  # type: ignore[assignment]  # awaited


def _answers(answer: Mapping[str, Any]) -> Iterator[str]:
    """What Google says itself: its answer, and what it knows of the thing."""
    box = as_object(answer.get("answerBox"))
    said = next((text for name in ("answer", "snippet", "title") if (text := as_text(box.get(name)))), "")
    if said:
        yield f"Answer: {' '.join(said.split())}"
    graph = as_object(answer.get("knowledgeGraph"))
    kind, description = as_text(graph.get("type")), as_text(graph.get("description"))
    if graph.get("title"):
        about = " ".join(text for text in (f"({kind})" if kind else "", description) if text)
        attributes = [f"{name}: {as_text(value)}" for name, value in as_object(graph.get("attributes")).items()]
        yield "\n".join([f"{as_text(graph['title'])} {about}".strip(), *attributes])


def _results(answer: Mapping[str, Any], search_type: SearchType, k: int) -> Iterator[str]:
    for item in as_list(answer.get(RESULTS[search_type]))[:k]:
        address = as_text(item.get("link")) or as_text(item.get("website"))
        lines = (as_text(item.get("title")), address, as_text(item.get("imageUrl")), summary_of(item))
        yield "\n".join(line for line in lines if line)
