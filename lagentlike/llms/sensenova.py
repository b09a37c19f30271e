"""SenseTime's SenseNova: its OpenAI-compatible address, and the older one with a format of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from ..errors import InvalidArgument
from ..schema import Completion
from .base import Conversation, Params, Part
from .codec import decode, encode
from .openai import _ChatCompletions
from .openai_wire import ChatAssembler, parse_completion, request_body, request_options
from .served import _AsyncServed, _BlockingServed, server_url
from .transport import Assembler, Request

__all__ = ["AsyncSensenovaAPI", "SensenovaAPI"]

R = TypeVar("R")
T = TypeVar("T")

_NATIVE = "/llm/chat-completions"


class _Sensenova(_ChatCompletions):
    """What both colours share: the calls as coroutines."""

    key_variable: ClassVar[str] = "SENSENOVA_API_KEY"
    key_host: ClassVar[str] = "api.sensenova.cn"

    def __init__(
        self,
        model_type: str = "SenseChat-5",
        retry: int | None = None,
        json_mode: bool = False,
        key: str | Sequence[str] | None = "ENV",
        meta_template: Sequence[Mapping[str, Any]] | None = None,
        sensenova_api_base: str = "https://api.sensenova.cn/compatible-mode/v2",
        proxies: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        base = options.pop("api_base", sensenova_api_base)
        self._native = server_url(base).path.rstrip("/").endswith(_NATIVE)
        super().__init__(
            model_type,
            retry=retry,
            key=key,
            meta_template=meta_template,
            api_base=base,
            proxies=proxies,
            json_mode=json_mode,
            **options,
        )
        if self._native:
            self.url = server_url(base)

    def _complete(self, messages: Conversation, params: Params, index: int = 0) -> Coroutine[Any, Any, Completion]:
        if not self._native:
            return super()._complete(messages, params, index)
        return self._ask(self._body(messages, params, stream=False), self._transport.post, _parse)

    def _assembler(self) -> Assembler[Part]:
        return _NativeChunks() if self._native else ChatAssembler()

    def _body(self, messages: Conversation, params: Params, *, stream: bool) -> bytes:
        if not self._native:
            return super()._body(messages, params, stream=stream)
        if params.get("json_mode") or params.get("response_format") is not None:
            raise InvalidArgument("json_mode", True, f"the address {_NATIVE} has no such mode: use the compatible one")
        options = request_options(self.path, params, "max_new_tokens", stream=stream)
        options.pop("stream_options", None)
        return request_body(messages, options, self._encoder)

    def _ask(
        self, body: bytes, send: Callable[[Request, R], Coroutine[Any, Any, T]], read: R
    ) -> Coroutine[Any, Any, T]:
        return super()._ask(body, lambda request, how: send(_signed(request), how), read)


class SensenovaAPI(_Sensenova, _BlockingServed):
    """A model of SenseNova.

    Args:
        model_type: the model's name.
        retry, meta_template, proxies: as for `GPTAPI`.
        json_mode: ask for a JSON object.
        key: an API key (`sk-…`), or an access key's id and secret as `id.secret`, which each request's token is signed
            with; `"ENV"` takes `SENSENOVA_API_KEY` from the environment, a list is used in turn.
        sensenova_api_base: the server's URL (or `api_base`). One that ends in `/v1/llm/chat-completions` is asked in
            SenseNova's older format, which Lagent's class spoke; any other, such as `https://token.sensenova.cn/v1`, in
            OpenAI's.
        **options: as for `GPTAPI`; `repetition_penalty`, `know_ids`, `plugins` and all else are sent as they are.

    >>> SensenovaAPI(key="k").url.path
    '/compatible-mode/v2/chat/completions'
    """


class AsyncSensenovaAPI(_Sensenova, _AsyncServed):
    """The async form of `SensenovaAPI`."""


def _signed(request: Request) -> Request:
    """The request with a token in place of an access key's secret."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    id_, dot, secret = key.partition(".")
    if scheme != "Bearer" or not (id_ and dot and secret) or "." in secret:  # with two dots it is a token already
        return request
    token = access_token(id_, secret, time.time())
    headers = {**request.headers, "Authorization": f"Bearer {token}"}
    return request._replace(headers=headers, secrets=(*request.secrets, secret, token))


def access_token(id_: str, secret: str, now: float) -> str:
    """The JSON web token that an access key stands for: HS256, good for half an hour.

    See https://www.sensecore.cn/help/docs/model-as-a-service/nova/overview/Authorization.
    """
    claims = {"iss": id_, "exp": int(now) + 1800, "nbf": int(now) - 5}
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = b".".join(map(_base64, parts))
    return b".".join((signed, _base64(hmac.new(secret.encode(), signed, hashlib.sha256).digest()))).decode()


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _parse(body: bytes) -> Completion:
    return parse_completion(_as_openai(body))


class _NativeChunks(ChatAssembler):
    """Builds one answer from the chunks of SenseNova's older format."""

    def feed(self, events: list[bytes]) -> list[Part]:
        return super().feed([event if event.strip() == b"[DONE]" else _as_openai(event) for event in events])


def _as_openai(raw: bytes) -> bytes:
    """What SenseNova wraps into `data`, with messages and deltas that are plain texts, in OpenAI's form."""
    told = decode(raw)
    answer = told.get("data") if type(told) is dict else None
    if type(answer) is not dict:
        return raw
    choices = answer.get("choices")
    mended = [_choice(choice) for choice in choices if type(choice) is dict] if type(choices) is list else choices
    return encode({**answer, "choices": mended}, "answer")


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    mended = dict(choice)
    for name in ("message", "delta"):
        if type(choice.get(name)) is str:
            mended[name] = {"role": "assistant", "content": choice[name], "tool_calls": choice.get("tool_calls")}
    return mended
