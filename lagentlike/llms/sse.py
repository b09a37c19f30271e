"""Server-sent events out of bytes that arrive in pieces of any size."""

from __future__ import annotations

from ..errors import ResponseTooLarge

__all__ = ["EventParser"]


class EventParser:
    """Gives the `data` of each event as soon as its last byte is there.

    Follows https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end with LF, CR or CRLF, the space
    after `data:` may be missing, several `data` lines make one event, comments and other fields are skipped.

    Args:
        max_bytes: longest event; a longer one raises `ResponseTooLarge`.

    >>> parser = EventParser()
    >>> parser.feed(b"data: one" + b"\\n\\ndata:tw")
    [b'one']
    >>> parser.feed(b"o\\r\\n\\r\\n")
    [b'two']
    """

    __slots__ = ("_after_cr", "_lines", "_max_bytes", "_pieces", "_size", "_started")

    def __init__(self, max_bytes: int = 32 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []  # of the line under way
        self._lines: list[bytes] = []  # data of the event under way
        self._size = 0
        self._after_cr = False
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """The events that end in `data`."""
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == _LF:
                data = data[1:]
        if not data:
            return []
        last = data[-1]
        if last == _CR:
            self._after_cr = True
        if last != _LF and last != _CR and b"\n" not in data and b"\r" not in data:
            self._keep(data)
            return []
        if self._pieces:
            data = b"".join([*self._pieces, data])
            self._pieces.clear()
            self._size = 0
        if not self._started:
            self._started = True
            data = data.removeprefix(b"\xef\xbb\xbf")
        lines = data.splitlines()
        if last != _LF and last != _CR:
            self._keep(lines.pop())
        return self._events(lines)

    def close(self) -> bytes | None:
        """The data of an event whose blank line never came, once the stream is over."""
        events = self.feed(b"\n") if self._pieces else []
        if self._lines:
            events.append(b"\n".join(self._lines))
            self._lines.clear()
        return events[-1] if events else None

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        pending = self._lines
        for line in lines:
            if line.startswith(b"data: "):
                pending.append(line[6:])
            elif not line:
                if len(pending) == 1:
                    events.append(pending[0])
                    pending.clear()
                elif pending:
                    events.append(b"\n".join(pending))
                    pending.clear()
            elif line.startswith(b"data:"):
                pending.append(line[5:])
            elif line == b"data":
                pending.append(b"")
        return events

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise ResponseTooLarge(f"one event of the stream passes {self._max_bytes} bytes")


_LF, _CR = 0x0A, 0x0D
