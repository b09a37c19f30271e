"""Frames of JSON on a byte stream: four bytes of length, then a JSON object, read as if an enemy had written them."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["BrokenFrame", "FrameReader", "frame"]

MAX_FRAME = 8 * 1024 * 1024
"""Bytes of the largest frame that is read."""


class BrokenFrame(ValueError):
    """What came is no frame, or too large; nothing that comes after it can be read."""


class FrameReader:
    """Takes bytes as they come, and gives the objects that are whole.

    >>> reader = FrameReader()
    >>> content = frame({"id": 1})
    >>> reader.feed(content[:3]), reader.feed(content[3:])
    ([], [{'id': 1}])
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, piece: bytes) -> list[dict[str, Any]]:
        """The objects that are whole with these bytes.

        Raises:
            BrokenFrame: the bytes are no frames.
        """
        self._pending += piece
        found = []
        while len(self._pending) >= 4:
            length = int.from_bytes(self._pending[:4], "big")
            if length > MAX_FRAME:
                raise BrokenFrame(f"a frame of {length:,} bytes is larger than {MAX_FRAME:,}")
            if len(self._pending) < 4 + length:
                break
            found.append(_object(bytes(self._pending[4 : 4 + length])))
            del self._pending[: 4 + length]
        return found


def frame(value: dict[str, Any]) -> bytes:
    """The frame of an object."""
    body = json.dumps(value).encode()
    return len(body).to_bytes(4, "big") + body


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BrokenFrame(f"a frame is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BrokenFrame(f"a frame is no JSON object but a {type(value).__name__}")
    return value
