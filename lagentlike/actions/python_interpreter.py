"""A Python program that computes an answer, run in this process."""

from __future__ import annotations

import ast
import contextlib
import io
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidArgument, ToolError
from ..schema import ActionReturn, ActionStatusCode
from .base import BaseAction, tool_api
from .code import extract_code
from .function import checked_timeout
from .result import failed
from .workers import run_within

__all__ = ["PythonInterpreter"]


class PythonInterpreter(BaseAction):
    """Run a Python program and give back what it computes; each call starts from nothing.

    The program runs in this process with all its rights, so it is only for code that you trust; `IPythonInterpreter`
    runs code in a process of its own.

    Args:
        answer_symbol: name of the variable that holds the answer.
        answer_expr: expression that gives the answer, such as `"solution()"`; `answer_symbol` goes before it. With
            neither, the last line of the program is the expression.
        answer_from_stdout: the last line that is printed is the answer; goes before both.
        timeout: seconds it may take.
        description: what models are told, in place of the docstring of `run`.
        name: its name.

    >>> PythonInterpreter()("def solution():\\n    return 6 * 7").format_result()
    '42'
    """

    def __init__(
        self,
        answer_symbol: str | None = None,
        answer_expr: str | None = "solution()",
        answer_from_stdout: bool = False,
        timeout: float = 20,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(description, name)
        if answer_expr is not None:
            _parsed(answer_expr, "eval", "answer_expr")
        self.answer_symbol = answer_symbol
        self.answer_expr = answer_expr
        self.answer_from_stdout = answer_from_stdout
        self.seconds = checked_timeout(timeout)

    @tool_api
    def run(self, command: str) -> ActionReturn:
        """Run Python code: a function named `solution` without arguments, which returns the answer.

        For example:

            def solution():
                apples = 23 - 20
                return apples + 6

        Args:
            command: The Python code.
        """
        code = extract_code(command)
        try:
            answer = run_within(self.seconds, self._answer, code)
        except SyntaxError as error:
            return failed(f"SyntaxError: {error}", self.name, state=ActionStatusCode.ARGS_ERROR)
        return ActionReturn(type=self.name, result=[{"type": "text", "content": str(answer)}])

    def _answer(self, code: str) -> Any:
        scope: dict[str, Any] = {"__name__": "__main__"}
        if self.answer_from_stdout:
            return _last_printed(code, scope)
        if self.answer_symbol is not None:
            _execute(code, scope)
            if self.answer_symbol not in scope:
                raise ToolError(f"the code must set the variable {self.answer_symbol!r}")
            return scope[self.answer_symbol]
        if self.answer_expr is not None:
            _execute(code, scope)
            return _value(ast.parse(self.answer_expr, mode="eval"), scope)
        tree = ast.parse(code)
        last = tree.body[-1] if tree.body else None
        if not isinstance(last, ast.Expr):
            raise ToolError("the last line of the code must be an expression: the answer")
        _execute(ast.Module(tree.body[:-1], []), scope)
        return _value(ast.Expression(last.value), scope)


def _execute(code: str | ast.Module, scope: dict[str, Any]) -> None:
    exec(compile(code, "<code>", "exec"), scope)  # noqa: S102  # running code is what this tool is for


def _value(expression: ast.Expression, scope: dict[str, Any]) -> Any:
    scope["__answer__"] = None
    target = ast.Name("__answer__", ast.Store())
    _execute(ast.fix_missing_locations(ast.Module([ast.Assign([target], expression.body)], [])), scope)
    return scope["__answer__"]


def _last_printed(code: str, scope: dict[str, Any]) -> str:
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        _execute(code, scope)
    lines = written.getvalue().strip().splitlines()
    if not lines:
        raise ToolError("the code must print the answer")
    return lines[-1]


def _parsed(code: str, mode: str, argument: str) -> None:
    try:
        ast.parse(code, mode=mode)
    except SyntaxError as error:
        raise InvalidArgument(argument, code, f"give a Python expression ({error})") from error
