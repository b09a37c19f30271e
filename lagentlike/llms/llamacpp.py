"""Models behind llama.cpp's server, with what it tells beside answers: token ids, prompts, and how it is set up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..concurrency import run_in_background
from ..errors import BadResponse, ConnectFailed, LLMError, RequestTimeout
from .base import Conversation, Params
from .codec import decode, encode
from .openai import _ChatCompletions
from .served import _AsyncServed, _BlockingServed
from .transport import Transport

__all__ = ["AsyncLlamaCppAPI", "LlamaCppAPI"]

T = TypeVar("T")


class _LlamaCpp(_ChatCompletions):
    """What both colours share: the calls as coroutines."""

    def __init__(
        self,
        model_type: str = "default",
        *,
        api_base: str = "http://127.0.0.1:8080",
        key: str | Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model_type, api_base=api_base, key=key, **options)

    def _body(self, messages: Conversation, params: Params, *, stream: bool) -> bytes:
        if params.get("repetition_penalty") is not None:  # it takes no notice of the name that others have for it
            params = {**params, "repeat_penalty": params["repetition_penalty"], "repetition_penalty": None}
        return super()._body(messages, params, stream=stream)

    async def _tell(self, path: str, asked: Mapping[str, Any] | None, transport: Transport | None = None) -> Any:
        """What the server answers at another of its addresses."""
        url = self.url.with_path(self.url.path.removesuffix("/v1/chat/completions") + path)
        body, method = (b"", "GET") if asked is None else (encode(asked, "messages"), "POST")
        send = (transport or self._transport).post
        return await self._in_turn(
            lambda key: send(self._access.request(url, body, key)._replace(method=method), decode)
        )

    async def _told(self, name: str, kind: type[T], path: str, asked: Mapping[str, Any]) -> T:
        answer = await self._tell(path, asked)
        told = answer.get(name) if type(answer) is dict else None
        if not isinstance(told, kind):
            raise BadResponse(f"llama.cpp's answer at {path} has no {name}", raw=str(answer)[:1024])
        return told

    async def _ids_of(self, text: str, special: bool) -> list[int]:
        asked = {"content": text, "add_special": False, "parse_special": special}
        return await self._told("tokens", list, "/tokenize", asked)

    async def _text_of(self, ids: Iterable[int]) -> str:
        return await self._told("content", str, "/detokenize", {"tokens": list(ids)})

    async def _prompt_of(self, messages: Conversation, tools: Sequence[Mapping[str, Any]] | None) -> str:
        asked = {"messages": list(messages), **({"tools": list(tools)} if tools else {})}
        return await self._told("prompt", str, "/apply-template", asked)

    async def _properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = await self._tell("/props", None)
        return properties

    async def _loaded(self, seconds: float) -> None:
        options = self._transport.options
        end = time.monotonic() + seconds
        while True:
            left = max(end - time.monotonic(), _SHORTEST_LOOK)
            once = Transport(replace(options, max_retries=0, total=min(options.total, left)))
            try:
                await self._tell("/health", None, once)
            except LLMError as error:
                if not isinstance(error, ConnectFailed | RequestTimeout) and error.status != _LOADING:
                    raise
                if time.monotonic() + _BETWEEN_LOOKS > end:
                    raise RequestTimeout(f"the model is not loaded after {seconds:g} s: {error}") from error
                await asyncio.sleep(_BETWEEN_LOOKS)
            else:
                return


_LOADING = 503
_BETWEEN_LOOKS = 0.25
_SHORTEST_LOOK = 1.0


class LlamaCppAPI(_LlamaCpp, _BlockingServed):
    """A model behind llama.cpp's server (`llama-server -m model.gguf`).

    Chats go to its `/v1/chat/completions`, with tools, streams, structured output and log-probabilities as for
    `GPTAPI`; `logprobs=True` gives token ids too. For prompts of token ids there is `TokenAPI(…, "llamacpp")`.

    Args:
        model_type: the model's name, which matters where the server has several.
        api_base: the server's URL.
        key: its `--api-key`, where it has one.
        **options: as for `GPTAPI`, and the server's own: `grammar` (GBNF), `json_schema`, `min_p`, `id_slot`,
            `cache_prompt`, `chat_template_kwargs`, `timings_per_token` …

    >>> LlamaCppAPI(api_base="http://127.0.0.1:8080", min_p=0.05).url.path
    '/v1/chat/completions'
    """

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """The token ids of a text; with `special`, those of special tokens that are spelt in it."""
        return run_in_background(self._ids_of(text, special))

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids."""
        return run_in_background(self._text_of(ids))

    def apply_template(self, messages: Conversation, tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The prompt that the server makes of a conversation."""
        return run_in_background(self._prompt_of(messages, tools))

    def props(self) -> dict[str, Any]:
        """How the server is set up: `default_generation_settings`, `chat_template`, `total_slots` …"""
        return run_in_background(self._properties())

    def wait_until_loaded(self, seconds: float = 600.0) -> None:
        """Wait for a server that starts, or still loads its model.

        Raises:
            RequestTimeout: it is not there in time.
        """
        run_in_background(self._loaded(seconds))


class AsyncLlamaCppAPI(_LlamaCpp, _AsyncServed):
    """The async form of `LlamaCppAPI`."""

    async def tokenize(self, text: str, special: bool = False) -> list[int]:
        """See `LlamaCppAPI.tokenize`."""
        return await self._ids_of(text, special)

    async def detokenize(self, ids: Iterable[int]) -> str:
        """See `LlamaCppAPI.detokenize`."""
        return await self._text_of(ids)

    async def apply_template(self, messages: Conversation, tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """See `LlamaCppAPI.apply_template`."""
        return await self._prompt_of(messages, tools)

    async def props(self) -> dict[str, Any]:
        """See `LlamaCppAPI.props`."""
        return await self._properties()

    async def wait_until_loaded(self, seconds: float = 600.0) -> None:
        """See `LlamaCppAPI.wait_until_loaded`."""
        await self._loaded(seconds)
