"""Models behind an HTTP server: where it is, who asks, and by which way."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from yarl import URL

from ..errors import InvalidArgument, QuotaExhausted
from .base import _LLM
from .transport import Request, Transport, TransportOptions

__all__ = ["server_url"]

R = TypeVar("R")
T = TypeVar("T")


class _Served(_LLM):
    """A model that is asked with POSTs to one URL."""

    def __init__(
        self,
        path: str,
        url: URL,
        *,
        key: str | Sequence[str] | None,
        org: str | None,
        headers: Mapping[str, str] | None,
        proxies: Mapping[str, str] | None,
        retry: int | None,
        timeout: float | None,
        transport: TransportOptions | None,
        **gen_params: Any,
    ) -> None:
        super().__init__(path, **gen_params)
        self.url = url
        self._access = _Access(key, org, headers, _proxy(url, proxies))
        self._transport = Transport(_options(transport, retry, timeout))

    def _ask(
        self, body: bytes, send: Callable[[Request, R], Coroutine[Any, Any, T]], read: R
    ) -> Coroutine[Any, Any, T]:
        """Send with the key whose turn it is, or with the next one where its quota is used up."""
        keys = self._access.keys_in_turn(self.url)
        if len(keys) == 1:
            return send(self._access.request(self.url, body, keys[0]), read)
        return self._ask_in_turn(keys, body, send, read)

    async def _ask_in_turn(
        self, keys: list[str | None], body: bytes, send: Callable[[Request, R], Coroutine[Any, Any, T]], read: R
    ) -> T:
        while True:
            key = keys.pop(0)
            try:
                return await send(self._access.request(self.url, body, key), read)
            except QuotaExhausted:
                self._access.exhausted.add(key)
                if not keys:
                    raise


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
        self, key: str | Sequence[str] | None, org: str | None, headers: Mapping[str, str] | None, proxy: str | None
    ) -> None:
        if key is None or key == "":
            self._keys: list[str] | None = []
        elif key == "ENV":
            self._keys = None
        else:
            self._keys = [_checked_key(item) for item in ([key] if isinstance(key, str) else key)]
        self.exhausted: set[str | None] = set()
        self._turn = 0
        self._proxy = proxy
        self._headers = dict(headers or {})
        if org is not None:
            self._headers["OpenAI-Organization"] = org
        self._secrets = tuple(value for name, value in self._headers.items() if _SECRET_NAME.search(name))
        if proxy is not None and (password := URL(proxy).password):
            self._secrets += (password,)
        self._by_key: dict[str | None, tuple[dict[str, str], tuple[str, ...]]] = {}  # headers and secrets, made once

    def keys_in_turn(self, url: URL) -> list[str | None]:
        """The keys to try for one call, the one whose turn it is first."""
        keys = self._keys
        if keys is None:
            found = os.environ.get("OPENAI_API_KEY", "").strip()
            keys = [_checked_key(found)] if found else []
        if not keys:
            if url.host == "api.openai.com":
                raise InvalidArgument("key", "ENV", "set the environment variable OPENAI_API_KEY, or pass key=…")
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
                sent = {"Authorization": f"Bearer {key}", **self._headers}, (key, *self._secrets)
            self._by_key[key] = sent
        return Request(url, sent[0], body, self._proxy, sent[1])

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
