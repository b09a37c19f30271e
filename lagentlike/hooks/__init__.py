"""Watch or rewrite messages around a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .action import ActionPreprocessor, InternLMActionProcessor
    from .hook import Hook, RemovableHandle
    from .logger import MessageLogger
    from .special_tokens import SpecialTokenNeutralizer

__all__ = [
    "ActionPreprocessor",
    "Hook",
    "InternLMActionProcessor",
    "MessageLogger",
    "RemovableHandle",
    "SpecialTokenNeutralizer",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "action": ["ActionPreprocessor", "InternLMActionProcessor"],
        "hook": ["Hook", "RemovableHandle"],
        "logger": ["MessageLogger"],
        "special_tokens": ["SpecialTokenNeutralizer"],
    },
)
