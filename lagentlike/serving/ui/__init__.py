"""A page on this machine on which to watch an agent and to talk to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import attach

if TYPE_CHECKING:
    from .launcher import launch, UI
    from .server import UIServer
    from .trace import TraceViewer

__all__ = ["UI", "TraceViewer", "UIServer", "launch"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "launcher": ["UI", "launch"],
        "server": ["UIServer"],
        "trace": ["TraceViewer"],
    },
)
