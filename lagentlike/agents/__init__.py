"""Agents: units with a model, a memory, and an aggregator between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from ..rollouts.agents import AutoAgent, CodeAgent, HFAgent, ReactAgent
    from .agent import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent
    from .ai_agent import AIAgent, AsyncAIAgent, AsyncStreamingAIAgent, StreamingAIAgent
    from .compression import Compressed, DropOldest
    from .containers import (
        AgentDict,
        AgentList,
        AsyncSequential,
        AsyncStreamingSequential,
        Sequential,
        StreamingSequential,
    )
    from .delegation import AgentTool, AsyncAgentTool
    from .guardrails import Guardrails, Refuse
    from .handoffs import HandBack, Handoff
    from .internlm import AgentForInternLM, AsyncAgentForInternLM, AsyncMathCoder, MathCoder
    from .limits import RunLimits
    from .react import AsyncReAct, AsyncStreamingReAct, ReAct, StreamingReAct
    from .workflow import AsyncStreamingWorkflow, AsyncWorkflow, StreamingWorkflow, Workflow

__all__ = [
    "AIAgent",
    "Agent",
    "AgentDict",
    "AgentForInternLM",
    "AgentList",
    "AgentTool",
    "AsyncAIAgent",
    "AsyncAgent",
    "AsyncAgentForInternLM",
    "AsyncAgentTool",
    "AsyncMathCoder",
    "AsyncReAct",
    "AsyncSequential",
    "AsyncStreamingAIAgent",
    "AsyncStreamingAgent",
    "AsyncStreamingReAct",
    "AsyncStreamingSequential",
    "AsyncStreamingWorkflow",
    "AsyncWorkflow",
    "AutoAgent",
    "CodeAgent",
    "Compressed",
    "DropOldest",
    "Guardrails",
    "HFAgent",
    "HandBack",
    "Handoff",
    "MathCoder",
    "ReAct",
    "ReactAgent",
    "Refuse",
    "RunLimits",
    "Sequential",
    "StreamingAIAgent",
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
        "ai_agent": ["AIAgent", "AsyncAIAgent", "AsyncStreamingAIAgent", "StreamingAIAgent"],
        "compression": ["Compressed", "DropOldest"],
        "containers": [
            "AgentDict",
            "AgentList",
            "AsyncSequential",
            "AsyncStreamingSequential",
            "Sequential",
            "StreamingSequential",
        ],
        "delegation": ["AgentTool", "AsyncAgentTool"],
        "guardrails": ["Guardrails", "Refuse"],
        "handoffs": ["HandBack", "Handoff"],
        "internlm": ["AgentForInternLM", "AsyncAgentForInternLM", "AsyncMathCoder", "MathCoder"],
        # They are made of what stands above this package.
        "..rollouts.agents": ["AutoAgent", "CodeAgent", "HFAgent", "ReactAgent"],
        "limits": ["RunLimits"],
        "react": ["AsyncReAct", "AsyncStreamingReAct", "ReAct", "StreamingReAct"],
        "workflow": ["AsyncStreamingWorkflow", "AsyncWorkflow", "StreamingWorkflow", "Workflow"],
    },
)
