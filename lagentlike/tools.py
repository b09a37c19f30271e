"""Functions as tools, their calls and results."""

from __future__ import annotations

from .actions.arithmetic import calculator
from .actions.function import FunctionTool, tool
from .actions.schema import ToolSchema
from .schema import ToolCall, ToolResult

__all__ = ["FunctionTool", "ToolCall", "ToolResult", "ToolSchema", "answer", "calculator", "tool"]


@tool(status="terminal")
def answer(answer: str) -> str:
    """Give the final answer and finish.

    Args:
        answer: the final answer.
    """
    return answer
