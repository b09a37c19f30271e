"""Several models as one: where one fails for good, the next is asked."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any

from ..errors import InvalidArgument, LLMError, RealRequestsForbidden, RequestRefused, ScriptExhausted
from .base import _LLM, AsyncBaseLLM, BaseLLM, Conversation, StreamItem

__all__ = ["AsyncFallbackLLM", "FallbackLLM"]

logger = logging.getLogger(__name__)


class _Fallback(_LLM):
    """What both colours share: the models, and when to go on to the next."""

    def _use(self, llms: Sequence[Any], kind: type[_LLM]) -> None:
        if not isinstance(llms, list | tuple) or not llms or not all(isinstance(llm, kind) for llm in llms):
            raise InvalidArgument(
                "llms", llms, f"give a list of models, each a {kind.__name__}, the first choice first"
            )
        self.llms = list(llms)

    @property
    def model(self) -> str:
        return " or ".join(llm.model for llm in self.llms)

    def __getattr__(self, name: str) -> Any:
        """What is not of its own is the first model's: `url`, `tokenize`, …."""
        if name.startswith("_") or name == "llms":
            raise AttributeError(name)
        return getattr(self.llms[0], name)

    def update_gen_params(self, **gen_params: Any) -> None:
        for llm in self.llms:
            llm.update_gen_params(**gen_params)

    def _goes_on(self, error: LLMError, index: int) -> bool:
        """Whether another model may do better."""
        if isinstance(error, RequestRefused | ScriptExhausted | RealRequestsForbidden) or index + 1 == len(self.llms):
            return False
        logger.warning("%r failed (%s): asking %r", self.llms[index], type(error).__name__, self.llms[index + 1])
        return True


class FallbackLLM(_Fallback, BaseLLM):
    """Models of which the next one is asked where one fails for good: its retries are exhausted, it is down.

    A request that was refused (400, 401, 403, 404, …) is not made again, and a stream that has begun is not started
    anew: their errors are raised.

    Args:
        llms: the models, the first choice first. Each has its own parameters, retries and usage.

    >>> from lagentlike.errors import ServerError
    >>> from lagentlike.llms import ScriptedLLM
    >>> llm = FallbackLLM([ScriptedLLM([ServerError("down")]), ScriptedLLM(["Here I am."])])
    >>> llm.chat([{"role": "user", "content": "Hello?"}])
    'Here I am.'
    """

    def __init__(self, llms: Sequence[BaseLLM]) -> None:
        super().__init__()
        self._use(llms, BaseLLM)

    def chat(self, messages: Any, **gen_params: Any) -> Any:
        for index, llm in enumerate(self.llms):
            try:
                return llm.chat(messages, **gen_params)
            except LLMError as error:
                if not self._goes_on(error, index):
                    raise

    def stream_chat(self, messages: Conversation, **gen_params: Any) -> Iterator[StreamItem]:
        for index, llm in enumerate(self.llms):
            begun = False
            try:
                with closing(llm.stream_chat(messages, **gen_params)) as stream:
                    for item in stream:
                        begun = True
                        yield item
            except LLMError as error:
                if begun or not self._goes_on(error, index):
                    raise
            else:
                return


class AsyncFallbackLLM(_Fallback, AsyncBaseLLM):
    """The async form of `FallbackLLM`."""

    def __init__(self, llms: Sequence[AsyncBaseLLM]) -> None:
        super().__init__()
        self._use(llms, AsyncBaseLLM)

    async def chat(self, messages: Any, **gen_params: Any) -> Any:
        for index, llm in enumerate(self.llms):
            try:
                return await llm.chat(messages, **gen_params)
            except LLMError as error:
                if not self._goes_on(error, index):
                    raise

    async def stream_chat(self, messages: Conversation, **gen_params: Any) -> AsyncIterator[StreamItem]:
        for index, llm in enumerate(self.llms):
            begun = False
            try:
                async with aclosing(llm.stream_chat(messages, **gen_params)) as stream:
                    async for item in stream:
                        begun = True
                        yield item
            except LLMError as error:
                if begun or not self._goes_on(error, index):
                    raise
            else:
                return
