"""Memory and prompt in, the messages that a model is sent out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .default import DefaultAggregator
    from .internlm import InternLMToolAggregator

__all__ = ["DefaultAggregator", "InternLMToolAggregator"]

__getattr__, __dir__ = attach(__name__, {"default": ["DefaultAggregator"], "internlm": ["InternLMToolAggregator"]})
