"""Show a reply that is still coming, up to where a call may begin."""

from __future__ import annotations

import re

from .marks import Marks
from .tool_call import NEAR

__all__ = ["Shown", "beginnings"]

_WINDOW = 320  # characters, more than any unfinished beginning of a call has


def beginnings(mark: str) -> str:
    """A pattern of what a mark may begin with, longest first, without the whole of it."""
    return "|".join(re.escape(mark[:length]) for length in range(len(mark) - 1, 0, -1))


class Shown:
    """How much of a reply that is still coming is text, whatever comes behind it.

    From where the first call may begin, nothing is shown: a call ends only with the reply for sure. Marks in quotes,
    code and thinking are text, as they are for the parsers.

    Args:
        begin, end: the marks around a call, as `Marks` takes them. With an empty `begin`, nothing is shown.
        around: the marks around all calls of a reply, where the format has such.
        unfinished: pattern of what a `begin` that is a pattern may begin with.

    >>> shown = Shown("<tool_call>", "</tool_call>")
    >>> [shown.upto(text) for text in ("Let me see. ", "Let me see. <tool", "Let me see. <tool_call>{}</tool_call>")]
    [11, 11, 11]
    """

    def __init__(
        self,
        begin: str | re.Pattern[str],
        end: str,
        around: tuple[str, str] | None = None,
        unfinished: str = "",
    ) -> None:
        self._begin, self._end, self._around = begin, end, around
        mark = begin.pattern if isinstance(begin, re.Pattern) else re.escape(begin)
        parts = unfinished or beginnings(mark if isinstance(begin, re.Pattern) else begin)
        if around is not None:
            before = rf"{re.escape(around[0])}\s{{0,{NEAR}}}"
            mark, parts = f"(?:{before})?(?:{mark})", f"{before}(?:{parts})?|{beginnings(around[0])}|{parts}"
        self._opening = re.compile(mark, re.MULTILINE)
        self._unfinished = re.compile(rf"(?:{parts})\Z", re.MULTILINE)
        self._looked = 0  # the openings before it begin no call
        self._held: int | None = None if begin else 0

    def upto(self, text: str) -> int:
        """How many characters of the reply so far are sure, the space at their end left out."""
        if self._held is None and self._opening.search(text, self._looked) is not None:
            at = self._first_call(text)
            if at >= 0:
                self._held = len(text[:at].rstrip())
        if self._held is not None:
            return self._held
        unfinished = self._unfinished.search(text, max(self._looked, len(text) - _WINDOW))
        self._looked = len(
            text[: None if unfinished is None else unfinished.start()].rstrip()
        )  # a mark may be indented
        return self._looked

    def _first_call(self, text: str) -> int:
        """Where the first call begins, or -1."""
        marks = Marks(text, self._begin, self._end)
        while (at := marks.step()) >= 0:
            if marks.thinking_ended:
                continue
            if self._around is not None:
                opened = text.rfind(self._around[0], max(0, at - len(self._around[0]) - NEAR), at)
                if opened >= 0 and not text[opened + len(self._around[0]) : at].strip():
                    return opened
            return at
        return -1
