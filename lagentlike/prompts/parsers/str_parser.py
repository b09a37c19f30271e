"""The simplest parser, which is also the base of all others."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["StrParser"]


class StrParser:
    """Takes the model's text as it is.

    Args:
        template: instruction about the output format, shown to the model; `{name}` places take `format_field`.
        **format_field: what goes into the places; anything but text is written as JSON.

    A parser of your own overrides `parse_response`, and `format_response` if an answer must be shown to the model
    again in later turns in another form than its text.
    """

    tool_type: str | None = None
    """What kind of tool call it finds; None for parsers that find none."""

    def __init__(self, template: str = "", **format_field: Any) -> None:
        self.template = template
        self.fields = format_field

    def format_instruction(self) -> Any:
        """The instruction shown to the model: a text, a chat message, or a list of these; empty for none."""
        if not self.fields:
            return self.template
        return self.template.format(**{name: self.format_to_string(value) for name, value in self.fields.items()})

    def parse_response(self, data: str) -> Any:
        """What the model's text means; goes into `AgentMessage.formatted`."""
        return data

    def parse_cut(self, data: str) -> Any:
        """The same for a text that a limit on its length cut off, where a call that is not closed is not whole."""
        return self.parse_response(data)

    def format_response(self, parsed: Any) -> str:
        """The text that `parsed` came from, as the model is shown it in later turns."""
        return self.format_to_string(parsed)

    @staticmethod
    def format_to_string(value: Any) -> str:
        """Text as it is, anything else as JSON."""
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.tool_type is None else repr(self.tool_type)})"
