"""Articles, authors and citations, from recorded answers of SerpApi."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lagentlike.actions import AsyncGoogleScholar, GoogleScholar
from lagentlike.errors import InvalidArgument
from lagentlike.schema import ActionStatusCode

from .calls import call, value
from .web_site import Answer, Asked, recorded, Site

ANSWERS = {
    "google_scholar": "scholar.json",
    "google_scholar_author": "scholar_author.json",
    "google_scholar_cite": "scholar_cite.json",
    "google_scholar_profiles": "scholar_profiles.json",
}


def answer(asked: Asked) -> Answer:
    return recorded(ANSWERS[asked.query["engine"]])


@pytest.fixture
def site() -> Iterator[Site]:
    with Site({"/search.json": answer}) as site:
        yield site


@pytest.fixture(params=[GoogleScholar, AsyncGoogleScholar])
def scholar(request: pytest.FixtureRequest, site: Site) -> Iterator[GoogleScholar]:
    tool = request.param("hush", endpoint=f"{site.url}/search.json")
    yield tool
    tool.close()


def test_articles(scholar: GoogleScholar, site: Site) -> None:
    found = value(scholar, "search_google_scholar", query="teapots", as_ylo=1950, num=2)
    assert found == {
        "title": ["Teapots and kettles", "The teapot effect"],
        "cited_by": [1179, 0],
        "organic_id": ["dyZ4bDycdLQJ", "FDc6HiktlqEJ"],
        "snippets": ["… by the Committee in 1993 …", "Why they drip"],
        "pub_info": ["JC Robin, VG Saúco - 2010 - books.example.org", "M Reiner - Physics Today, 1956"],
    }
    assert site.asked[0].query == {
        "engine": "google_scholar", "q": "teapots", "as_ylo": "1950", "num": "2", "api_key": "hush",
    }  # fmt: skip
    assert len(value(scholar, "search_google_scholar", query="teapots")["title"]) == 3
    assert call(scholar, "search_google_scholar", query="x", num=21).state == ActionStatusCode.ARGS_ERROR


def test_authors_and_citations(scholar: GoogleScholar, site: Site) -> None:
    assert value(scholar, "get_author_id", mauthors="leaf", no_cache=True) == {
        "author_id": "kq0NYnMAAAAJ",
        "profiles": [
            {"name": "Ada Leaf", "author_id": "kq0NYnMAAAAJ", "affiliations": "Example University"},
            {"name": "Al Leaf", "author_id": "zzz", "affiliations": ""},
        ],
    }
    assert site.asked[0].query["no_cache"] == "true"
    assert value(scholar, "get_author_information", author_id="kq0NYnMAAAAJ", sort="pubdate") == {
        "name": "Ada Leaf",
        "affiliations": "Example University",
        "website": "https://leaf.example.org/",
        "articles": [
            {"title": "On teapots", "authors": "A Leaf, B Spout"},
            {"title": "On lids", "authors": "A Leaf"},
        ],
    }
    assert site.asked[1].query["sort"] == "pubdate"
    assert "Iron oxides" in value(scholar, "get_citation_format", q="FDc6HiktlqEJ")["APA"]


def test_errors(scholar: GoogleScholar, site: Site) -> None:
    for sent, state, said in [
        (recorded("scholar_none.json"), ActionStatusCode.API_ERROR, "no article was found"),
        (recorded("serpapi_key.json", 401), ActionStatusCode.HTTP_ERROR, "set SERPAPI_API_KEY to one that it takes"),
        (recorded("serpapi_quota.json", 429), ActionStatusCode.HTTP_ERROR, "the quota of SerpApi is used up (429: "),
        (recorded("serpapi_quota.json"), ActionStatusCode.HTTP_ERROR, "the quota of SerpApi is used up"),
        (Answer(b"[]"), ActionStatusCode.HTTP_ERROR, "in an unknown form"),
    ]:
        site.routes["/search.json"] = sent
        returned = call(scholar, "search_google_scholar", query="x")
        assert (returned.state, said in returned.text) == (state, True), returned.text
    site.routes["/search.json"] = Answer(b"{}")
    assert "there is no author 'x': get_author_id" in call(scholar, "get_author_information", author_id="x").text
    assert "there is no author 'x': try another" in call(scholar, "get_author_id", mauthors="x").text
    assert "there is no article 'x'" in call(scholar, "get_citation_format", q="x").text
    assert "hush" not in repr(scholar)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERPAPI_API_KEY", raising=False)
    with pytest.raises(InvalidArgument, match="set SERPAPI_API_KEY"):
        GoogleScholar()
    monkeypatch.setenv("SERPAPI_API_KEY", "hush")
    described = GoogleScholar().description["api_list"][0]
    assert described["required"] == ["query"]
    assert [item["name"] for item in described["return_data"]][:2] == ["title", "cited_by"]
