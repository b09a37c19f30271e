"""Agents made for rollouts: their trajectories are exact to the token."""

from .auto import AutoAgent
from .code import CodeAgent
from .hf import HFAgent
from .react import ReactAgent

__all__ = ["AutoAgent", "CodeAgent", "HFAgent", "ReactAgent"]
