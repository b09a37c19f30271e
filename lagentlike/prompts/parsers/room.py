"""A limit on what tool calls hold, so that arguments made to take long cost no more than others."""

from __future__ import annotations

import re
from typing import ClassVar

__all__ = ["MAX_CONTAINERS", "Room"]

MAX_CONTAINERS = 10_000
"""Most lists and objects in the calls of one reply: each takes a hundred times longer than a character of text."""


class Room:
    """How many lists and objects the calls of one reply may still hold; they are counted before any is made."""

    FULL: ClassVar[str] = (
        f"there are more than {MAX_CONTAINERS:,} lists and objects in the arguments: send less at once"
    )

    def __init__(self) -> None:
        self._left = MAX_CONTAINERS

    @property
    def is_full(self) -> bool:
        """Whether there was something that it had no room for."""
        return self._left < 0

    def takes(self, text: str, at: int = 0) -> bool:
        """Whether there is room for JSON that starts at a place; brackets in its strings take none."""
        brackets = text.count("[", at) + text.count("{", at)
        if brackets <= _FEW:
            self._left -= brackets  # in strings or not
        else:
            while self._left >= 0 and (found := _UP_TO_BRACKET.match(text, at)) is not None:
                self._left, at = self._left - 1, found.end()
        return not self.is_full


_FEW = 32  # all calls that one reply may make have not too many with so few each
_UP_TO_BRACKET = re.compile(r'(?:[^"\[{]++|"(?:[^"\\]++|\\.)*+")*+[\[{]', re.DOTALL)
