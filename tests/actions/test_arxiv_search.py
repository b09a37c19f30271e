"""Articles of arXiv, from recorded feeds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from lagentlike.actions import ArxivSearch, AsyncArxivSearch
from lagentlike.errors import InvalidArgument
from lagentlike.schema import ActionStatusCode

from .calls import call, value
from .web_site import Answer, recorded, Site

GET = "get_arxiv_article_information"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site({"/": recorded("arxiv.xml")}) as site:
        yield site


@pytest.mark.parametrize("colour", [ArxivSearch, AsyncArxivSearch])
def test_articles_are_found(site: Site, colour: type[ArxivSearch]) -> None:
    tool = colour(doc_content_chars_max=40, endpoint=site.url, pause=0)
    assert value(tool, GET, query="tea pots: (why)?")["content"] == (
        "Published: 2025-01-01\nTitle: On the Dripping of Teapots\nAuthors: Ada Leaf, Bo Spout\n"
        "URL: http://arxiv.org/abs/2501.00001v2\nSummary: We study why teapots drip & what $\\epsil\n\n"
        "Published: 1999-01-01\nTitle: Storms in a Teapot\nAuthors: Cy Lid\n"
        "URL: http://arxiv.org/abs/hep-th/9901001v1\nSummary: Small ones."
    )
    assert site.asked[0].query == {
        "search_query": "tea pots why", "start": "0", "max_results": "3", "sortBy": "relevance",
    }  # fmt: skip
    value(tool, GET, query="tea pots why")
    assert len(site.asked) == 1
    tool.close()


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("1706.03762v5 hep-th/9901001", {"id_list": "1706.03762v5,hep-th/9901001"}),
        ("au:vaswani AND ti:(attention)", {"search_query": "au:vaswani AND ti:(attention)"}),
        ("x" * 400, {"search_query": "x" * 300}),
    ],
)
def test_queries_are_understood(site: Site, query: str, sent: dict[str, str]) -> None:
    tool = ArxivSearch(endpoint=site.url)
    value(tool, GET, query=query)
    assert sent.items() <= site.asked[0].query.items()
    tool.close()


def test_errors(site: Site) -> None:
    tool = ArxivSearch(endpoint=site.url, pause=0)
    for answer, state, said in [
        (recorded("arxiv_none.xml"), ActionStatusCode.API_ERROR, "no article was found"),
        (recorded("arxiv_error.xml", 400), ActionStatusCode.HTTP_ERROR, "incorrect id format for 1234.12345a"),
        (recorded("arxiv_error.xml"), ActionStatusCode.HTTP_ERROR, "incorrect id format for 1234.12345a"),
        (Answer(b"Rate exceeded.", "text/plain", 429), ActionStatusCode.HTTP_ERROR, "asked too often"),
        (Answer(b"<html><p>", status=500), ActionStatusCode.HTTP_ERROR, "answered 500 Internal Server Error"),
        (Answer(b"<html><p>"), ActionStatusCode.HTTP_ERROR, "something that is no feed"),
        (
            Answer(b'<!DOCTYPE feed [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><feed>&c;</feed>'),
            ActionStatusCode.HTTP_ERROR,
            "it declares a document type, which is not read",
        ),
    ]:
        site.routes["/"] = answer
        returned = call(tool, GET, query=f"query {said}")
        assert (returned.state, said in returned.text) == (state, True), returned.text
    assert "nothing to search for" in call(tool, GET, query=" ?! ").text
    tool.close()
    with pytest.raises(InvalidArgument, match="top_k_results"):
        ArxivSearch(top_k_results=0)


async def test_it_asks_no_more_often_than_arxiv_wishes(site: Site) -> None:
    tool = AsyncArxivSearch(endpoint=site.url, pause=0.2)
    started = time.monotonic()
    await asyncio.gather(*(tool.get_arxiv_article_information(f"query {number}") for number in range(3)))  # type: ignore[arg-type]
    assert time.monotonic() - started >= 0.4
    assert len(site.asked) == 3
    await tool.aclose()
