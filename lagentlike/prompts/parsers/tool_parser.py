"""Find a tool call that a model wrote between two marks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from ...errors import InvalidArgument
from ...registry import import_object
from ...schema import ToolStatusCode
from .marks import Marks
from .str_parser import StrParser

__all__ = ["InterpreterParser", "PluginParser", "ToolParser"]


class ToolParser(StrParser):
    """Finds the first tool call between `begin` and `end`.

    Args:
        tool_type: what the call is called in `parse_response(...)["tool_type"]`.
        template: instruction shown to the model.
        begin, end: the marks. A call whose `end` is missing at the end of the text counts, because `end` often is a
            stop word; `parse_cut` is for texts where it is not. One with another `begin` inside is no valid call.
        validate: turns the text between the marks into the action; whatever it raises makes the status PARSING_ERROR.
            A function or its dotted path.

    A reply holds one call: the first whose mark is not inside `<think>…</think>` (or before a `</think>` whose thinking
    began in the prompt), a code fence, inline code or quotes.

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
        return self._parsed(data, needs_end=False)

    def parse_cut(self, data: str) -> dict[str, Any]:
        return self._parsed(data, needs_end=True)

    def format_response(self, parsed: dict[str, Any]) -> str:
        """The model's text again, with both marks."""
        action = parsed["action"]
        if action is None:
            return str(parsed["thought"])
        return f"{parsed['thought']}{self.begin}{self.format_to_string(action)}{self.end}"

    def _parsed(self, text: str, needs_end: bool) -> dict[str, Any]:
        found = self._find(text)
        if found is None:
            return {"tool_type": None, "thought": text, "action": None, "status": ToolStatusCode.NO_TOOL}
        action: Any = text[found.inside : found.stop]
        status = ToolStatusCode.VALID_TOOL
        if found.is_nested or (needs_end and not found.is_closed):
            status = ToolStatusCode.PARSING_ERROR
        elif self.validate is not None:
            try:
                action = self.validate(action)
            except Exception:  # noqa: BLE001  # whatever a validator raises on what a model wrote means the same
                status = ToolStatusCode.PARSING_ERROR
        return {"tool_type": self.tool_type, "thought": text[: found.start], "action": action, "status": status}

    def _find(self, text: str) -> _Found | None:
        """The first call."""
        marks, found = Marks(text, self.begin, self.end), None
        while (start := marks.step()) >= 0:
            if marks.thinking_ended:
                found = None
                continue
            inside = start + len(self.begin)
            closing = marks.closing(inside)
            stop = len(text) if closing < 0 else closing
            thinking = marks.end_of_thinking(inside, stop)
            if thinking >= 0:
                marks.jump(thinking)
                continue
            if found is None:
                nested = marks.unquoted(self.begin, inside, stop) >= 0
                stop = stop if closing >= 0 else self._before_half_a_mark(text, inside)
                found = _Found(start, inside, stop, closing >= 0, nested)
            marks.jump(-1 if closing < 0 else closing + len(self.end))
        return found

    def _before_half_a_mark(self, text: str, inside: int) -> int:
        """The end of a text, or of what comes before as much of `end` as a stop word left there."""
        for length in range(len(self.end) - 1, 0, -1):
            if text.endswith(self.end[:length], inside) and self.end[:length].strip():
                return len(text) - length
        return len(text)


class _Found(NamedTuple):
    """A call: where its mark and its action start, where the action stops, and what is wrong with it."""

    start: int
    inside: int
    stop: int
    is_closed: bool
    is_nested: bool


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
