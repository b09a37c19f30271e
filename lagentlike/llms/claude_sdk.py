"""Anthropic's SDK as what sends our requests: its client, its errors and its answers in the transport's terms."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextvars import ContextVar
from typing import Any

import aiohttp

from ..errors import ConnectFailed, LLMError, MissingExtra
from .codec import decode
from .exchange import Response
from .refusals import masked
from .transport import Call, refused, Request, TransportOptions

__all__ = ["KEY_HEADER", "SDK"]

KEY_HEADER = "X-Api-Key"
"""Where a request has its key; the SDK sends it in the header that its version thinks right."""

_NO_KEY = "none"  # the SDK would look for one in the environment and in files


class SDK:
    """Opens requests with the SDK, which makes none of them again.

    There is one client for each event loop, shared by all models that ask alike and closed with the loop.

    Args:
        base_url: the server's address, without a path of the API.
        proxy: the way to it.
        options: deadlines and caps.

    Raises:
        MissingExtra: the SDK is not installed.
    """

    def __init__(self, base_url: str, proxy: str | None, options: TransportOptions) -> None:
        _sdk()
        self._base_url = base_url
        self._proxy = proxy
        self._options = options

    async def open(self, request: Request, call: Call) -> Response:
        """See `Opener`."""
        call.reused = False  # the SDK's pool looks after connections that the server closed
        sdk = _sdk()
        headers = dict(request.headers)
        client = (await self._client(call.loop)).with_options(api_key=headers.pop(KEY_HEADER, _NO_KEY))
        body = decode(request.body)
        asked = client.messages.with_streaming_response.create(
            model=body["model"],
            max_tokens=body["max_tokens"],
            messages=(),  # those in extra_body go before, with all that this version has no parameter for
            **({"stream": True} if body.get("stream") else {}),
            extra_body=body,
            extra_headers={"Accept-Encoding": "gzip", **headers},
            timeout=sdk.Timeout(self._options.first_byte, connect=self._options.connect, pool=None),
        )
        token = _call.set(call)
        try:
            async with asyncio.timeout_at(call.until(self._options.first_byte)):
                answer = await asked.__aenter__()
        except (TimeoutError, sdk.APITimeoutError) as error:
            call.stage = "connect" if type(error.__cause__).__name__ == "ConnectTimeout" else "first_byte"
            failure = call.timed_out()
        except sdk.APIConnectionError as error:
            failure = _unreachable(error, call)
        else:
            return _response(answer.http_response)
        finally:
            _call.reset(token)
        raise failure

    async def aclose(self) -> None:
        """See `Opener`."""
        kept = _kept.pop(self._key(asyncio.get_running_loop()), None)
        if kept is not None:
            await kept[1].aclose()

    def _key(self, loop: asyncio.AbstractEventLoop) -> _Key:
        return os.getpid(), loop, self._base_url, self._proxy, self._options

    async def _client(self, loop: asyncio.AbstractEventLoop) -> Any:
        key = self._key(loop)
        kept = _kept.get(key)
        if kept is None:
            for closed in [key for key in _kept if key[1].is_closed()]:
                del _kept[closed]  # of a loop that was closed without a word to its async generators
            client = self._made()
            keeper = _closed_with_loop(client, key)
            kept = _kept[key] = (client, keeper)
            await anext(keeper)  # does not suspend, so nobody makes a second one meanwhile
        return kept[0]

    def _made(self) -> Any:
        sdk = _sdk()
        most = type(sdk.DEFAULT_CONNECTION_LIMITS)(
            max_connections=self._options.max_connections, max_keepalive_connections=100, keepalive_expiry=30.0
        )
        http = sdk.DefaultAsyncHttpxClient(
            limits=most,
            proxy=self._proxy,
            trust_env=False,
            follow_redirects=False,
            event_hooks={"response": [_look_at]},
        )
        return sdk.AsyncAnthropic(api_key=_NO_KEY, base_url=self._base_url, max_retries=0, http_client=http)


_Key = tuple[int, asyncio.AbstractEventLoop, str, str | None, TransportOptions]
_kept: dict[_Key, tuple[Any, AsyncGenerator[None, None]]] = {}


async def _closed_with_loop(client: Any, key: _Key) -> AsyncGenerator[None, None]:
    """Close the client when the loop shuts its async generators down, which is the last thing a loop does."""
    try:
        yield
    finally:
        if key in _kept and _kept[key][0] is client:
            del _kept[key]
        await client.close()


@atexit.register
def _close_what_still_runs() -> None:
    """The background loop never ends by itself: close its clients with the process."""
    for (pid, loop, *_), (_, keeper) in list(_kept.items()):
        if pid == os.getpid() and loop.is_running():  # after a fork those of the parent only seem to
            asyncio.run_coroutine_threadsafe(_finish(keeper), loop).result(timeout=2)


async def _finish(keeper: AsyncGenerator[None, None]) -> None:
    await keeper.aclose()


def _sdk() -> Any:
    try:
        return importlib.import_module("anthropic")
    except ImportError:
        raise MissingExtra("anthropic", "anthropic") from None


_call: ContextVar[Call] = ContextVar("lagentlike_claude_call")  # the one that a request is made for


async def _look_at(response: Any) -> None:
    """Learn from the head of an answer; raise what a refusal means, of which the SDK would read all."""
    call = _call.get()
    call.answered = True
    if call.lease is not None:
        call.lease.limiter.observe(response.headers)
    if not response.is_success:
        raise await refused(_response(response), call)


def _response(response: Any) -> Response:
    content = _Content(response)
    return Response(content, response.status_code, response.headers, content)  # type: ignore[arg-type]  # it reads alike


def _unreachable(error: Exception, call: Call) -> LLMError:
    """Why there is no answer, without a trace of the request's headers."""
    reasons = list(_causes(error))
    told = next((reason for reason in reasons if isinstance(reason, LLMError)), None)
    if told is not None:
        return told
    reason = masked(str(reasons[-1]), call.request.secrets) or type(reasons[-1]).__name__
    if any(isinstance(cause, ssl.SSLError) for cause in reasons):
        call.answered = call.final = True
        return ConnectFailed(f"no secure connection to {call.host}: {reason}")
    kinds = {type(cause).__name__ for cause in reasons}
    if "ProxyError" in kinds:
        call.answered = call.final = True
        return ConnectFailed(f"the proxy refuses a connection to {call.host}: {reason}")
    if "ConnectError" in kinds:
        return ConnectFailed(f"no connection to {call.host}: {reason}")
    return ConnectFailed(f"{call.host} closed the connection without an answer: {reason}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


class _Content:
    """The body of an answer, read as aiohttp's are."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._pieces = response.aiter_raw()
        self._over = False
        self._closing: asyncio.Task[None] | None = None

    def is_eof(self) -> bool:
        return self._over

    at_eof = is_eof

    def read_nowait(self) -> bytes:
        return b""

    async def readany(self) -> bytes:
        try:
            piece: bytes | None = await anext(self._pieces, None)
        except Exception as error:
            if not _of_http(error):
                raise
            raise aiohttp.ClientPayloadError(str(error) or type(error).__name__) from None
        self._over = piece is None
        return piece or b""

    def close(self) -> None:
        """Close the connection, which httpx does while others run."""
        if self._closing is None and not self._response.is_closed:
            self._closing = asyncio.ensure_future(self._response.aclose())


def _of_http(error: Exception) -> bool:
    """Whether it is one of the SDK's HTTP library, which is httpx or its successor."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2")
