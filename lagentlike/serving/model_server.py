"""A language model behind an OpenAI-compatible HTTP server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any

from aiohttp import web

from ..errors import InvalidArgument
from ..llms.base import AsyncBaseLLM
from ..schema import Completion, ModelStatusCode
from .completions_protocol import completion_body, CompletionChunks, CompletionRequest, read_completion_request
from .http_face import HTTPFace, json_response, Limits, Put, read_json
from .openai_protocol import BadRequest, ChatRequest, DONE, read_request, Reply

__all__ = ["ModelServer"]


class ModelServer(HTTPFace):
    """Serves a model over HTTP, for any client of OpenAI's chat completions.

    Routes: `POST /v1/chat/completions` (streaming, tools, logprobs, `n`, `return_token_ids` as vLLM has it),
    `POST /v1/completions` (for models that run in this process: a prompt of token ids or text, streaming, logprobs,
    `return_token_ids`), `GET /v1/models`, `GET /health`.

    Args:
        llm: the model.
        name: the name that clients ask for, or several; the model's own name by default.
        host: address to listen on.
        port: port to listen on; 0 takes a free one, which `url` then tells.
        token: clients must send it as `Authorization: Bearer …`; needed wherever others can connect.
        max_concurrency: most requests worked on at once; more wait.
        limits: how much it takes, and how long it waits.

    Raises:
        InvalidArgument: `host` is open to others and there is no `token`.

    >>> import asyncio
    >>> from lagentlike.llms import AsyncScriptedLLM, AsyncGPTAPI
    >>> async def main():
    ...     async with ModelServer(AsyncScriptedLLM(["Hello!"]), port=0) as server:
    ...         return await AsyncGPTAPI("scripted", api_base=server.url).chat([{"role": "user", "content": "Hi"}])
    >>> asyncio.run(main())
    'Hello!'
    """

    def __init__(
        self,
        llm: AsyncBaseLLM,
        name: str | list[str] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        max_concurrency: int = 64,
        limits: Limits | None = None,
    ) -> None:
        if not isinstance(llm, AsyncBaseLLM):
            raise InvalidArgument("llm", llm, "give the async form of a model, such as AsyncTinyLM()")
        super().__init__(host=host, port=port, token=token, max_concurrency=max_concurrency, limits=limits)
        self.llm = llm
        self.names = [name] if isinstance(name, str) else list(name or [llm.model or "model"])
        self._started = int(time.time())

    @property
    def url(self) -> str:
        """The base address that clients are given, such as `http://127.0.0.1:8000/v1`."""
        return f"{self.address}/v1"

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/v1/models", self._models)
        router.add_get("/v1/models/{name:.+}", self._model)
        router.add_post("/v1/chat/completions", self._chat)
        router.add_post("/v1/completions", self._complete)

    async def _models(self, request: web.Request) -> web.Response:
        return json_response({"object": "list", "data": [self._card(name) for name in self.names]})

    async def _model(self, request: web.Request) -> web.Response:
        return json_response(self._card(self._known(request.match_info["name"])))

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "lagentlike"}

    def _known(self, name: str) -> str:
        if name not in self.names:
            served = ", ".join(map(repr, self.names))
            message = f"there is no model {name!r} here, only {served}"
            raise BadRequest(message, param="model", status=404, code="model_not_found")
        return name

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        request = read_request(await read_json(http, self.limits))
        self._known(request.model)
        reply = Reply(request, getattr(self.llm, "token_bytes", None))
        if request.stream:
            ask = partial(self.llm.stream_chat, request.messages)
            return await self.stream(http, partial(self._ask, request, reply, ask))
        async with self._slots:
            answers = await _together(
                [self.llm.chat(request.messages, **request.params_of(choice)) for choice in range(request.n)]
            )
        return json_response(reply.whole(answers))

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        request = read_completion_request(await read_json(http, self.limits))
        self._known(request.model)
        ids = self._prompt_ids(request)
        if request.stream:
            chunks = CompletionChunks(request, ids, getattr(self.llm, "token_bytes", None))
            ask = partial(self.llm.stream_chat, _NO_MESSAGES, prompt_ids=ids)
            return await self.stream(http, partial(self._ask, request, chunks, ask))
        async with self._slots:
            answers = await _together(
                [
                    self.llm.chat(_NO_MESSAGES, **request.params_of(choice), prompt_ids=ids)
                    for choice in range(request.n)
                ]
            )
        body = completion_body(request, answers, getattr(self.llm, "token_bytes", None))
        return json_response(body)

    def _prompt_ids(self, request: CompletionRequest) -> list[int]:
        tokenize = getattr(self.llm, "tokenize", None)  # what a model has that takes token ids
        if tokenize is None:
            raise BadRequest("this model takes messages only: POST /v1/chat/completions", param="prompt")
        return request.prompt if isinstance(request.prompt, list) else list(tokenize(request.prompt))

    async def _ask(
        self, request: ChatRequest | CompletionRequest, reply: Reply | CompletionChunks, ask: Any, put: Put
    ) -> None:
        """Give out the chunks of all choices; `ask` begins the stream of one, of its parameters."""

        async def one(index: int) -> Completion:
            answer, opened = Completion(), False
            async with aclosing(ask(**request.params_of(index))) as stream:
                async for status, chunk, answer in stream:  # the last one is what counts
                    if not opened:
                        opened = True
                        await put(reply.opening(index))
                    if chunk and status == ModelStatusCode.STREAM_ING:
                        part = (index, chunk) if isinstance(reply, Reply) else (index, chunk, answer)
                        await put(reply.text(*part))
            for event in reply.closing(index, answer):
                await put(event)
            return answer

        async with self._slots:
            answers = await _together([one(index) for index in range(request.n)])
        if request.include_usage:
            await put(reply.usage(answers))
        await put(DONE)


_NO_MESSAGES = [{"role": "user", "content": ""}]  # where the prompt is given as ids


async def _together(calls: list[Coroutine[Any, Any, Completion]]) -> list[Completion]:
    """Wait for all; when one fails, or this is cancelled, none goes on."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
