"""Search Google Scholar for articles, authors and citations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ..errors import ToolError
from .base import tool_api
from .web_action import awaited, blocking, WebAction
from .web_service import as_list, as_object, as_text, WebService

__all__ = ["AsyncGoogleScholar", "GoogleScholar"]

SERPAPI = WebService("SerpApi", "SERPAPI_API_KEY", "https://serpapi.com")
SHOWN = 3
"""Articles that are told of where a call does not say how many."""


class GoogleScholar(WebAction):
    """Search Google Scholar by SerpApi (https://serpapi.com/google-scholar-api).

    `SerperSearch(search_type="scholar")` and `GoogleSearch(search_type="scholar")` find articles with a key of Serper.

    Args:
        api_key: the key; `SERPAPI_API_KEY` of the environment by default.
        timeout: seconds for a request; SerpApi may take some.
        description: what models are told, in place of the docstrings.
        name: its name.
        endpoint: the API's address.
    """

    def __init__(
        self,
        api_key: str | None = None,
        timeout: float = 30,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
        endpoint: str = "https://serpapi.com/search.json",
    ) -> None:
        super().__init__(timeout, description, name)
        self._key = SERPAPI.key(api_key)
        self.endpoint = endpoint

    @tool_api(explode_return=True)
    @blocking
    async def search_google_scholar(
        self,
        query: str,
        cites: str | None = None,
        as_ylo: int | None = None,
        as_yhi: int | None = None,
        scisbd: int | None = None,
        cluster: str | None = None,
        hl: str | None = None,
        lr: str | None = None,
        start: int | None = None,
        num: Annotated[int, Field(ge=1, le=20)] | None = None,
        as_sdt: str | None = None,
        safe: str | None = None,
        filter: str | None = None,  # noqa: A002  # Google's name
        as_vis: str | None = None,
    ) -> dict[str, list[Any]]:
        """Search for scholarly articles based on a query according to the google scholar.

        Args:
            query: The query to search for.
            cites: The unique ID of an article for triggering "Cited By" searches.
            as_ylo: The starting year for results: those before it are left out.
            as_yhi: The ending year for results: those after it are left out.
            scisbd: Articles added in the last year, sorted by date: 1 for abstracts only, 2 for everything.
            cluster: The unique ID of an article for triggering "All Versions" searches; without a query then.
            hl: The language to use for the Google Scholar search, such as en.
            lr: One or multiple languages to limit the search to, such as lang_fr|lang_de.
            start: The result offset: 0 is the first page of results, 10 the second.
            num: The maximum number of results, at most 20; 3 by default.
            as_sdt: A search type or a filter: 0 leaves patents out, 7 includes them, 4 is case law.
            safe: The level of filtering for adult content: active or off.
            filter: Whether similar and omitted results are left out: 1 or 0.
            as_vis: 1 leaves citations out.

        Returns:
            article information, a list of each
                * title: the titles of the articles
                * cited_by: how often they were cited
                * organic_id: their ids, for get_citation_format
                * snippets: what is said in them
                * pub_info: authors, year and place of publication
        """
        answer = await self._ask(
            "google_scholar",
            q=query or None, cites=cites, as_ylo=as_ylo, as_yhi=as_yhi, scisbd=scisbd, cluster=cluster, hl=hl, lr=lr,
            start=start, num=num, as_sdt=as_sdt, safe=safe, filter=filter, as_vis=as_vis,
        )  # fmt: skip
        found = as_list(answer.get("organic_results"))[: num or SHOWN]
        if not found:
            raise ToolError("no article was found: try other words")
        return {
            "title": [as_text(item.get("title")) for item in found],
            "cited_by": [_cited(item) for item in found],
            "organic_id": [as_text(item.get("result_id")) for item in found],
            "snippets": [as_text(item.get("snippet")) for item in found],
            "pub_info": [as_text(as_object(item.get("publication_info")).get("summary")) for item in found],
        }

    @tool_api(explode_return=True)
    @blocking
    async def get_author_information(
        self,
        author_id: str,
        hl: str | None = None,
        view_op: str | None = None,
        sort: str | None = None,
        citation_id: str | None = None,
        start: int | None = None,
        num: Annotated[int, Field(ge=1, le=100)] | None = None,
        no_cache: bool | None = None,
    ) -> dict[str, Any]:
        """Search for an author's information by author's id provided by get_author_id.

        Args:
            author_id: The ID of an author.
            hl: The language, such as en.
            view_op: Used for viewing specific parts of a page.
            sort: How articles are sorted: title or pubdate; by citations by default.
            citation_id: Used for retrieving an individual article citation.
            start: The result offset.
            num: The maximum number of articles, at most 100; 3 by default.
            no_cache: Whether SerpApi asks anew where it knows the answer.

        Returns:
            author information
                * name: author's name
                * affiliations: where the author works
                * website: the author's homepage
                * articles: titles and authors of articles by the author
        """
        answer = await self._ask(
            "google_scholar_author",
            author_id=author_id, hl=hl, view_op=view_op, sort=sort, citation_id=citation_id, start=start, num=num,
            no_cache=no_cache,
        )  # fmt: skip
        author = as_object(answer.get("author"))
        if not author:
            raise ToolError(f"there is no author {author_id!r}: get_author_id finds ids")
        return {
            **{name: as_text(author.get(name)) for name in ("name", "affiliations", "website")},
            "articles": [
                {name: as_text(article.get(name)) for name in ("title", "authors")}
                for article in as_list(answer.get("articles"))[: num or SHOWN]
            ],
        }

    @tool_api(explode_return=True)
    @blocking
    async def get_citation_format(self, q: str, no_cache: bool | None = None) -> dict[str, str]:
        """Get how an article is cited, by its id (organic_id) provided by search_google_scholar.

        Args:
            q: ID of an individual Google Scholar organic search result.
            no_cache: Whether SerpApi asks anew where it knows the answer.

        Returns:
            citation formats
                * MLA: the citation in the format of MLA, and so on for other formats
        """
        answer = await self._ask("google_scholar_cite", q=q, no_cache=no_cache)
        citations = as_list(answer.get("citations"))
        if not citations:
            raise ToolError(f"there is no article {q!r}: search_google_scholar gives ids as organic_id")
        return {as_text(item.get("title")): as_text(item.get("snippet")) for item in citations}

    @tool_api(explode_return=True)
    @blocking
    async def get_author_id(
        self,
        mauthors: str,
        hl: str | None = "en",
        after_author: str | None = None,
        before_author: str | None = None,
        no_cache: bool | None = None,
    ) -> dict[str, Any]:
        """Get an author's id by his or her name.

        Args:
            mauthors: The author you want to search for.
            hl: The language, such as en.
            after_author: The next page token.
            before_author: The previous page token.
            no_cache: Whether SerpApi asks anew where it knows the answer.

        Returns:
            author id
                * author_id: the author_id of the first author who is found
                * profiles: names, ids and affiliations of the first few
        """
        answer = await self._ask(
            "google_scholar_profiles",
            mauthors=mauthors, hl=hl, after_author=after_author, before_author=before_author, no_cache=no_cache,
        )  # fmt: skip
        profiles = [profile for profile in as_list(answer.get("profiles")) if profile.get("author_id")]
        if not profiles:
            raise ToolError(f"there is no author {mauthors!r}: try another form of the name")
        shown = [
            {name: as_text(profile.get(name)) for name in ("name", "author_id", "affiliations")}
            for profile in profiles[:SHOWN]
        ]
        return {"author_id": shown[0]["author_id"], "profiles": shown}

    async def _ask(self, engine: str, **wanted: str | int | None) -> Mapping[str, Any]:
        given = {
            name: str(value).lower() if value is True else str(value)
            for name, value in wanted.items()
            if value not in (None, False)
        }
        params = {"engine": engine, **given, "api_key": self._key}
        answer = await SERPAPI.ask(self._client, "GET", self.endpoint, params=params, secrets=[self._key])
        if not isinstance(answer, dict):
            raise SERPAPI.bad("no object")
        error = as_text(answer.get("error"))
        if error and "returned any results" not in error:
            raise SERPAPI.refusal(None, error, secrets=[self._key])
        return answer


class AsyncGoogleScholar(GoogleScholar):
    """Search Google Scholar, awaited; see `GoogleScholar`."""

    search_google_scholar = awaited(GoogleScholar.search_google_scholar)  # type: ignore[assignment]  # awaited
    get_author_information = awaited(GoogleScholar.get_author_information)  # type: ignore[assignment]  # awaited
    get_citation_format = awaited(GoogleScholar.get_citation_format)  # type: ignore[assignment]  # awaited
    get_author_id = awaited(GoogleScholar.get_author_id)  # type: ignore[assignment]  # awaited


def _cited(item: Mapping[str, Any]) -> int:
    total = as_object(as_object(item.get("inline_links")).get("cited_by")).get("total")
    return total if type(total) is int else 0
