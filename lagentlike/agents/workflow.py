"""Workflows written once for all four colours: a generator says whom to call next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from typing import Any, NamedTuple

from ..colour import careful
from ..memory import SessionId
from ..schema import AgentMessage
from ..turn import lend
from .agent import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent

__all__ = ["AsyncStreamingWorkflow", "AsyncWorkflow", "Call", "Steps", "StreamingWorkflow", "Workflow"]


class Call(NamedTuple):
    """The next call of a workflow.

    Attributes:
        unit: what is called.
        message: its message, or a tuple of several.
        kwargs: what else it is given by name.
        shown: whether a streaming workflow gives out its reply.
    """

    unit: Any
    message: AgentMessage | tuple[AgentMessage, ...]
    kwargs: dict[str, Any] = {}  # noqa: RUF012  # never changed
    shown: bool = True

    @property
    def messages(self) -> tuple[AgentMessage, ...]:
        """The messages of the call."""
        return self.message if type(self.message) is tuple else (self.message,)  # type: ignore[return-value]  # as said


Steps = Generator[Call, AgentMessage, AgentMessage]
"""Yields calls, is sent their replies, and returns the workflow's reply.

The error of a call that fails is raised where the call was yielded: `steps` may catch it and go on.
"""


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
        with closing(self.steps(*message, session_id=session_id, **kwargs)) as steps:
            try:
                call = next(steps)
                while True:
                    lend(self)
                    try:
                        reply = call.unit(*call.messages, session_id=session_id, **call.kwargs)
                    except Exception as error:  # noqa: BLE001  # it is for `steps` to say
                        call = steps.throw(error)
                    else:
                        call = steps.send(reply)
            except StopIteration as done:
                return done.value

    def _is_careful(self) -> bool:
        steps_are = getattr(type(self).steps, "careful", False) and "steps" not in self.__dict__
        return steps_are and super()._is_careful()


class AsyncWorkflow(Workflow, AsyncAgent):
    """See `Workflow`."""

    @careful
    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Make the calls that `steps` asks for."""
        with closing(self.steps(*message, session_id=session_id, **kwargs)) as steps:
            try:
                call = next(steps)
                while True:
                    lend(self)
                    try:
                        reply = await call.unit(*call.messages, session_id=session_id, **call.kwargs)
                    except Exception as error:  # noqa: BLE001  # it is for `steps` to say
                        call = steps.throw(error)
                    else:
                        call = steps.send(reply)
            except StopIteration as done:
                return done.value


class StreamingWorkflow(Workflow, StreamingAgent):
    """See `Workflow`; gives out what the streaming units do, and the replies of the others."""

    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Iterator[AgentMessage]:
        """Make the calls that `steps` asks for, giving out their messages as they come."""
        with closing(self.steps(*message, session_id=session_id, **kwargs)) as steps:
            reply: Any = None
            try:
                call = next(steps)
                while True:
                    try:
                        answer = call.unit(*call.messages, session_id=session_id, **call.kwargs)
                        if call.unit.colour.is_streaming:
                            with closing(answer) as stream:
                                for reply in stream:
                                    yield reply
                        else:
                            reply = answer
                            if call.shown:
                                yield reply
                    except Exception as error:  # noqa: BLE001  # it is for `steps` to say
                        call = steps.throw(error)
                    else:
                        call = steps.send(reply)
            except StopIteration as done:
                if done.value is not reply:
                    yield done.value


class AsyncStreamingWorkflow(AsyncWorkflow, AsyncStreamingAgent):
    """See `Workflow`; gives out what the streaming units do, and the replies of the others."""

    async def forward(  # type: ignore[override]  # the streaming form of the same call
        self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Make the calls that `steps` asks for, giving out their messages as they come."""
        with closing(self.steps(*message, session_id=session_id, **kwargs)) as steps:
            reply: Any = None
            try:
                call = next(steps)
                while True:
                    try:
                        answer = call.unit(*call.messages, session_id=session_id, **call.kwargs)
                        if call.unit.colour.is_streaming:
                            async with aclosing(answer) as stream:
                                async for reply in stream:
                                    yield reply
                        else:
                            reply = await answer
                            if call.shown:
                                yield reply
                    except Exception as error:  # noqa: BLE001  # it is for `steps` to say
                        call = steps.throw(error)
                    else:
                        call = steps.send(reply)
            except StopIteration as done:
                if done.value is not reply:
                    yield done.value
