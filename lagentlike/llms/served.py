"""Models behind an HTTP server: where it is, who asks, and by which way."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TYPE_CHECKING, TypeVar

from yarl import URL

from ..concurrency import iterate_in_background, run_in_background
from ..errors import InvalidArgument, QuotaExhausted
from ..schema import Completion
from .base import _LLM, AsyncBaseLLM, BaseLLM, Conversation, Params, Part, side_by_side
from .parameters import check_parameters
from .transport import Assembler, Opener, Request, Transport, TransportOptions

if TYPE_CHECKING:
    from .limits import RateLimiter

__all__ = ["server_url"]

R = TypeVar("R")
T = TypeVar("T")


class _Served(_LLM):
    """A model that is asked with POSTs to one URL: what both colours share, the calls as coroutines."""

    key_variable: ClassVar[str] = "OPENAI_API_KEY"
    """The environment variable that `key="ENV"` reads."""

    key_host: ClassVar[str] = "api.openai.com"
    """The host that nobody can ask without a key."""

    own_parameters: ClassVar[frozenset[str]] = frozenset()
    """Parameters that not all models have; a name that looks like a slip of one is refused."""

    def __init__(
        self,
        path: str,
        url: URL,
        *,
        key: str | Sequence[str] | None = None,
        org: str | None = None,
        headers: Mapping[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        retry: int | None = None,
        timeout: float | None = None,
        transport: TransportOptions | None = None,
        limiter: RateLimiter | None = None,
        extra_body: Mapping[str, Any] | None = None,
        **gen_params: Any,
    ) -> None:
        check_parameters(gen_params, self.own_parameters)
        if limiter is not None:
            from .limits import RateLimiter  # what only this needs

            if not isinstance(limiter, RateLimiter):
                raise InvalidArgument("limiter", limiter, "give a RateLimiter, the same to all models of an account")
        super().__init__(path, extra_body=dict(extra_body) if extra_body else None, **gen_params)
        self._known = frozenset(self.gen_params)
        self.url = url
        self._access = _Access(key, org, headers, _proxy(url, proxies), self.key_variable, self._authorization)
        options = _options(transport, retry, timeout)
        self._transport = Transport(options, limiter, self._opener(options))

    def _check(self, params: Params) -> None:
        """Refuse names that look like slips, each looked at once."""
        if not params.keys() <= self._known:
            check_parameters(params, self.own_parameters)
            self._known |= params.keys()

    def _opener(self, options: TransportOptions) -> Opener | None:
        """What sends the requests, where that is not our own HTTP."""
        return None

    def _complete(self, messages: Conversation, params: Params, index: int = 0) -> Coroutine[Any, Any, Completion]:
        """The answer to the `index`-th conversation of a call."""
        raise NotImplementedError(f"{type(self).__name__} must define _complete")

    async def _arriving(self, messages: Conversation, params: Params) -> AsyncIterator[list[Part]]:
        """The answer part by part, in lists of parts that arrived together."""
        answer = await self._complete(messages, params)
        yield [(answer.text, answer)]

    async def _streamed(self, body: bytes, assembler: Callable[[], Assembler[Part]]) -> AsyncIterator[list[Part]]:
        """What an assembler makes of the stream that answers a body."""
        stream = await self._ask(body, self._transport.stream, assembler)
        try:
            async for parts in stream:
                yield parts
        finally:
            stream.close()

    @staticmethod
    def _authorization(key: str) -> dict[str, str]:
        """The headers that show a key."""
        return {"Authorization": f"Bearer {key}"}

    def _ask(
        self, body: bytes, send: Callable[[Request, R], Coroutine[Any, Any, T]], read: R
    ) -> Coroutine[Any, Any, T]:
        """Send a body with the key whose turn it is."""
        return self._in_turn(lambda key: send(self._request(body, key), read))

    def _request(self, body: bytes, key: str | None) -> Request:
        request = self._access.request(self.url, body, key)
        if self._transport.limiter is None:
            return request
        from .limits import likely_tokens  # what only this needs

        return request._replace(tokens=likely_tokens(body) + (self.gen_params.get("max_new_tokens") or 0))

    def _in_turn(self, ask: Callable[[str | None], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]:
        """Ask with the key whose turn it is, or with the next one where its quota is used up."""
        keys = self._access.keys_in_turn(self.url, self.key_host)
        return ask(keys[0]) if len(keys) == 1 else self._in_any_turn(keys, ask)

    async def _in_any_turn(self, keys: list[str | None], ask: Callable[[str | None], Coroutine[Any, Any, T]]) -> T:
        while True:
            key = keys.pop(0)
            try:
                return await ask(key)
            except QuotaExhausted:
                self._access.exhausted.add(key)
                if not keys:
                    raise


class _BlockingServed(_Served, BaseLLM):
    """The blocking colour: requests run on the background event loop."""

    def close(self) -> None:
        """Close the connections that are kept alive; a later call opens new ones."""
        run_in_background(self._transport.aclose())

    def _chat(self, messages: Conversation, params: Params) -> Completion:
        return run_in_background(self._complete(messages, params))

    def _part_lists(self, messages: Conversation, params: Params) -> Iterator[list[Part]]:
        return iterate_in_background(self._arriving(messages, params))

    def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        for _ in batch:
            self._start()

        async def one(index: int, messages: Conversation) -> Completion:
            return await self._complete(messages, params, index)

        asked = side_by_side([one(index, messages) for index, messages in enumerate(batch)])
        return [self._finish(answer) for answer in run_in_background(asked)]


class _AsyncServed(_Served, AsyncBaseLLM):
    """The async colour; a call that is cancelled closes its connection, at which the engine stops."""

    async def aclose(self) -> None:
        """Close the connections of this event loop that are kept alive; a later call opens new ones."""
        await self._transport.aclose()

    def _chat(self, messages: Conversation, params: Params) -> Coroutine[Any, Any, Completion]:
        return self._complete(messages, params)

    def _part_lists(self, messages: Conversation, params: Params) -> AsyncIterator[list[Part]]:
        return self._arriving(messages, params)

    async def _chat_batch(self, batch: Sequence[Conversation], params: Params) -> list[Completion]:
        async def one(index: int, messages: Conversation) -> Completion:
            self._start()
            return self._finish(await self._complete(messages, params, index))

        return await side_by_side([one(index, messages) for index, messages in enumerate(batch)])


def server_url(api_base: str) -> URL:
    """The server's address as a URL.

    Raises:
        InvalidArgument: it is none, or it holds credentials.
    """
    try:
        url = URL(api_base)
    except (TypeError, ValueError) as error:
        raise InvalidArgument("api_base", api_base, f"it is no URL ({error})") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidArgument("api_base", api_base, "give a URL such as http://127.0.0.1:8000/v1")
    if url.user is not None or url.password is not None:
        raise InvalidArgument(
            "api_base", f"{url.scheme}://***@{url.host}", "give credentials as key or headers instead"
        )
    return url


class _Access:
    """Who asks, and by which way: keys, headers and proxy, none of which is ever shown."""

    def __init__(
        self,
        key: str | Sequence[str] | None,
        org: str | None,
        headers: Mapping[str, str] | None,
        proxy: str | None,
        variable: str,
        authorization: Callable[[str], dict[str, str]],
    ) -> None:
        if key is None or key == "":
            self._keys: list[str] | None = []
        elif key == "ENV":
            self._keys = None
        else:
            self._keys = [_checked_key(item) for item in ([key] if isinstance(key, str) else key)]
        self.exhausted: set[str | None] = set()
        self._turn = 0
        self._variable = variable
        self._authorization = authorization
        self.proxy = proxy
        self._headers = dict(headers or {})
        if org is not None:
            self._headers["OpenAI-Organization"] = org
        self._secrets = tuple(value for name, value in self._headers.items() if _SECRET_NAME.search(name))
        if proxy is not None and (password := URL(proxy).password):
            self._secrets += (password,)
        self.secrets = (*(self._keys or ()), *self._secrets)  # what nobody may be shown
        self._by_key: dict[str | None, tuple[dict[str, str], tuple[str, ...]]] = {}  # headers and secrets, made once

    def keys_in_turn(self, url: URL, key_host: str) -> list[str | None]:
        """The keys to try for one call, the one whose turn it is first."""
        keys = self._keys
        if keys is None:
            found = os.environ.get(self._variable, "").strip()
            keys = [_checked_key(found)] if found else []
        if not keys:
            if url.host == key_host:
                raise InvalidArgument("key", "ENV", f"set the environment variable {self._variable}, or pass key=…")
            return [None]
        if len(keys) == 1:
            return [keys[0]]
        start = self._turn % len(keys)
        self._turn = start + 1
        order: list[str | None] = [*keys[start:], *keys[:start]]
        return [key for key in order if key not in self.exhausted] or order

    def request(self, url: URL, body: bytes, key: str | None) -> Request:
        sent = self._by_key.get(key)
        if sent is None:
            sent = self._headers, self._secrets
            if key is not None:
                sent = {**self._authorization(key), **self._headers}, (key, *self._secrets)
            self._by_key[key] = sent
        return Request(url, sent[0], body, self.proxy, sent[1])

    def __repr__(self) -> str:
        return "_Access(***)"


_SECRET_NAME = re.compile("key|token|auth|secret|cookie", re.IGNORECASE)


def _checked_key(key: Any) -> str:
    if not isinstance(key, str) or not key.strip():
        raise InvalidArgument("key", "***", "give a text, a list of texts, 'ENV', or None for a server without keys")
    if not key.isascii() or not key.isprintable():
        raise InvalidArgument("key", "***", "it holds characters that no header can carry: copy it again")
    return key.strip()


def _proxy(url: URL, proxies: Mapping[str, str] | None) -> str | None:
    if proxies is None:
        if url.host in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(url.host or ""):
            return None
        proxies = urllib.request.getproxies()
    elif not isinstance(proxies, Mapping):
        raise InvalidArgument("proxies", type(proxies), "give a dict such as {'https': 'http://proxy:3128'}")
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy:
        return None
    if URL(proxy).scheme not in ("http", "https"):
        raise InvalidArgument("proxies", URL(proxy).scheme, "only http and https proxies can be used")
    return proxy


def _options(transport: TransportOptions | None, retry: int | None, timeout: float | None) -> TransportOptions:
    options = transport or TransportOptions()
    if retry is not None:
        if isinstance(retry, bool) or not isinstance(retry, int) or retry < 0:
            raise InvalidArgument("retry", retry, "give how often to try again, at least 0")
        options = replace(options, max_retries=retry)
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise InvalidArgument("timeout", timeout, "give seconds, more than 0")
        options = replace(options, total=timeout, first_byte=timeout if transport is None else options.first_byte)
    return options
