"""An event stream gives the same events however its bytes are cut."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies

from lagentlike.errors import ResponseTooLarge
from lagentlike.llms.sse import EventParser

STREAM = (
    "\ufeff: welcome\r\n\r\n"
    'data: {"a": 1}\n\n'
    "data:no space\r\r"
    "event: message\r\nid: 7\r\nretry: 10\r\ndata: two\r\ndata:  lines\r\n\r\n"
    "data: 你好, 世界 🎉 naïve\n\n"
    ":comment between\ndata: after a comment\n\n"
    "data\n\n"
    "unknown: field\n\n"
    "data: [DONE]\n\n"
).encode() + b"data: " + b"x" * 3500 + b"\r\n\r\n"  # fmt: skip

EVENTS = [
    b'{"a": 1}',
    b"no space",
    b"two\n lines",
    "你好, 世界 🎉 naïve".encode(),
    b"after a comment",
    b"",
    b"[DONE]",
    b"x" * 3500,
]


def parse(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_reads_every_form_of_event() -> None:
    assert parse(STREAM) == EVENTS


def test_cut_at_every_offset_it_gives_the_same() -> None:
    assert len(STREAM) > 3700
    for offset in range(len(STREAM) + 1):
        assert parse(STREAM[:offset], STREAM[offset:]) == EVENTS, offset


def test_byte_by_byte_it_gives_the_same() -> None:
    assert parse(*(STREAM[offset : offset + 1] for offset in range(len(STREAM)))) == EVENTS


def test_cut_at_random_it_gives_the_same() -> None:
    random_ = random.Random(0)
    for _ in range(300):
        cuts = sorted(random_.sample(range(len(STREAM)), 20))
        bounds = [0, *cuts, len(STREAM)]
        assert parse(*(STREAM[start:end] for start, end in zip(bounds, bounds[1:], strict=False))) == EVENTS  # noqa: RUF007  # the bounds are the point


@given(strategies.lists(strategies.binary(max_size=40), max_size=8))
def test_no_bytes_make_it_fail(pieces: list[bytes]) -> None:
    parser = EventParser()
    together = parse(b"".join(pieces))
    assert [event for piece in pieces for event in parser.feed(piece)] == together
    parser.close()


def test_event_without_its_blank_line_is_given_at_the_end() -> None:
    parser = EventParser()
    assert parser.feed(b"data: one\n\ndata: tw") == [b"one"]
    assert parser.feed(b"o") == []
    assert parser.close() == b"two"
    assert parser.close() is None


def test_long_line_in_small_pieces_costs_no_more_than_its_length() -> None:
    parser = EventParser()
    for _ in range(20_000):
        assert parser.feed(b"x" * 100) == []
    parser = EventParser()
    parser.feed(b"data: ")
    for _ in range(20_000):
        parser.feed(b"x" * 100)
    assert parser.feed(b"\n\n") == [b"x" * 2_000_000]


def test_endless_event_is_refused() -> None:
    parser = EventParser(max_bytes=1000)
    with pytest.raises(ResponseTooLarge):
        [parser.feed(b"x" * 100) for _ in range(11)]
