"""How a conversation becomes the text, and the tokens, that a model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import attach

if TYPE_CHECKING:
    from .template import ChatTemplate
    from .tokenizer import ChatTokenizer

__all__ = ["ChatTemplate", "ChatTokenizer"]

__getattr__, __dir__ = attach(__name__, {"template": ["ChatTemplate"], "tokenizer": ["ChatTokenizer"]})
