"""Models under a tape: what is asked of them goes onto it, or comes from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from functools import partial
from typing import TYPE_CHECKING

from ..concurrency import in_threads
from ..llms.base import AsyncBaseLLM, BaseLLM, Conversation, Params, Part, side_by_side
from ..llms.fingerprint import own_params
from ..schema import Completion

if TYPE_CHECKING:
    from .tape import Tape

__all__ = ["AsyncTapedLLM", "TapedLLM"]


class TapedLLM:
    """Stands for a blocking model."""

    def __init__(self, tape: Tape, llm: BaseLLM) -> None:
        self._tape = tape
        self._llm = llm

    def _chat(self, messages: Conversation, params: Params) -> Completion:
        call = self._tape.request(self._llm, messages, params)
        if call.entry is not None:
            time.sleep(call.delay(call.entry.seconds))
            return call.entry.completion()
        with call:
            answer = call.answer = self._llm._chat(messages, params)
        return answer

    def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        """Each conversation by itself, so that it is known which one fails."""

        def one(index: int, messages: Conversation) -> Completion:
            self._llm._start()
            return self._llm._finish(self._chat(messages, {**params, **own_params(params, index)}))

        return in_threads([partial(one, index, messages) for index, messages in enumerate(batch)])

    def _part_lists(self, messages: Conversation, params: Params) -> Iterator[list[Part]]:
        call = self._tape.request(self._llm, messages, params)
        if call.entry is not None:
            for seconds, part in call.entry.played():
                time.sleep(call.delay([seconds]))
                yield [part]
            return
        with call, closing(self._llm._part_lists(messages, params)) as lists:  # type: ignore[type-var]  # generators close
            for parts in lists:
                call.add(parts)
                yield parts


class AsyncTapedLLM:
    """Stands for an async model."""

    def __init__(self, tape: Tape, llm: AsyncBaseLLM) -> None:
        self._tape = tape
        self._llm = llm

    async def _chat(self, messages: Conversation, params: Params) -> Completion:
        call = self._tape.request(self._llm, messages, params)
        if call.entry is not None:
            await asyncio.sleep(call.delay(call.entry.seconds))
            return call.entry.completion()
        with call:
            answer = call.answer = await self._llm._chat(messages, params)
        return answer

    async def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        """Each conversation by itself, so that it is known which one fails."""

        async def one(index: int, messages: Conversation) -> Completion:
            self._llm._start()
            return self._llm._finish(await self._chat(messages, {**params, **own_params(params, index)}))

        return await side_by_side([one(index, messages) for index, messages in enumerate(batch)])

    async def _part_lists(self, messages: Conversation, params: Params) -> AsyncIterator[list[Part]]:
        call = self._tape.request(self._llm, messages, params)
        if call.entry is not None:
            for seconds, part in call.entry.played():
                await asyncio.sleep(call.delay([seconds]))
                yield [part]
            return
        async with aclosing(self._llm._part_lists(messages, params)) as lists:  # type: ignore[type-var]
            with call:
                async for parts in lists:
                    call.add(parts)
                    yield parts
