"""Chunks of a stream that differ in their text alone: what is around it is parsed once."""

from __future__ import annotations

import re

import orjson

from .codec import decode

__all__ = ["ChunkShape"]


class ChunkShape:
    """The bytes around the text in the chunks of one stream.

    Servers repeat id, model and the rest in each chunk. Where these bytes are those of an earlier chunk, and what is
    between them is one JSON string, a chunk tells the same as that one but for its text.

    Attributes:
        lessons: how often `learn` may still be called: it costs as much as a chunk does, and some servers put something
            new into each.

    >>> shape = ChunkShape()
    >>> shape.learn(b'{"choices": [{"delta": {"content": "one"}}]}', "one")
    >>> shape.text_of(b'{"choices": [{"delta": {"content": "two"}}]}')
    'two'
    >>> shape.text_of(b'{"choices": [{"delta": {"content": "three"}, "finish_reason": "stop"}]}')
    """

    __slots__ = ("_after", "_before", "lessons")

    def __init__(self) -> None:
        self._before = self._after = b""  # with the quotes of the text
        self.lessons = _MOST_LESSONS

    def text_of(self, chunk: bytes) -> str | None:
        """The text of a chunk that is like the one learnt; None for any other."""
        before, after = self._before, self._after
        if not before or not chunk.startswith(before) or not chunk.endswith(after):
            return None
        try:
            text: str = orjson.loads(chunk[len(before) - 1 : 1 - len(after)])
        except orjson.JSONDecodeError:
            return None
        return text

    def learn(self, chunk: bytes, text: str) -> None:
        """Take over what is around the text of a chunk, which is all that the delta of its first choice holds."""
        self.lessons -= 1
        for found in _CONTENT.finditer(chunk):
            start, end = found.span(1)
            changed = decode(b"%b~%b" % (chunk[:start], chunk[start:]))["choices"][0]["delta"]["content"]
            if changed == "~" + text:  # so it is this string
                self._before, self._after = chunk[:start], chunk[end:]
                return


_MOST_LESSONS = 3
_CONTENT = re.compile(rb'"content"\s*:\s*"((?:[^"\\]|\\.)*)"')
