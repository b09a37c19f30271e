"""Agents: units with a model, a memory, and an aggregator between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from ..rollouts.agents import AutoAgent, CodeAgent, HFAgent, ReactAgent
    from .agent import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent
    from .containers import (
        AgentDict,
        AgentList,
        AsyncSequential,
        AsyncStreamingSequential,
        Sequential,
        StreamingSequential,
    )
    from .internlm import AgentForInternLM, AsyncAgentForInternLM, AsyncMathCoder, MathCoder
    from .react import AsyncReAct, AsyncStreamingReAct, ReAct, StreamingReAct
    from .workflow import AsyncStreamingWorkflow, AsyncWorkflow, StreamingWorkflow, Workflow

__all__ = [
    "Agent",
    "AgentDict",
    "AgentForInternLM",
    "AgentList",
    "AsyncAgent",
    "AsyncAgentForInternLM",
    "AsyncMathCoder",
    "AsyncReAct",
    "AsyncSequential",
    "AsyncStreamingAgent",
    "AsyncStreamingReAct",
    "AsyncStreamingSequential",
    "AsyncStreamingWorkflow",
    "AsyncWorkflow",
    "AutoAgent",
    "CodeAgent",
    "HFAgent",
    "MathCoder",
    "ReAct",
    "ReactAgent",
    "Sequential",
    "StreamingAgent",
    "StreamingReAct",
    "StreamingSequential",
    "StreamingWorkflow",
    "Workflow",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "agent": ["Agent", "AsyncAgent", "AsyncStreamingAgent", "StreamingAgent"],
        "containers": [
            "AgentDict",
            "AgentList",
            "AsyncSequential",
            "AsyncStreamingSequential",
            "Sequential",
            "StreamingSequential",
        ],
        "internlm": ["AgentForInternLM", "AsyncAgentForInternLM", "AsyncMathCoder", "MathCoder"],
        # They are made of what stands above this package.
        "..rollouts.agents": ["AutoAgent", "CodeAgent", "HFAgent", "ReactAgent"],
        "react": ["AsyncReAct", "AsyncStreamingReAct", "ReAct", "StreamingReAct"],
        "workflow": ["AsyncStreamingWorkflow", "AsyncWorkflow", "StreamingWorkflow", "Workflow"],
    },
)
