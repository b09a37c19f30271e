"""Where a tape stands between callers and what they call: one that records, or that answers in their place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["Tape", "current"]


class Tape(Protocol):
    """What may stand there; `lagentlike.testing` has the ones that write and read files."""

    def model(self, llm: Any) -> Any:
        """What a model's request is made of instead: it has `_chat`, `_chat_batch` and `_part_lists`."""

    def tool(self, call: Any, run: Callable[[], Any]) -> Any:
        """The result of a tool call, which `run` makes."""

    async def tool_async(self, call: Any, run: Callable[[], Awaitable[Any]]) -> Any:
        """The result of a tool call, which `run` makes."""

    @property
    def makes_calls(self) -> bool:
        """Whether a request that it is asked for may still be made."""


current: Tape | None = None
"""The tape that runs in this process, for all its threads."""
