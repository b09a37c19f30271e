"""Math equality: whether an answer is the right number or formula, however it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .base import reward
from .exact import answers_of
from .math_proof import proved_equal
from .math_text import cleaned, final_answer, MAX_CHARACTERS, Node, node_of, parse, Unreadable
from .math_value import agree_at_points, is_close, names_of, Undefined, value_of

__all__ = ["are_equal", "math_equality"]

MAX_ITEMS = 20
"""Most items of a list or tuple."""

MAX_NAMES = 8
"""Most variables of an expression."""


@reward
def math_equality(prediction: str, answer: Any, tolerance: float = 1e-6) -> float:
    """1 if the answer equals the right one as mathematics, else 0.

    Of a reply its `\\boxed{…}` counts, or what `final_answer` finds. LaTeX and plain notation are read: fractions,
    powers, roots, functions, percentages (50% is 0.5, and 50 where the other side has no sign), thousands separators,
    units, `x = …`, tuples, intervals, sets and lists. What cannot be read is compared as text. Numbers must agree to a
    relative tolerance, whole numbers exactly. Expressions with variables must agree at a number of points; where sympy
    is installed (`lagentlike[math]`), it proves them equal or not, within two seconds. Nothing of the text is ever run,
    and what is too large is not equal.

    Args:
        prediction: the agent's last answer.
        answer: the right one, or a list of right ones.
        tolerance: greatest relative difference of two numbers.

    >>> math_equality("It is \\\\boxed{\\\\frac{1}{2}}.", answer="0.5")
    1.0
    >>> math_equality("(x + 1)^2", answer="x^2 + 2x + 1")
    1.0
    """
    said = final_answer(prediction)
    return float(any(are_equal(said, _right(one), tolerance) for one in answers_of(answer)))


def are_equal(one: str, other: str, tolerance: float = 1e-6) -> bool:
    """Whether two texts are the same mathematics."""
    if len(one) > MAX_CHARACTERS or len(other) > MAX_CHARACTERS:
        return one.strip() == other.strip()
    plain, other_plain = _plain(one), _plain(other)
    if plain == other_plain:
        return True
    if plain.isalpha() and other_plain.isalpha():
        return False  # words, not products of variables
    try:
        first, second = _Answer.read(one), _Answer.read(other)
    except Unreadable:
        return False
    return first.equals(second, tolerance)


def _right(answer: str) -> str:
    """The part of a right answer that counts: its box, or what follows `####`, or all of it."""
    if "\\boxed{" in answer or "####" in answer:
        return final_answer(answer)
    return answer


def _plain(text: str) -> str:
    """A text for the comparison as text: without looks, spaces, and `\\text{}` around words."""
    text = _TEXT.sub(r"\1", cleaned(text)).replace("\0", "")
    return _ASSIGNED.sub("", "".join(text.split())).lower()


_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
_ASSIGNED = re.compile(r"^\s*[A-Za-z](?:_\{?\w{1,8}\}?)?(?:\(\s*[a-z]\s*\))?\s*(?:=|\\in(?![A-Za-z]))\s*")
_UNIT = re.compile(
    r"(?<=[\d})])\s*\\text\s?\{\s*([^{}]{1,40})\}(?:\s?\^\s?\{?\d\}?)?$"
    r"|(?<=[\d})])\s+([A-Za-z]{2,20}(?:[ /][A-Za-z]{1,20}){0,2})$"
)


@dataclass(slots=True)
class _Item:
    """One expression, with what stands behind it."""

    node: Node
    percent: bool
    unit: str

    @classmethod
    def read(cls, text: str) -> _Item:
        text = text.strip()
        unit = _UNIT.search(text)
        said = (unit[1] or unit[2] or "").strip().lower() if unit else ""
        text = text[: unit.start()].strip() if unit else text
        percent = text.endswith("%") or said in ("percent", "%")
        return cls(parse(text.rstrip("% ")), percent, "" if percent else said)

    def equals(self, other: _Item, tolerance: float) -> bool:
        if self.unit and other.unit and self.unit != other.unit:
            return False
        if _same(self.scaled(), other.scaled(), tolerance):
            return True
        return self.percent != other.percent and _same(self.node, other.node, tolerance)

    def scaled(self) -> Node:
        return node_of("/", self.node, parse("100")) if self.percent else self.node


@dataclass(slots=True)
class _Answer:
    """What a text says: one expression, or several between brackets (in order) or without (in any order)."""

    items: list[_Item]
    brackets: str = ""

    @classmethod
    def read(cls, text: str) -> _Answer:
        text = _ASSIGNED.sub("", cleaned(text.replace("\\{", "\1").replace("\\}", "\2")))
        brackets = ""
        if text[:1] in ("(", "[", "\1") and text[-1:] in (")", "]", "\2") and len(_split(text[1:-1])) > 1:
            brackets, text = text[0] + text[-1], text[1:-1]
        parts = _split(text)
        if len(parts) > MAX_ITEMS:
            raise Unreadable("too many items")
        if len(parts) == 1 and not brackets:
            parts = _both_signs(text.strip("\1\2"))
        return cls([_Item.read(part) for part in parts], brackets if brackets != "\1\2" else "")

    def equals(self, other: _Answer, tolerance: float) -> bool:
        if len(self.items) != len(other.items):
            return False
        if self.brackets or other.brackets:
            return self.brackets == other.brackets and all(
                one.equals(another, tolerance) for one, another in zip(self.items, other.items, strict=True)
            )
        left = list(other.items)
        for item in self.items:
            match = next((index for index, another in enumerate(left) if item.equals(another, tolerance)), None)
            if match is None:
                return False
            del left[match]
        return True


def _split(text: str) -> list[str]:
    """The parts between commas that are in no brackets."""
    parts, depth, begin = [], 0, 0
    for index, sign in enumerate(text):
        if sign in "([{\1":
            depth += 1
        elif sign in ")]}\2":
            depth -= 1
            if depth < 0:
                return [text]
        elif sign == "," and not depth:
            parts.append(text[begin:index])
            begin = index + 1
    return [*parts, text[begin:]]


def _both_signs(text: str) -> list[str]:
    """`a ± b` as `a + b` and `a - b`."""
    for sign in ("\\pm", "±"):
        if text.count(sign) == 1:
            return [text.replace(sign, "+"), text.replace(sign, "-")]
    return [text]


def _same(one: Node, other: Node, tolerance: float) -> bool:
    names = names_of(one) | names_of(other)
    if len(names) > MAX_NAMES:
        return False
    if not names:
        try:
            return is_close(value_of(one, {}), value_of(other, {}), tolerance)
        except Undefined:
            return False
    if not agree_at_points(one, other):
        return False
    return proved_equal(one, other) is not False
