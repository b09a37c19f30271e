"""Read the mathematics in a text, LaTeX or plain, as a tree: in bounded time, and without running any of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

__all__ = ["FUNCTIONS", "MAX_CHARACTERS", "Node", "Unreadable", "cleaned", "final_answer", "node_of", "parse"]

MAX_CHARACTERS = 1000
"""Longest text that is read as mathematics."""

MAX_DEPTH = 40
"""Deepest nesting."""

MAX_EXPONENT = 300
"""Largest power of ten that a number such as 1e5 may have."""

FUNCTIONS = frozenset("abs arccos arcsin arctan cos cosh cot csc exp ln log sec sin sinh sqrt tan tanh".split())


class Unreadable(ValueError):  # it says what the text is
    """The text is no mathematics that can be read here, or too much of it."""


class Node(NamedTuple):
    """A piece of mathematics.

    Attributes:
        kind: "number", "name", "+" or "*" (of two or more), "/", "^", "-" (of one), "!", "root" (of a value, and the
            degree), "binom" (of two), or a name of `FUNCTIONS`.
        args: what it is made of.
        number: the value of a number.
        name: the name of a variable or constant.
        height: how many pieces stand above one another, at most `MAX_DEPTH`.
    """

    kind: str
    args: tuple[Node, ...] = ()
    number: Fraction = Fraction(0)
    name: str = ""
    height: int = 1


def node_of(kind: str, *args: Node) -> Node:
    """A piece of some others.

    Raises:
        Unreadable: it is nested too deeply.
    """
    if kind in ("+", "*") and args[0].kind == kind:
        args = (*args[0].args, *args[1:])
    height = 1 + max(arg.height for arg in args)
    if height > MAX_DEPTH:
        raise Unreadable("nested too deeply")
    return Node(kind, args, height=height)


def final_answer(text: str) -> str:
    """The part of a reply that is its answer.

    The last `\\boxed{…}`; else what follows the last `####`; the last `<answer>…</answer>`; what follows the last
    "answer is" (or 答案是); the whole of it, if it has no words, or is short and is mathematics; the last formula
    between dollars; the last number.

    >>> final_answer("So it is $x = 2$, that is \\\\boxed{\\\\frac{1}{2}}.")
    '\\\\frac{1}{2}'
    >>> final_answer("The result of 1 + 1 is 2.")
    '2'
    """
    marked = _boxed(text)
    if marked is None and "####" in text:
        marked = text.rpartition("####")[2].strip().partition("\n")[0]
    if marked is None and "<answer>" in text:
        marked = text.rpartition("<answer>")[2].partition("</answer>")[0]
    if marked is None:
        ends = [match.end() for match in _SAID.finditer(text)]
        marked = _sentence(text[ends[-1] : ends[-1] + MAX_CHARACTERS]) if ends else None
    if marked is not None and marked.strip():
        return marked.strip()
    if not _A_WORD.search(text) or (len(text) <= MAX_CHARACTERS and _is_readable(text)):
        return text.strip()
    end = text[-2 * MAX_CHARACTERS :]
    formulas = [found for found in _BETWEEN_DOLLARS.findall(end) if "\\" in found or not _A_WORD.search(found)]
    found = formulas or _A_NUMBER.findall(end)
    return str(found[-1] if found else text).strip()


_A_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2}|[\u4e00-\u9fff]")
_SAID = re.compile(r"answer(?: is|:)|答案(?:是|为|为：|是：|：|:)", re.IGNORECASE)
_BETWEEN_DOLLARS = re.compile(r"\$([^$\n]{1,500})\$")
_A_NUMBER = re.compile(r"(?<![A-Za-z_\d.])[-−–]?\d[\d,]*(?:\.\d+)?(?:\s?/\s?\d+)?\s?%?")


def _boxed(text: str) -> str | None:
    """What stands in the last box, the rest of the text where that is too long; None without a box."""
    at = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if at < 0:
        return None
    begin = text.index("{", at) + 1
    depth = 1
    for index, sign in enumerate(text[begin : begin + MAX_CHARACTERS + 1], begin):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if not depth:
            return text[begin:index]
    return None if len(text) <= begin + MAX_CHARACTERS else text[begin:]


def _sentence(text: str) -> str:
    """The text up to the end of its sentence or line; a colon before it is dropped."""
    line = text.lstrip(" :：*").partition("\n")[0]
    end = re.search(r"\.(?!\d)|。", line)
    return (line[: end.start()] if end else line).rstrip(" *")


def _is_readable(text: str) -> bool:
    try:
        parse(cleaned(text))
    except Unreadable:
        return False
    return True


def cleaned(text: str) -> str:
    """The text without what only concerns its looks: dollars, spacing, `\\left`, thousands separators, a full stop."""
    if len(text) > MAX_CHARACTERS:
        raise Unreadable("too long")
    text = text.translate(_SIGNS)
    for pattern, instead in _LOOKS:
        text = pattern.sub(instead, text)
    text = text.strip().rstrip(".,;:").strip()
    alone = _ONLY_TEXT.fullmatch(text)
    return alone[1].strip() if alone else text


_ONLY_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
_SIGNS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "×": "*",
        "·": "*",
        "÷": "/",
        "，": ",",
        "（": "(",
        "）": ")",
        "π": "\\pi ",
        "∞": "\\infty ",
        "°": "",
        "∪": "\\cup ",
        "∅": "\\emptyset ",
        "≤": "\\le ",
        "≥": "\\ge ",
        "≠": "\\ne ",
        "½": "\\frac{1}{2}",
        "⅓": "\\frac{1}{3}",
        "⅔": "\\frac{2}{3}",
        "¼": "\\frac{1}{4}",
        "¾": "\\frac{3}{4}",
        "€": "",
        "£": "",
        "~": " ",
        **{sign: f"^{power}" for power, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
        **{sign: f"_{place}" for place, sign in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    }
)


def _repeating(found: re.Match[str]) -> str:
    """`0.1\\overline{6}` as the fraction that it is."""
    whole, once, again = found[1], found[2], found[3]
    below = (10 ** len(again) - 1) * 10 ** len(once)
    return f"{{\\frac{{{int(whole + once + again) - int(whole + once or '0')}}}{{{below}}}}}"


def _together(found: re.Match[str]) -> str:
    return re.sub(r"\s", "", found[0])


_LOOKS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"\\[%]"), "%"),
    (re.compile(r"\\\$|\$|\\[()\[\]]"), ""),
    (re.compile(r"\\(?:left|right|bigl|bigr|Bigl|Bigr|big|Big|displaystyle|limits)(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:[,;:!> ]|quad(?![A-Za-z])|qquad(?![A-Za-z]))"), " "),
    (re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\degree(?![A-Za-z])"), ""),
    (re.compile(r"√\s?(\d+(?:\.\d+)?)"), r"\\sqrt{\1}"),
    (re.compile("√"), r"\\sqrt "),
    (re.compile(r"\\[cdt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s?(\d)\s?(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\(?:[lr]?vert|mid)(?![A-Za-z])"), "|"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\\([lg]e|ne)(?:q|qslant)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"(\d{1,20})\.(\d{0,20})\\(?:overline|bar)\s?\{(\d{1,20})\}"), _repeating),
    (re.compile(r"(?<![\d.])\d{1,3}(?:\s\d{3})+(?!\d|\s?/)"), _together),
    (re.compile(r"\\(?:mathrm|mathbf|mathit|operatorname|textbf|textit|mbox|textrm)(?=\s?\{)"), r"\\text"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))|(?<=\d)\{,\}(?=\d{3}(?!\d))"), "\0"),
]


def parse(text: str) -> Node:
    """The tree of one expression that `cleaned` made.

    Raises:
        Unreadable: it is none.

    >>> parse("1/2").kind
    '/'
    """
    return _Parser(text.replace("\0", "")).whole()


_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<ten>[eE][+-]?\d{1,9}(?![\dA-Za-z]))?|(?P<command>\\[A-Za-z]+)"
    r"|(?P<word>[A-Za-z]+)|(?P<sign>\*\*|[-+*/^(){}\[\]|!_]))"
)
_OPENING = {"(": ")", "[": "]", "{": "}"}
_SAME = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "inf": "infty", "infinity": "infty"}
_TIMES = ("*", "\\cdot", "\\times", "\\ast")
_OVER = ("/", "\\div")
_CONSTANTS = ("pi",)
_BARS = ("|",)
_TEXT_COMMAND = "\\text"


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0
        self.depth = 0

    def whole(self) -> Node:
        node = self.sum()
        if self.at < len(self.tokens):
            raise Unreadable(f"{self.tokens[self.at]!r} is not expected")
        return node

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.next
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise Unreadable(f"{token!r} is missing")

    def deeper(self, read: Callable[[], Node]) -> Node:
        """What `read` reads, one level further down."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        node = read()
        self.depth -= 1
        return node

    def sum(self) -> Node:
        return self.deeper(self._sum)

    def _sum(self) -> Node:
        node = self.product()
        while self.next in ("+", "-"):
            sign = self.take()
            term = self.product()
            node = node_of("+", node, term if sign == "+" else node_of("-", term))
        return node

    def product(self) -> Node:
        node = self.signed()
        while True:
            if self.next in _TIMES:
                self.take()
                node = node_of("*", node, self.signed())
            elif self.next in _OVER:
                self.take()
                node = node_of("/", node, self.signed())
            elif self._begins_factor():
                node = node_of("*", node, self.power())
            else:
                return node

    def _mixed(self, node: Node) -> bool:
        """Whether `1` is followed by `1/2` or `\\frac{1}{2}`."""
        if node.kind != "number" or node.number.denominator != 1:
            return False
        if self.next == "\\frac":
            return all(self.tokens[self.at + 1 + index].isdigit() for index in (1, 4)) if self._plain_frac() else False
        following = self.tokens[self.at : self.at + 3]
        return len(following) == 3 and following[0].isdigit() and following[1] == "/" and following[2].isdigit()

    def _plain_frac(self) -> bool:
        following = self.tokens[self.at + 1 : self.at + 7]
        return len(following) == 6 and [following[index] for index in (0, 2, 3, 5)] == ["{", "}", "{", "}"]

    def _fraction(self) -> Node:
        if self.next == "\\frac":
            return self.power()
        above = self.power()
        self.take()
        return node_of("/", above, self.power())

    def _begins_factor(self) -> bool:
        token = self.next
        if token in ("", _TEXT_COMMAND):
            return False
        if token[0].isdigit() or token[0] == ".":
            if self.tokens[self.at - 1][-1].isdigit():
                raise Unreadable("two numbers side by side")
            return True
        return token[0].isalpha() or token in ("(", "[", "{") or (token[0] == "\\" and token not in (*_TIMES, *_OVER))

    def signed(self) -> Node:
        negative = False
        while self.next in ("+", "-"):
            negative ^= self.take() == "-"
        node = self.power()
        if self._mixed(node):
            node = node_of("+", node, self._fraction())
        return node_of("-", node) if negative else node

    def power(self) -> Node:
        node = self.atom()
        while self.next == "!":
            self.take()
            node = node_of("!", node)
        if self.next not in ("^", "**"):
            return node
        self.take()
        exponent = self.deeper(self.signed)
        return node_of("^", node, exponent)

    def atom(self) -> Node:
        token = self.take()
        if not token:
            raise Unreadable("it ends too early")
        if token[0].isdigit() or token[0] == ".":
            return Node("number", number=_number(token))
        if token in _OPENING:
            node = self.sum()
            self.expect(_OPENING[token])
            return node
        if token in _BARS:
            node = self.sum()
            self.expect(token)
            return node_of("abs", node)
        name = token.lstrip("\\")
        name = _SAME.get(name, name)
        if name in ("frac", "binom"):
            above = self.argument()
            return node_of("/" if name == "frac" else name, above, self.argument())
        if name == "sqrt":
            return self._root()
        if name in FUNCTIONS:
            return self._function(name)
        if token[0] == "\\" and name in (
            "emptyset",
            "le",
            "ge",
            "ne",
            "text",
            "pm",
            "mp",
            "cup",
            "cap",
            "in",
            "begin",
            "end",
        ):
            raise Unreadable(f"{token} has no value")
        if token[0].isalpha() or token[0] == "\\":
            return Node("name", name=name + self._subscript())
        raise Unreadable(f"{token!r} is not expected")

    def _root(self) -> Node:
        degree = Node("number", number=Fraction(2))
        if self.next == "[":
            self.take()
            degree = self.sum()
            self.expect("]")
        return node_of("root", self.argument(), degree)

    def _function(self, name: str) -> Node:
        base: Node | None = None
        exponent: Node | None = None
        if name == "log" and self.next == "_":
            self.take()
            base = self.argument()
        if self.next in ("^", "**"):  # sin^2 x
            self.take()
            exponent = self.argument()
        value = self.argument() if self.next in _OPENING else self.deeper(self.power)
        node = node_of(name, value)
        if base is not None:
            node = node_of("/", node, node_of("log", base))
        return node if exponent is None else node_of("^", node, exponent)

    def argument(self) -> Node:
        """What a command takes: a group, or one digit, letter or command."""
        token = self.next
        if token in _OPENING:
            self.take()
            node = self.sum()
            self.expect(_OPENING[token])
            return node
        if len(token) > 1 and token.isdigit():
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        return self.deeper(self.atom)

    def _subscript(self) -> str:
        if self.next != "_":
            return ""
        self.take()
        if self.next != "{":
            return "_" + self.take()
        self.take()
        inner = []
        while self.next not in ("}", ""):
            inner.append(self.take())
        self.expect("}")
        return "_" + "".join(inner)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(f"{text[at]!r} is not expected")
        at = match.end()
        if match["word"]:
            tokens += _letters(match["word"])
        elif match["number"]:
            tokens.append(match["number"] + (match["ten"] or ""))
        else:
            tokens.append(match["command"] or match["sign"])
    if not tokens:
        raise Unreadable("it is empty")
    return tokens


def _letters(word: str) -> list[str]:
    """A function's or constant's name, or up to two variables; a longer word is prose."""
    if word in FUNCTIONS or word in _SAME or word in _CONSTANTS:
        return [word]
    if len(word) > 2:
        raise Unreadable(f"{word!r} is a word")
    return list(word)


def _number(token: str) -> Fraction:
    digits, _, ten = token.lower().partition("e")
    exponent = int(ten) if ten else 0
    if abs(exponent) > MAX_EXPONENT:
        raise Unreadable("the number is too large")
    return Fraction(digits if digits[-1] != "." else digits[:-1]) * Fraction(10) ** exponent
