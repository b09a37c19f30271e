"""Functions as tools, their calls and results; tools by name; and tools that are ready.

`search`, `code_interpreter`, `terminal` with `process`, and `read_file`, `write_file`, `patch` and `search_files` for
the working directory are made when they are first asked for. Each is one object, whose state is kept by session.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any, TYPE_CHECKING

from .actions.arithmetic import calculator
from .actions.executor import AsyncActionExecutor
from .actions.function import FunctionTool, tool
from .actions.schema import ToolSchema
from .actions.toolsets import tools_with_toolsets, toolset_names
from .errors import InvalidArgument
from .sandbox.tools import SANDBOX_TOOLS, SandboxTool, Where
from .schema import AgentMessage, ToolCall, ToolResult

if TYPE_CHECKING:
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
    "ToolRegistry",
    "ToolResult",
    "ToolSchema",
    "answer",
    "build_tool_registry",
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

logger = logging.getLogger(__name__)


@tool(status="terminal")
def answer(answer: str) -> str:
    """Give the final answer and finish.

    Args:
        answer: the final answer.
    """
    return answer


class ToolRegistry:
    """The tools of a trajectory by name, and where each runs: in its sandbox, in this process, or in the ToolServer.

    Args:
        tools: each as for `register`.

    Raises:
        InvalidArgument: two have one name, or one is no tool.

    >>> registry = ToolRegistry([calculator])
    >>> asyncio.run(registry.execute(ToolCall("calculator", {"expression": "6 * 7"}))).output
    '42'
    """

    def __init__(self, tools: Iterable[Any] = ()) -> None:
        self._sandboxed: dict[str, SandboxTool] = {}
        self._external: set[str] = set()
        self._others = AsyncActionExecutor()
        for one in tools:
            self.register(one)

    def register(self, tool: Any, *, external: bool = False) -> None:
        """Add a tool.

        Args:
            tool: a `BaseAction`, a function, or `dict(type=...)` of one; or the name of a tool of sandboxes: `bash`,
                `terminal_stateful`, `tmux`, `read_file` or `write_file`.
            external: whether it needs credentials: a `ToolExecutor` runs it in the ToolServer then.

        Raises:
            InvalidArgument: there is a tool of that name already, or it is none.
        """
        if isinstance(tool, str):
            if tool not in SANDBOX_TOOLS:
                raise InvalidArgument("tool", tool, f"the tools of sandboxes are {', '.join(SANDBOX_TOOLS)}")
            self._check_free(tool)
            self._sandboxed[tool] = SANDBOX_TOOLS[tool]
            return
        added = AsyncActionExecutor([tool])
        names = _names(added.tools())
        for name in names:
            self._check_free(name)
        for name, action in added.items():
            self._others[name] = action
        if external:
            self._external.update(names)

    def get(self, name: str) -> Any:
        """The tool of a name: a `SandboxTool` or a `BaseAction`; None if there is none."""
        if name in self._sandboxed:
            return self._sandboxed[name]
        api = self._others.find(name)
        return None if api is None else api.action

    def where(self, name: str) -> Where | None:
        """Where a tool runs: in the `sandbox`, on this `host`, or in the tool `server`; None if there is none."""
        if name in self._sandboxed:
            return "sandbox"
        if self._others.find(name) is None:
            return None
        return "server" if name in self._external else "host"

    def list_tools(self) -> list[str]:
        """The names of all tools."""
        return _names(self.get_schemas())

    def get_schemas(self) -> list[dict[str, Any]]:
        """What models are told: `{"type": "function", "function": {…}}` each."""
        return [*(sandboxed.schema for sandboxed in self._sandboxed.values()), *self._others.tools()]

    def get_prompt_tool_definitions_json(self) -> str:
        """The same as JSON text, for a prompt."""
        return json.dumps(self.get_schemas(), ensure_ascii=False)

    async def execute(self, call: ToolCall, *, session_id: str | int = 0, timeout_s: float | None = None) -> ToolResult:
        """Run a tool in this process; whatever it does, and whatever is wrong with the call, is in the result.

        Args:
            call: the call; a tool of sandboxes is refused, as only a `ToolExecutor` can run it.
            session_id: whose call it is, for tools that keep something.
            timeout_s: seconds it may take.

        Raises:
            BudgetExceeded: a `Budget` around the call is used up.
        """
        if call.name in self._sandboxed:
            why = f"{call.name} runs in a sandbox only: call it by a ToolExecutor"
            return ToolResult(False, error=why, id=call.id, name=call.name)
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._others(AgentMessage(content="", tool_calls=[call]), session_id=session_id)
        except TimeoutError:
            why = f"{call.name} took longer than {timeout_s:g} seconds"
            return ToolResult(False, error=why, id=call.id, name=call.name)
        assert reply.tool_results is not None
        return reply.tool_results[0]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.where(name) is not None

    def __len__(self) -> int:
        return len(self.list_tools())

    def _check_free(self, name: str) -> None:
        if self.where(name) is not None:
            raise InvalidArgument("tool", name, "there is a tool of that name already")


def build_tool_registry(
    enabled_toolsets: Iterable[str] = ("default",),
    disabled_toolsets: Iterable[str] = (),
    tool_server_url: str | None = None,
) -> ToolRegistry:
    """The tools of some toolsets, for the trajectories of an environment.

    `default` stands for all tools of sandboxes; `terminal`, `tmux` and `file` for those of them that the names say, and
    not for the tools of these names that work on this machine. The other toolsets are those of `lagentlike.actions`;
    tools that need credentials are left out, and the log says so, where there is no ToolServer to run them.

    Args:
        enabled_toolsets: names of toolsets; `all` for every one but `code`.
        disabled_toolsets: names of toolsets that are left out.
        tool_server_url: where the ToolServer is, or `inprocess`.

    Raises:
        InvalidArgument: there is no toolset of a name, or it would run a model's code in this process.

    >>> build_tool_registry(["terminal", "todo"]).list_tools()
    ['bash', 'terminal_stateful', 'todo']
    """
    enabled, disabled = _spread(enabled_toolsets), _spread(disabled_toolsets)
    registry = ToolRegistry()
    names = [name for name in enabled if name not in disabled]
    if "code" in names:
        raise InvalidArgument(
            "enabled_toolsets", "code", "it runs a model's code beside this process: use terminal, which has a sandbox"
        )
    for name in names:
        for sandboxed in _SANDBOX_TOOLSETS.get(name, ()):
            registry.register(sandboxed)
    others = [name for name in names if name not in _SANDBOX_TOOLSETS]
    for found, toolset in tools_with_toolsets(others, [name for name in disabled if name not in _SANDBOX_TOOLSETS]):
        if toolset.external and tool_server_url is None:
            logger.info("the tool %s is left out: it needs credentials, and there is no tool_server_url", found.name)
        else:
            registry.register(found, external=toolset.external)
    return registry


_SANDBOX_TOOLSETS = {
    "terminal": ("bash", "terminal_stateful"),
    "tmux": ("tmux",),
    "file": ("read_file", "write_file"),
}


def _spread(toolsets: Iterable[str]) -> list[str]:
    """Names of toolsets, those that stand for several replaced by these."""
    if isinstance(toolsets, str):
        raise InvalidArgument("toolsets", toolsets, "give a list of names of toolsets")
    words = {"default": list(_SANDBOX_TOOLSETS), "all": [*_SANDBOX_TOOLSETS, *toolset_names()]}
    words["all"] = [name for name in dict.fromkeys(words["all"]) if name != "code"]
    return list(dict.fromkeys(name for word in toolsets for name in words.get(word, [word])))


def _names(schemas: Sequence[dict[str, Any]]) -> list[str]:
    return [schema["function"]["name"] for schema in schemas]


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
