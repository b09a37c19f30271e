"""XML of strangers is read, and does nothing."""

from __future__ import annotations

import time

import pytest

from lagentlike.actions.safe_xml import parse_xml

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


def test_a_document_is_read() -> None:
    root = parse_xml(b'<?xml version="1.0" encoding="utf-8"?><a xmlns="u" xmlns:b="v" b:c="1" d="2">x<b:e/>y&amp;z</a>')
    assert (root.tag, root.attrib, root.text) == ("{u}a", {"{v}c": "1", "d": "2"}, "x")
    assert (root[0].tag, root[0].tail) == ("{v}e", "y&z")


@pytest.mark.parametrize(
    "document",
    [
        f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>',
        '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><a>&f;</a>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><a/>',
        '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1/p">%p;]><a/>',
        "<a>&unknown;</a>",
        "<a>" * 100_000,
        "<a><b></a>",
        "<a/><b/>",
        "",
        "no XML",
        "<a>\x00</a>",
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b"<a>\xff</a>",
    ],
    ids=range(13),
)
def test_what_is_no_plain_document_is_refused(document: str | bytes) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match=r"."):
        parse_xml(document)
    assert time.process_time() - started < 5
