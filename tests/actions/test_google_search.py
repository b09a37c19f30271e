"""Google's results as a text, against recorded answers of Serper."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lagentlike.actions import AsyncGoogleSearch, GoogleSearch
from lagentlike.errors import InvalidArgument
from lagentlike.schema import ActionStatusCode

from .calls import call
from .web_site import Answer, recorded, Site


@pytest.fixture
def site() -> Iterator[Site]:
    routes = {"/search": recorded("serper.json"), "/scholar": recorded("serper_scholar.json")}
    with Site({**routes, "/images": recorded("serper_images.json")}) as site:
        yield site


@pytest.mark.parametrize("colour", [GoogleSearch, AsyncGoogleSearch])
def test_it_tells_what_google_says_and_what_it_found(site: Site, colour: type[GoogleSearch]) -> None:
    tool = colour("hush", endpoint=site.url)
    assert call(tool, query="tea pots", k=2).text == (
        "Answer: A teapot is a vessel for steeping tea.\n\n"
        "Teapot (Vessel) A vessel for tea.\nInvented: 16th century\nPlace: China\n\n"
        "Teapot - Wikipedia\nhttps://en.example.org/wiki/Teapot\nA teapot is a vessel used for steeping tea leaves.\n\n"
        "Pots for tea\nhttps://www.example.org/pots\nFeb 1, 2025 · Round ones. · Rating: 4.5 · Votes: 12"
    )
    assert site.asked[0].json() == {"q": "tea pots", "num": 2}
    assert call(tool, query="x", k=0).state == ActionStatusCode.ARGS_ERROR
    tool.close()


def test_other_types_of_results(site: Site) -> None:
    scholar = GoogleSearch("hush", search_type="scholar", endpoint=site.url)
    assert call(scholar, query="x").text == (
        "The teapot effect\nhttps://articles.example.org/2\nM Reiner - Physics Today, 1956 · Why they drip"
    )
    images = GoogleSearch("hush", search_type="images", endpoint=site.url)
    assert "https://img.example.org/red.png" in call(images, query="x").text
    scholar.close()
    images.close()


def test_errors(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = GoogleSearch("hush", endpoint=site.url)
    site.routes["/search"] = Answer(b'{"organic": []}')
    assert call(tool, query="x").text == "nothing was found: try other words"
    site.routes["/search"] = recorded("serper_400_credits.json", 400)
    returned = call(tool, query="x")
    assert (returned.state, "the quota of Serper is used up" in returned.text) == (ActionStatusCode.HTTP_ERROR, True)
    tool.close()
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    with pytest.raises(
        InvalidArgument, match=r"set SERPER_API_KEY in the environment \(https://serper\.dev gives keys\)"
    ):
        GoogleSearch()
    with pytest.raises(InvalidArgument, match="give one of search, news, images"):
        GoogleSearch("hush", search_type="smells")  # type: ignore[arg-type]  # on purpose
