"""A Python program that computes an answer, run in a sandbox."""

from __future__ import annotations

import ast
import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import InvalidArgument
from ..sandbox import CellResult, Isolation, isolation_of, Worker
from ..schema import ActionReturn, ActionStatusCode
from .base import BaseAction, tool_api
from .code import extract_code
from .function import checked_timeout
from .result import failed
from .workers import submit_from_loop, when_given_up

__all__ = ["AsyncPythonInterpreter", "PythonInterpreter"]


class PythonInterpreter(BaseAction):
    """Run a Python program and give back what it computes; each call starts from nothing.

    The program runs in a sandbox of its own, without a network and with a workspace in memory.

    Args:
        answer_symbol: name of the variable that holds the answer.
        answer_expr: expression that gives the answer, such as `"solution()"`; `answer_symbol` goes before it. With
            neither, or where the program does not define what is in it, the last line of the program is the expression,
            or what it printed is the answer.
        answer_from_stdout: the last line that is printed is the answer; goes before both.
        timeout: seconds it may take.
        isolation: how it is held back from this machine: `"bwrap"`, an `Isolation`, or `"unsafe_local"`, with which it
            runs as the user.
        description: what models are told, in place of the docstring of `run`.
        name: its name.

    >>> PythonInterpreter()("def solution():\\n    return 6 * 7").format_result()
    '42'
    """

    interruptible = True

    def __init__(
        self,
        answer_symbol: str | None = None,
        answer_expr: str | None = "solution()",
        answer_from_stdout: bool = False,
        timeout: float = 20,
        isolation: Isolation | str | None = None,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(description, name)
        for argument, code in (("answer_symbol", answer_symbol), ("answer_expr", answer_expr)):
            if code is not None:
                _check_expression(code, argument)
        self.answer_symbol = answer_symbol
        self.answer_expr = answer_expr
        self.answer_from_stdout = answer_from_stdout
        self.seconds = checked_timeout(timeout)
        self.isolation = isolation_of(isolation)

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
        seconds = UNLIMITED_SECONDS if self.seconds is None else min(self.seconds, UNLIMITED_SECONDS)
        until = time.monotonic() + seconds
        limits = replace(self.isolation.limits, seconds=seconds)
        with Worker(self.isolation, limits=limits) as worker, when_given_up(worker.kill):
            worker.start()
            result = program = worker.run(extract_code(command), show="str")
            expression = self.answer_symbol or self.answer_expr
            if program.ok and expression is not None and not self.answer_from_stdout:
                result = worker.run(expression, max(until - time.monotonic(), 0.01), show="str")
                if _lacks_a_name(result.error, expression):
                    return self._without(program)
        return self._returned(result)

    def _without(self, program: CellResult) -> ActionReturn:
        """What is given back of a program that did not define what gives the answer."""
        if self.answer_symbol is not None:
            return failed(f"the code must set the variable {self.answer_symbol!r}", self.name)
        answer = program.output.strip() if program.value in (None, "None") else program.value  # as that of print()
        if not answer:
            return failed(f"the code must define what gives the answer, {self.answer_expr}, or print it", self.name)
        return ActionReturn(type=self.name, result=[{"type": "text", "content": answer}])

    def _returned(self, result: CellResult) -> ActionReturn:
        if result.ending == "interrupted":
            return failed(f"it took longer than {self.seconds:g} seconds and was stopped", self.name)
        if not result.ok:
            wrong = not result.error.startswith("Traceback") and result.ending == "done"  # as its syntax is
            state = ActionStatusCode.ARGS_ERROR if wrong else ActionStatusCode.API_ERROR
            return failed(result.error.strip(), self.name, state=state)
        answer = result.value
        if self.answer_from_stdout:
            answer = next(reversed(result.output.strip().splitlines()), None)
        if answer is None:
            if self.answer_from_stdout:
                return failed("the code must print the answer", self.name)
            return failed("the last line of the code must be an expression: the answer", self.name)
        return ActionReturn(type=self.name, result=[{"type": "text", "content": answer}])


class AsyncPythonInterpreter(PythonInterpreter):
    """Run a Python program and give back what it computes, awaited; see `PythonInterpreter`."""

    @tool_api
    @functools.wraps(PythonInterpreter.run)
    async def run(self, command: str) -> ActionReturn:  # type: ignore[override]  # awaited
        return await submit_from_loop(super().run, command)


UNLIMITED_SECONDS = 7 * 86_400.0


def _lacks_a_name(error: str, expression: str) -> bool:
    """Whether an error says that a name of an expression is not defined."""
    names = [node.id for node in ast.walk(ast.parse(expression, mode="eval")) if isinstance(node, ast.Name)]
    return error.rstrip().endswith(tuple(f"NameError: name {name!r} is not defined" for name in names))


def _check_expression(code: str, argument: str) -> None:
    try:
        ast.parse(code, mode="eval")
    except SyntaxError as error:
        raise InvalidArgument(argument, code, f"give a Python expression ({error})") from error
