"""Frames that an enemy may have written."""

from __future__ import annotations

import random

import pytest

from lagentlike.sandbox.frames import BrokenFrame, frame, FrameReader, MAX_FRAME


def test_frames_come_out_whole_however_they_are_cut() -> None:
    values = [{"id": number, "text": "é\ud800" * number} for number in range(20)]
    content = b"".join(map(frame, values))
    for size in (1, 3, 7, 1000, len(content)):
        reader = FrameReader()
        found = [one for at in range(0, len(content), size) for one in reader.feed(content[at : at + size])]
        assert found == values


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b"null", b'"a"', b"\xff", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"\x80\x04N."],
)
def test_what_is_no_object_is_broken(body: bytes) -> None:
    with pytest.raises(BrokenFrame):
        FrameReader().feed(len(body).to_bytes(4, "big") + body)


def test_a_frame_that_is_too_large_is_broken_before_it_comes() -> None:
    with pytest.raises(BrokenFrame, match="larger than"):
        FrameReader().feed((MAX_FRAME + 1).to_bytes(4, "big"))


def test_ten_thousand_random_frames_give_objects_or_are_broken() -> None:
    rng = random.Random(5)
    whole = frame({"id": 1, "ok": True, "value": "x" * 20, "error": ""})
    for _ in range(10_000):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            kind = rng.randrange(4)
            at = rng.randrange(len(content) + 1)
            if kind == 0 and at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                content[at:at] = rng.randbytes(rng.randrange(1, 9))
            elif kind == 2:
                del content[at : at + rng.randrange(1, 9)]
            else:
                content[at:at] = whole
        reader = FrameReader()
        try:
            for piece in (content[:9], content[9:]):
                assert all(isinstance(one, dict) for one in reader.feed(bytes(piece)))
        except BrokenFrame:
            continue  # and nothing else
