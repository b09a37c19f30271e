"""Math equality: whether an answer is the right number or formula, however it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from .base import reward
from .exact import answers_of
from .math_proof import proved_equal
from .math_text import cleaned, final_answer, MAX_CHARACTERS, Node, node_of, parse, Unreadable
from .math_value import agree_at_points, is_close, names_of, Undefined, value_of

__all__ = ["are_equal", "math_equality"]

MAX_ITEMS = 20
"""Most items of a list, a tuple, or a row of a matrix."""

MAX_NESTED = 3
"""Deepest nesting of these: points in a list, say."""

MAX_NAMES = 8
"""Most variables of an expression."""


@reward
def math_equality(prediction: str, answer: Any, tolerance: float = 1e-6) -> float:
    """1 if the answer equals the right one as mathematics, else 0.

    Of a reply its `\\boxed{…}` counts, or what `final_answer` finds. LaTeX and plain notation are read: fractions,
    powers, roots, functions, percentages (50% is 0.5, and 50 where the other side has no sign), thousands separators,
    units, `x = …`, equations, tuples, intervals and their unions, sets, lists and matrices. What cannot be read is
    compared as text. Numbers must agree to a relative tolerance, whole numbers exactly. Expressions with variables must
    agree at a number of points; where sympy is installed (`lagentlike[math]`), it proves them equal or not, within two
    seconds. Nothing of the text is ever run, and what is too large is not equal.

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
    try:
        first, second = _cleaned(one), _cleaned(other)
        plain, other_plain = _plain(first), _plain(second)
        if plain == other_plain:
            return True
        if plain.isalpha() and other_plain.isalpha():
            return False  # words, not products of variables
        return _equal(_read(first), _read(second), tolerance)
    except Unreadable:
        return False


def _right(answer: str) -> str:
    """The part of a right answer that counts: its box, or what follows `####`, or all of it."""
    if "\\boxed{" in answer or "####" in answer:
        return final_answer(answer)
    return answer


def _cleaned(text: str) -> str:
    """A text without looks, in which a set's braces are `\\1` and `\\2`, and the ends of a matrix's rows `\\3`."""
    for pattern, mark in _MARKED:
        text = pattern.sub(mark, text)
    return cleaned(text)


def _plain(text: str) -> str:
    """A text for the comparison as text: without spaces, `x =`, and `\\text{}` around words."""
    text = _TEXT.sub(r"\1", text).replace("\0", "")
    return _ASSIGNED.sub("", _SPACE.sub("", text)).lower()


_MARKED = [
    (re.compile(r"\\\\(?:\[[^\]]{0,10}\])?"), "\3"),
    (re.compile(r"\\\{\s*\\\}"), r"\\emptyset"),
    (re.compile(r"\\(?:\{|lbrace(?![A-Za-z]))"), "\1"),
    (re.compile(r"\\(?:\}|rbrace(?![A-Za-z]))"), "\2"),
]
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
_ASSIGNED = re.compile(
    r"^\s*(?:([A-Za-z](?:_\{?\w{1,8}\}?)?)(?:\^\{-1\})?(?:\(\s*[a-z]\s*\))?|\([a-z](?:,\s?[a-z]){1,3}\))"
    r"\s*(?:=|\\in(?![A-Za-z]))\s*"
)
_POWER = r"(?:\s?\^\s?\{?(?P<%s>\d)\}?)?$"
_SHORT = "am|cl|dl|[gkm]b|hr|hz|kg|kw|lb|mg|ml|oz|pm|pt|qt|[GKMT]B|Hz|kW|mL"  # other two letters are variables
_LENGTH = "[cdkm]m|ft|in|inch(?:es)?|feet|foot|yd|yards?|mi|miles?|units?|met(?:er|re)s?"
_UNIT = re.compile(
    r"(?<=[\w})!])\s*\\text\s?\{\s*(?P<text>[^{}]{1,40})\}"
    + _POWER % "of_text"
    + rf"|(?<=[\d}})])\s+(?P<length>{_LENGTH})"
    + _POWER % "of_length"
    + r"|(?<=[\d})])\s+(?P<word>(?:"
    + _SHORT
    + "|[A-Za-z]{3,20})(?:[ /][A-Za-z]{1,20}){0,2})$"
)
_AND = re.compile(r",?\s*(?:\\text\s?\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|[或和])\s*")
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\{([bp]?matrix|vmatrix)\}(.*)\\end\{\1\}", re.DOTALL)


@dataclass(slots=True)
class _Item:
    """One expression, with what it is called and what stands behind it."""

    node: Node
    name: str = ""
    unit: str = ""
    percent: bool = False
    equation: bool = False
    """Whether it says that the expression is 0."""

    @classmethod
    def read(cls, text: str) -> _Item:
        named = _ASSIGNED.match(text)
        text = (text[named.end() :] if named else text).strip()
        left, equals, right = text.partition("=")
        if equals:
            return cls(node_of("+", parse(left), node_of("-", parse(right))), equation=True)
        unit = _UNIT.search(text)
        said = _unit(unit) if unit else ""
        text = text[: unit.start()].strip() if unit else text
        percent = text.endswith("%") or said in ("percent", "%")
        name = named[1] or "" if named else ""
        return cls(parse(text.rstrip("% ")), name, "" if percent else said, percent)

    def equals(self, other: _Item, tolerance: float) -> bool:
        if self.equation or other.equation:
            one, another = self.as_equation().node, other.as_equation().node
            return _same(one, another, tolerance) or _same(one, node_of("-", another), tolerance)
        if self.unit and other.unit and self.unit != other.unit:
            return False
        if _same(self.scaled(), other.scaled(), tolerance):
            return True
        return self.percent != other.percent and _same(self.node, other.node, tolerance)

    def scaled(self) -> Node:
        return node_of("/", self.node, parse("100")) if self.percent else self.node

    def as_equation(self) -> _Item:
        """This `x = …` as an equation."""
        if self.equation:
            return self
        if not self.name:
            raise Unreadable("it is no equation")
        return _Item(node_of("+", parse(self.name), node_of("-", self.node)), equation=True)


def _unit(found: re.Match[str]) -> str:
    said = found["text"] or found["length"] or found["word"]
    power = found["of_text"] or found["of_length"]
    return said.strip().lower() + (f"^{power}" if power else "")


class _Several(NamedTuple):
    """Several, which stand in order unless they are a list, a set or a union."""

    kind: str
    parts: list[_Item | _Several]


_UNORDERED = ("list", "union")


def _read(text: str, depth: int = 0) -> _Item | _Several:
    """What a text says, which `_cleaned` made.

    Raises:
        Unreadable: nothing that can be read here.
    """
    if depth > MAX_NESTED:
        raise Unreadable("nested too deeply")

    def several(kind: str, parts: list[str]) -> _Several:
        return _Several(kind, [_read(part, depth + 1) for part in parts])

    text = text.strip()
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        kind = "determinant" if matrix[1] == "vmatrix" else "matrix"
        rows = _bounded(matrix[2].strip("\3 \n").split("\3"))
        return _Several(kind, [several("row", _bounded(row.split("&"))) for row in rows])
    united = _split(_CUP.sub("\4", text), "\4")
    if len(united) > 1:
        return several("union", united)
    named = _ASSIGNED.match(text)
    bare = text[named.end() :] if named else text
    if bare[:1] in ("(", "[", "{", "\1") and bare[-1:] in (")", "]", "}", "\2") and len(_split(bare[1:-1])) > 1:
        return several("list" if bare[0] in "{\1" else bare[0] + bare[-1], _split(bare[1:-1]))
    parts = _split(_AND.sub(",", text.strip("\1\2")))
    if len(parts) == 1:
        parts = _both_signs(parts[0])
    if len(parts) == 1:
        return _Item.read(parts[0])
    listed = several("list", parts)
    names = {part.name for part in listed.parts if isinstance(part, _Item)}
    if len(names) < 2:
        return listed
    return _Several("list", [part.as_equation() if isinstance(part, _Item) else part for part in listed.parts])


def _equal(one: _Item | _Several, other: _Item | _Several, tolerance: float) -> bool:
    if isinstance(one, _Item) and isinstance(other, _Item):
        return one.equals(other, tolerance)
    if not isinstance(one, _Several) or not isinstance(other, _Several):
        return False
    if one.kind != other.kind or len(one.parts) != len(other.parts):
        return False
    if one.kind not in _UNORDERED:
        return all(_equal(*pair, tolerance) for pair in zip(one.parts, other.parts, strict=True))
    left = list(other.parts)
    for part in one.parts:
        match = next((index for index, another in enumerate(left) if _equal(part, another, tolerance)), None)
        if match is None:
            return False
        del left[match]
    return True


def _bounded(parts: list[str]) -> list[str]:
    if len(parts) > MAX_ITEMS:
        raise Unreadable("too many items")
    return parts


def _split(text: str, by: str = ",") -> list[str]:
    """The parts between commas, or what else parts them, that are in no brackets."""
    parts, depth, begin = [], 0, 0
    for index, sign in enumerate(text):
        if sign in "([{\1":
            depth += 1
        elif sign in ")]}\2":
            depth -= 1
            if depth < 0:
                return [text]
        elif sign == by and not depth:
            parts.append(text[begin:index])
            begin = index + 1
    return _bounded([*parts, text[begin:]])


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
