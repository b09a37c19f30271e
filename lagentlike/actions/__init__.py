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
    from .ipython_interpreter import AsyncIPythonInterpreter, IPythonInterpreter

__all__ = [
    "ActionExecutor",
    "AsyncActionExecutor",
    "AsyncIPythonInterpreter",
    "BaseAction",
    "FinishAction",
    "FunctionTool",
    "IPythonInterpreter",
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
        "ipython_interpreter": ["AsyncIPythonInterpreter", "IPythonInterpreter"],
    },
)
