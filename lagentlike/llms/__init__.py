"""Language models, one provider a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .base import AsyncBaseLLM, BaseLLM, forbid_real_requests
    from .cached import AsyncCachedLLM, CachedLLM
    from .caches import MemoryCache, SQLiteCache
    from .claude import AsyncClaudeAPI, ClaudeAPI
    from .fallback import AsyncFallbackLLM, FallbackLLM
    from .huggingface import (
        AsyncHFTransformer,
        AsyncHFTransformerCasualLM,
        AsyncHFTransformerChat,
        HFTransformer,
        HFTransformerCasualLM,
        HFTransformerChat,
    )
    from .limits import RateLimiter
    from .llamacpp import AsyncLlamaCppAPI, LlamaCppAPI
    from .lmdeploy import AsyncLMDeployPipeline, LMDeployPipeline
    from .lmdeploy_server import AsyncLMDeployClient, AsyncLMDeployServer, LMDeployClient, LMDeployServer
    from .meta import (
        CHATML_META,
        GEMMA_META,
        GLM4_META,
        INTERNLM2_META,
        LLAMA2_META,
        LLAMA3_META,
        PHI3_META,
        VICUNA_META,
    )
    from .ollama import AsyncOllamaAPI, OllamaAPI
    from .openai import AsyncGPTAPI, GPTAPI
    from .scripted import AsyncScriptedLLM, ScriptedLLM
    from .sensenova import AsyncSensenovaAPI, SensenovaAPI
    from .tiny import AsyncTinyLM, TinyLM
    from .token_api import AsyncTokenAPI, TokenAPI
    from .vllm import AsyncVllmModel, BatchedVllmModel, VllmModel

__all__ = [
    "AsyncBaseLLM",
    "AsyncCachedLLM",
    "AsyncClaudeAPI",
    "AsyncFallbackLLM",
    "AsyncGPTAPI",
    "AsyncHFTransformer",
    "AsyncHFTransformerCasualLM",
    "AsyncHFTransformerChat",
    "AsyncLMDeployClient",
    "AsyncLMDeployPipeline",
    "AsyncLMDeployServer",
    "AsyncLlamaCppAPI",
    "AsyncOllamaAPI",
    "AsyncScriptedLLM",
    "AsyncSensenovaAPI",
    "AsyncTinyLM",
    "AsyncTokenAPI",
    "AsyncVllmModel",
    "BaseLLM",
    "BatchedVllmModel",
    "ClaudeAPI",
    "CachedLLM",
    "FallbackLLM",
    "GPTAPI",
    "HFTransformer",
    "HFTransformerCasualLM",
    "HFTransformerChat",
    "INTERNLM2_META",
    "CHATML_META",
    "GEMMA_META",
    "GLM4_META",
    "LLAMA2_META",
    "LLAMA3_META",
    "PHI3_META",
    "VICUNA_META",
    "LMDeployClient",
    "LMDeployPipeline",
    "LMDeployServer",
    "MemoryCache",
    "LlamaCppAPI",
    "OllamaAPI",
    "RateLimiter",
    "SQLiteCache",
    "ScriptedLLM",
    "SensenovaAPI",
    "TinyLM",
    "TokenAPI",
    "VllmModel",
    "forbid_real_requests",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "base": ["AsyncBaseLLM", "BaseLLM", "forbid_real_requests"],
        "claude": ["AsyncClaudeAPI", "ClaudeAPI"],
        "cached": ["AsyncCachedLLM", "CachedLLM"],
        "caches": ["MemoryCache", "SQLiteCache"],
        "fallback": ["AsyncFallbackLLM", "FallbackLLM"],
        "huggingface": [
            "AsyncHFTransformer",
            "AsyncHFTransformerCasualLM",
            "AsyncHFTransformerChat",
            "HFTransformer",
            "HFTransformerCasualLM",
            "HFTransformerChat",
        ],
        "limits": ["RateLimiter"],
        "llamacpp": ["AsyncLlamaCppAPI", "LlamaCppAPI"],
        "lmdeploy": ["AsyncLMDeployPipeline", "LMDeployPipeline"],
        "lmdeploy_server": ["AsyncLMDeployClient", "AsyncLMDeployServer", "LMDeployClient", "LMDeployServer"],
        "meta": [
            "CHATML_META",
            "GEMMA_META",
            "GLM4_META",
            "INTERNLM2_META",
            "LLAMA2_META",
            "LLAMA3_META",
            "PHI3_META",
            "VICUNA_META",
        ],
        "ollama": ["AsyncOllamaAPI", "OllamaAPI"],
        "openai": ["AsyncGPTAPI", "GPTAPI"],
        "scripted": ["AsyncScriptedLLM", "ScriptedLLM"],
        "sensenova": ["AsyncSensenovaAPI", "SensenovaAPI"],
        "tiny": ["AsyncTinyLM", "TinyLM"],
        "token_api": ["AsyncTokenAPI", "TokenAPI"],
        "vllm": ["AsyncVllmModel", "BatchedVllmModel", "VllmModel"],
    },
)
