"""Python code in an IPython shell in a sandbox, one for each session."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping
from typing import Any

from ..memory import SessionId
from ..sandbox import Isolation, isolation_of
from ..schema import ActionReturn
from .base import tool_api
from .function import checked_max_length, checked_timeout
from .ipython_manager import ShellAction, ShellWorkers
from .workers import submit_from_loop

__all__ = ["AsyncIPythonInteractive", "IPythonInteractive"]


class IPythonInteractive(ShellAction):
    """Run Python code in an IPython shell that keeps its variables; each session has a shell of its own.

    Each shell is a process in a sandbox, without a network and with a workspace in memory. It has no images, which
    `IPythonInterpreter` has, and starts sooner. Code that takes too long is interrupted, and the process is killed if
    that does not help.

    Args:
        timeout: seconds that a call may take; None for no limit.
        max_out_len: most characters of output.
        isolation: how the shells are held back from this machine: `"bwrap"`, an `Isolation`, or `"unsafe_local"`, with
            which they run as the user.
        description: what models are told, in place of the docstring of `run`.
        name: its name.

    >>> shell = IPythonInteractive()
    >>> shell("x = 20").state.name, shell("x + 1").format_result()
    ('SUCCESS', '21')
    >>> shell.close()
    """

    def __init__(
        self,
        timeout: float | None = 30,
        max_out_len: int = 8192,
        isolation: Isolation | str | None = None,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(description, name)
        self.max_length = checked_max_length(max_out_len)
        self.workers = ShellWorkers(None, checked_timeout(timeout), self.max_length, isolation_of(isolation))
        weakref.finalize(self, ShellWorkers.close, self.workers)


class AsyncIPythonInteractive(IPythonInteractive):
    """Run Python code in an IPython shell that keeps its variables, awaited; see `IPythonInteractive`."""

    @tool_api
    @functools.wraps(IPythonInteractive.run)
    async def run(self, command: str, session_id: SessionId = 0) -> ActionReturn:  # type: ignore[override]  # awaited
        return await submit_from_loop(super().run, command, session_id)
