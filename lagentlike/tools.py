"""Functions as tools, their calls and results; and tools that are ready.

`search`, `code_interpreter`, `terminal` with `process`, and `read_file`, `write_file`, `patch` and `search_files` for
the working directory are made when they are first asked for. Each is one object, whose state is kept by session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .actions.arithmetic import calculator
from .actions.function import FunctionTool, tool
from .actions.schema import ToolSchema
from .schema import ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .actions.base import BaseAction
    from .actions.files import EditFile, ReadFile, SearchFiles, WriteFile
    from .actions.ipython_interpreter import IPythonInterpreter
    from .actions.terminal import Process, Terminal
    from .actions.web_tools import WebSearch

    code_interpreter: IPythonInterpreter
    patch: EditFile
    process: Process
    read_file: ReadFile
    search: WebSearch
    search_files: SearchFiles
    terminal: Terminal
    write_file: WriteFile

__all__ = [
    "FunctionTool",
    "ToolCall",
    "ToolResult",
    "ToolSchema",
    "answer",
    "calculator",
    "code_interpreter",
    "patch",
    "process",
    "read_file",
    "search",
    "search_files",
    "terminal",
    "tool",
    "write_file",
]


@tool(status="terminal")
def answer(answer: str) -> str:
    """Give the final answer and finish.

    Args:
        answer: the final answer.
    """
    return answer


def _search() -> Sequence[BaseAction]:
    from .actions.web_tools import WebSearch

    return [WebSearch(name="search")]


def _code() -> Sequence[BaseAction]:
    from .actions.ipython_interpreter import IPythonInterpreter

    return [IPythonInterpreter(name="code_interpreter")]


def _shell() -> Sequence[BaseAction]:
    from .actions.terminal import terminal_tools

    return terminal_tools()


def _files() -> Sequence[BaseAction]:
    from .actions.files import file_tools

    return file_tools()


_READY = {
    "search": _search,
    "code_interpreter": _code,
    **dict.fromkeys(("terminal", "process"), _shell),
    **dict.fromkeys(("read_file", "write_file", "patch", "search_files"), _files),
}


def __getattr__(name: str) -> BaseAction:
    if name not in _READY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for made in _READY[name]():
        globals().setdefault(made.name, made)
    return globals()[name]  # type: ignore[no-any-return]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
