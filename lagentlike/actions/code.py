"""The code in what a model gives a code tool."""

from __future__ import annotations

import re

__all__ = ["extract_code"]


def extract_code(text: str) -> str:
    """The code in a text: what its code fences hold, or the text itself if it has none.

    >>> extract_code("Let me see:\\n```python\\nprint(1)\\n```")
    'print(1)'
    """
    if not text.lstrip().startswith("```") and "\n```" not in text:
        return text
    blocks = [found.group(1) for found in _FENCE.finditer(text)]
    return "\n".join(blocks) if blocks else text


_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
