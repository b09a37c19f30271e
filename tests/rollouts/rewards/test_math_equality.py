"""Math equality: notations that mean the same, what does not, and texts that are meant to do harm."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from lagentlike.rollouts.rewards import math_equality
from lagentlike.rollouts.rewards.math_text import final_answer
from lagentlike.rollouts.rewards.maths import are_equal

SAME = [
    ("1/2", "0.5"),
    ("\\frac{1}{2}", "0.5"),
    ("\\frac12", "1/2"),
    ("\\dfrac{3}{4}", "0.75"),
    ("-\\frac{1}{2}", "\\frac{-1}{2}"),
    ("1\\frac{1}{2}", "3/2"),
    ("1 1/2", "1.5"),
    ("50\\%", "0.5"),
    ("50%", "50"),
    ("1,234", "1234"),
    ("1{,}234.5", "1234.5"),
    ("x=5", "5"),
    ("f(x) = x^2", "x^2"),
    ("x \\in [0,1]", "[0, 1]"),
    ("5\\text{ cm}", "5"),
    ("12 dollars", "12"),
    ("$\\$5$", "5"),
    ("90^\\circ", "90"),
    ("\\sqrt{2}", "1.41421356"),
    ("2\\sqrt{3}", "\\sqrt{12}"),
    ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"),
    ("\\sqrt[3]{-8}", "-2"),
    ("(1,2)", "\\left(1, 2\\right)"),
    ("\\{1,2\\}", "\\{2,1\\}"),
    ("1, 2", "2 , 1"),
    ("\\pm 2", "2, -2"),
    ("3 \\pm \\sqrt{2}", "3+\\sqrt2, 3-\\sqrt2"),
    ("2\\pi", "6.283185307"),
    ("1.5 \\times 10^3", "1500"),
    ("1.5e3", "1500"),
    ("2^{10}", "1024"),
    ("10^{10}", "10000000000"),
    ("5!", "120"),
    ("\\log_2 8", "3"),
    ("e^{i\\pi}", "-1"),
    ("x^2+2x+1", "(x+1)^2"),
    ("2xy", "2y x"),
    ("a_1+a_{2}", "a_2+a_1"),
    ("\\sin^2 x + \\cos^2 x", "1"),
    ("\\frac{x^2-1}{x-1}", "x+1"),
    ("sqrt(x^2)", "|x|"),
    ("\\text{Tuesday}", "tuesday"),
    ("(A)", "(A)"),
    ("\\text{(A)}", "A"),
    ("-1\\frac12", "-3/2"),
    ("7 \\frac34", "31/4"),
    ("½", "0.5"),
    ("0.1\\overline{6}", "1/6"),
    ("1 000 000", "10^6"),
    ("√16", "4"),
    ("x⁴", "x^4"),
    ("\\binom{5}{2}", "10"),
    ("\\lvert -3\\rvert", "3"),
    ("[0, \\infty)", "[0,+∞)"),
    ("(-\\infty, 1/2]", "(-inf, 0.5]"),
    ("(-\\infty,-1)\\cup(1,\\infty)", "(1,\\infty) ∪ (-\\infty,-1)"),
    ("{1,2,3}", "\\lbrace 3, 2, 1 \\rbrace"),
    ("\\{(1,2),(3,4)\\}", "(3, 4), (1, 2)"),
    ("\\{\\}", "∅"),
    ("x=1 \\text{ or } x=-2", "-2, 1"),
    ("x = 1, y = 2", "y=2, x=1"),
    ("(x, y) = (1, 2)", "(1,2)"),
    ("2x+y=3", "y+2x=3"),
    ("y=2x+1", "2x-y=-1"),
    ("f^{-1}(x) = x+1", "x+1"),
    ("x \\leq 5", "x ≤ 5"),
    ("10 cm²", "10 \\text{ cm}^2"),
    ("36\\pi \\text{ cm}^3", "36\\pi"),
    ("3 ab", "3ba"),
    ("\\begin{pmatrix} 1/2 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{bmatrix}0.5&2\\\\3&4\\end{bmatrix}"),
]

DIFFERENT = [
    ("1/2", "0.51"),
    ("(1,2)", "(2,1)"),
    ("[0,1]", "(0,1)"),
    ("(1,2)", "1,2"),
    ("1,2", "1,2,3"),
    ("1,1", "1,2"),
    ("x+1", "x+2"),
    ("x^2", "x^3"),
    ("x", "y"),
    ("no", "on"),
    ("5 cm", "5 m"),
    ("1000000000000", "1000000000001"),
    ("\\log(x^2)", "2\\log x"),
    ("sqrt(x^2)", "x"),
    ("-1", "1"),
    ("1/0", "0"),
    ("\\infty", "1"),
    ("\\infty", "-\\infty"),
    ("(-\\infty, 3)", "(-\\infty, 3]"),
    ("(0,1)\\cup(2,3)", "(0,1),(2,3)"),
    ("12", "1 2"),
    ("3 ab", "3"),
    ("10 cm^2", "10 cm^3"),
    ("x=1, y=2", "x=2, y=1"),
    ("x+y=3", "x+y=4"),
    ("x+y=3", "3"),
    ("\\begin{pmatrix}1&2\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ("\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
    ("", "1"),
]

HOSTILE = [
    "9**9**9**9",
    "2^{2^{2^{2^{2^2}}}}",
    "9" * 10**6,
    "1e999999999",
    "0.5^{1000000000}",
    "100!!!!",
    "(" * 10_000 + "1" + ")" * 10_000,
    "(" * 300 + "1" + ")" * 300,
    "{" * 400,
    "\\sqrt" * 200 + "1",
    "\\frac" * 150,
    "sin " * 200 + "x",
    "-" * 900,
    "^" * 500,
    "1/" * 400 + "1",
    "1^" * 400 + "2",
    "(x+y+z+w)^{1000}-(x+y+z+w)^{999}",
    "(x+1)^{1000000}",
    "+".join(f"x_{index}" for index in range(100)),
    "__import__('os').system('touch owned')",
    "().__class__.__base__.__subclasses__()",
    "\\boxed{" * 1000,
    "\\boxed{" + "9" * 10**6,
    "$" * 5000,
    " " * 10**6 + "2",
    "\0\1\2",
    "\\binom{10^9}{10^8}",
    "([{" * 300 + "1,",
    "(1," * 300 + "1" + ")" * 300,
    ",".join(["x"] * 400),
    "\\begin{matrix}" + "2&" * 200 + "\\\\" * 50 + "\\end{matrix}",
    "\\cup" * 200,
    "1 or " * 150 + "2",
    "1 " * 450,
    "\\{\\}" * 249,
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_notations_of_the_same_are_equal(one: str, other: str) -> None:
    assert are_equal(one, other)
    assert are_equal(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_is_not_the_same_is_not_equal(one: str, other: str) -> None:
    assert not are_equal(one, other)
    assert not are_equal(other, one)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:20])
def test_hostile_text_is_soon_not_equal(text: str) -> None:
    began = time.perf_counter()
    assert math_equality(text, answer="1") == 0.0
    assert math_equality(f"\\boxed{{{text}}}", answer="x + 1") == 0.0
    assert time.perf_counter() - began < 20.0  # some would take hours


def test_large_powers_that_are_equal_are_not_multiplied_out() -> None:
    began = time.perf_counter()
    assert are_equal("(x+y+z+w)^{100}", "(w+z+y+x)^{100}")
    assert time.perf_counter() - began < 20.0  # some would take hours


def test_sympy_tells_apart_what_numbers_cannot() -> None:
    assert not are_equal("x", "x + 0.000000000001")


@pytest.mark.parametrize(("tolerance", "right"), [(1e-6, False), (1e-2, True)])
def test_the_tolerance_is_relative(tolerance: float, right: bool) -> None:
    assert math_equality("0.333", answer="1/3", tolerance=tolerance) == float(right)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("So \\boxed{1}, no: \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("2 + 2 = 4\n#### 4\n", "4"),
        ("<answer> 7 </answer> is it", "7"),
        ("The final answer is **42**. I am sure of 1.", "42"),
        ("Answer: 3.5", "3.5"),
        ("(x + 1)^2", "(x + 1)^2"),
        ("We find $x = 2$ at last", "x = 2"),
        ("It costs $18 and then $20.", "20"),
        ("The result is −7.", "−7"),
        ("所以答案是 42。", "42"),
        ("The result of 1 + 1 is 2.", "2"),
        ("The result is -1,234.5 or so", "-1,234.5"),
        ("none", "none"),
        ("\\boxed{1", "1"),
    ],
)
def test_the_answer_is_found_in_a_reply(reply: str, answer: str) -> None:
    assert final_answer(reply) == answer or (reply == "\\boxed{1" and final_answer(reply) == reply)


def test_one_of_several_right_answers_is_enough() -> None:
    assert math_equality("It is \\boxed{0.25}", answer=["1/2", "The box: \\boxed{\\frac14}"]) == 1.0


def test_without_sympy_numbers_and_formulas_are_still_compared() -> None:
    program = (
        "import sys; sys.modules['sympy'] = None\n"
        "from lagentlike.rollouts.rewards.maths import are_equal\n"
        "assert are_equal('1/2', '0.5') and are_equal('(x+1)^2', 'x^2+2x+1') and not are_equal('x', 'x+1')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_numbers_are_compared_without_loading_sympy() -> None:
    program = (
        "import sys\nfrom lagentlike.rollouts.rewards.maths import are_equal\n"
        "assert are_equal('\\\\frac{1}{2}', '0.5'); assert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
