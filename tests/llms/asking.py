"""Asking a model behind the fault server, in both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from lagentlike.llms import AsyncBaseLLM, AsyncGPTAPI
from lagentlike.llms.transport import TransportOptions
from lagentlike.schema import Completion

from .fault_server import FaultServer

HI = [{"role": "user", "content": "hi"}]
KEY = "sk-proj-Secret0123456789"

both_ways = pytest.mark.parametrize("way", ["chat", "stream"])


def model(server: FaultServer, retry: int = 2, **options: Any) -> AsyncGPTAPI:
    """A model on this server with short pauses; `options` are those of the transport, or of the model."""
    names = TransportOptions.__dataclass_fields__
    transport = {name: options.pop(name) for name in list(options) if name in names}
    given = TransportOptions(**{"backoff": 0.02, "max_retries": retry, **transport})
    return AsyncGPTAPI("m", key=options.pop("key", KEY), api_base=server.url, transport=given, **options)


async def ask(llm: AsyncGPTAPI, way: str, **params: Any) -> Completion:
    if way == "chat":
        return await llm.chat(HI, **params)
    return [answer async for _, _, answer in llm.stream_chat(HI, **params)][-1]


async def read_into(pieces: list[str], llm: AsyncBaseLLM, **params: Any) -> None:
    """Collect the text of a stream, chunk by chunk."""
    async for _, piece, _ in llm.stream_chat(HI, **params):
        pieces.append(piece)


async def given_up(asking: Coroutine[Any, Any, Any], server: Any) -> None:
    """Cancel a call that a server (with `bodies` and `aborted`) works on, and wait until it notices."""
    task = asyncio.ensure_future(asking)
    while not server.bodies:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        while not server.aborted:
            await asyncio.sleep(0.01)
