"""Checks of what goes into a run, what comes out of it, and what its tools are called with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import InvalidArgument
from ..schema import AgentMessage
from .callbacks import Callbacks
from .workflow import Call

__all__ = ["Guardrail", "Guardrails", "Refuse", "screened"]

Guardrail = Callable[[Any], Any]
"""Gets what it is to check, and returns None to let it pass, `Refuse(reason)`, or what is to take its place."""


@dataclass(frozen=True)
class Refuse:
    """What a guardrail returns to refuse something; the reason is shown to the user or the model."""

    reason: str


@dataclass(frozen=True)
class Guardrails:
    """Checks around a run, plain functions or, in async agents, async ones too.

    Args:
        input: each gets the content of the user's message. A refusal ends the run; its reason is the reply.
        tool_call: each gets a `ToolCall` before it is made. The reason of a refusal is the call's result.
        output: each gets the text of the answer. The model gets the reason of a refusal, and may answer anew.
    """

    input: Sequence[Guardrail] = ()
    tool_call: Sequence[Guardrail] = ()
    output: Sequence[Guardrail] = ()

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, list | tuple) or not all(map(callable, value)):
                raise InvalidArgument(item.name, value, "give a list of functions")


def screened(guardrails: Sequence[Guardrail], subject: Any, callbacks: Callbacks) -> Generator[Call, AgentMessage, Any]:
    """What the guardrails leave of something, or the `Refuse` of the first that refuses it."""
    for guardrail in guardrails:
        verdict = (yield callbacks.call(guardrail, subject)).formatted
        if isinstance(verdict, Refuse):
            return verdict
        if verdict is not None:
            subject = verdict
    return subject
