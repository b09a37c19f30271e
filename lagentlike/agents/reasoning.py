"""A model's thinking: told apart from its answer, and given back to it or not."""

from __future__ import annotations

from typing import Any, Literal

from ..errors import InvalidArgument, RequestRefused

__all__ = [
    "END_OF_THINKING",
    "ReasoningPolicy",
    "checked_policy",
    "gives_back",
    "refuses_reasoning",
    "split_thinking",
    "thinking_so_far",
]

ReasoningPolicy = Literal["auto", "echo", "strip"]
"""Whether earlier thinking is sent again, as `reasoning_content`: always, never, or wherever the server takes it."""

_BEGIN, END_OF_THINKING = "<think>", "</think>"

_STRICT_HOSTS = frozenset(("api.openai.com", "api.mistral.ai"))
"""Servers known to refuse fields that they do not know."""


def split_thinking(text: str) -> tuple[str | None, str]:
    """The thinking that a text begins with, and the rest.

    The opening mark may be missing, where a chat template wrote it into the prompt. Thinking that is not closed is all
    there is. Marks further down in the text are text.

    >>> split_thinking("<think>2 + 2 is 4.</think>It is 4.")
    ('2 + 2 is 4.', 'It is 4.')
    >>> split_thinking("It is 4.")
    (None, 'It is 4.')
    """
    start = len(text) - len(text.lstrip())
    if text.startswith(_BEGIN, start):
        thinking, _, rest = text[start + len(_BEGIN) :].partition(END_OF_THINKING)
        return thinking.strip(), rest.lstrip()
    end = text.find(END_OF_THINKING)
    if end < 0 or _BEGIN in text[:end] or "`" in text[:end]:
        return None, text
    return text[:end].strip(), text[end + len(END_OF_THINKING) :].lstrip()


def thinking_so_far(text: str) -> tuple[str | None, str]:
    """The same for a text that is still coming: half a mark is neither thinking nor text.

    >>> thinking_so_far("<think>2 + 2 is 4.</thi")
    ('2 + 2 is 4.', '')
    >>> thinking_so_far("<thi")
    (None, '')
    """
    begun = text.lstrip()
    if len(begun) < len(_BEGIN) and _BEGIN.startswith(begun):
        return None, ""
    if not begun.startswith(_BEGIN) and END_OF_THINKING not in text:
        return None, text
    thinking, rest = split_thinking(text)
    if thinking is not None and not rest and END_OF_THINKING not in text:
        lengths = range(len(END_OF_THINKING) - 1, 0, -1)
        half = next((length for length in lengths if thinking.endswith(END_OF_THINKING[:length])), 0)
        thinking = thinking[: len(thinking) - half].rstrip()
    return thinking, rest


def checked_policy(reasoning: Any) -> ReasoningPolicy:
    """The policy, if it is one."""
    if reasoning not in ("auto", "echo", "strip"):
        raise InvalidArgument("reasoning", reasoning, "give 'auto', 'echo' or 'strip'")
    return reasoning  # type: ignore[no-any-return]


def gives_back(policy: ReasoningPolicy, llm: Any) -> bool:
    """Whether a model is to be sent its earlier thinking, before it was ever asked."""
    host = getattr(getattr(llm, "url", None), "host", None)
    return policy == "echo" or (policy == "auto" and host not in _STRICT_HOSTS)


def refuses_reasoning(error: RequestRefused) -> bool:
    """Whether a server refused a request because of the thinking in it."""
    return error.status in (400, 422) and "reasoning" in f"{error} {error.raw}"
