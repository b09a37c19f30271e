"""Tools: what a model can call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .base import BaseAction, tool_api
    from .builtin import FinishAction, InvalidAction, NoAction
    from .calculator import calculator
    from .executor import ActionExecutor, AsyncActionExecutor
    from .function import FunctionTool, tool

__all__ = [
    "ActionExecutor",
    "AsyncActionExecutor",
    "BaseAction",
    "FinishAction",
    "FunctionTool",
    "InvalidAction",
    "NoAction",
    "calculator",
    "tool",
    "tool_api",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "base": ["BaseAction", "tool_api"],
        "builtin": ["FinishAction", "InvalidAction", "NoAction"],
        "calculator": ["calculator"],
        "executor": ["ActionExecutor", "AsyncActionExecutor"],
        "function": ["FunctionTool", "tool"],
    },
)
