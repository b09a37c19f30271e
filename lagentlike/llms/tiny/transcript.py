"""Turns sampled tokens into text as they come: whole characters only, and never a part of a stop text."""

from __future__ import annotations

import codecs

__all__ = ["Transcript"]


class Transcript:
    """The text of one generation.

    Args:
        pieces: The bytes of every token id; none are needed where text is taken.
        stop: Texts at which the generation ends; the text is cut before the first of them.

    >>> transcript = Transcript([b"4", b"2", b" EN", b"D"], stop=(" END",))
    >>> [transcript.push(token) for token in (0, 1, 2, 3)], transcript.stopped
    (['4', '2', '', ''], True)
    """

    def __init__(self, pieces: list[bytes], stop: tuple[str, ...] = ()) -> None:
        self._pieces = pieces
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Take a token; return the text that is now sure."""
        return self.take(self._decoder.decode(self._pieces[token]))

    def take(self, text: str) -> str:
        """Take whole characters; return the text that is now sure."""
        self._held += text
        return self._release()

    def close(self) -> str:
        """The rest of the text, when no more tokens come."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(b"", final=True)
        text = self._release()
        if self.stopped:
            return text
        rest, self._held = self._held, ""
        return text + rest

    def _release(self) -> str:
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        keep = self._pending()
        at = len(self._held) - keep
        text, self._held = self._held[:at], self._held[at:]
        return text

    def _pending(self) -> int:
        """Length of the longest end of the held text that a stop text begins with."""
        for size in range(min(len(self._held), max((len(stop) for stop in self._stop), default=1) - 1), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stop):
                return size
        return 0
