"""A tool that asks the web, written once for both colours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..concurrency import run_in_background
from ..errors import InvalidArgument
from .base import BaseAction
from .function import checked_timeout
from .running import on_background
from .web_fetch import WebClient

__all__ = ["WebAction", "awaited", "blocking"]

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

_COROUTINE = "__coroutine__"


class WebAction(BaseAction):
    """A tool that asks services of the web, or reads its pages.

    Its methods are coroutines made `blocking`; the async form of the class has them `awaited`. Both run on the
    background loop, where the connections are: of `_client` to services, which may be anywhere, since whoever makes the
    tool says where; and of `_web` to addresses that models give.

    Args:
        timeout: seconds for a request.
        description: what models are told, in place of the docstrings.
        name: its name.
        allow_private: also fetch from private addresses what models ask for: True for all, or a list of networks.
    """

    read_only = True

    def __init__(
        self,
        timeout: float = 15,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
        allow_private: bool | Sequence[str] = False,
    ) -> None:
        super().__init__(description, name)
        seconds = checked_timeout(timeout)
        if seconds is None:
            raise InvalidArgument("timeout", timeout, "give seconds")
        self._client = WebClient(seconds, allow_private=True, max_redirects=0)
        self._web = WebClient(seconds, allow_private)

    def close(self) -> None:
        """Close the connections."""
        run_in_background(self._close())

    async def aclose(self) -> None:
        """Close the connections."""
        await on_background(self._close())

    async def _close(self) -> None:
        await self._client.close()
        await self._web.close()


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
