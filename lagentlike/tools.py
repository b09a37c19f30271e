"""Functions as tools, their calls and results."""

from __future__ import annotations

from .actions.arithmetic import calculator
from .actions.function import FunctionTool, tool
from .actions.schema import ToolSchema
from .schema import ToolCall, ToolResult

__all__ = ["FunctionTool", "ToolCall", "ToolResult", "ToolSchema", "calculator", "tool"]
