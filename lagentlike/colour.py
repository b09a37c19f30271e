"""How a unit is called: blocking, async, streaming, async streaming."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any, TYPE_CHECKING, TypeVar

from .errors import ColourError, InvalidArgument

if TYPE_CHECKING:
    from .module import Module

__all__ = ["Colour", "careful", "check_forward", "overridable"]


class Colour(Enum):
    """How a unit is called, and how its `forward` is written."""

    BLOCKING = "a plain function"
    ASYNC = "an `async def`"
    STREAMING = "a generator (a `def` with `yield`)"
    ASYNC_STREAMING = "an async generator (an `async def` with `yield`)"

    def __init__(self, written: str) -> None:
        self.is_async = "async" in written  # plain attributes: every turn looks at them
        self.is_streaming = "generator" in written


def overridable(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let subclasses write `forward` with the arguments they need, as far as a type checker is concerned."""
    return forward


F = TypeVar("F", bound=Callable[..., Any])


def careful(forward: F) -> F:
    """Promise that a `forward` edits no message it is given and keeps none it gives, so that fewer are copied.

    Of a workflow, `steps` makes the promise.
    """
    forward.__dict__["careful"] = True
    return forward


def check_forward(cls: type[Module]) -> None:
    """Refuse a `forward` that the class cannot call, when the class is defined."""
    forward = inspect.unwrap(cls.forward)
    written = Colour.BLOCKING
    if inspect.isasyncgenfunction(forward):
        written = Colour.ASYNC_STREAMING
    elif inspect.iscoroutinefunction(forward):
        written = Colour.ASYNC
    elif inspect.isgeneratorfunction(forward):
        written = Colour.STREAMING
    if written is not cls.colour and not (cls.colour.is_streaming and written is Colour.BLOCKING):
        raise ColourError(
            f"{cls.__name__}.forward is {written.value}, but {cls.__name__} derives from a class whose forward is "
            f"{cls.colour.value}: derive from {_BASES[written]}, or change forward"
        )
    parameters = inspect.signature(forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "session_id" not in parameters and not takes_any:
        raise InvalidArgument(
            f"{cls.__name__}.forward", str(inspect.signature(forward)), "it must take session_id, such as session_id=0"
        )


_BASES = {
    Colour.BLOCKING: "Agent",
    Colour.ASYNC: "AsyncAgent",
    Colour.STREAMING: "StreamingAgent",
    Colour.ASYNC_STREAMING: "AsyncStreamingAgent",
}
