"""What is read of answers of the web."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from lagentlike.actions.web_fetch import Response, WebClient
from lagentlike.actions.web_page import Page, PageReader, read_page
from lagentlike.errors import FetchError

from .web_site import Answer, RECORDED, recorded, Site


def page_of(body: bytes, kind: str, label: str = "") -> Page:
    return read_page(Response("https://www.example.org/a", 200, kind, {}, body, label))


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"plain\n  text", "text/plain", "plain\n  text"),
        (b'{"a": [1]}', "application/json", '{"a": [1]}'),
        (b'{"a": 1}', "application/ld+json", '{"a": 1}'),
        (b"a: 1", "application/yaml", "a: 1"),
        (b"<p>one</p>", "text/html", "one"),
        (b"<p>one</p>", "application/xhtml+xml", "one"),
        (b"  <!DOCTYPE html><p>one</p>", "text/plain", "one"),
        (b"<html><p>one</p>", "application/octet-stream", "one"),
        (b"just text", "application/octet-stream", "just text"),
        (b"<a>one</a>", "application/xml", "<a>one</a>"),
        (b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><rss>&f;</rss>', "text/xml", "&f;</rss>"),
        (b"# Head", "text/markdown", "# Head"),
        ('<meta charset="gbk"><p>网页</p>'.encode("gbk"), "text/html", "网页"),
        (b"", "text/html", ""),
        ("utf-16".encode("utf-16"), "text/plain", "utf-16"),
    ],
)
def test_texts_are_read(body: bytes, kind: str, text: str) -> None:
    assert page_of(body, kind).text.endswith(text)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"\x89PNG", "image/png", r"is no text \(image/png\)"),
        (b"PK", "application/zip", r"is no text \(application/zip\)"),
        (b"%PDF-1.7", "application/pdf", "is a PDF, which is not read here"),
        (b"%PDF-1.7", "text/plain", "is a PDF"),
        (b"\0\1\2", "application/octet-stream", "is no text"),
        (b"x", "video/mp4", "is no text"),
        (b"GIF89a\0\1", "text/html", "is no text"),
    ],
)
def test_what_is_no_text_is_refused(body: bytes, kind: str, said: str) -> None:
    with pytest.raises(FetchError, match=said):
        page_of(body, kind)


def test_letters_that_nobody_sees_are_taken_out() -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")
    page = page_of(
        f"<title>A\u200b{hidden}</title><p>b{hidden}&#xE0041;c \U0001f468\u200d\U0001f469</p>".encode(), "text/html"
    )
    assert (page.title, page.text) == ("A", "bc \U0001f468\u200d\U0001f469")
    assert page_of(f"a{hidden}".encode(), "text/plain").text == "a"


def test_the_entries_of_a_feed_are_read() -> None:
    page = page_of((RECORDED / "feed.xml").read_bytes(), "application/rss+xml")
    assert page.title == "The Example"
    assert page.text == ("# Tea is dear[^1]\nSat, 01 Feb 2025 10:00:00 GMT\nIt went up.\n# Coffee & cake\nCheap now")
    assert page.links == ("https://news.example.org/tea",)
    atom = b"""<feed xmlns="http://www.w3.org/2005/Atom"><title>A</title><entry><title>B</title>
        <link href="https://b.example/"/><summary>C</summary></entry></feed>"""
    assert page_of(atom, "application/atom+xml").part(1, 99) == "A\n\n# B[^1]\nC\n\n[^1]: https://b.example/"


def test_a_long_page_is_shown_part_by_part() -> None:
    lines = [f"line {number} of it" for number in range(100)]
    page = Page("https://www.example.org/", "Lines", "\n".join(lines))
    first = page.part(1, 400)
    assert first.startswith("Lines\n\n(page 1 of 4; ask for page 2 to read on)\n\nline 0 of it\n")
    parts = [page.part(number, 400).partition(")\n\n")[2] for number in range(1, 5)]
    assert "\n".join(parts).split("\n") == lines
    assert "(page 4 of 4)" in page.part(4, 400)
    with pytest.raises(FetchError, match="has no part 6: give a number from 1 to 4"):
        page.part(6, 400)
    assert Page("u", "", "x" * 1000).part(3, 400).endswith("\n\n" + "x" * 200)
    assert Page("u", "T", "").part(1) == "T\n\n(there is no text on this page; it may be one that scripts write)"


def test_a_part_tells_where_its_own_links_lead() -> None:
    page = Page("u", "", "one[^1] of some\ntwo[^2] [^2] [^9] [^0]", ("https://a.example/", "https://b.example/"))
    assert page.part(1, 23).endswith("one[^1] of some\n\n[^1]: https://a.example/")
    assert page.part(2, 23).endswith("[^0]\n\n[^2]: https://b.example/")
    assert page.part(1, 99).endswith("[^0]\n\n[^1]: https://a.example/\n[^2]: https://b.example/")


def test_what_is_told_of_links_is_bounded() -> None:
    links = tuple(f"https://www.example.org/{number:0900}" for number in range(9))
    shown = Page("u", "", " ".join(f"[^{number}]" for number in range(1, 10)), links).part(1)
    assert shown.count("https://") == 3


@pytest.fixture
def site() -> Iterator[Site]:
    with Site({"/a": recorded("article.html")}) as site:
        yield site


async def test_a_page_is_fetched_once_for_all_who_ask(site: Site) -> None:
    client = WebClient(10, True)
    reader = PageReader(client)
    pages = await asyncio.gather(*(reader.read(f"{site.url}/a#{part}") for part in range(5)))
    assert {page.title for page in pages} == {"Teapot - Example Encyclopedia"}
    await reader.read(f"{site.url}/a")
    assert len(site.asked) == 1
    site.routes["/b"] = Answer(json.dumps(["busy"]).encode(), "application/json", 503)
    for _ in range(2):
        with pytest.raises(FetchError, match="answered 503 Service Unavailable") as refused:
            await reader.read(f"{site.url}/b")
        assert refused.value.status == 503
    assert len(site.asked) == 3
    fresh = PageReader(client, cached=False)
    await fresh.read(f"{site.url}/a")
    await fresh.read(f"{site.url}/a")
    assert len(site.asked) == 5
    await client.close()
