"""Records as trajectories, which rewards judge and rows for training are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ledger import TokenLedger
from ..trajectory import as_parts, FINISH_REASONS, FinishReason, Trajectory
from .chat import to_openai
from .record import ConversationRecord

__all__ = ["to_trajectory"]

_REASONS: Mapping[str | None, FinishReason] = {
    "stop": "no_tool_calls",
    "length": "max_model_len",
    None: "no_tool_calls",
}


def to_trajectory(record: ConversationRecord, **details: Any) -> Trajectory:
    """A record as a trajectory, its token ids spliced and never made anew.

    `rollouts.tokenize_trajectories` makes rows of token ids of it, `rollouts.export` datasets for supervised training
    and reinforcement learning.

    Args:
        record: the record; its reward is the one that a batch run left in `metadata["reward"]`.
        details: further fields of the trajectory, or others than the record tells.
    """
    messages = to_openai(record)["messages"]
    answers = [message for message in record.messages if record.role_of(message) == "assistant"]
    places = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    ledger = TokenLedger()
    for index, answer in zip(places, answers, strict=True):
        ledger.add(answer.tokens, index)
    values: dict[str, Any] = {
        "segments": ledger.segments,
        "tools": record.tools,
        "reward": _reward(record),
        "finish_reason": _reason(record),
        "agent": record.agent,
        "session_id": record.id,
        "metadata": dict(record.metadata),
        "wall_time": record.ended_at - record.started_at,
        "usage": record.usage,
        "counts": ledger.counts,
    }
    return Trajectory([as_parts(message) for message in messages], **{**values, **details})


def _reward(record: ConversationRecord) -> float | None:
    kept = record.metadata.get("reward")
    reward = kept.get("reward") if isinstance(kept, dict) else None
    return reward if isinstance(reward, int | float) else None


def _reason(record: ConversationRecord) -> FinishReason:
    reason = record.finish_reason
    if reason in FINISH_REASONS:
        return reason  # type: ignore[return-value]  # it is one of them
    return _REASONS.get(reason, "terminal" if record.completed else "error")
