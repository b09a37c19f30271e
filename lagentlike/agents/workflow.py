"""Workflows written once for all four colours: a generator says whom to call next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from typing import Any, NamedTuple

from ..colour import careful
from ..memory import SessionId
from ..schema import AgentMessage
from .agent import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent

__all__ = ["AsyncStreamingWorkflow", "AsyncWorkflow", "Call", "Steps", "StreamingWorkflow", "Workflow"]


class Call(NamedTuple):
    """The next call of a workflow: a unit, its message, and what else it is given by name."""

    unit: Any
    message: AgentMessage
    kwargs: dict[str, Any] = {}  # noqa: RUF012  # never changed


Steps = Generator[Call, AgentMessage, AgentMessage]
"""Yields calls, is sent their replies, and returns the workflow's reply."""


class Workflow(Agent):
    """An agent whose `steps` say whom to call next; for patterns that should exist in all four colours.

    A subclass writes `steps`; `class AsyncX(X, AsyncWorkflow)` and the streaming forms then need nothing but their
    units in the right colour. Workflows of one colour are more plainly written as an agent with a `forward`.
    """

    def steps(self, *message: AgentMessage, session_id: SessionId, **kwargs: Any) -> Steps:
        """Yield a `Call`, get its reply, and so on; return the last reply."""
        raise NotImplementedError(f"{type(self).__name__} must define steps(self, *message, session_id, **kwargs)")

    @careful
    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Make the calls that `steps` asks for."""
        steps = self.steps(*message, session_id=session_id, **kwargs)
        reply: Any = None
        try:
            while True:
                try:
                    unit, given, options = steps.send(reply)
                except StopIteration as done:
                    return done.value
                reply = unit(given, session_id=session_id, **options)
        finally:
            steps.close()

    def _is_careful(self) -> bool:
        steps_are = getattr(type(self).steps, "careful", False) and "steps" not in self.__dict__
        return steps_are and super()._is_careful()


class AsyncWorkflow(Workflow, AsyncAgent):
    """See `Workflow`."""

    @careful
    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Make the calls that `steps` asks for."""
        steps = self.steps(*message, session_id=session_id, **kwargs)
        reply: Any = None
        try:
            while True:
                try:
                    unit, given, options = steps.send(reply)
                except StopIteration as done:
                    return done.value
                reply = await unit(given, session_id=session_id, **options)
        finally:
            steps.close()


class StreamingWorkflow(Workflow, StreamingAgent):
    """See `Workflow`; gives out what the streaming units do, and the replies of the others."""

    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Iterator[AgentMessage]:
        """Make the calls that `steps` asks for, giving out their messages as they come."""
        with closing(self.steps(*message, session_id=session_id, **kwargs)) as steps:
            reply: Any = None
            while True:
                try:
                    unit, given, options = steps.send(reply)
                except StopIteration as done:
                    if done.value is not reply:
                        yield done.value
                    return
                if not unit.colour.is_streaming:
                    reply = unit(given, session_id=session_id, **options)
                    yield reply
                    continue
                with closing(unit(given, session_id=session_id, **options)) as stream:
                    for reply in stream:
                        yield reply


class AsyncStreamingWorkflow(AsyncWorkflow, AsyncStreamingAgent):
    """See `Workflow`; gives out what the streaming units do, and the replies of the others."""

    async def forward(  # type: ignore[override]  # the streaming form of the same call
        self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Make the calls that `steps` asks for, giving out their messages as they come."""
        with closing(self.steps(*message, session_id=session_id, **kwargs)) as steps:
            reply: Any = None
            while True:
                try:
                    unit, given, options = steps.send(reply)
                except StopIteration as done:
                    if done.value is not reply:
                        yield done.value
                    return
                if not unit.colour.is_streaming:
                    reply = await unit(given, session_id=session_id, **options)
                    yield reply
                    continue
                async with aclosing(unit(given, session_id=session_id, **options)) as stream:
                    async for reply in stream:
                        yield reply
