"""Output parsers: what a model wrote, as data, without ever raising on it."""

from .json_parser import JSONParser
from .mixed import MixedToolParser
from .str_parser import StrParser
from .tool_parser import InterpreterParser, PluginParser, ToolParser

__all__ = ["InterpreterParser", "JSONParser", "MixedToolParser", "PluginParser", "StrParser", "ToolParser"]
