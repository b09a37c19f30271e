"""Words in, structure out: prompt templates and output parsers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .parsers import InterpreterParser, JSONParser, MixedToolParser, PluginParser, StrParser, ToolParser
    from .template import PromptTemplate

__all__ = [
    "InterpreterParser",
    "JSONParser",
    "MixedToolParser",
    "PluginParser",
    "PromptTemplate",
    "StrParser",
    "ToolParser",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "parsers": ["InterpreterParser", "JSONParser", "MixedToolParser", "PluginParser", "StrParser", "ToolParser"],
        "template": ["PromptTemplate"],
    },
)
