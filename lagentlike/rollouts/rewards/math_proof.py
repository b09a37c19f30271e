"""Prove with sympy that two expressions are equal, in bounded time and size."""

from __future__ import annotations

import math
from typing import Any

from ...actions.workers import run_within
from ...errors import ToolTimeout
from .math_text import Node

__all__ = ["proved_equal"]

SECONDS = 2.0
"""How long a proof may take."""

MAX_TERMS = 500
"""How many terms an expression may have when it is multiplied out."""


def proved_equal(one: Node, other: Node) -> bool | None:
    """Whether two expressions are equal for all real values of their variables; None where that cannot be told here.

    It cannot where sympy is not installed, the expressions are too large when multiplied out, or it takes too long.
    The expressions are built from their trees: sympy never reads text.
    """
    if max(_terms(one), _terms(other)) > MAX_TERMS:
        return None
    try:
        import sympy
    except ImportError:
        return None
    try:
        return run_within(SECONDS, _difference_is_zero, sympy, one, other)
    except (ToolTimeout, ArithmeticError, ValueError, TypeError, AttributeError, RecursionError, NotImplementedError):
        return None


def _difference_is_zero(sympy: Any, one: Node, other: Node) -> bool | None:
    difference = sympy.simplify(_expression(sympy, one) - _expression(sympy, other))
    if difference == 0:
        return True
    return False if difference.is_zero is False else None


def _expression(sympy: Any, node: Node) -> Any:
    if node.kind == "number":
        return sympy.Rational(node.number.numerator, node.number.denominator)
    if node.kind == "name":
        constants = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}
        return constants.get(node.name) or sympy.Symbol(node.name, real=True)
    args = [_expression(sympy, arg) for arg in node.args]
    match node.kind:
        case "+":
            return sympy.Add(*args)
        case "*":
            return sympy.Mul(*args)
        case "/":
            return args[0] / args[1]
        case "-":
            return -args[0]
        case "^":
            return sympy.Pow(*args)
        case "!":
            return sympy.factorial(args[0])
        case "binom":
            return sympy.binomial(args[0], args[1])
        case "root":
            return sympy.real_root(args[0], args[1]) if args[1] != 2 else sympy.sqrt(args[0])
    function = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "abs": "Abs"}.get(
        node.kind, node.kind
    )
    return getattr(sympy, function)(args[0])


def _terms(node: Node) -> int:
    """A bound on the number of terms of an expression that is multiplied out; more than `MAX_TERMS` is too many."""
    if not node.args:
        return 1
    counts = [_terms(arg) for arg in node.args]
    if max(counts) > MAX_TERMS:
        return MAX_TERMS + 1
    if node.kind == "+":
        return sum(counts)
    if node.kind in ("*", "/"):
        return math.prod(counts)
    if node.kind == "^":
        return _power_terms(counts[0], node.args[1])
    return max(counts)


def _power_terms(terms: int, exponent: Node) -> int:
    """How many terms a power of a sum has: the ways to share the exponent among the terms."""
    if exponent.kind == "-":
        return _power_terms(terms, exponent.args[0])
    if exponent.kind != "number":
        return terms
    if exponent.number > MAX_TERMS:
        return MAX_TERMS + 1
    return math.comb(terms - 1 + math.ceil(exponent.number), terms - 1)
