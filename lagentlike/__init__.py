"""Agents are to conversations what `nn.Module` is to tensors.

Write `__init__` and `forward`, compose units by attribute assignment, look at them with `state_dict`, and call them
blocking, async or streaming, over many sessions at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import attach

if TYPE_CHECKING:
    from .actions import ActionExecutor, AsyncActionExecutor, BaseAction, tool
    from .agents import (
        Agent,
        AgentDict,
        AgentList,
        AsyncAgent,
        AsyncReAct,
        AsyncSequential,
        AsyncStreamingAgent,
        AsyncStreamingSequential,
        ReAct,
        Sequential,
        StreamingAgent,
        StreamingSequential,
    )
    from .budget import Budget
    from .hooks import Hook
    from .llms import AsyncGPTAPI, AsyncTinyLM, GPTAPI, ScriptedLLM, TinyLM
    from .memory import Memory
    from .module import Module
    from .schema import AgentMessage

__version__ = "0.1.0"

__all__ = [
    "ActionExecutor",
    "Agent",
    "AgentDict",
    "AgentList",
    "AgentMessage",
    "AsyncActionExecutor",
    "AsyncAgent",
    "AsyncGPTAPI",
    "AsyncReAct",
    "AsyncSequential",
    "AsyncStreamingAgent",
    "AsyncStreamingSequential",
    "AsyncTinyLM",
    "BaseAction",
    "Budget",
    "GPTAPI",
    "Hook",
    "Memory",
    "Module",
    "ReAct",
    "ScriptedLLM",
    "Sequential",
    "StreamingAgent",
    "StreamingSequential",
    "TinyLM",
    "tool",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "actions": ["ActionExecutor", "AsyncActionExecutor", "BaseAction", "tool"],
        "agents": [
            "Agent",
            "AgentDict",
            "AgentList",
            "AsyncAgent",
            "AsyncReAct",
            "AsyncSequential",
            "AsyncStreamingAgent",
            "AsyncStreamingSequential",
            "ReAct",
            "Sequential",
            "StreamingAgent",
            "StreamingSequential",
        ],
        "budget": ["Budget"],
        "hooks": ["Hook"],
        "llms": ["AsyncGPTAPI", "AsyncTinyLM", "GPTAPI", "ScriptedLLM", "TinyLM"],
        "memory": ["Memory"],
        "module": ["Module"],
        "schema": ["AgentMessage"],
    },
)
