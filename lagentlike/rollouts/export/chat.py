"""The messages of trajectories in the plain chat format that other libraries take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...prompts.parsers.tool_call import parse_tool_calls
from ...trajectory import text_of, Trajectory

__all__ = ["answers_in", "by_query", "chat_messages", "prompt_length", "right_answer"]


def chat_messages(trajectory: Trajectory) -> list[dict[str, Any]]:
    """The messages with text as content; calls are in `tool_calls` alone, with their arguments as dicts.

    A call that could not be read stays text, as the model wrote it.
    """
    return [_message(message) for message in trajectory.messages]


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role, content = message["role"], text_of(message)
    if role == "tool":
        named = {"name": message["tool_name"]} if message.get("tool_name") else {}
        answered = {"tool_call_id": message["tool_call_id"]} if message.get("tool_call_id") else {}
        return {"role": role, **named, **answered, "content": content}
    calls = message.get("tool_calls") or ()
    if role != "assistant" or not calls or any(not isinstance(_arguments(call), Mapping) for call in calls):
        return {"role": role, "content": content}
    parsed = parse_tool_calls(content)
    return {
        "role": role,
        "content": parsed.content if parsed.calls else content,
        "tool_calls": [_call(c) for c in calls],
    }


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    kept = {"id": call["id"]} if call.get("id") else {}
    return {**kept, "type": "function", "function": {"name": call["function"]["name"], "arguments": _arguments(call)}}


def _arguments(call: Mapping[str, Any]) -> Any:
    return call["function"]["arguments"]


def answers_in(trajectory: Trajectory) -> list[int]:
    """Numbers of the messages that the agent's model made; assistant messages of the query come before them."""
    said = [index for index, message in enumerate(trajectory.messages) if message["role"] == "assistant"]
    return said[-trajectory.counts.turns :] if trajectory.counts.turns else said


def prompt_length(trajectory: Trajectory) -> int:
    """How many messages come before the first answer."""
    return min(answers_in(trajectory), default=len(trajectory.messages))


def by_query(trajectories: Iterable[Trajectory]) -> dict[tuple[int, str], list[Trajectory]]:
    """The trajectories of each query and agent, in order."""
    groups: dict[tuple[int, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault((trajectory.query, trajectory.agent), []).append(trajectory)
    return groups


def right_answer(metadata: Mapping[str, Any]) -> Any:
    """The right answer of a query, if its metadata has one."""
    return metadata.get("ground_truth", metadata.get("answer"))
