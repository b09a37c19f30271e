"""Format: whether the answers of a trajectory have the form they should have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import InvalidArgument
from ...trajectory import text_of, Trajectory
from .base import FunctionReward
from .patterns import Pattern

__all__ = ["format_reward", "is_valid_call", "is_well_tagged"]


def format_reward(
    pattern: str | None = None,
    *,
    tags: Sequence[str] = (),
    tool_calls: bool = True,
    name: str = "format_reward",
    weight: float = 1.0,
) -> FunctionReward:
    """A reward of 1 for a trajectory in the right form, else 0; its extras say what of it was right.

    Args:
        pattern: regular expression that the whole of the last answer must match; `.` matches line breaks too.
        tags: such as `["think", "answer"]`: each answer must hold `<think>…</think>` and `<answer>…</answer>` once
            each, in this order, none inside another and none empty.
        tool_calls: also see that each tool call could be read, names a tool that was offered, and has its required
            arguments.
        name, weight: as for `reward`.

    Raises:
        InvalidArgument: the pattern is no regular expression, or nothing is asked for.

    >>> from lagentlike.trajectory import Trajectory
    >>> said = {"role": "assistant", "content": "<think>1 + 1</think> 2"}
    >>> format_reward(tags=["think"])(Trajectory([said]))
    {'reward': 1.0, 'tags': True, 'tool_calls': True}
    """
    if isinstance(tags, str) or not all(isinstance(tag, str) and re.fullmatch(r"[\w-]+", tag) for tag in tags):
        raise InvalidArgument("tags", tags, "give a list of names, such as ['think', 'answer']")
    if pattern is None and not tags and not tool_calls:
        raise InvalidArgument("pattern", pattern, "ask for a pattern, tags or valid tool calls")
    compiled = None if pattern is None else Pattern(pattern)

    def check(trajectory: Trajectory) -> dict[str, Any]:
        answers = [message for message in trajectory.messages if message.get("role") == "assistant"]
        kept: dict[str, bool] = {}
        if compiled is not None:
            kept["pattern"] = compiled.is_whole(trajectory.final_response)
        if tags:
            kept["tags"] = bool(answers) and all(is_well_tagged(text_of(answer), tags) for answer in answers)
        if tool_calls:
            kept["tool_calls"] = all(_calls_well(answer, trajectory.tools) for answer in answers)
        return {"reward": float(all(kept.values())), **kept}

    return FunctionReward(check, name, weight)


def is_well_tagged(text: str, tags: Iterable[str]) -> bool:
    """Whether each tag is there once, opened and closed in order, one after another, with something in it."""
    at = 0
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1:
            return False
        begin, end = text.find(opening, at), text.find(closing, at)
        if begin < 0 or end < begin or not text[begin + len(opening) : end].strip():
            return False
        at = end + len(closing)
    return True


def _calls_well(answer: Mapping[str, Any], tools: list[dict[str, Any]]) -> bool:
    calls = answer.get("tool_calls") or ()
    if not calls and "<tool_call>" in text_of(answer):
        return False  # what was meant as a call could not be read
    offered = {function.get("name"): function for function in (tool.get("function", tool) for tool in tools)}
    return all(is_valid_call(call, offered) for call in calls)


def is_valid_call(call: Mapping[str, Any], offered: Mapping[Any, Mapping[str, Any]]) -> bool:
    """Whether a call could be read, names a tool that was offered (where known), and has its required arguments."""
    function = call.get("function", {})
    arguments = function.get("arguments")
    if not isinstance(arguments, Mapping) or not function.get("name"):
        return False
    if not offered:
        return True
    if function["name"] not in offered:
        return False
    schema = offered[function["name"]].get("parameters") or {}
    if schema.get("additionalProperties") is False and not set(arguments) <= set(schema.get("properties", ())):
        return False
    return set(schema.get("required", ())) <= set(arguments)
