"""The language model that the package carries, on numpy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import attach

if TYPE_CHECKING:
    from .llm import AsyncTinyLM, TinyLM

__all__ = ["AsyncTinyLM", "TinyLM"]

__getattr__, __dir__ = attach(__name__, {"llm": ["AsyncTinyLM", "TinyLM"]})
