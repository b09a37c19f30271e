"""JSON goes out and comes in whole, or is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies

from lagentlike.errors import BadResponse, InvalidArgument
from lagentlike.llms.codec import decode, encode, parse_arguments
from lagentlike.schema import ToolCall

JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
)


@given(JSON)
def test_any_json_value_goes_out_whole(value: Any) -> None:
    assert json.loads(encode(value, "value")) == value


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (2**70, b"1180591620717411303424"),
        ("a\ud800b", '"a\ufffdb"'.encode()),
        ("\ud83c\udf89", '"🎉"'.encode()),
        ([2**70, "\udfff"], b'[1180591620717411303424, "\xef\xbf\xbd"]'),
        (ToolCall("f", {"a": 2**70}), None),
    ],
)
def test_what_the_fast_codec_refuses_is_sent_too(value: Any, sent: bytes | None) -> None:
    made = encode(value, "value")
    assert sent is None or made == sent
    json.loads(made)


def test_what_cannot_be_sent_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"tools\['a'\].*set"):
        encode({"a": {1, 2}}, "tools")
    with pytest.raises(InvalidArgument, match="text keys"):
        encode({1: 2}, "tools")
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        encode(deep, "message")


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b"\xff", b"[" * 100_000, b"9" * 1_000_000, b"1e999", b'"\\ud800'])
def test_what_cannot_be_read_is_a_bad_response(data: bytes) -> None:
    with pytest.raises(BadResponse) as caught:
        decode(data)
    assert len(caught.value.raw) <= 1024


def test_half_an_emoji_is_read_as_a_replacement_character() -> None:
    assert decode(b'{"a": "x\\ud83cy"}') == {"a": "x\ufffdy"}


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        ("  ", {}),
        ('{"a": 1}', {"a": 1}),
        ('{"id": 12345678901234567890123}', {"id": 12345678901234567890123}),
        ('{"a": 1', '{"a": 1'),
        ("[1]", "[1]"),
        ('"a"', '"a"'),
        ("null", "null"),
        ("{'a': 1}", "{'a': 1}"),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"a": ' + "9" * 5000 + "}", '{"a": ' + "9" * 5000 + "}"),
        ('{"a":' * 5000, '{"a":' * 5000),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_arguments_are_a_dict_or_the_text_as_it_is(text: str, arguments: Any) -> None:
    assert parse_arguments(text) == arguments
