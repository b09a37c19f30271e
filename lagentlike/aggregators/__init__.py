"""Memory and prompt in, the messages that a model is sent out."""

from .default import DefaultAggregator
from .internlm import InternLMToolAggregator

__all__ = ["DefaultAggregator", "InternLMToolAggregator"]
