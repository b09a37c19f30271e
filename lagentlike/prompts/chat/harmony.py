"""Harmony, the format of gpt-oss: an answer is several messages, each on a channel of its own.

See https://cookbook.openai.com/articles/openai-harmony. A model thinks on the channel `analysis`, calls tools on
`commentary` and answers on `final`; it stops at `<|call|>` and `<|return|>`.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

__all__ = ["CALL", "Part", "answer_of", "parts_of", "writes_harmony"]

CALL = "<|call|>"
"""The token that ends a call."""

_PART = re.compile(
    r"(?:<\|start\|>)?(?P<author>[^<]*)(?:<\|channel\|>(?P<channel>[^<]*))?(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(?P<content>.*?)(?P<end><\|end\|>|<\|return\|>|<\|call\|>|(?=<\|start\|>)|\Z)",
    re.DOTALL,
)
_RECIPIENT = re.compile(r"to=(\S+)")
_FUNCTIONS = "functions."


class Part(NamedTuple):
    """One message of Harmony; `content` of a call is a dict where it is the JSON of one."""

    author: str
    recipient: str
    channel: str
    content: Any
    end: str


def writes_harmony(source: Any) -> bool:
    """Whether a chat template writes Harmony."""
    return isinstance(source, str) and all(mark in source for mark in ("<|channel|>", "<|message|>", CALL))


def parts_of(text: str) -> list[Part]:
    """The messages in a text with its special tokens, such as `<|start|>user<|message|>Hi<|end|>`."""
    found = []
    for match in _PART.finditer(text):
        head, channel = match["author"], match["channel"] or ""
        recipient = _RECIPIENT.search(f"{head} {channel}")
        author, on = (_first_word(part) for part in (head, channel))
        content = _parsed(match["content"]) if match["end"] == CALL else match["content"]
        found.append(Part(author, recipient[1] if recipient else "", on, content, match["end"]))
    return found


def answer_of(text: str) -> dict[str, Any]:
    """What a model sampled, with its special tokens, as the chat message that the template takes.

    Returns:
        `content` is what it said on `final` (and on `commentary` to nobody), `thinking` what it said on `analysis`;
        `tool_calls` are its calls, whose arguments stay text where they are no JSON object.
    """
    parts = parts_of(text)
    calls = [part for part in parts if part.recipient.startswith(_FUNCTIONS)]
    said = [part.content for part in parts if part.channel != "analysis" and not part.recipient]
    thought = [part.content for part in parts if part.channel == "analysis" and not part.recipient]
    message: dict[str, Any] = {"role": "assistant", "content": "\n".join(said)}
    if thought:
        message["thinking"] = "\n".join(thought)
    if calls:
        message["tool_calls"] = [_call(part) for part in calls]
    return message


def _call(part: Part) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": part.recipient.removeprefix(_FUNCTIONS), "arguments": part.content},
    }


def _first_word(text: str) -> str:
    return (text.split() or [""])[0]


def _parsed(text: str) -> Any:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return read if isinstance(read, dict) else text
