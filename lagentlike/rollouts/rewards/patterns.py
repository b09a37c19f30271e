"""Regular expressions that users give: with the package `regex`, one that takes too long is stopped."""

from __future__ import annotations

import re
from typing import Any

from ...errors import InvalidArgument

__all__ = ["PATTERN_SECONDS", "Pattern"]

PATTERN_SECONDS = 1.0
"""How long matching one text may take."""


class Pattern:
    """A regular expression in which `.` matches line breaks too.

    Python's own `re` holds the lock of the interpreter while it matches, so that no deadline can end a pattern with
    nested repetitions. Where the package `regex` is installed (`lagentlike[regex]`; transformers brings it too) that
    matches, without the lock and for `PATTERN_SECONDS` at most.

    Raises:
        InvalidArgument: it is no regular expression.

    >>> Pattern("<b>(.*?)</b>").last("<b>1</b> <b>2</b>")
    '2'
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._compiled: Any = re.compile(pattern, re.DOTALL)
        except (re.error, TypeError) as error:
            raise InvalidArgument("pattern", pattern, f"it is no regular expression: {error}") from None
        self._options: dict[str, Any] = {}
        try:
            import regex
        except ImportError:
            return
        self._compiled = regex.compile(pattern, regex.DOTALL)
        self._options = {"timeout": PATTERN_SECONDS, "concurrent": True}

    def is_whole(self, text: str) -> bool:
        """Whether it matches the whole text.

        Raises:
            TimeoutError: it took too long.
        """
        return self._compiled.fullmatch(text, **self._options) is not None

    def last(self, text: str) -> str | None:
        """The last match in a text, of its first group if it has one; None where there is none.

        Raises:
            TimeoutError: it took too long.
        """
        found = list(self._compiled.finditer(text, **self._options))
        if not found:
            return None
        part: str | None = found[-1][1] if self._compiled.groups else found[-1][0]
        return part
