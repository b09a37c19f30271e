"""Language models, one provider a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .base import AsyncBaseLLM, BaseLLM, forbid_real_requests
    from .openai import AsyncGPTAPI, GPTAPI
    from .scripted import AsyncScriptedLLM, ScriptedLLM
    from .tiny import AsyncTinyLM, TinyLM

__all__ = [
    "AsyncBaseLLM",
    "AsyncGPTAPI",
    "AsyncScriptedLLM",
    "AsyncTinyLM",
    "BaseLLM",
    "GPTAPI",
    "ScriptedLLM",
    "TinyLM",
    "forbid_real_requests",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "base": ["AsyncBaseLLM", "BaseLLM", "forbid_real_requests"],
        "openai": ["AsyncGPTAPI", "GPTAPI"],
        "scripted": ["AsyncScriptedLLM", "ScriptedLLM"],
        "tiny": ["AsyncTinyLM", "TinyLM"],
    },
)
