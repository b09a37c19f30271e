"""A prompt with places to fill in."""

from __future__ import annotations

from typing import Any, Literal

from ..errors import InvalidArgument, MissingExtra

__all__ = ["PromptTemplate"]


class PromptTemplate:
    """A prompt with places to fill in.

    Args:
        template: the text, with `{name}` places, or a Jinja2 template.
        format_type: `json` for `{name}` places: only names are read as places, so JSON and code in the text stay as
            they are; `jinja` for Jinja2 (needs the `hf` extra).

    >>> PromptTemplate('Answer as {"city": ...} about {topic}.').format(topic="Paris")
    'Answer as {"city": ...} about Paris.'
    """

    def __init__(self, template: str, format_type: Literal["json", "jinja"] = "json") -> None:
        if format_type not in ("json", "jinja"):
            raise InvalidArgument("format_type", format_type, "give 'json' or 'jinja'")
        if not isinstance(template, str):
            raise InvalidArgument("template", template, "give the prompt as text")
        self.template = template
        self.format_type = format_type

    def format(self, **values: Any) -> str:
        """The prompt with the values filled in; places without a value stay as they are."""
        if self.format_type == "jinja":
            return _render_jinja(self.template, values)
        text = self.template
        parts = []
        position = 0
        while True:
            start = text.find("{", position)
            if start < 0:
                break
            end = text.find("}", start)
            name = text[start + 1 : end] if end > 0 else ""
            if name in values:
                parts += [text[position:start], str(values[name])]
                position = end + 1
            else:
                parts.append(text[position : start + 1])
                position = start + 1
        return "".join([*parts, text[position:]])

    def __str__(self) -> str:
        return self.template

    def __repr__(self) -> str:
        shown = self.template if len(self.template) <= 60 else self.template[:57] + "..."
        return f"PromptTemplate({shown!r})"


def _render_jinja(template: str, values: dict[str, Any]) -> str:
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingExtra("jinja2", "hf") from error
    return ImmutableSandboxedEnvironment().from_string(template).render(**values)
