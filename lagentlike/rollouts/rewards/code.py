"""Code: how many tests the program in an answer passes, run in a sandbox."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from ...concurrency import on_background, run_in_background
from ...errors import InvalidArgument
from ...sandbox import Completed, Isolation, isolation_of, Limits
from .base import FunctionReward

__all__ = ["code_tests", "program_in"]

MAX_CODE = 65_536
"""Longest program that is run, in bytes; half of what one argument of a process may have."""

_BLOCK = re.compile(r"```([^\s`]*)[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_PYTHON = dict.fromkeys(("py", "python", "python3"), "python")


def code_tests(
    *,
    timeout: float = 10.0,
    memory: int = 512 * 2**20,
    binary: bool = False,
    isolation: Isolation | str | None = None,
    name: str = "code_tests",
    weight: float = 1.0,
) -> FunctionReward:
    """A reward of the share of its query's `tests` that the Python program in the last answer passes.

    The program is what `program_in` finds in it. `tests`, in the query's metadata, is a list; each is run with the
    program in a sandbox of its own, without network. A text is Python that raises nothing if all is well, such as
    `"assert add(1, 2) == 3"`; a dict `{"input": …, "output": …}` is what a program reads, and what it should write to
    standard output, but for space at the ends of lines.

    Args:
        timeout: seconds that each test may take; one that takes longer fails.
        memory: bytes that each may use.
        binary: give 1 where all tests pass, else 0.
        isolation: where it runs, as for `IPythonInterpreter`; None for the default, bubblewrap.
        name, weight: as for `reward`.

    Raises:
        InvalidArgument: an argument is wrong.

    Where nothing can be isolated, or `tests` are none, it is the reward that fails. The extras are how many `passed`,
    of how many `tests`, and the first `problem`. Code shares its process with a test that is Python: code that is made
    to cheat can.

    >>> code_tests()("```python\\ndef add(a, b):\\n    return a + b\\n```", ["assert add(1, 2) == 3"])["reward"]
    1.0
    """
    limits = replace(Limits(), seconds=timeout, memory=memory)
    where = isolation_of(isolation)

    async def run(prediction: str, tests: Any) -> dict[str, Any]:
        listed = _checked(tests)
        code = program_in(prediction).encode("utf-8", "replace").decode()  # no half of a surrogate pair
        problem, passed = "", 0
        for number, test in enumerate(listed):
            wrong = await _problem(where, limits, code, test)
            passed += not wrong
            problem = problem or (wrong and f"test {number}: {wrong}")
        reward = float(passed == len(listed)) if binary else passed / len(listed)
        return {"reward": reward, "passed": passed, "tests": len(listed), "problem": problem}

    return _CodeTests(run, name, weight)


class _CodeTests(FunctionReward):
    """Awaited by rollouts, which kill the program when they wait no longer; called as a function, it blocks."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return run_in_background(super().__call__(*args, **kwargs))


def program_in(text: str) -> str:
    """The last block of Python in a text, or else of no language that is named, or else all of the text.

    >>> program_in("First\\n```python\\nprint(1)\\n```\\nthen\\n```bash\\npython first.py\\n```")
    'print(1)\\n'
    """
    blocks: dict[str, str] = {_PYTHON.get(language.lower(), language): code for language, code in _BLOCK.findall(text)}
    return blocks.get("python", blocks.get("", text))


async def _problem(where: Isolation, limits: Limits, code: str, test: str | Mapping[str, str]) -> str:
    """What is wrong with a program by a test; empty if nothing is."""
    if len(code.encode()) > MAX_CODE:
        return f"the program is longer than {MAX_CODE} bytes"
    if "\0" in code:
        return "the program holds a NUL"
    end = secrets.token_hex(16)  # a program that ends before its test is over has not passed
    if isinstance(test, str):
        done = await _ran(where, limits, ["python3", "-I", "-"], f"{code}\n\n{test}\nprint('/{end}/')\n")
    else:
        done = await _ran(where, limits, ["python3", "-I", "-c", code], test["input"])
    said = done.stdout.text()
    if not done.ok:
        return _why(done, limits)
    if isinstance(test, str):
        return "" if f"/{end}/" in said else "it ended early"
    return "" if _lines(said) == _lines(test["output"]) else "it wrote something else"


async def _ran(where: Isolation, limits: Limits, argv: list[str], given: str) -> Completed:
    async def run() -> Completed:
        async with _at_once(os.getpid()):
            return await where.run_async(argv, input=given.encode("utf-8", "replace"), **options)

    options: dict[str, Any] = {"stderr": subprocess.PIPE, "limits": limits}
    return await on_background(run())


@cache
def _at_once(process: int) -> asyncio.Semaphore:
    """Lets few run, so that time limits are those of the code, not of a queue; a forked process has its own."""
    return asyncio.Semaphore(os.cpu_count() or 1)


def _why(done: Completed, limits: Limits) -> str:
    """Why a program failed: the last line of what it said, with how it ended."""
    said = (done.stderr if done.stderr.size else done.stdout).text().strip().rpartition("\n")[2][:200]
    return f"{done.problem(limits)}: {said}" if said else done.problem(limits)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _checked(tests: Any) -> Sequence[str | Mapping[str, str]]:
    listed = [tests] if isinstance(tests, str | Mapping) else tests
    if not isinstance(listed, Sequence) or not listed or not all(map(_is_test, listed)):
        raise InvalidArgument("tests", tests, "give a list of Python texts, or of dicts with 'input' and 'output'")
    return listed


def _is_test(test: Any) -> bool:
    if isinstance(test, Mapping):
        return isinstance(test.get("input"), str) and isinstance(test.get("output"), str)
    return isinstance(test, str)
