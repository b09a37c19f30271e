"""Output parsers: what a model wrote, as data, without ever raising on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import attach

if TYPE_CHECKING:
    from .json_parser import JSONParser
    from .mixed import MixedToolParser
    from .str_parser import StrParser
    from .tool_formats import register_tool_format, tool_format, tool_format_for, tool_format_names, ToolFormat
    from .tool_parser import InterpreterParser, PluginParser, ToolParser

__all__ = [
    "InterpreterParser",
    "JSONParser",
    "MixedToolParser",
    "PluginParser",
    "StrParser",
    "ToolFormat",
    "ToolParser",
    "register_tool_format",
    "tool_format",
    "tool_format_for",
    "tool_format_names",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "json_parser": ["JSONParser"],
        "mixed": ["MixedToolParser"],
        "str_parser": ["StrParser"],
        "tool_formats": [
            "ToolFormat",
            "register_tool_format",
            "tool_format",
            "tool_format_for",
            "tool_format_names",
        ],
        "tool_parser": ["InterpreterParser", "PluginParser", "ToolParser"],
    },
)
