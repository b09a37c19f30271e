"""Tools: what a model can call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .arithmetic import calculator
    from .base import BaseAction, tool_api
    from .builtin import FinishAction, InvalidAction, NoAction
    from .executor import ActionExecutor, AsyncActionExecutor
    from .function import FunctionTool, tool
    from .ipython_interactive import IPythonInteractive
    from .ipython_interpreter import AsyncIPythonInterpreter, IPythonInterpreter
    from .ipython_manager import IPythonInteractiveManager
    from .python_interpreter import PythonInterpreter
    from .web_browser import AsyncWebBrowser, WebBrowser
    from .web_search import BingSearch, DuckDuckGoSearch

__all__ = [
    "ActionExecutor",
    "AsyncActionExecutor",
    "AsyncIPythonInterpreter",
    "AsyncWebBrowser",
    "BaseAction",
    "BingSearch",
    "DuckDuckGoSearch",
    "FinishAction",
    "FunctionTool",
    "IPythonInteractive",
    "IPythonInteractiveManager",
    "IPythonInterpreter",
    "InvalidAction",
    "NoAction",
    "PythonInterpreter",
    "WebBrowser",
    "calculator",
    "tool",
    "tool_api",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "base": ["BaseAction", "tool_api"],
        "builtin": ["FinishAction", "InvalidAction", "NoAction"],
        "arithmetic": ["calculator"],
        "executor": ["ActionExecutor", "AsyncActionExecutor"],
        "function": ["FunctionTool", "tool"],
        "ipython_interactive": ["IPythonInteractive"],
        "ipython_interpreter": ["AsyncIPythonInterpreter", "IPythonInterpreter"],
        "ipython_manager": ["IPythonInteractiveManager"],
        "python_interpreter": ["PythonInterpreter"],
        "web_browser": ["AsyncWebBrowser", "WebBrowser"],
        "web_search": ["BingSearch", "DuckDuckGoSearch"],
    },
)
