"""Tool use: whether the expected tools were called, how often, and without errors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ...errors import InvalidArgument
from ...trajectory import text_of, Trajectory
from .base import FunctionReward

__all__ = ["tool_use"]

_ERROR = "Error: "  # how the result of a failed call begins; see `ToolResult.text`


def tool_use(
    tools: str | Iterable[str] = (),
    *,
    min_calls: int = 1,
    max_calls: int | None = None,
    allow_errors: bool = False,
    name: str = "tool_use",
    weight: float = 1.0,
) -> FunctionReward:
    """A reward of 1 for a trajectory that used its tools as expected, else 0; its extras hold the counts.

    Args:
        tools: name of a tool that must be called, or a list of names; empty where any will do.
        min_calls, max_calls: how many calls there must be at least, and may be at most, of all tools together.
        allow_errors: whether calls may fail.
        name, weight: as for `reward`.

    Raises:
        InvalidArgument: an argument is wrong.

    >>> from lagentlike.trajectory import Trajectory
    >>> tool_use("calculator")(Trajectory([{"role": "assistant", "content": "2", "tool_calls": []}]))
    {'reward': 0.0, 'calls': 0, 'errors': 0, 'not_called': ['calculator']}
    """
    expected = [tools] if isinstance(tools, str) else list(tools)
    if not all(isinstance(tool, str) and tool for tool in expected):
        raise InvalidArgument("tools", tools, "give the name of a tool, or a list of names")
    for argument, value in (("min_calls", min_calls), ("max_calls", max_calls)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise InvalidArgument(argument, value, "give a whole number of at least 0")
    most = math.inf if max_calls is None else max_calls
    if min_calls > most:
        raise InvalidArgument("max_calls", max_calls, f"give at least min_calls={min_calls}")

    def check(trajectory: Trajectory) -> dict[str, Any]:
        called = Counter(
            call["function"]["name"]
            for message in trajectory.messages
            if message.get("role") == "assistant"
            for call in message.get("tool_calls") or ()
        )
        errors = sum(
            text_of(message).startswith(_ERROR) for message in trajectory.messages if message.get("role") == "tool"
        )
        not_called = [tool for tool in expected if not called[tool]]
        calls = called.total()
        good = not not_called and min_calls <= calls <= most and (allow_errors or not errors)
        return {"reward": float(good), "calls": calls, "errors": errors, "not_called": not_called}

    return FunctionReward(check, name, weight)
