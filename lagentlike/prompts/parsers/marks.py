"""Where in a model's text a mark means something: not in thinking, code fences, inline code or quotes."""

from __future__ import annotations

import re
import sys
from functools import lru_cache

__all__ = ["Marks"]

_FENCE = r"^ {0,3}(?:`{3,}|~{3,})"
_THINK, _END_OF_THINKING = "<think>", "</think>"


class Marks:
    """One pass over a text, from mark to mark, in time that grows with its length whatever is in it.

    Args:
        text: what a model wrote.
        begin, end: the marks around a call; `begin` may be a pattern, whose `^` is the start of any line.
    """

    def __init__(self, text: str, begin: str | re.Pattern[str], end: str) -> None:
        self.text = text
        self.begin = begin
        self.end = end
        self.thinking_ended = False
        """Whether the last step came behind a `</think>` whose thinking began in the prompt, as all before it is."""
        self._at = 0
        self._line = _Line()
        self._never_closed = {"`": sys.maxsize, "~": sys.maxsize}  # from what length on no fence is closed any more
        self._end = -2  # where the next end mark is, as far as that is known; -1 for nowhere

    def step(self) -> int:
        """Where the next begin mark that counts starts, or -1; after a `</think>` that counts, where that ends."""
        search = _pattern(self.begin).search
        self.thinking_ended = False
        while self._at >= 0 and (mark := search(self.text, self._at)) is not None:
            word, start = mark.group(), mark.start()
            if mark.lastgroup is None and word not in (
                _THINK,
                _END_OF_THINKING,
            ):  # a fence, or a begin mark that is one
                start += len(word) - len(word.lstrip(" "))
                if isinstance(self.begin, re.Pattern) or not self.text.startswith(self.begin, start):
                    self.jump(self._behind_fence(mark.end(), word.lstrip(" ")))
                    continue
                word = self.begin
            if self._is_quoted(start):
                self._at = start + len(word)
            elif word == _THINK:
                closing = self.text.find(_END_OF_THINKING, start)
                self.jump(-1 if closing < 0 else closing + len(_END_OF_THINKING))
            else:
                self.jump(start + len(word))
                self.thinking_ended = word == _END_OF_THINKING
                return self._at if self.thinking_ended else start
        self._at = -1
        return -1

    def jump(self, at: int) -> None:
        """Go on there, with no quote open; -1 for the end."""
        self._at = at
        self._line = _Line(at)

    def closing(self, at: int) -> int:
        """Where the next end mark behind a place starts, or -1; places are asked for in ascending order."""
        if self._end != -1 and self._end < at:
            self._end = self.text.find(self.end, at)
        return self._end

    def end_of_thinking(self, start: int, stop: int) -> int:
        """Where a `</think>` that is in no quotes starts between two places, or -1."""
        return self.unquoted(_END_OF_THINKING, start, stop)

    def unquoted(self, word: str, start: int, stop: int) -> int:
        """Where a word that is in no quotes starts between two places, or -1."""
        self._line = _Line(start)
        at = start
        while (at := self.text.find(word, at, stop)) >= 0 and self._is_quoted(at):
            at += len(word)
        return at

    def _behind_fence(self, at: int, fence: str) -> int:
        """Behind the line that closes a code fence; if nothing does, at the end of the thinking it is in, or -1."""
        if len(fence) < self._never_closed[fence[0]]:
            closing = self._end_of_fence(at, fence)
            if closing >= 0:
                return closing
            self._never_closed[fence[0]] = len(fence)
        return self.end_of_thinking(at, len(self.text))

    def _end_of_fence(self, at: int, fence: str) -> int:
        while (at := self.text.find("\n", at)) >= 0 and (closing := self.text.find(fence, at)) >= 0:
            line = self.text.rfind("\n", at, closing) + 1
            at = self.text.find("\n", closing)
            at = len(self.text) if at < 0 else at
            if closing - line <= 3 and not self.text[line:at].strip(" \t\r").strip(fence[0]):
                return at
        return -1

    def _is_quoted(self, at: int) -> bool:
        """Whether a quote or inline code is open on the line at that place, or the line is quoted as a whole."""
        if at and self.text[at - 1] in "'‘":
            return True
        line, seen = self._line, self._line.seen
        newline = self.text.rfind("\n", seen, at) + 1
        if newline or not seen:
            line, seen = _Line(), newline
            line.is_quoted = _BLOCKQUOTE.match(self.text, newline) is not None
            self._line = line
        line.read(self.text, seen, at)
        return line.is_quoted or line.quotes % 2 > 0 or line.curly > 0 or line.ticks > 0


class _Line:
    """What is open on a line, as far as that was looked at.

    Attributes:
        seen: how far it was looked at.
        quotes: straight double quotes so far.
        curly: 1 where a curly quote is open.
        ticks: length of the run of backticks that opened inline code, 0 where none is open.
        is_quoted: whether it begins with `>`.
    """

    __slots__ = ("curly", "is_quoted", "quotes", "seen", "ticks")

    def __init__(self, seen: int = 0) -> None:
        self.seen = seen
        self.quotes = self.curly = self.ticks = 0
        self.is_quoted = False

    def read(self, text: str, start: int, stop: int) -> None:
        """Go on to a place."""
        self.seen = stop
        self.quotes += text.count('"', start, stop) - text.count('\\"', start, stop)
        opened, closed = text.rfind("“", start, stop), text.rfind("”", start, stop)
        if opened != closed:
            self.curly = int(opened > closed)
        for run in _TICKS.finditer(text, start, stop):
            length = run.end() - run.start()
            if self.ticks in (0, length):
                self.ticks = length - self.ticks


_TICKS = re.compile("`+")
_BLOCKQUOTE = re.compile(" {0,3}>")


@lru_cache(maxsize=32)
def _pattern(begin: str | re.Pattern[str]) -> re.Pattern[str]:
    source = begin.pattern if isinstance(begin, re.Pattern) else re.escape(begin)
    return re.compile(f"(?P<begin>{source})|</?think>|{_FENCE}", re.MULTILINE)
