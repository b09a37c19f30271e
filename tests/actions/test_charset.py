"""Pages are decoded, whatever their labels say."""

from __future__ import annotations

import codecs

import pytest

from lagentlike.actions.charset import decoded


@pytest.mark.parametrize(
    ("body", "label", "text"),
    [
        ("naïve café".encode(), "", "naïve café"),
        ("naïve café".encode(), "iso-8859-1", "naïve café"),
        ("naïve café".encode("latin-1"), "utf-8", "naïve café"),
        ("“quoted”".encode("cp1252"), "iso-8859-1", "“quoted”"),
        ("привет".encode("cp1251"), "windows-1251", "привет"),
        ("привет".encode("koi8-r"), "KOI8-R", "привет"),
        ("日本語のページ".encode("shift_jis"), '"Shift_JIS"', "日本語のページ"),
        ("日本語".encode("iso2022_jp"), "iso-2022-jp", "日本語"),
        ("中文网页".encode("gb18030"), "gb2312", "中文网页"),
        ("한국어".encode("euc_kr"), "euc-kr", "한국어"),
        (codecs.BOM_UTF16_LE + "日本".encode("utf-16-le"), "utf-8", "日本"),
        (codecs.BOM_UTF8 + "é".encode(), "latin-1", "é"),
        ("plain".encode("utf-16-be"), "utf-16be", "plain"),
        (b'<meta charset="windows-1251">' + "мир".encode("cp1251"), "", '<meta charset="windows-1251">мир'),
        (
            b'<meta http-equiv="Content-Type" content="text/html; charset=gbk">' + "网".encode("gbk"),
            "",
            '<meta http-equiv="Content-Type" content="text/html; charset=gbk">网',
        ),
        (b'<?xml version="1.0" encoding="iso-8859-2"?>\xb1', "", '<?xml version="1.0" encoding="iso-8859-2"?>ą'),
        (b"caf\xe9 \x81", "", "café \ufffd"),
        (b"", "utf-8", ""),
    ],
)
def test_it_is_decoded(body: bytes, label: str, text: str) -> None:
    assert decoded(body, label) == text


@pytest.mark.parametrize(
    "label", ["zip", "base64", "unicode_escape", "idna", "undefined", "no such", "\udc80", "utf-7", "a" * 9999]
)
def test_labels_that_no_page_has_are_not_believed(label: str) -> None:
    assert decoded(rb"\x41+AGE- caf" + b"\xe9", label) == r"\x41+AGE- café"
