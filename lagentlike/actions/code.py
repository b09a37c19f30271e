"""The code in what a model gives a code tool."""

from __future__ import annotations

import ast
import re

__all__ = ["extract_code"]


def extract_code(text: str) -> str:
    """The code in a text: what its code fences hold, or the text itself if it has none.

    Fences in the strings of a program, such as those of a file that it writes, are its own.

    >>> extract_code("Let me see:\\n```python\\nprint(1)\\n```")
    'print(1)'
    >>> extract_code("note = '''\\n```\\nls\\n```\\n'''") == "note = '''\\n```\\nls\\n```\\n'''"
    True
    """
    if not text.lstrip().startswith("```") and "\n```" not in text:
        return text
    if _is_program(text):
        return text
    first, last = _OPENING.search(text), text.rfind("\n```")
    if first is not None and first.end() <= last and _is_program(text[first.end() : last]):
        return text[first.end() : last]
    blocks = [found.group(1) for found in _FENCE.finditer(text)]
    return "\n".join(blocks) if blocks else text


def _is_program(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


_OPENING = re.compile(r"```[^\n`]*\n")
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
