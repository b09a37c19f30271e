"""The tags and texts of an HTML page, in time that grows with its length whatever is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import NamedTuple

__all__ = ["page_text", "Piece", "pieces"]


class Piece(NamedTuple):
    """A tag or a text.

    Attributes:
        kind: `start`, `end` or `text`.
        value: the tag's name in small letters, or the text.
        attributes: of a start tag.
    """

    kind: str
    value: str
    attributes: dict[str, str]


def pieces(html: str) -> Iterator[Piece]:
    """The tags and texts of a page; comments, scripts and styles are left out.

    Python's own `HTMLParser` takes minutes for a hostile page; this reads less of the standard and never goes back.
    """
    at = 0
    while (mark := _MARK.search(html, at)) is not None:
        if mark.start() > at:
            yield Piece("text", unescape(html[at : mark.start()]), {})
        at = mark.end()
        name = (mark["name"] or "").lower()
        if mark.group() == "<!--":
            closing = _COMMENT_END.search(html, at)
            at = -1 if closing is None else closing.end()
        elif mark["end"]:
            yield Piece("end", name, {})
        elif name in _UNSEEN:
            closing = _UNSEEN[name].search(html, at)
            at = -1 if closing is None else closing.end()
        elif name:
            yield Piece("start", name, _attributes(mark["attributes"]))
        if at < 0:
            return
    if at < len(html):
        yield Piece("text", unescape(html[at:]), {})


def page_text(html: str) -> str:
    """The readable text of a page, its title first.

    >>> page_text("<title>A</title><p>one <b>two</b></p><p>three</p>")
    'A\\n\\none two\\nthree'
    """
    title: list[str] = []
    text: list[str] = []
    into = text
    for kind, value, _ in pieces(html):
        if kind == "text":
            into.append(value)
        elif value == "title":
            into = title if kind == "start" else text
        elif value in _BLOCKS:
            text.append("\n")
    lines = (" ".join(line.split()) for line in "".join(text).split("\n"))
    return f"{' '.join(''.join(title).split())}\n\n{chr(10).join(line for line in lines if line)}".strip()


def _attributes(text: str) -> dict[str, str]:
    return {
        found["name"].lower(): unescape(found["double"] or found["single"] or found["bare"] or "")
        for found in _ATTRIBUTE.finditer(text[:_LONGEST])
    }


_COMMENT_END = re.compile("-->")
_LONGEST = 4000  # characters of a tag that are looked at
_MARK = re.compile(r"<!--|<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9-]*)(?P<attributes>[^<>]*)>|<[!?][^<>]*>")
_ATTRIBUTE = re.compile(r"(?P<name>[\w-]+)\s*=\s*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[^\s\"'>]+))")
_UNSEEN = {
    name: re.compile(f"</{name}[^<>]*>", re.IGNORECASE)
    for name in ("script", "style", "noscript", "template", "svg", "iframe", "textarea")
}
_BLOCKS = frozenset(
    "address article aside blockquote br dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p "
    "pre section table td th tr ul".split()
)
