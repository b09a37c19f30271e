"""Shows the examples of docstrings as code: `>>>` lines are marked up as a console session."""

from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Fences each block of `>>>` lines, which Markdown would take for quotations."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The text with every block that begins with `>>>` between fences."""
    blocks = text.split("\n\n")
    return "\n\n".join(f"```pycon\n{block}\n```" if block.startswith(">>> ") else block for block in blocks)
