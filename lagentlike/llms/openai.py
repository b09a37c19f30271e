"""Models behind any server that speaks OpenAI's chat-completions format."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from yarl import URL

from ..concurrency import iterate_in_background, run_in_background
from ..errors import InvalidArgument, QuotaExhausted
from ..schema import Completion
from .base import _LLM, AsyncBaseLLM, BaseLLM, Conversation, Params, side_by_side
from .openai_wire import (
    ChatAssembler,
    check_parameters,
    MessageEncoder,
    parse_completion,
    Part,
    request_body,
    request_options,
)
from .transport import Request, Transport, TransportOptions

__all__ = ["AsyncGPTAPI", "GPTAPI"]

R = TypeVar("R")
T = TypeVar("T")


class _ChatCompletions(_LLM):
    """What both colours share: the server, its keys, and the calls as coroutines."""

    def __init__(
        self,
        model_type: str,
        retry: int | None = None,
        key: str | Sequence[str] | None = "ENV",
        org: str | None = None,
        meta_template: Sequence[Mapping[str, Any]] | None = None,
        api_base: str = "https://api.openai.com/v1/chat/completions",
        proxies: Mapping[str, str] | None = None,
        json_mode: bool = False,
        *,
        response_format: Any = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        max_tokens_field: str | None = None,
        transport: TransportOptions | None = None,
        **gen_params: Any,
    ) -> None:
        if not isinstance(model_type, str) or not model_type:
            raise InvalidArgument("model_type", model_type, "give the model's name, as the server knows it")
        check_parameters(gen_params, _OWN_PARAMETERS)
        super().__init__(
            model_type,
            json_mode=json_mode or None,
            response_format=response_format,
            extra_body=dict(extra_body) if extra_body else None,
            **gen_params,
        )
        self.url = _endpoint(api_base)
        self._checked: frozenset[str] = frozenset(self.gen_params)
        self._limit_field = max_tokens_field or _limit_field(model_type)
        self._encoder = MessageEncoder(meta_template)
        self._access = _Access(key, org, headers, _proxy(self.url, proxies))
        self._transport = Transport(_options(transport, retry, timeout))

    async def _complete(self, messages: Conversation, params: Params) -> Completion:
        body = self._body(messages, params, stream=False)
        return await self._ask(body, self._transport.post, parse_completion)

    async def _arriving(self, messages: Conversation, params: Params) -> AsyncIterator[list[Part]]:
        """The answer part by part, in lists of parts that arrived together."""
        body = self._body(messages, params, stream=True)
        stream = await self._ask(body, self._transport.stream, ChatAssembler)
        try:
            async for parts in stream:
                yield parts
        finally:
            stream.close()

    def _body(self, messages: Conversation, params: Params, *, stream: bool) -> bytes:
        if not params.keys() <= self._checked:
            check_parameters(params, _OWN_PARAMETERS)
            self._checked |= params.keys()
        if params.get("n") not in (None, 1):
            raise InvalidArgument("n", params["n"], "one answer a conversation is read: use llm.chat([messages] * n)")
        options = request_options(self.path, params, self._limit_field, stream=stream)
        return request_body(messages, options, self._encoder)

    async def _ask(self, body: bytes, send: Callable[[Request, R], Awaitable[T]], read: R) -> T:
        """Send with the key whose turn it is, or with the next one where its quota is used up."""
        keys = self._access.keys_in_turn(self.url)
        while True:
            key = keys.pop(0)
            try:
                return await send(self._access.request(self.url, body, key), read)
            except QuotaExhausted:
                self._access.exhausted.add(key)
                if not keys:
                    raise


class GPTAPI(_ChatCompletions, BaseLLM):
    """A model behind an OpenAI-compatible server: OpenAI, vLLM, LMDeploy, SGLang, llama.cpp, Ollama, DeepSeek …

    It works in a script, in Jupyter and from many threads: requests run on one background event loop.

    Args:
        model_type: the model's name; any that the server knows.
        retry: how often a request that failed in a way that may pass is made again (2 unless `transport` says so).
        key: the API key; `"ENV"` takes `OPENAI_API_KEY` from the environment, a list is used in turn (a key whose quota
            is used up is skipped), None sends none.
        org: the organization to bill.
        meta_template: how roles are sent that the server may not know: `[{"role": "environment", "api_role": "user"}]`.
            Without it `environment` messages are sent as `user`. Templates such as `INTERNLM2_META` are accepted.
        api_base: the server's URL, with or without `/chat/completions`.
        proxies: `{"http": url, "https": url}`; None takes those of the environment (not for this machine), `{}` none.
        json_mode: ask for a JSON object.
        response_format: a pydantic model class or a JSON schema that the answer must fit.
        timeout: seconds that a whole call may take, retries included (600 unless `transport` says so).
        headers: further headers.
        extra_body: further fields of the request's body, which go before all others.
        max_tokens_field: what the server calls `max_new_tokens`: `max_tokens`, or `max_completion_tokens` for OpenAI's
            newer models.
        transport: all deadlines, caps and retries.
        max_new_tokens, temperature, top_p, top_k, repetition_penalty, stop_words: as for any model; those that are not
            set are not sent, and nothing is cut.
        **gen_params: any other field of the body, such as `seed`, `logprobs=True` or vLLM's `return_token_ids=True`.

    The answer's `tokens` are set where the server gives log-probabilities or token ids; where it gives only the former,
    `tokens.ids` is empty.

    Raises:
        InvalidArgument: a parameter's name looks like a slip of a known one, or a value cannot be used.

    >>> llm = GPTAPI("Qwen2.5-7B-Instruct", key=None, api_base="http://127.0.0.1:8000/v1", max_new_tokens=64)
    >>> llm
    GPTAPI('Qwen2.5-7B-Instruct')
    """

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
        answers = run_in_background(side_by_side([self._complete(messages, params) for messages in batch]))
        return [self._finish(answer) for answer in answers]


class AsyncGPTAPI(_ChatCompletions, AsyncBaseLLM):
    """The async form of `GPTAPI`.

    >>> llm = AsyncGPTAPI("gpt-4o", key="k", temperature=0)
    >>> llm.gen_params["temperature"]
    0
    """

    async def aclose(self) -> None:
        """Close the connections of this event loop that are kept alive; a later call opens new ones."""
        await self._transport.aclose()

    _chat = _ChatCompletions._complete
    _part_lists = _ChatCompletions._arriving


_OWN_PARAMETERS = frozenset(
    "model_type retry key org meta_template api_base proxies timeout headers max_tokens_field transport".split()
)


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


def _endpoint(api_base: str) -> URL:
    """The URL to post to; `/chat/completions` is added where it is missing."""
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
    path = url.path.rstrip("/")
    if not path:
        path = "/v1"
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return url.with_path(path).with_query(url.query)


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


def _limit_field(model: str) -> str:
    """OpenAI's newer models refuse `max_tokens`; most other servers know nothing else."""
    newer = re.match(r"o\d|gpt-([5-9]|\d\d)", model.rpartition("/")[2])
    return "max_completion_tokens" if newer else "max_tokens"
