"""Chat templates by the name of their family; they live in `prompts.chat`, below the models that use them too."""

from __future__ import annotations

from ...prompts.chat.template import ChatTemplate

__all__ = ["ChatTemplate"]
