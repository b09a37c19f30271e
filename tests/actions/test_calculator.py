"""The calculator."""

from __future__ import annotations

import pytest

from lagentlike.actions import ActionExecutor, calculator
from lagentlike.errors import ToolError
from lagentlike.schema import AgentMessage


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1 + 1", "2"),
        ("1/2", "0.5"),
        ("4/2", "2"),
        ("7//2", "3"),
        ("-7 % 3", "2"),
        ("2**10", "1024"),
        ("(1 + 2) * 3 - -4", "13"),
        ("0.1 + 0.2", "0.3"),
        ("1e3", "1000"),
        ("10**30", "1" + "0" * 30),
        ("2**0.5", "1.41421356237"),
        ("sqrt(16) + abs(-3)", "7"),
        ("max(1, 2, 3) + round(2.6)", "6"),
        ("factorial(20)", "2432902008176640000"),
        ("6 × 7 − 2 ÷ 1", "40"),
        ("1e300", "1e+300"),
        ("2 ** -1", "0.5"),
        ("round(5, -10**9)", "0"),
        ("round(2.567, 2) + round(55, -1)", "62.57"),
    ],
)
def test_expressions_have_their_value(expression: str, result: str) -> None:
    assert calculator(expression) == result


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "no arithmetic expression"),
        ("1 +", "no arithmetic expression"),
        ("what is 2", "is not allowed"),
        ("1/0", "division by zero"),
        ("5 % 0", "division by zero"),
        ("9**9**9", "too large"),
        ("10**400 * 1.0", "too large"),
        ("factorial(5000)", "too large"),
        ("1e308 * 10", "too large"),
        ("__import__('os')", "is not allowed"),
        ("().__class__", "is not allowed"),
        ("[1, 2]", "is not allowed"),
        ("lambda: 1", "is not allowed"),
        ("x + 1", "'x' is not allowed"),
        ("True + 1", "is not allowed"),
        ("'a' * 3", "is not allowed"),
        ("1,000 + 1", "written 1000, not 1,000"),
        ("2 ^ 3", "a power is written **"),
        ("sqrt(-1)", "math domain error"),
        ("sqrt(1, 2)", "exactly one argument"),
        ("gcd(1.5, 2)", "'float' object cannot be interpreted"),
        ("(-8) ** 0.5", "no real number"),
        ("(" * 300 + "1" + ")" * 300, "no arithmetic expression"),
        ("-" * 900 + "1", ""),
        ("1" * 2000, "more than 1,000"),
        ("1\x00", "no arithmetic expression"),
        ("2**9999 * 2**9999", "too large"),
    ],
)
def test_what_is_no_arithmetic_is_refused_with_words(expression: str, said: str) -> None:
    if not said:
        assert calculator(expression) == "1"
        return
    with pytest.raises(ToolError) as caught:
        calculator(expression)
    assert said in str(caught.value)


def test_a_model_sees_the_words() -> None:
    message = AgentMessage(content={"name": "calculator", "parameters": {"expression": "1/0"}})
    assert ActionExecutor([calculator])(message).content.text == "division by zero"
