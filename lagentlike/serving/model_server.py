"""A language model behind an OpenAI-compatible HTTP server."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final

from aiohttp import web

from ..errors import InvalidArgument
from ..llms.base import AsyncBaseLLM
from ..schema import Completion, ModelStatusCode
from .completions_protocol import completion_body, CompletionRequest, read_completion_request
from .openai_protocol import BadRequest, ChatRequest, error_body, failure, read_request, Reply

__all__ = ["ModelServer"]

logger = logging.getLogger(__name__)

_LARGEST_BODY: Final = 1024 * 1024


class ModelServer:
    """Serves a model over HTTP, for any client of OpenAI's chat completions.

    Routes: `POST /v1/chat/completions` (streaming, tools, logprobs, `n`, `return_token_ids` as vLLM has it),
    `POST /v1/completions` (for models that run in this process: a prompt of token ids or text, logprobs,
    `return_token_ids`), `GET /v1/models`, `GET /health`.

    Args:
        llm: the model.
        name: the name that clients ask for, or several; the model's own name by default.
        host: address to listen on.
        port: port to listen on; 0 takes a free one, which `url` then tells.
        token: clients must send it as `Authorization: Bearer …`; needed wherever others can connect.
        max_concurrency: most requests worked on at once; more wait.

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
    ) -> None:
        if not isinstance(llm, AsyncBaseLLM):
            raise InvalidArgument("llm", llm, "give the async form of a model, such as AsyncTinyLM()")
        if token is None and not _only_this_machine(host):
            raise InvalidArgument("host", host, "others can connect there: set a token as well, or listen on 127.0.0.1")
        if token is not None and not token.strip():
            raise InvalidArgument("token", token, "give a text that clients send as 'Authorization: Bearer …'")
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise InvalidArgument("port", port, "give a number from 0 (any free port) to 65535")
        self.llm = llm
        self.names = [name] if isinstance(name, str) else list(name or [llm.model or "model"])
        self.host = host
        self.port = port
        self._token = token
        self._slots = asyncio.Semaphore(max_concurrency)
        self._runner: web.AppRunner | None = None
        self._started = int(time.time())

    @property
    def url(self) -> str:
        """The base address that clients are given, such as `http://127.0.0.1:8000/v1`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    def app(self) -> web.Application:
        """The application, to be mounted or served by other means."""
        app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[self._guarded])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._complete)
        return app

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            InvalidArgument: the port is taken, or the host is not an address of this machine.
        """
        runner = web.AppRunner(self.app(), handler_cancellation=True, access_log=None, shutdown_timeout=5.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError as error:
            await runner.cleanup()
            raise InvalidArgument("port", self.port, f"cannot listen on {self.host}: {error.strerror}") from error
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Finish what is under way, for at most some seconds, and close."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> ModelServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Check the token, and turn every error into a body that clients can read."""
        try:
            if request.path != "/health":
                self._authorize(request)
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            error = BadRequest(f"the body is larger than {_LARGEST_BODY} bytes: send less", status=413)
        except ConnectionError:  # the client is gone, so there is nobody to tell
            raise
        except web.HTTPException as http:
            error = BadRequest(f"{request.method} {request.path}: {http.reason}", status=http.status)
        except Exception as problem:
            error = failure(problem)
            if error.status >= 500:
                logger.exception("a request failed")
        return web.json_response(error_body(error), status=error.status)

    def _authorize(self, request: web.Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
            raise BadRequest("send the server's token as 'Authorization: Bearer …'", status=401, code="invalid_api_key")

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._card(name) for name in self.names]})

    async def _model(self, request: web.Request) -> web.Response:
        return web.json_response(self._card(self._known(request.match_info["name"])))

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "lagentlike"}

    def _known(self, name: str) -> str:
        if name not in self.names:
            served = ", ".join(map(repr, self.names))
            message = f"there is no model {name!r} here, only {served}"
            raise BadRequest(message, param="model", status=404, code="model_not_found")
        return name

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        request = read_request(await _json(http))
        self._known(request.model)
        reply = Reply(request, getattr(self.llm, "token_bytes", None))
        async with self._slots:
            if request.stream:
                return await self._stream(http, request, reply)
            answers = await _together(
                [self.llm.chat(request.messages, **request.params_of(choice)) for choice in range(request.n)]
            )
        return web.json_response(reply.whole(answers), dumps=_dumps)

    async def _complete(self, http: web.Request) -> web.Response:
        request = read_completion_request(await _json(http))
        self._known(request.model)
        async with self._slots:
            ids = self._prompt_ids(request)
            answers = await _together(
                [
                    self.llm.chat(_NO_MESSAGES, **request.params_of(choice), prompt_ids=ids)
                    for choice in range(request.n)
                ]
            )
        body = completion_body(request, answers, getattr(self.llm, "token_bytes", None))
        return web.json_response(body, dumps=_dumps)

    def _prompt_ids(self, request: CompletionRequest) -> list[int]:
        tokenize = getattr(self.llm, "tokenize", None)  # what a model has that takes token ids
        if tokenize is None:
            raise BadRequest("this model takes messages only: POST /v1/chat/completions", param="prompt")
        return request.prompt if isinstance(request.prompt, list) else list(tokenize(request.prompt))

    async def _stream(self, http: web.Request, request: ChatRequest, reply: Reply) -> web.StreamResponse:
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(maxsize=256)
        asking = asyncio.create_task(self._ask(request, reply, events))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        try:
            first = await _first(events, asking)
            await response.prepare(http)
            event = first
            while event is not None:
                await response.write(b"data: " + _dumps(event).encode() + b"\n\n")
                event = await events.get()
            await response.write(b"data: [DONE]\n\n")
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await response.write_eof()
        return response

    async def _ask(self, request: ChatRequest, reply: Reply, events: asyncio.Queue[dict[str, Any] | None]) -> None:
        """Put the chunks of all choices in line, then None."""
        begun = False

        async def one(index: int) -> Completion:
            nonlocal begun
            answer, opened = Completion(), False
            async with aclosing(self.llm.stream_chat(request.messages, **request.params_of(index))) as stream:  # type: ignore[type-var]
                async for status, chunk, answer in stream:  # noqa: B007  # the last one is what counts
                    if not opened:
                        begun = opened = True
                        await events.put(reply.opening(index))
                    if chunk and status == ModelStatusCode.STREAM_ING:
                        await events.put(reply.text(index, chunk))
            for event in reply.closing(index, answer):
                await events.put(event)
            return answer

        try:
            answers = await _together([one(index) for index in range(request.n)])
            if request.include_usage:
                await events.put(reply.usage(answers))
        except Exception as problem:
            if not begun:
                raise
            logger.exception("a stream broke off")
            await events.put(error_body(failure(problem)))
        await events.put(None)


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


async def _first(events: asyncio.Queue[dict[str, Any] | None], asking: asyncio.Task[None]) -> dict[str, Any] | None:
    """The first chunk; an error before it is still an HTTP status of its own."""
    getting = asyncio.ensure_future(events.get())
    try:
        await asyncio.wait({getting, asking}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            await asking
        return await getting
    finally:
        getting.cancel()


async def _json(http: web.Request) -> Any:
    body = await http.read()
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _dumps(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False)


def _only_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
