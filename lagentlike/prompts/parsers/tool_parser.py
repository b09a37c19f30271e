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
from .tool_call import MAX_CALLS

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
        many: whether a reply may hold several calls; otherwise those after the first are not looked at.

    A reply's call is the first whose mark is not inside `<think>…</think>` (or before a `</think>` whose thinking began
    in the prompt), a code fence, inline code or quotes.

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
        *,
        many: bool = False,
        **format_field: Any,
    ) -> None:
        super().__init__(template, **format_field)
        self.many = many
        if not begin:
            raise InvalidArgument("begin", begin, "give the mark that a call starts with")
        if not end:
            raise InvalidArgument("end", end, "give the mark that a call ends with")
        self.tool_type = tool_type
        self.begin = begin
        self.end = end
        self.validate = import_object(validate, "validate") if isinstance(validate, str) else validate

    def parse_response(self, data: str) -> dict[str, Any]:
        """`dict(tool_type, thought, action, status)`; `tool_type` is None and `action` None where there is no call.

        With `many`, a reply of several calls also has `calls`: such a dict for each, whose `thought` is the text before
        it.
        """
        return self._parsed(data, needs_end=False)

    def parse_cut(self, data: str) -> dict[str, Any]:
        return self._parsed(data, needs_end=True)

    def format_response(self, parsed: dict[str, Any]) -> str:
        """The model's text again, with both marks."""
        if parsed.get("calls"):
            return "".join(self.format_response(call) for call in parsed["calls"])
        action = parsed["action"]
        if action is None:
            return str(parsed["thought"])
        return f"{parsed['thought']}{self.begin}{self.format_to_string(action)}{self.end}"

    def _parsed(self, text: str, needs_end: bool) -> dict[str, Any]:
        return as_parsed(text, self.calls(text, needs_end))

    def calls(self, text: str, needs_end: bool = False) -> list[Found]:
        """The calls in a text, all or the first; `needs_end` says that a call without its end is not whole."""
        return [Found(place.start, place.behind, self._read(text, place, needs_end)) for place in self._find(text)]

    def _read(self, text: str, found: _Place, needs_end: bool) -> dict[str, Any]:
        """What is called at a place."""
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

    def _find(self, text: str) -> list[_Place]:
        """Where the calls are, or the first one; of too many, one more than may be is kept as one that is wrong."""
        marks = Marks(text, self.begin, self.end)
        found: list[_Place] = []
        most = MAX_CALLS + 1 if self.many else 1
        while (start := marks.step()) >= 0:
            if marks.thinking_ended:
                found = []
                continue
            inside = start + len(self.begin)
            closing = marks.closing(inside)
            stop = len(text) if closing < 0 else closing
            thinking = marks.end_of_thinking(inside, stop)
            if thinking >= 0:
                marks.jump(thinking)
                continue
            behind = len(text) if closing < 0 else closing + len(self.end)
            if len(found) < most:
                nested = len(found) == MAX_CALLS or marks.unquoted(self.begin, inside, stop) >= 0
                stop = stop if closing >= 0 else self._before_half_a_mark(text, inside)
                found.append(_Place(start, inside, stop, behind, closing >= 0, nested))
            marks.jump(-1 if closing < 0 else behind)
        return found

    def _before_half_a_mark(self, text: str, inside: int) -> int:
        """The end of a text, or of what comes before as much of `end` as a stop word left there."""
        for length in range(len(self.end) - 1, 0, -1):
            if text.endswith(self.end[:length], inside) and self.end[:length].strip():
                return len(text) - length
        return len(text)


def as_parsed(text: str, calls: list[Found]) -> dict[str, Any]:
    """What a parser gives for the calls it found in a text, in their order."""
    if not calls:
        return {"tool_type": None, "thought": text, "action": None, "status": ToolStatusCode.NO_TOOL}
    first = calls[0].parsed
    if len(calls) == 1:
        return first
    before = [0, *(call.behind for call in calls)]
    each = [{**call.parsed, "thought": text[at : call.start]} for at, call in zip(before, calls, strict=False)]
    return {**first, "calls": each}


class Found(NamedTuple):
    """A call: where its mark starts, where what comes behind it starts, and what a parser makes of it."""

    start: int
    behind: int
    parsed: dict[str, Any]


class _Place(NamedTuple):
    """Where a call is: its mark, its action, the end of that, what comes behind, and what is wrong with it."""

    start: int
    inside: int
    stop: int
    behind: int
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
        *,
        many: bool = False,
        **format_field: Any,
    ) -> None:
        super().__init__(tool_type, template, begin, end, validate, many=many, **format_field)


class PluginParser(ToolParser):
    """Finds a JSON call `{"name": …, "parameters": {…}}` between InternLM's plugin marks."""

    def __init__(
        self,
        tool_type: str = "plugin",
        template: str = "",
        begin: str = "<|action_start|><|plugin|>\n",
        end: str = "<|action_end|>\n",
        validate: Callable[[str], Any] | str | None = None,
        *,
        many: bool = False,
        **format_field: Any,
    ) -> None:
        super().__init__(tool_type, template, begin, end, validate or plugin_call, many=many, **format_field)


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
