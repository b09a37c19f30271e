"""Agents: units with a model, a memory and a way to turn one into messages for the other."""

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
    "MathCoder",
    "ReAct",
    "Sequential",
    "StreamingAgent",
    "StreamingReAct",
    "StreamingSequential",
]
