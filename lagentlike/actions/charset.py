"""Bytes of the web as text, whatever their labels say."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

__all__ = ["decoded"]


def decoded(body: bytes, label: str = "") -> str:
    """The text of a page.

    A byte order mark says what it is; else it is UTF-8 if it can be, since hardly anything else happens to look like
    it; else what the server or the page itself says; else Windows' Latin letters. Labels are read as browsers do
    (https://encoding.spec.whatwg.org): `latin-1` stands for windows-1252, `gb2312` for gb18030.

    Args:
        body: the bytes.
        label: the charset that the server named.

    >>> decoded("é".encode("latin-1"), "utf-8"), decoded("é".encode(), "iso-8859-1")
    ('é', 'é')
    """
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    labels = [known for text in (label, _inner_label(body)) if (known := _encoding(text))]
    for encoding in _in_order(labels):
        try:
            return body.decode(encoding)
        except UnicodeDecodeError:
            continue
    return body.decode("cp1252", "replace")


def _in_order(labels: list[str]) -> Iterator[str]:
    """The encodings to try: labels come first where the encoding looks like ASCII and is none."""
    yield from (encoding for encoding in labels if encoding in _LIKE_ASCII)
    yield "utf-8"
    yield from labels


def _inner_label(body: bytes) -> str:
    """The charset that an HTML or XML page names in its first bytes."""
    found = _INNER.search(body[:4096])
    return found[1].decode("ascii") if found else ""


def _encoding(label: str) -> str | None:
    """Python's name of an encoding that pages have; None for others, such as `zip` and `unicode_escape`."""
    try:
        name = codecs.lookup(label.strip("\"' ")).name
    except (LookupError, ValueError):
        return None
    name = _MEANT.get(name, name)
    return name if _KNOWN.fullmatch(name) else None


_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_INNER = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*([a-zA-Z0-9_:.-]+)""", re.IGNORECASE
)
_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "utf-16": "utf-16-le",
    "utf-32": "utf-32-le",
}
_KNOWN = re.compile(
    r"utf-8|utf-16-[lb]e|utf-32-[lb]e|iso8859-\d+|cp\d+|koi8-[ru]|mac-roman|gb18030|big5|euc_jp|iso2022_jp"
)
_LIKE_ASCII = frozenset(["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "iso2022_jp"])
