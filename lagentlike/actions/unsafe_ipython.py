"""Python code that is trusted in an IPython shell in this process, one for each session."""

from __future__ import annotations

import importlib
import io
import sys
import threading
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

from ..errors import ToolTimeout
from ..memory import SessionId
from ..schema import ActionReturn, ActionStatusCode
from .base import BaseAction, tool_api
from .code import extract_code
from .deep_traceback import show_ends
from .function import checked_max_length, checked_timeout
from .result import as_seen, shortened
from .session import Unsaved
from .workers import run_within

__all__ = ["ShellResult", "Shells", "UnsafeIPythonInteractive"]


class UnsafeIPythonInteractive(BaseAction):
    """Run Python code in an IPython shell that keeps its variables; each session has a shell of its own.

    The shells live in this process: they start at once and see its modules, and the code has all its rights, so they
    are only for code that you trust. Code that takes too long is stopped where Python can stop it.
    `IPythonInteractive` is the same in a sandbox.

    Args:
        timeout: seconds that a call may take; None for no limit.
        max_out_len: most characters of output.
        description: what models are told, in place of the docstring of `run`.
        name: its name.

    >>> shell = UnsafeIPythonInteractive()
    >>> shell("x = 20").state.name, shell("x + 1").format_result()
    ('SUCCESS', '21')
    """

    aliases: ClassVar[Mapping[str, str]] = {"code": "command"}

    def __init__(
        self,
        timeout: float | None = 30,
        max_out_len: int = 8192,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(description, name)
        self.seconds = checked_timeout(timeout)
        self.max_length = checked_max_length(max_out_len)
        self.shells = Shells()

    @tool_api
    def run(self, command: str, session_id: SessionId = 0) -> ActionReturn:
        """Run Python code in a live session that keeps its variables; print what you want to see.

        Args:
            command: The Python code.
        """
        try:
            code = extract_code(command)
            result = run_within(self.seconds, self.shells.run, session_id, code, self.max_length)
        except ToolTimeout as error:
            return ActionReturn(type=self.name, errmsg=str(error), state=ActionStatusCode.API_ERROR)
        return result.as_return(self.name)


class ShellResult:
    """What a piece of code wrote, and whether it failed."""

    __slots__ = ("failed", "text")

    def __init__(self, text: str, failed: bool) -> None:
        self.text = text
        self.failed = failed

    def as_return(self, name: str) -> ActionReturn:
        items = [{"type": "text", "content": self.text or "(no output)"}]
        if not self.failed:
            return ActionReturn(type=name, result=items)
        return ActionReturn(type=name, errmsg=self.text or "the code failed", state=ActionStatusCode.API_ERROR)


class Shells(Unsaved):
    """IPython shells by session."""

    def __init__(self) -> None:
        self._shells: dict[SessionId, Any] = {}
        self._spare: Any = None
        self._guard = threading.Lock()

    def session_ids(self) -> list[SessionId]:
        return list(self._shells)

    def reset(self, session_id: SessionId) -> None:
        self._shells.pop(session_id, None)

    def prepare(self) -> None:
        """Make the shell of the next new session now."""
        self._spare = _new_shell()
        with _captured(1):
            self._spare.run_cell("", store_history=False)

    def run(self, session_id: SessionId, code: str, max_length: int) -> ShellResult:
        """Run code in the session's shell, in this thread; of what it writes, the head and the tail are kept."""
        with self._guard:
            if session_id not in self._shells:
                self._shells[session_id], self._spare = self._spare or _new_shell(), None
            shell = self._shells[session_id]
        with _captured(max_length) as written:
            result = shell.run_cell(code, store_history=False)
        text = as_seen(written.getvalue()).strip("\n")
        if result.success:
            return ShellResult(text, failed=False)
        return ShellResult("\n".join(line for line in text.split("\n") if line.strip("-")), failed=True)


_numbers = iter(range(sys.maxsize))


def _new_shell() -> Any:
    """A shell whose `__main__` is a module of its own, without history and without a terminal."""
    shell_module = importlib.import_module("IPython.core.interactiveshell")
    displayhook = importlib.import_module("IPython.core.displayhook")
    config = importlib.import_module("traitlets.config").Config()
    config.HistoryManager.enabled = False

    class Hook(displayhook.DisplayHook):  # type: ignore[misc, name-defined]  # IPython has no types
        """Shows a value without `Out[1]:` before it."""

        def write_output_prompt(self) -> None:
            """Nothing."""

    class Shell(shell_module.InteractiveShell):  # type: ignore[misc, name-defined]  # IPython has no types
        """An InteractiveShell that is not the only one."""

        displayhook_class = Hook

        def ask_exit(self) -> None:
            """Nothing: `exit()` in code does not end this process."""

    module = types.ModuleType(f"lagentlike_session_{next(_numbers)}")
    shell = Shell(config=config, user_module=module)
    del sys.modules[module.__name__]
    shell.set_custom_exc((RecursionError,), show_ends)
    shell.user_ns.update(__name__="__main__", input=_no_input)
    return shell


def _no_input(prompt: object = "") -> str:
    raise EOFError("there is nobody to answer input() here: put the values into the code")


_buffer: ContextVar[io.StringIO | None] = ContextVar("lagentlike_shell_output", default=None)


class _Written(io.StringIO):
    """A text of which the head and the tail are kept, each as long as a result may be."""

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self._max_length = max_length

    def write(self, text: str) -> int:
        super().write(shortened(text, 2 * self._max_length))
        if self.tell() > 4 * self._max_length:
            kept = shortened(self.getvalue(), 2 * self._max_length)
            self.seek(0)
            self.truncate()
            super().write(kept)
        return len(text)


class _Router:
    """Stands in for stdout or stderr: what a shell's code writes goes to its buffer, all else where it went before."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def write(self, text: str) -> int:
        buffer = _buffer.get()
        return int((self.original if buffer is None else buffer).write(text))

    def __getattr__(self, name: str) -> Any:
        buffer = _buffer.get()
        return getattr(self.original if buffer is None else buffer, name)


class _Routing:
    """Puts the routers in place while any shell runs code."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running = 0
        self._routers: tuple[_Router, _Router] | None = None

    def begin(self) -> None:
        with self._guard:
            self._running += 1
            if self._routers is None:
                self._routers = _Router(sys.stdout), _Router(sys.stderr)
                sys.stdout, sys.stderr = self._routers

    def end(self) -> None:
        with self._guard:
            self._running -= 1
            if self._running or self._routers is None:
                return
            out, err = self._routers
            if sys.stdout is out:
                sys.stdout = out.original
            if sys.stderr is err:
                sys.stderr = err.original
            self._routers = None


_routing = _Routing()


@contextmanager
def _captured(max_length: int) -> Iterator[io.StringIO]:
    """What this thread writes to stdout and stderr meanwhile."""
    written = _Written(max_length)
    token = _buffer.set(written)
    _routing.begin()
    try:
        yield written
    finally:
        _routing.end()
        _buffer.reset(token)
