"""Finds the answers in a written conversation by what the template writes between them, whatever they say."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import NamedTuple

__all__ = ["Piece", "Probe", "Written", "answer_like"]


class Piece(NamedTuple):
    """A stretch of a written conversation: a special token of the template's with its id, or text without one."""

    start: int
    stop: int
    id: int | None = None


class Written:
    """A conversation as text, with the special tokens in it."""

    def __init__(self, text: str, pieces: Sequence[Piece]) -> None:
        self.text = text
        self.special = [piece for piece in pieces if piece.id is not None]

    def special_from(self, at: int) -> Iterator[Piece]:
        """The special tokens that begin at a place of the text or behind it."""
        begin = bisect_left(self.special, at, key=lambda piece: piece.start)
        return islice(self.special, begin, None)

    def next_special(self, at: int, id_: int | None = None) -> Piece | None:
        """The first of them, or the first with this id."""
        return next((piece for piece in self.special_from(at) if id_ is None or piece.id == id_), None)

    def tokens(self, start: int, stop: int) -> list[tuple[int, int | None]]:
        """The special tokens that begin in a stretch: how far into it, and which."""
        between = takewhile(lambda piece: piece.start < stop, self.special_from(start))
        return [(piece.start - start, piece.id) for piece in between]


@dataclass(frozen=True, slots=True)
class Probe:
    """A conversation in which the answers are other ones, the numbers of their messages, and where they are."""

    written: Written
    places: list[int]
    said: dict[int, tuple[int, int]]


def answer_like(
    written: Written, probe: Probe, place: int, began: int | None, prompt: str
) -> tuple[int | None, int | None]:
    """Where an answer begins, if it stands where that of the probe does.

    That is where what stands between it and the answer before follows upon that answer.

    Args:
        written: the conversation.
        probe: the same with other answers.
        place: number of the answer's message; the message before is none.
        began: where the answer before it begins in the text; None where nobody knows.
        prompt: the generation prompt.

    Returns:
        The place, behind the generation prompt if the template writes that there, and the special token right behind
        what the probe says. None for the place where the text is not the probe's, or it cannot be told.
    """
    model = probe.written
    head, behind = probe.said[place]
    start = at = 0
    earlier = bisect_left(probe.places, place) - 1
    if earlier >= 0:
        closing = model.next_special(probe.said[probe.places[earlier]][1])
        if began is None or closing is None or closing.start >= head:
            return None, None
        ended = written.next_special(began, closing.id)
        if ended is None:
            return None, None
        start, at = closing.start, ended.start
    stop = head
    if prompt and (asked := model.text.rfind(prompt, start, head)) >= 0:
        stop = asked + len(prompt)
        if not model.tokens(asked, stop) or model.tokens(stop, head):
            return None, None
    found = at + stop - start
    if written.text[at:found] != model.text[start:stop] or written.tokens(at, found) != model.tokens(start, stop):
        return None, None
    end = model.next_special(behind)
    return found, end.id if end is not None and end.start == behind else None
