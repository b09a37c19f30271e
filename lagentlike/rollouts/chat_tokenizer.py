"""Conversations as token ids; it lives in `prompts.chat`, below the models that use it too."""

from __future__ import annotations

from ..prompts.chat.tokenizer import ChatTokenizer

__all__ = ["ChatTokenizer"]
