"""Arithmetic as a tool: expressions are read as a tree and never run as code."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from ..errors import ToolError
from .function import tool

__all__ = ["calculator"]

MAX_CHARACTERS = 1000
MAX_BITS = 10_000  # of a whole number: some 3,000 digits


@tool(read_only=True)
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression.

    Args:
        expression: The expression.
    """
    if len(expression) > MAX_CHARACTERS:
        raise ToolError(f"the expression has {len(expression):,} characters, more than {MAX_CHARACTERS:,}")
    plain = expression.strip().translate(_SIGNS)
    try:
        tree = ast.parse(plain, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolError(f"{expression!r} is no arithmetic expression: write one such as (1 + 2) * 3 / 4 ** 2") from None
    try:
        return _written(_value(tree.body))
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except OverflowError:
        raise ToolError("the result is too large") from None
    except RecursionError:
        raise ToolError("the expression is nested too deeply") from None
    except (ValueError, TypeError) as error:  # of a function: sqrt(-1), gcd(1.5, 2)
        raise ToolError(f"{expression!r}: {error}") from None


Number = int | float

_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "（": "(", "）": ")"})

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}

_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}


def _factorial(n: int) -> int:
    if n > 1000:
        raise OverflowError
    return math.factorial(n)


def _round(number: Number, digits: Any = None) -> Number:
    if isinstance(digits, int):
        digits = max(digits, -MAX_BITS)  # further left there are no digits, and Python takes hours to get there
    return round(number, digits)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "round": _round,
    "min": min,
    "max": max,
    "factorial": _factorial,
    **{
        name: getattr(math, name)
        for name in (
            "sqrt cbrt exp log log2 log10 sin cos tan asin acos atan atan2 sinh cosh tanh degrees radians floor ceil "
            "trunc gcd lcm hypot"
        ).split()
    },
}


def _value(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(node.value)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            return _bounded(_power(left, right))
        if type(node.op) in _BINARY:
            return _bounded(_BINARY[type(node.op)](left, right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _bounded(_UNARY[type(node.op)](_value(node.operand)))
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function = _FUNCTIONS.get(node.func.id)
        if function is not None:
            return _bounded(function(*[_value(argument) for argument in node.args]))
    raise ToolError(f"{_source(node)} is not allowed: use numbers, + - * / // % **, parentheses, and {_KNOWN}")


_KNOWN = ", ".join([*_FUNCTIONS, *_CONSTANTS])


def _source(node: ast.expr) -> str:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
        return "^ (a power is written **)"
    if isinstance(node, ast.Tuple):
        return "a comma (a number is written 1000, not 1,000)"
    try:
        text = ast.unparse(node)
    except RecursionError:
        text = "this"
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _power(base: Number, exponent: Number) -> Number:
    whole = isinstance(base, int) and isinstance(exponent, int) and exponent > 0
    if whole and abs(base) > 1 and int(base).bit_length() * exponent > MAX_BITS:
        raise OverflowError
    value: Number | complex = base**exponent
    if isinstance(value, complex):
        raise ToolError(f"{_written(base)} ** {_written(exponent)} is no real number")
    return value


def _bounded(value: Any) -> Number:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OverflowError
    if isinstance(value, float) and math.isinf(value):
        raise OverflowError
    return value  # type: ignore[no-any-return]


def _written(value: Number) -> str:
    """Whole numbers exactly, others with 12 significant digits (15 from a billion on), so that 0.1 + 0.2 is 0.3."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float):
        return format(value, ".12g" if abs(value) < 1e9 else ".15g")
    return str(value)
