"""F1: how many words an answer shares with the right one, as SQuAD counts them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .base import reward
from .exact import answers_of, normalized, part_of

__all__ = ["f1"]


@reward
def f1(prediction: str, answer: Any, pattern: str | None = None) -> float:
    """The harmonic mean of precision and recall over words, for the right answer that it is highest for.

    The measure of SQuAD's evaluation script, in the form of version 2.0, where an empty answer only matches an empty
    one (Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822).

    Args:
        prediction, answer, pattern: as for `exact_match`.

    >>> f1("the red apple", answer="a green apple")
    0.5
    """
    part = part_of(prediction, pattern)
    return 0.0 if part is None else max(_overlap(part, one) for one in answers_of(answer))


def _overlap(prediction: str, answer: str) -> float:
    predicted, right = normalized(prediction).split(), normalized(answer).split()
    if not predicted or not right:
        return float(predicted == right)
    shared = (Counter(predicted) & Counter(right)).total()
    return 2 * shared / (len(predicted) + len(right))
