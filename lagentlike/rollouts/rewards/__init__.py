"""What a trajectory was worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import attach

if TYPE_CHECKING:
    from .agents import per_agent
    from .base import Reward, reward, RewardGroup, RewardResult
    from .code import code_tests
    from .exact import exact_match
    from .form import format_reward
    from .judge import llm_judge
    from .maths import math_equality
    from .overlap import f1
    from .registry import get_reward
    from .scoring import check_reward, missing, score, wants
    from .steps import per_step
    from .tools import tool_use

__all__ = [
    "Reward",
    "RewardGroup",
    "RewardResult",
    "check_reward",
    "code_tests",
    "exact_match",
    "f1",
    "format_reward",
    "get_reward",
    "llm_judge",
    "math_equality",
    "missing",
    "per_agent",
    "per_step",
    "reward",
    "score",
    "tool_use",
    "wants",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "agents": ["per_agent"],
        "base": ["Reward", "RewardGroup", "RewardResult", "reward"],
        "code": ["code_tests"],
        "exact": ["exact_match"],
        "form": ["format_reward"],
        "judge": ["llm_judge"],
        "maths": ["math_equality"],
        "overlap": ["f1"],
        "registry": ["get_reward"],
        "scoring": ["check_reward", "missing", "score", "wants"],
        "steps": ["per_step"],
        "tools": ["tool_use"],
    },
)
