"""What servers tell, as far as it is what it should be: anything may stand anywhere in an answer."""

from __future__ import annotations

from typing import Any

from ..errors import BadResponse

__all__ = ["are_token_ids", "count", "text_or_none", "unreadable"]


def text_or_none(value: Any) -> str | None:
    """A text; None for anything else."""
    return value if type(value) is str else None


def count(value: Any) -> int:
    """A number of tokens; 0 for anything else."""
    return value if type(value) is int and value >= 0 else 0


def are_token_ids(values: Any) -> bool:
    """Whether it is a list of what can be token ids."""
    return type(values) is list and all(type(value) is int and 0 <= value < _MOST_IDS for value in values)


_MOST_IDS = 2**31


def unreadable(why: str, raw: bytes) -> BadResponse:
    """The error for an answer that cannot be read: `the server's answer {why}`, with its beginning."""
    return BadResponse(f"the server's answer {why}", raw=raw[:1024].decode("utf-8", "backslashreplace"))
