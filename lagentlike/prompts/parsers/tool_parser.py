"""Find a tool call that a model wrote between two marks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ...errors import InvalidArgument
from ...registry import import_object
from ...schema import ToolStatusCode
from .str_parser import StrParser

__all__ = ["InterpreterParser", "PluginParser", "ToolParser", "outside_thinking"]


class ToolParser(StrParser):
    """Finds the first tool call between `begin` and `end`.

    Args:
        tool_type: what the call is called in `parse_response(...)["tool_type"]`.
        template: instruction shown to the model.
        begin, end: the marks. A call whose `end` is missing at the end of the text counts, because `end` often is a
            stop word.
        validate: turns the text between the marks into the action; whatever it raises makes the status PARSING_ERROR.
            A function or its dotted path.

    Calls inside `<think>…</think>` do not count.

    >>> parser = ToolParser("interpreter", begin="```python\\n", end="\\n```\\n")
    >>> parser.parse_response("Let me see.\\n```python\\nprint(1)\\n```\\n")["action"]
    'print(1)'
    """

    def __init__(
        self,
        tool_type: str,
        template: str = "",
        begin: str = "<tool>\n",
        end: str = "</tool>\n",
        validate: Callable[[str], Any] | str | None = None,
        **format_field: Any,
    ) -> None:
        super().__init__(template, **format_field)
        if not begin:
            raise InvalidArgument("begin", begin, "give the mark that a call starts with")
        if not end:
            raise InvalidArgument("end", end, "give the mark that a call ends with")
        self.tool_type = tool_type
        self.begin = begin
        self.end = end
        self.validate = import_object(validate, "validate") if isinstance(validate, str) else validate

    def parse_response(self, data: str) -> dict[str, Any]:
        """`dict(tool_type, thought, action, status)`; `tool_type` is None and `action` None where there is no call."""
        start = outside_thinking(data, self.begin)
        if start < 0:
            return {"tool_type": None, "thought": data, "action": None, "status": ToolStatusCode.NO_TOOL}
        action: Any = self._inside(data[start + len(self.begin) :])
        status = ToolStatusCode.VALID_TOOL
        if self.validate is not None:
            try:
                action = self.validate(action)
            except Exception:  # noqa: BLE001  # whatever a validator raises on what a model wrote means the same
                status = ToolStatusCode.PARSING_ERROR
        return {"tool_type": self.tool_type, "thought": data[:start], "action": action, "status": status}

    def format_response(self, parsed: dict[str, Any]) -> str:
        """The model's text again, with both marks."""
        action = parsed["action"]
        if action is None:
            return str(parsed["thought"])
        return f"{parsed['thought']}{self.begin}{self.format_to_string(action)}{self.end}"

    def _inside(self, text: str) -> str:
        """The text up to `end`, or up to as much of it as is there."""
        end = text.find(self.end)
        if end >= 0:
            return text[:end]
        for length in range(len(self.end) - 1, 0, -1):
            if text.endswith(self.end[:length]) and self.end[:length].strip():
                return text[:-length]
        return text


class InterpreterParser(ToolParser):
    """Finds code between InternLM's interpreter marks."""

    def __init__(
        self,
        tool_type: str = "interpreter",
        template: str = "",
        begin: str = "<|action_start|><|interpreter|>\n",
        end: str = "<|action_end|>\n",
        validate: Callable[[str], Any] | str | None = None,
        **format_field: Any,
    ) -> None:
        super().__init__(tool_type, template, begin, end, validate, **format_field)


class PluginParser(ToolParser):
    """Finds a JSON call `{"name": …, "parameters": {…}}` between InternLM's plugin marks."""

    def __init__(
        self,
        tool_type: str = "plugin",
        template: str = "",
        begin: str = "<|action_start|><|plugin|>\n",
        end: str = "<|action_end|>\n",
        validate: Callable[[str], Any] | str | None = None,
        **format_field: Any,
    ) -> None:
        super().__init__(tool_type, template, begin, end, validate or plugin_call, **format_field)


def plugin_call(text: str) -> dict[str, Any]:
    """The call that a JSON text describes; `arguments` is understood as `parameters`.

    Raises:
        ValueError: it is no JSON object with a `name`.
    """
    call = json.loads(text)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError("expected a JSON object with 'name' and 'parameters'")
    parameters = call.get("parameters", call.get("arguments", {}))
    if not isinstance(parameters, dict):
        raise ValueError("'parameters' must be a JSON object")
    return {"name": call["name"], "parameters": parameters}


def outside_thinking(text: str, mark: str, start: int = 0) -> int:
    """Index of the first `mark` that is not inside `<think>…</think>`, or -1."""
    found = text.find(mark, start)
    while found >= 0:
        opened = text.find("<think>", start, found)
        if opened < 0:
            return found
        closed = text.find("</think>", opened)
        if closed < 0:
            return -1
        start = closed + len("</think>")
        if found < start:
            found = text.find(mark, start)
    return -1
