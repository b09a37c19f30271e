"""JSON lines out of bytes that arrive in pieces of any size."""

from __future__ import annotations

from ..errors import ResponseTooLarge

__all__ = ["LineParser"]


class LineParser:
    """Gives each line as soon as its last byte is there; empty ones are skipped.

    Args:
        max_bytes: longest line; a longer one raises `ResponseTooLarge`.

    >>> parser = LineParser()
    >>> parser.feed(b'{"a": 1}' + b'\\n{"a"')
    [b'{"a": 1}']
    >>> parser.feed(b': 2}'), parser.close()
    ([], b'{"a": 2}')
    """

    __slots__ = ("_max_bytes", "_pieces", "_size")

    def __init__(self, max_bytes: int = 32 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []  # of the line under way
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that end in `data`."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._pieces, lines[0]])
            self._pieces.clear()
            self._size = 0
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > self._max_bytes:
                raise ResponseTooLarge(f"one line of the stream passes {self._max_bytes} bytes")
        return [line for line in lines if line.strip()]

    def close(self) -> bytes | None:
        """A line whose end never came, once the stream is over."""
        line = b"".join(self._pieces)
        self._pieces.clear()
        return line if line.strip() else None
