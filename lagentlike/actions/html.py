"""What can be read of an HTML page, in time that grows with its length whatever is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import NamedTuple
from urllib.parse import urljoin

__all__ = ["Article", "Piece", "pieces", "read_html", "visible"]


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


class Article(NamedTuple):
    """What can be read of a page.

    Attributes:
        title: its title.
        text: its text: headings begin with `#`, items of lists with `-`, cells of a row are parted by `|`, and `[^1]`
            stands after the words of the first link.
        links: the addresses of its links, in that order.
    """

    title: str
    text: str
    links: list[str]


def read_html(html: str, url: str = "") -> Article:
    """The readable text of a page: of its main part if it has one, else of all that is no menu or the like.

    Args:
        html: the page.
        url: where it is, for links that begin there.

    >>> read_html("<title>A</title><nav>Menu</nav><h1>B</h1><p>one <a href='/c'>two</a></p>", "https://d.org/e")
    Article(title='A', text='# B\\none two[^1]', links=['https://d.org/c'])
    """
    title: list[str] = []
    marks: list[_Mark] = []
    places = [_Place("", False, False)]
    in_title, preformatted, anchor = False, 0, ""
    for kind, name, attributes in pieces(html):
        opens = kind == "start"
        if kind == "text":
            if in_title:
                title.append(name)
            else:
                text = name.replace(" ", _HARD_SPACE) if preformatted else _SPACES.sub(" ", name)
                marks.append(_Mark(text, places[-1]))
        elif name == "title":
            in_title = opens
        elif name == "base" and opens:
            url = _target(attributes.get("href", ""), url) or url
        elif name == "a":
            if anchor and not opens:
                marks.append(_Mark("", places[-1], anchor))
            anchor = attributes.get("href", "") if opens else ""
        else:
            if name == "pre":
                preformatted = max(0, preformatted + (1 if opens else -1))
            if name in _PLACES and opens:
                _enter(places, name, attributes)
            elif name in _PLACES:
                _leave(places, name)
            if name in _BLOCKS:
                begin, end = _LOOKS.get(name, ("\n", "\n"))
                marks.append(_Mark(begin if opens else end, places[-1]))
    return Article(" ".join("".join(title).split()), *_written(_main(marks), url))


def visible(text: str) -> str:
    """The text without letters that nobody sees, in which orders to a model can be written.

    Those that join or turn what is around them stay: scripts and emoji need them.

    >>> visible("seen\\u200b\\U000e0068\\U000e0069")
    'seen'
    """
    return _INVISIBLE.sub("", text)


class _Place(NamedTuple):
    """Where on a page a text stands."""

    name: str
    is_aside: bool
    is_main: bool


class _Mark(NamedTuple):
    """A text of a page, or the end of a link's words."""

    text: str
    place: _Place
    link: str = ""


def _enter(places: list[_Place], name: str, attributes: dict[str, str]) -> None:
    if len(places) == _DEEPEST:
        return
    outer, role = places[-1], attributes.get("role", "")
    is_main = outer.is_main or name in ("main", "article") or role == "main"
    called = f"{attributes.get('class', '')} {attributes.get('id', '')}"
    aside = (
        name in _ASIDE
        or role in _ASIDE_ROLES
        or (name == "header" and not is_main)
        or (name in _GENERIC and _ASIDE_NAMES.search(called) is not None)
        or "display:none" in attributes.get("style", "").replace(" ", "")
    )
    places.append(_Place(name, outer.is_aside or aside, is_main))


def _leave(places: list[_Place], name: str) -> None:
    """Go out of the innermost place of that name; an end that fits nothing nearby leads nowhere."""
    for index in range(len(places) - 1, max(0, len(places) - 1 - _NEARBY), -1):
        if places[index].name == name:
            del places[index:]
            return


def _main(marks: list[_Mark]) -> list[_Mark]:
    """The part of a page that is worth reading; all of it where little is left."""
    kept = [mark for mark in marks if not mark.place.is_aside]
    main = [mark for mark in kept if mark.place.is_main]
    if _length(main) >= max(200, _length(kept) // 4):
        return main
    return kept if _length(kept) >= min(200, _length(marks) // 4) else marks


def _length(marks: list[_Mark]) -> int:
    return sum(len(mark.text.strip()) for mark in marks)


def _written(marks: list[_Mark], url: str) -> tuple[str, list[str]]:
    links: dict[str, int] = {}
    text: list[str] = []
    for mark in marks:
        target = _target(mark.link, url) if mark.link else ""
        if target and text and text[-1].strip():
            text.append(f"[^{links.setdefault(target, len(links) + 1)}]")
        elif not mark.link:
            text.append(mark.text)
    lines = (_BLANKS.sub(" ", line).strip(_AROUND) for line in _CROWDED.sub(r"\1", "".join(text)).split("\n"))
    return "\n".join(line for line in lines if line.strip("-# ")).replace(_HARD_SPACE, " "), list(links)


def _target(href: str, url: str) -> str:
    """Where a link leads; "" within the page, and where nothing can be read."""
    if href.startswith("#"):
        return ""
    try:
        target = urljoin(url, href.strip())
    except ValueError:
        return ""
    return target if target.startswith(("https://", "http://")) and len(target) <= _LONGEST_LINK else ""


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
_SPACES = re.compile(r"\s+")
_INVISIBLE = re.compile("[\u00ad\u180e\u200b\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]")
_BLANKS = re.compile(" {2,}")
_AROUND = " |\t\r¶"  # the last is a link to a heading
_HARD_SPACE = "\x01"  # of preformatted text, while lines are put together
_CROWDED = re.compile(r"(\n(?:-|#{1,6}) )\s+")  # an item or a heading whose words stand in a block of their own
_LONGEST_LINK = 1000
_DEEPEST = 500
_NEARBY = 50
_BLOCKS = frozenset(
    "address article aside blockquote br dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p "
    "pre section table td th tr ul".split()
)
_LOOKS = {
    "li": ("\n- ", "\n"),
    "td": (" | ", ""),
    "th": (" | ", ""),
    **{f"h{level}": (f"\n{'#' * level} ", "\n") for level in range(1, 7)},
}
_GENERIC = frozenset(["div", "section", "span", "ul", "table"])
_ASIDE = frozenset(["nav", "aside", "footer", "dialog", "button", "select"])
_PLACES = _GENERIC | _ASIDE | {"header", "main", "article"}
_ASIDE_ROLES = frozenset(["navigation", "banner", "contentinfo", "search", "complementary", "dialog", "menu"])
_ASIDE_NAMES = re.compile(
    r"(?:^|\s)(?:nav|navbar|navbox|menu|sidebar|breadcrumbs?|footer|share|sharing|social|related|promo|advert\w*|cookie\S*"
    r"|newsletter|noprint|mw-jump-link|mw-editsection)(?:\s|$)",
    re.IGNORECASE,
)
