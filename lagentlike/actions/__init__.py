"""Tools: what a model can call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .arithmetic import calculator
    from .arxiv_search import ArxivSearch, AsyncArxivSearch
    from .base import BaseAction, tool_api
    from .bing_map import AsyncBINGMap, BINGMap
    from .builtin import FinishAction, InvalidAction, NoAction
    from .engines import (
        BingSearch,
        BraveSearch,
        DuckDuckGoSearch,
        SearchEngine,
        SearxngSearch,
        SerperSearch,
        TencentSearch,
    )
    from .executor import ActionExecutor, AsyncActionExecutor
    from .files import file_tools
    from .function import FunctionTool, tool
    from .google_scholar_search import AsyncGoogleScholar, GoogleScholar
    from .google_search import AsyncGoogleSearch, GoogleSearch
    from .ipython_interactive import AsyncIPythonInteractive, IPythonInteractive
    from .ipython_interpreter import AsyncIPythonInterpreter, IPythonInterpreter
    from .ipython_manager import IPythonInteractiveManager
    from .mcp import MCPServer
    from .notes import Notes
    from .ppt import AsyncPPT, PPT
    from .python_interpreter import AsyncPythonInterpreter, PythonInterpreter
    from .search_sessions import SearchSessions
    from .terminal import Process, Terminal, terminal_tools
    from .todo import Todo
    from .toolsets import availability, register_toolset, resolve_toolset, sample_toolsets, tools_of, Toolset
    from .unsafe_ipython import UnsafeIPythonInteractive
    from .vision import Vision
    from .web_browser import AsyncWebBrowser, WebBrowser
    from .web_tools import web_tools

__all__ = [
    "ActionExecutor",
    "ArxivSearch",
    "AsyncActionExecutor",
    "AsyncArxivSearch",
    "AsyncBINGMap",
    "AsyncGoogleScholar",
    "AsyncGoogleSearch",
    "AsyncIPythonInteractive",
    "AsyncIPythonInterpreter",
    "AsyncPPT",
    "AsyncPythonInterpreter",
    "AsyncWebBrowser",
    "BINGMap",
    "BaseAction",
    "BingSearch",
    "BraveSearch",
    "DuckDuckGoSearch",
    "FinishAction",
    "FunctionTool",
    "GoogleScholar",
    "GoogleSearch",
    "IPythonInteractive",
    "IPythonInteractiveManager",
    "IPythonInterpreter",
    "InvalidAction",
    "MCPServer",
    "NoAction",
    "Notes",
    "PPT",
    "Process",
    "PythonInterpreter",
    "SearchEngine",
    "SearchSessions",
    "SearxngSearch",
    "SerperSearch",
    "TencentSearch",
    "Terminal",
    "Todo",
    "Toolset",
    "UnsafeIPythonInteractive",
    "Vision",
    "WebBrowser",
    "availability",
    "calculator",
    "file_tools",
    "register_toolset",
    "resolve_toolset",
    "sample_toolsets",
    "terminal_tools",
    "tool",
    "tool_api",
    "tools_of",
    "web_tools",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "base": ["BaseAction", "tool_api"],
        "builtin": ["FinishAction", "InvalidAction", "NoAction"],
        "arithmetic": ["calculator"],
        "executor": ["ActionExecutor", "AsyncActionExecutor"],
        "function": ["FunctionTool", "tool"],
        "ipython_interactive": ["AsyncIPythonInteractive", "IPythonInteractive"],
        "ipython_interpreter": ["AsyncIPythonInterpreter", "IPythonInterpreter"],
        "ipython_manager": ["IPythonInteractiveManager"],
        "python_interpreter": ["AsyncPythonInterpreter", "PythonInterpreter"],
        "arxiv_search": ["ArxivSearch", "AsyncArxivSearch"],
        "bing_map": ["AsyncBINGMap", "BINGMap"],
        "google_scholar_search": ["AsyncGoogleScholar", "GoogleScholar"],
        "google_search": ["AsyncGoogleSearch", "GoogleSearch"],
        "ppt": ["AsyncPPT", "PPT"],
        "web_browser": ["AsyncWebBrowser", "WebBrowser"],
        "engines": [
            "BingSearch",
            "BraveSearch",
            "DuckDuckGoSearch",
            "SearchEngine",
            "SearxngSearch",
            "SerperSearch",
            "TencentSearch",
        ],
        "files": ["file_tools"],
        "mcp": ["MCPServer"],
        "notes": ["Notes"],
        "search_sessions": ["SearchSessions"],
        "terminal": ["Process", "Terminal", "terminal_tools"],
        "todo": ["Todo"],
        "toolsets": ["Toolset", "availability", "register_toolset", "resolve_toolset", "sample_toolsets", "tools_of"],
        "unsafe_ipython": ["UnsafeIPythonInteractive"],
        "vision": ["Vision"],
        "web_tools": ["web_tools"],
    },
)
