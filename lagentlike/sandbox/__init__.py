"""Isolated execution: sandboxes on this machine and elsewhere, and what runs in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .backends import create_tool_backend
    from .base import Artifact, ArtifactEntry, ExecutionResult, Slot, SlotRequest, ToolBackend
    from .bubblewrap import Bwrap
    from .controls import Control, Report, report
    from .executor import ToolExecutor
    from .isolation import (
        default_isolation,
        Isolation,
        isolation_of,
        Mount,
        sandbox_unavailable,
        set_default_isolation,
    )
    from .limits import Limits
    from .process import Completed, Process
    from .server import SandboxServer
    from .settings import SandboxSettings
    from .slot_user import SlotUser
    from .tool_server import ToolServer, ToolServerClient
    from .unsafe_local import UnsafeLocal
    from .worker import CellResult, Worker

__all__ = [
    "Artifact",
    "ArtifactEntry",
    "Bwrap",
    "CellResult",
    "Completed",
    "Control",
    "ExecutionResult",
    "Isolation",
    "Limits",
    "Mount",
    "Process",
    "Report",
    "SandboxServer",
    "SandboxSettings",
    "Slot",
    "SlotRequest",
    "SlotUser",
    "ToolBackend",
    "ToolExecutor",
    "ToolServer",
    "ToolServerClient",
    "UnsafeLocal",
    "Worker",
    "create_tool_backend",
    "default_isolation",
    "isolation_of",
    "report",
    "sandbox_unavailable",
    "set_default_isolation",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "backends": ["create_tool_backend"],
        "base": ["Artifact", "ArtifactEntry", "ExecutionResult", "Slot", "SlotRequest", "ToolBackend"],
        "bubblewrap": ["Bwrap"],
        "executor": ["ToolExecutor"],
        "isolation": [
            "Isolation",
            "Mount",
            "default_isolation",
            "isolation_of",
            "sandbox_unavailable",
            "set_default_isolation",
        ],
        "limits": ["Limits"],
        "process": ["Completed", "Process"],
        "server": ["SandboxServer"],
        "settings": ["SandboxSettings"],
        "slot_user": ["SlotUser"],
        "tool_server": ["ToolServer", "ToolServerClient"],
        "controls": ["Control", "Report", "report"],
        "unsafe_local": ["UnsafeLocal"],
        "worker": ["CellResult", "Worker"],
    },
)
