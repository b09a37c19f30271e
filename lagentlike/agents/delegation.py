"""Agents as tools: what another agent is given is all that it sees."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..actions.base import BaseAction
from ..errors import InvalidArgument, ToolError
from ..memory import SessionId
from ..memory.state import SessionValue
from ..schema import AgentMessage, Usage
from .agent import Agent
from .run import run_of

__all__ = ["AgentTool", "AnsweringTool", "AsyncAgentTool", "AsyncDelegate", "Delegate", "agent_tool"]

MAX_DELEGATIONS = 16
"""How many sub-agents a session may have."""


class AnsweringTool(BaseAction):
    """A tool that asks an agent.

    Attributes:
        spent: what sub-agents cost that nobody has counted yet, by session.
    """

    agent: Agent | None
    spent: dict[SessionId, Usage]

    def _hold(self, agent: Agent | None) -> None:
        self.agent = agent
        self.stops_itself = hasattr(agent, "interrupt")  # then it ends with what it has
        self.spent = {}
        self._numbers = itertools.count(1)

    @contextmanager
    def _session(self, session_id: SessionId) -> Iterator[tuple[Any, SessionId]]:
        """The agent and a new session of it, forgotten when it has answered."""
        if self.agent is None:
            raise ToolError("there is no sub-agent to hand tasks to")
        agent, inner = self.agent, (session_id, self.name, next(self._numbers))
        try:
            yield agent, inner
        finally:
            agent.reset(inner, recursive=True)

    def _read(self, reply: AgentMessage, session_id: SessionId) -> str:
        run = run_of(reply)
        usage = Usage(**run["usage"]) if "usage" in run else reply.usage or Usage()
        self.spent[session_id] = self.spent.get(session_id, Usage()) + usage
        if reply.finish_reason in (None, "stop") or not run:
            return str(reply.content)
        why = run.get("detail") or reply.finish_reason
        if not reply.content:
            raise ToolError(f"{reply.sender} gave no answer: {why}")
        return f"{reply.content}\n({reply.sender} did not finish: {why})"


class AgentTool(AnsweringTool):
    """An agent as a tool: it gets a request, and its reply is the result.

    Each call is a conversation of its own, of which nothing stays.

    Args:
        agent: who answers.
        name: what the tool is called; the agent's name by default.
        description: what it is good for; the agent's description by default.
    """

    def __init__(self, agent: Agent, name: str | None = None, description: str | None = None) -> None:
        if not isinstance(agent, Agent):
            raise InvalidArgument("agent", agent, "give an agent")
        self._hold(agent)
        super().__init__(description or agent.description or f"Ask {agent.name}.", name or agent.name)

    def run(self, request: str, session_id: SessionId = 0) -> str:
        """Ask an agent.

        Args:
            request: all that it needs to know; it sees nothing else.
        """
        with self._session(session_id) as (agent, inner):
            return self._read(_last(agent(request, session_id=inner)), session_id)


class AsyncAgentTool(AgentTool):
    """The form of `AgentTool` for async agents."""

    async def run(self, request: str, session_id: SessionId = 0) -> str:  # type: ignore[override]  # the async form
        """Ask an agent.

        Args:
            request: all that it needs to know; it sees nothing else.
        """
        with self._session(session_id) as (agent, inner):
            return self._read(await _last_async(agent(request, session_id=inner)), session_id)


class Delegate(AnsweringTool):
    """Hand a task to a sub-agent with a fresh conversation.

    Args:
        agent: the sub-agent; an `AIAgent` that has this tool in a toolset makes its own.
        most: how many tasks a session may hand over.
    """

    def __init__(self, agent: Agent | None = None, most: int = MAX_DELEGATIONS) -> None:
        super().__init__(name="delegate")
        self.most = most
        self.used = SessionValue(int)
        self._hold(agent)

    def run(self, task: str, context: str = "", session_id: SessionId = 0) -> str:
        """Hand a task to a sub-agent that works on it alone and reports back.

        Args:
            task: what to do, and what to report.
            context: all that it needs to know; it sees nothing of this conversation.
        """
        with self._session(session_id) as (agent, inner):
            return self._read(_last(agent(self._request(task, context, session_id), session_id=inner)), session_id)

    def _request(self, task: str, context: str, session_id: SessionId) -> str:
        if self.used[session_id] >= self.most:
            raise ToolError(f"this conversation has handed over {self.most} tasks already: do the rest yourself")
        self.used[session_id] += 1
        return f"{task}\n\n{context}" if context else task


class AsyncDelegate(Delegate):
    """The form of `Delegate` for async agents."""

    async def run(  # type: ignore[override]  # the async form
        self, task: str, context: str = "", session_id: SessionId = 0
    ) -> str:
        """Hand a task to a sub-agent that works on it alone and reports back.

        Args:
            task: what to do, and what to report.
            context: all that it needs to know; it sees nothing of this conversation.
        """
        with self._session(session_id) as (agent, inner):
            request = self._request(task, context, session_id)
            return self._read(await _last_async(agent(request, session_id=inner)), session_id)


def agent_tool(agent: Agent, name: str | None, description: str | None) -> AgentTool:
    """An agent as a tool, in its colour."""
    kind: Callable[..., AgentTool] = AsyncAgentTool if agent.colour.is_async else AgentTool
    return kind(agent, name, description)


def _last(reply: Any) -> AgentMessage:
    """The reply, or the last part of a stream."""
    last: AgentMessage = reply
    if not isinstance(reply, AgentMessage):
        for part in reply:
            last = part
    return last


async def _last_async(reply: Any) -> AgentMessage:
    last: AgentMessage
    if not hasattr(reply, "__aiter__"):
        last = await reply
        return last
    async for part in reply:
        reply = part
    last = reply
    return last
