"""Exact match: whether the answer is the right one, as SQuAD compares them."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ...errors import InvalidArgument
from .base import reward
from .patterns import Pattern

__all__ = ["answers_of", "exact_match", "normalized", "part_of"]


@reward
def exact_match(prediction: str, answer: Any, pattern: str | None = None) -> float:
    """1 if the answer equals a right one, else 0; case, punctuation, articles and spacing do not count.

    The comparison of SQuAD 1.1's evaluation script (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250).

    Args:
        prediction: the agent's last answer.
        answer: the right one, a text or a number, or a list of right ones.
        pattern: regular expression whose last match is compared instead of the whole text (its first group, if it has
            one); without a match the reward is 0.

    >>> exact_match("The  Eiffel Tower.", answer="eiffel tower")
    1.0
    >>> exact_match("I think <answer>42</answer>", answer=[41, 42], pattern="<answer>(.*?)</answer>")
    1.0
    """
    part = part_of(prediction, pattern)
    return float(part is not None and normalized(part) in [normalized(one) for one in answers_of(answer)])


def normalized(text: str) -> str:
    """The text in lower case, without punctuation and English articles, its words parted by single spaces."""
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def answers_of(answer: Any) -> list[str]:
    """The right answers as texts.

    Raises:
        InvalidArgument: there is none.
    """
    listed = list(answer) if isinstance(answer, Sequence | set) and not isinstance(answer, str) else [answer]
    if not listed or any(one is None or isinstance(one, dict) for one in listed):
        raise InvalidArgument("answer", answer, "give a text, a number, or a non-empty list of these")
    return [str(one) for one in listed]


def part_of(text: str, pattern: str | None) -> str | None:
    """The last match of a pattern (its first group, if it has one), or the whole text without a pattern."""
    return text if pattern is None else _compiled(pattern).last(text)


_compiled = lru_cache(Pattern)
