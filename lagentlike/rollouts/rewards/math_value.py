"""Values of mathematics: exact where that is cheap, floating point where not, and never more work than a bound."""

from __future__ import annotations

import cmath
import functools
import math
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from .math_text import Node

__all__ = ["Undefined", "Value", "agree_at_points", "is_close", "names_of", "value_of"]

Value = Fraction | complex

MAX_BITS = 20_000
"""Longest exact number; beyond that, floating point has to do."""

MAX_FACTORIAL = 170
"""170! is the largest that floating point holds."""

MAX_CHOSEN_FROM = 1000
"""Largest number that a binomial coefficient is reckoned of."""

POINTS = 8
"""How many points two expressions with variables are compared at."""


class Undefined(ArithmeticError):  # it says what the value is
    """The expression has no value there, or one too large or too small to reckon with."""


def value_of(node: Node, variables: Mapping[str, complex]) -> Value:
    """The value of an expression.

    Raises:
        Undefined: it has none.
    """
    try:
        value = _value(node, variables)
    except (ZeroDivisionError, OverflowError, ValueError) as error:
        raise Undefined(str(error)) from None
    if not isinstance(value, Fraction) and not (math.isfinite(value.real) and math.isfinite(value.imag)):
        raise Undefined("not finite")
    return value


def names_of(node: Node) -> set[str]:
    """The names of its variables."""
    if node.kind == "name":
        return set() if node.name in _CONSTANTS else {node.name}
    return set().union(*(names_of(arg) for arg in node.args))


def is_close(one: Value, other: Value, tolerance: float) -> bool:
    """Whether two values are equal up to a relative tolerance; whole numbers must be equal exactly."""
    if one == other:
        return True
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        if one.denominator == other.denominator == 1:
            return False
        larger = max(abs(one), abs(other)) if one and other else 1
        return abs(one - other) <= Fraction(tolerance) * larger
    try:
        first, second = complex(one), complex(other)
    except OverflowError:
        return False
    return abs(first - second) <= tolerance * (max(abs(first), abs(second)) if first and second else 1.0)


def agree_at_points(one: Node, other: Node) -> bool:
    """Whether two expressions have the same value at some points, positive and negative, chosen once and for all.

    Two that are not equal everywhere differ at nearly every point (Schwartz 1980, doi:10.1145/322217.322225, for
    polynomials).
    """
    names = sorted(names_of(one) | names_of(other))
    source = random.Random(271828)  # not for secrets
    compared = 0
    for number in range(POINTS):
        signs = (1,) if number % 2 == 0 else (1, -1)
        point = {name: complex(source.choice(signs) * source.uniform(0.3, 3.0)) for name in names}
        try:
            first, second = value_of(one, point), value_of(other, point)
        except Undefined:
            continue
        if not is_close(first, second, 1e-8):
            return False
        compared += 1
    return compared >= POINTS // 2


def _value(node: Node, variables: Mapping[str, complex]) -> Value:
    if node.kind == "number":
        return node.number
    if node.kind == "name":
        return _CONSTANTS[node.name] if node.name in _CONSTANTS else variables[node.name]
    args = [_value(arg, variables) for arg in node.args]
    value = _OPERATIONS[node.kind](*args)
    if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        return complex(value)
    return value if isinstance(value, Fraction) else complex(value)


def _mixed(operation: Callable[[Any, Any], Any]) -> Callable[[Value, Value], Value]:
    """An operation on two exact numbers, or on two floating ones."""

    def operate(one: Value, other: Value) -> Value:
        if isinstance(one, Fraction) and isinstance(other, Fraction):
            return operation(one, other)  # type: ignore[no-any-return]  # of two fractions it is one
        return complex(operation(complex(one), complex(other)))

    return operate


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent) <= MAX_BITS:
            return base**exponent.numerator
    if exponent == Fraction(1, 2):
        return _root(base, Fraction(2))
    value = complex(base) ** complex(exponent)
    if value == 0 and base != 0:
        raise Undefined("too small")
    return value


def _root(value: Value, degree: Value) -> Value:
    if not isinstance(value, Fraction):
        real = value.imag == 0 and value.real < 0
    else:
        real = value < 0
        if degree == 2 and value >= 0:
            above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
            if above * above == value.numerator and below * below == value.denominator:
                return Fraction(above, below)
    if real and isinstance(degree, Fraction) and degree.denominator == 1 and degree.numerator % 2:
        return -_root(-value, degree)
    return complex(value) ** (1 / complex(degree))


def _factorial(value: Value) -> Value:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise Undefined("a factorial of a small whole number is meant")
    return Fraction(math.factorial(value.numerator))


def _binomial(above: Value, below: Value) -> Value:
    for value in (above, below):
        if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= MAX_CHOSEN_FROM:
            raise Undefined("a binomial coefficient of small whole numbers is meant")
    return Fraction(math.comb(int(above.real), int(below.real)))


def _of_complex(function: Callable[[complex], complex]) -> Callable[[Value], Value]:
    return lambda value: function(complex(value))


def _log(value: complex) -> complex:
    return cmath.log(value) if value.imag or value.real <= 0 else complex(math.log(value.real))


_ADD = _mixed(lambda one, other: one + other)
_TIMES = _mixed(lambda one, other: one * other)
_CONSTANTS: dict[str, complex] = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}

_OPERATIONS: dict[str, Callable[..., Value]] = {
    "+": lambda *args: functools.reduce(_ADD, args),
    "*": lambda *args: functools.reduce(_TIMES, args),
    "/": _mixed(lambda one, other: one / other),
    "-": lambda value: -value,
    "^": _power,
    "!": _factorial,
    "root": _root,
    "binom": _binomial,
    "abs": lambda value: abs(value) if isinstance(value, Fraction) else complex(abs(value)),
    "exp": _of_complex(cmath.exp),
    "ln": _of_complex(_log),
    "log": _of_complex(_log),
    "sin": _of_complex(cmath.sin),
    "cos": _of_complex(cmath.cos),
    "tan": _of_complex(cmath.tan),
    "cot": _of_complex(lambda value: 1 / cmath.tan(value)),
    "sec": _of_complex(lambda value: 1 / cmath.cos(value)),
    "csc": _of_complex(lambda value: 1 / cmath.sin(value)),
    "sinh": _of_complex(cmath.sinh),
    "cosh": _of_complex(cmath.cosh),
    "tanh": _of_complex(cmath.tanh),
    "arcsin": _of_complex(cmath.asin),
    "arccos": _of_complex(cmath.acos),
    "arctan": _of_complex(cmath.atan),
}
