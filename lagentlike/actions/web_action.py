"""A tool that asks the web, written once for both colours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..concurrency import run_in_background
from ..errors import InvalidArgument
from .base import BaseAction
from .function import checked_timeout
from .running import on_background
from .web_fetch import WebClient

__all__ = ["WebAction", "awaited", "blocking", "checked_seconds", "service_client"]

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

_COROUTINE = "__coroutine__"


class WebAction(BaseAction):
    """A tool that asks a service of the web.

    Its methods are coroutines made `blocking`; the async form of the class has them `awaited`. Both run on the
    background loop, where the connections are.

    Where the service is says whoever makes the tool, and no model: so it may be anywhere, also on this machine.

    Args:
        timeout: seconds for a request.
        description: what models are told, in place of the docstrings.
        name: its name.
    """

    read_only = True

    def __init__(
        self, timeout: float = 15, description: Mapping[str, Any] | str | None = None, name: str | None = None
    ) -> None:
        super().__init__(description, name)
        self._client = service_client(timeout)

    def close(self) -> None:
        """Close the connections."""
        run_in_background(self._client.close())

    async def aclose(self) -> None:
        """Close the connections."""
        await on_background(self._client.close())


def service_client(timeout: float) -> WebClient:
    """A client for addresses that no model has a say in; it follows no redirect."""
    return WebClient(checked_seconds(timeout), allow_private=True, max_redirects=0)


def checked_seconds(timeout: float) -> float:
    """A time limit that is none of `None`.

    Raises:
        InvalidArgument: it is no positive number.
    """
    seconds = checked_timeout(timeout)
    if seconds is None:
        raise InvalidArgument("timeout", timeout, "give seconds")
    return seconds


def blocking(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[S, P], R]:
    """A coroutine method as a blocking one, which runs on the background loop."""

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return run_in_background(method(self, *args, **kwargs))

    setattr(call, _COROUTINE, method)
    return call


def awaited(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """What `blocking` made, as a coroutine method again, which runs on the background loop wherever it is awaited."""
    coroutine = getattr(method, _COROUTINE)

    @functools.wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await on_background(coroutine(self, *args, **kwargs))
        return result

    return call
