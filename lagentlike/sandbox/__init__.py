"""Isolated execution: sandboxes on this machine and elsewhere, and what runs in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .bubblewrap import Bwrap
    from .isolation import default_isolation, Isolation, isolation_of, Mount, set_default_isolation
    from .limits import Limits
    from .process import Completed, Process
    from .unsafe_local import UnsafeLocal

__all__ = [
    "Bwrap",
    "Completed",
    "Isolation",
    "Limits",
    "Mount",
    "Process",
    "UnsafeLocal",
    "default_isolation",
    "isolation_of",
    "set_default_isolation",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "bubblewrap": ["Bwrap"],
        "isolation": ["Isolation", "Mount", "default_isolation", "isolation_of", "set_default_isolation"],
        "limits": ["Limits"],
        "process": ["Completed", "Process"],
        "unsafe_local": ["UnsafeLocal"],
    },
)
