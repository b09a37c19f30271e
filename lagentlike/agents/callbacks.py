"""A unit that runs a user's callbacks, so that a workflow can ask them in its own colour."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..colour import careful
from ..concurrency import in_thread, Stop
from ..memory import SessionId
from ..module import AsyncModule, Module
from ..schema import AgentMessage, unchecked_message
from .workflow import Call

__all__ = ["AsyncCallbacks", "Callbacks"]

_ASKED = unchecked_message(content="")


class Callbacks(Module):
    """Runs plain functions; what one returns is its reply's `formatted`."""

    @careful
    def forward(
        self, *message: AgentMessage, session_id: SessionId = 0, function: Any = None, args: Any = (), **kwargs: Any
    ) -> Any:
        """Call the function."""
        return unchecked_message(content="", sender=self.name, formatted=function(*args))

    def call(self, function: Callable[..., Any], *args: Any, stop: Stop | None = None) -> Call:
        """What a workflow yields to have a function called; the reply is given out to nobody.

        With a `stop`, `AsyncCallbacks` waits for it no longer than that lets it, and raises `Stopped`.
        """
        return Call(self, _ASKED, {"function": function, "args": args, "stop": stop}, shown=False)


class AsyncCallbacks(Callbacks, AsyncModule):
    """Awaits async functions, and runs plain ones in a thread."""

    @careful
    async def forward(
        self,
        *message: AgentMessage,
        session_id: SessionId = 0,
        function: Any = None,
        args: Any = (),
        stop: Stop | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call the function."""
        asked = _value(function, args)
        value = await (asked if stop is None else stop.guard(asked))
        return unchecked_message(content="", sender=self.name, formatted=value)


async def _value(function: Callable[..., Any], args: Any) -> Any:
    """What a function returns, or its awaitable gives."""
    value = await in_thread(function, *args) if not inspect.iscoroutinefunction(function) else function(*args)
    return await value if inspect.isawaitable(value) else value
