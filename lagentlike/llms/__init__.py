"""Language models, one provider a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .base import AsyncBaseLLM, BaseLLM, forbid_real_requests
    from .fallback import AsyncFallbackLLM, FallbackLLM
    from .huggingface import AsyncHFTransformer, HFTransformer
    from .lmdeploy import AsyncLMDeployPipeline, LMDeployPipeline
    from .meta import INTERNLM2_META
    from .openai import AsyncGPTAPI, GPTAPI
    from .scripted import AsyncScriptedLLM, ScriptedLLM
    from .tiny import AsyncTinyLM, TinyLM
    from .token_api import AsyncTokenAPI, TokenAPI
    from .vllm import AsyncVllmModel, BatchedVllmModel, VllmModel

__all__ = [
    "AsyncBaseLLM",
    "AsyncFallbackLLM",
    "AsyncGPTAPI",
    "AsyncHFTransformer",
    "AsyncLMDeployPipeline",
    "AsyncScriptedLLM",
    "AsyncTinyLM",
    "AsyncTokenAPI",
    "AsyncVllmModel",
    "BaseLLM",
    "BatchedVllmModel",
    "FallbackLLM",
    "GPTAPI",
    "HFTransformer",
    "INTERNLM2_META",
    "LMDeployPipeline",
    "ScriptedLLM",
    "TinyLM",
    "TokenAPI",
    "VllmModel",
    "forbid_real_requests",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "base": ["AsyncBaseLLM", "BaseLLM", "forbid_real_requests"],
        "fallback": ["AsyncFallbackLLM", "FallbackLLM"],
        "huggingface": ["AsyncHFTransformer", "HFTransformer"],
        "lmdeploy": ["AsyncLMDeployPipeline", "LMDeployPipeline"],
        "meta": ["INTERNLM2_META"],
        "openai": ["AsyncGPTAPI", "GPTAPI"],
        "scripted": ["AsyncScriptedLLM", "ScriptedLLM"],
        "tiny": ["AsyncTinyLM", "TinyLM"],
        "token_api": ["AsyncTokenAPI", "TokenAPI"],
        "vllm": ["AsyncVllmModel", "BatchedVllmModel", "VllmModel"],
    },
)
