"""Rollouts: agents run over many conversations, token-exact trajectories, rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from ..ledger import LedgerCounts, SampledTurn, Segment, TokenLedger
    from ..trajectory import Trajectory
    from .chat_tokenizer import ChatTokenizer
    from .environments import current_context, current_environment, EnvironmentPool
    from .result import RunResult
    from .rewards import reward
    from .rows import tokenize_trajectories
    from .runner import Chain, rollout, RolloutEvent, stream_rollout
    from .templates import ChatTemplate

__all__ = [
    "Chain",
    "ChatTemplate",
    "ChatTokenizer",
    "EnvironmentPool",
    "LedgerCounts",
    "RolloutEvent",
    "RunResult",
    "SampledTurn",
    "Segment",
    "TokenLedger",
    "Trajectory",
    "current_context",
    "current_environment",
    "reward",
    "rollout",
    "stream_rollout",
    "tokenize_trajectories",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "..ledger": ["LedgerCounts", "SampledTurn", "Segment", "TokenLedger"],
        "..trajectory": ["Trajectory"],
        "chat_tokenizer": ["ChatTokenizer"],
        "environments": ["EnvironmentPool", "current_context", "current_environment"],
        "result": ["RunResult"],
        "rewards": ["reward"],
        "rows": ["tokenize_trajectories"],
        "runner": ["Chain", "RolloutEvent", "rollout", "stream_rollout"],
        "templates": ["ChatTemplate"],
    },
)
