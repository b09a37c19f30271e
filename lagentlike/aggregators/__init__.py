"""Memory and prompt in, the messages that a model is sent out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .budget import BudgetAggregator
    from .default import DefaultAggregator
    from .internlm import InternLMToolAggregator

__all__ = ["BudgetAggregator", "DefaultAggregator", "InternLMToolAggregator"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "budget": ["BudgetAggregator"],
        "default": ["DefaultAggregator"],
        "internlm": ["InternLMToolAggregator"],
    },
)
