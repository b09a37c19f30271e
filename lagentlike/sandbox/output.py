"""What a program writes, bounded: its head, its tail, and how much there was between them."""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Output"]


class Output:
    """What a program writes: its head and its tail; what is between them is only counted.

    Args:
        room: most bytes that are kept, half of them of each end.

    >>> output = Output(8)
    >>> output.add(b"abcdefghijklm")
    >>> output.content()
    b'abcd\\n\\xe2\\x80\\xa6 5 bytes are left out here \\xe2\\x80\\xa6\\njklm'
    """

    def __init__(self, room: int) -> None:
        self._room = max(room // 2, 1)
        self._guard = threading.RLock()  # what comes between a look and the clearing would be lost
        self._clear()

    def add(self, piece: bytes) -> None:
        """Take note of what was written."""
        with self._guard:
            self.size += len(piece)
            taken = piece[: max(self._room - len(self._head), 0)]
            self._head += taken
            rest = piece[len(taken) :]
            if rest:
                self._tail.append(rest)
                self._tail_size += len(rest)
            while self._tail and self._tail_size - len(self._tail[0]) >= self._room:
                self._tail_size -= len(self._tail.popleft())

    def content(self) -> bytes:
        """All that is kept, with a note where something is left out."""
        with self._guard:
            tail = b"".join(self._tail)[-self._room :]
            missing = self.size - len(self._head) - len(tail)
            note = f"\n… {missing:,} bytes are left out here …\n".encode() if missing else b""
            return bytes(self._head) + note + tail

    def text(self) -> str:
        """The same as text; bytes that are no UTF-8 become U+FFFD."""
        return self.content().decode("utf-8", "replace")

    def take(self) -> bytes:
        """What came since the last time."""
        with self._guard:
            content = self.content()
            self._clear()
        return content

    def _clear(self) -> None:
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self.size = 0
