"""Words in, structure out: prompt templates and output parsers."""

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
