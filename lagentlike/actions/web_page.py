"""Pages of the web as text to read, part by part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

from ..errors import FetchError
from .html import read_html, visible
from .safe_xml import parse_xml
from .web_cache import SharedCache
from .web_fetch import Response, WebClient
from .workers import submit_from_loop

__all__ = ["Page", "PageReader", "read_page"]

KEPT_CHARACTERS = 16 * 1024 * 1024
KEPT_SECONDS = 600
PART = 8192
"""Most characters of a page that a model is shown at once, without its links."""

MAX_TITLE = 300
MAX_LINKS = 3000
"""Most characters of the links of a part."""


@dataclass(frozen=True)
class Page:
    """A page that was read.

    Attributes:
        url: where it is in the end.
        title: its title; "" without one.
        text: what can be read of it; `[^1]` stands for the first of its links.
        links: where its links lead.
    """

    url: str
    title: str
    text: str
    links: tuple[str, ...] = ()

    def part(self, number: int, length: int = PART) -> str:
        """A part of the page, as a model is shown it: with the links in it, and with how to read on.

        Args:
            number: which part; the first is 1.
            length: most characters of its text.

        Raises:
            FetchError: there is no such part.
        """
        parts = list(_parts(self.text, length)) or [""]
        if not 1 <= number <= len(parts):
            raise FetchError(f"{self.url} has no part {number}: give a number from 1 to {len(parts)}")
        shown = [self.title] if self.title else []
        if len(parts) > 1:
            further = f"; ask for page {number + 1} to read on" if number < len(parts) else ""
            shown.append(f"(page {number} of {len(parts)}{further})")
        text = parts[number - 1]
        shown.append(text or "(there is no text on this page; it may be one that scripts write)")
        return "\n\n".join([*shown, "\n".join(self._links(text))]).strip()

    def _links(self, text: str) -> Iterator[str]:
        """Where the links in a text lead, as far as there is room for that."""
        room = MAX_LINKS
        for number in dict.fromkeys(int(found) for found in re.findall(r"\[\^(\d{1,6})\]", text)):
            if not 0 < number <= len(self.links):
                continue
            line = f"[^{number}]: {self.links[number - 1]}"
            room -= len(line) + 1
            if room < 0:
                return
            yield line


class PageReader:
    """Reads pages, and keeps those that were read lately.

    Args:
        client: fetches them.
        cached: whether a page is kept for ten minutes, for whoever asks.
    """

    def __init__(self, client: WebClient, cached: bool = True) -> None:
        self._client = client
        self._kept: SharedCache[Page] = SharedCache(KEPT_CHARACTERS if cached else 0, KEPT_SECONDS, _weight)

    async def read(self, url: str) -> Page:
        """The page at an address.

        Raises:
            FetchError: it cannot be had, or is nothing that can be read; the message is for a model.
        """
        return await self._kept.get(url.partition("#")[0], lambda: self._fetch(url))

    async def _fetch(self, url: str) -> Page:
        answer = await self._client.request("GET", url)
        answer.check_status()
        return await submit_from_loop(read_page, answer)


def read_page(answer: Response) -> Page:
    """What can be read of an answer: of HTML its main text, of feeds their entries, of other texts all.

    Raises:
        FetchError: it is no text.
    """
    kind = answer.kind
    if kind == "application/pdf" or answer.body.startswith(b"%PDF-"):
        raise FetchError(f"{answer.url} is a PDF, which is not read here: look for a page that tells the same")
    text = answer.text if kind.startswith("text/") or kind.endswith(_TEXTS) else "\0"
    if "\0" in text[:4096]:
        raise FetchError(f"{answer.url} is no text ({kind})")
    page = _page(answer.url, kind, text)
    return replace(page, title=visible(page.title)[:MAX_TITLE], text=visible(page.text))


def _page(url: str, kind: str, text: str) -> Page:
    if "html" in kind or text[:200].lstrip().lower().startswith(("<!doctype html", "<html")):
        title, shown, links = read_html(text, url)
        return Page(url, title, shown, tuple(links))
    if kind.endswith("xml"):
        try:
            return _feed(url, parse_xml(text)) or Page(url, "", text)
        except ValueError:
            return Page(url, "", text)
    return Page(url, "", text)


def _feed(url: str, root: Element) -> Page | None:
    """The entries of an RSS or Atom feed; None if it is none."""
    items = [item for item in root.iter() if _local(item) in ("item", "entry")]
    if _local(root) not in ("rss", "feed", "RDF") or not items:
        return None
    texts: list[str] = []
    links: list[str] = []
    for item in items:
        link = next((text for child in item if _local(child) == "link" and (text := _link(child))), "")
        if link:
            links.append(link)
        texts.append(f"# {_said(item, 'title')}{f'[^{len(links)}]' if link else ''}")
        texts += [said for name in _ENTRY if (said := _said(item, name))]
    title = next((child for child in root.iter() if _local(child) == "title"), root)
    return Page(url, " ".join((title.text or "").split()), "\n".join(texts), tuple(links))


_TEXTS = ("json", "xml", "javascript", "yaml", "application/octet-stream")  # the last stands for an unknown kind
_ENTRY = ("pubDate", "published", "updated", "description", "summary", "content")


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _link(element: Element) -> str:
    return element.get("href") or (element.text or "").strip()


def _said(item: Element, name: str) -> str:
    """The text of an entry's child; feeds write HTML there."""
    text = next((child.text or "" for child in item if _local(child) == name), "")
    return re.sub(r"\[\^\d+\]", "", read_html(text).text)


def _parts(text: str, length: int) -> Iterator[str]:
    """The text in parts that end with a line where they can."""
    at = 0
    while at < len(text):
        end = at + length
        if end < len(text):
            line_end = text.rfind("\n", at + length // 2, end)
            end = line_end + 1 if line_end >= 0 else end
        yield text[at:end].strip("\n")
        at = end


def _weight(page: Page) -> int:
    return len(page.text) + sum(map(len, page.links)) + 1000
