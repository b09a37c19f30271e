"""The aggregators, under the path that Lagent has for them."""

from ..aggregators import DefaultAggregator, InternLMToolAggregator

__all__ = ["DefaultAggregator", "InternLMToolAggregator"]
