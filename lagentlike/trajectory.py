"""The trajectory: what one agent saw and did in one conversation, as plain data for rewards and training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args, Literal, Self

from .errors import StateError
from .ledger import LedgerCounts, SampledTurn, Segment
from .schema import to_plain, Usage

__all__ = ["FINISH_REASONS", "FinishReason", "Trajectory", "arguments_of", "as_parts", "text_of"]

FinishReason = Literal[
    "terminal", "no_tool_calls", "max_turns", "max_model_len", "tool_end", "timeout", "cancelled", "error"
]
FINISH_REASONS: tuple[str, ...] = get_args(FinishReason)


@dataclass(slots=True)
class Trajectory:
    """What one agent saw and did in one conversation.

    Attributes:
        messages: the conversation in chat format; see `as_parts` for the shape of one message.
        segments: the token ids as the model read and wrote them; more than one only where a prompt did not extend what
            was there, none where the engine gave no ids (`counts` says how often).
        tools: JSON schemas of the tools that the model was offered.
        reward: what the whole of it was worth; None while nobody has said, or where the reward failed.
        reward_extras: what a reward said besides the number.
        step_rewards: what single messages were worth, one item for each message, None for "not said".
        metrics: figures about it, by name.
        finish_reason: why it ended.
        error: what went wrong, as text; None if nothing did.
        query, chain: number of the query it is for, and of the chain for that query.
        agent: path of the agent in the tree it ran in; "" for the root.
        session_id: the session it was made in.
        metadata: what came with the query besides its messages, such as the right answer.
        wall_time: seconds from the start of the chain to its end.
        usage: requests and tokens of this agent.
        counts: how its answers went into the token ledger.

    `trajectory["messages"]` is `trajectory.messages`, and so on for every field.
    """

    messages: list[dict[str, Any]]
    segments: list[Segment] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    reward: float | None = None
    reward_extras: dict[str, Any] = field(default_factory=dict)
    step_rewards: list[float | None] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    finish_reason: FinishReason = "terminal"
    error: str | None = None
    query: int = 0
    chain: int = 0
    agent: str = ""
    session_id: Any = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    wall_time: float = 0.0
    usage: Usage = field(default_factory=Usage)
    counts: LedgerCounts = field(default_factory=LedgerCounts)

    @property
    def final_response(self) -> str:
        """The text of the last answer; "" if there is none."""
        for message in reversed(self.messages):
            if message.get("role") == "assistant":
                return text_of(message)
        return ""

    @property
    def token_count(self) -> int:
        """How many tokens the model sampled."""
        return sum(len(turn) for segment in self.segments for turn in segment.turns)

    def __getitem__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise KeyError(f"a trajectory has no {name!r}; it has {', '.join(_FIELDS)}")
        return getattr(self, name)

    def keys(self) -> Iterable[str]:
        """The names of its fields, so that `dict(trajectory)` works."""
        return _FIELDS

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def to_dict(self) -> dict[str, Any]:
        """This trajectory as plain JSON data, which `from_dict` reads.

        Raises:
            TypeError: something in it has no JSON form; the message names where it is.
        """
        return {name: to_plain(getattr(self, name), name) for name in _FIELDS}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The trajectory that `to_dict` gave.

        Raises:
            StateError: a field is missing, unknown or of the wrong kind.
        """
        try:
            values = dict(saved)
            values["segments"] = [_segment(item) for item in saved.get("segments", ())]
            values["usage"] = Usage(**saved.get("usage", {}))
            values["counts"] = LedgerCounts(**saved.get("counts", {}))
            trajectory = cls(**values)
        except (TypeError, KeyError, ValueError) as error:
            raise StateError(f"this is no saved trajectory: {error}") from None
        if trajectory.finish_reason not in FINISH_REASONS:
            raise StateError(
                f"finish_reason is {trajectory.finish_reason!r}, and not one of {', '.join(FINISH_REASONS)}"
            )
        return trajectory

    def __repr__(self) -> str:
        told: dict[str, Any] = {"messages": self.messages, "reward": self.reward, "finish_reason": self.finish_reason}
        if self.agent:
            told["agent"] = self.agent
        if self.error is not None:
            told["error"] = self.error
        return repr(told)


_FIELDS = tuple(item.name for item in fields(Trajectory))


def as_parts(message: Mapping[str, Any], text: str | None = None) -> dict[str, Any]:
    """A chat message in the shape that trajectories have.

    `content` is a list of parts (`[{"type": "text", "text": …}]`); an assistant's `tool_calls` is a list, empty without
    calls, whose `arguments` are a dict (a text where the model wrote no JSON object); a tool's message has
    `tool_call_id` and `tool_name`.

    Args:
        message: the message in a chat server's format.
        text: the model's own words, where they are known better than from `message`.
    """
    role, content = message["role"], message.get("content") if text is None else text
    parts = content if isinstance(content, list) else [{"type": "text", "text": str(content or "")}]
    if role == "assistant":
        calls = [_call(call) for call in message.get("tool_calls") or ()]
        return {"role": role, "content": parts, "tool_calls": calls}
    if role == "tool":
        name = message.get("name", message.get("tool_name"))
        return {"role": role, "tool_call_id": message.get("tool_call_id") or None, "tool_name": name, "content": parts}
    return {"role": role, "content": parts}


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a chat message, be its content a text or a list of parts."""
    content = message.get("content")
    if not isinstance(content, list):
        return "" if content is None else str(content)
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def arguments_of(given: Any) -> Any:
    """A call's arguments as a dict, where they are one or the JSON text of one; else as they are."""
    if not isinstance(given, str):
        return given
    try:
        read = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return read if isinstance(read, dict) else given


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    called = {"name": function["name"], "arguments": arguments_of(function["arguments"])}
    return {"id": call.get("id") or None, "type": "function", "function": called}


def _segment(saved: Mapping[str, Any]) -> Segment:
    turns = [SampledTurn(**turn) for turn in saved["turns"]]
    segment = Segment(list(saved["ids"]), list(saved["mask"]), saved["logprobs"], turns)
    lengths = {
        len(segment.ids),
        len(segment.mask),
        len(segment.ids if saved["logprobs"] is None else saved["logprobs"]),
    }
    if len(lengths) > 1:
        raise ValueError("ids, mask and logprobs of a segment differ in length")
    return segment
