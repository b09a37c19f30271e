"""Models of Ollama, asked in its own format."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, ClassVar

from yarl import URL

from ..errors import InvalidArgument
from ..schema import Completion
from .base import Conversation, Params, Part
from .ollama_wire import chat_options, ChatLines, OllamaEncoder, parse_chat
from .openai_wire import check_one_answer, request_body
from .served import _AsyncServed, _BlockingServed, _Served, server_url

__all__ = ["AsyncOllamaAPI", "OllamaAPI"]


class _Ollama(_Served):
    """What both colours share: the calls as coroutines."""

    key_variable: ClassVar[str] = "OLLAMA_API_KEY"
    key_host: ClassVar[str] = "ollama.com"
    own_parameters = frozenset(
        "think format truncate shift num_predict num_keep num_batch num_gpu main_gpu num_thread repeat_last_n "
        "typical_p mirostat mirostat_eta mirostat_tau use_mmap penalize_newline".split()
    )

    def __init__(
        self,
        model_type: str,
        *,
        api_base: str = "http://127.0.0.1:11434",
        key: str | Sequence[str] | None = "ENV",
        meta_template: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(model_type, str) or not model_type:
            raise InvalidArgument("model_type", model_type, "give the model's name, such as 'qwen3:8b'")
        super().__init__(model_type, _endpoint(api_base), key=key, **options)
        self._encoder = OllamaEncoder(meta_template)

    def _complete(self, messages: Conversation, params: Params, index: int = 0) -> Coroutine[Any, Any, Completion]:
        return self._ask(self._body(messages, params, stream=False), self._transport.post, parse_chat)

    def _arriving(self, messages: Conversation, params: Params) -> AsyncIterator[list[Part]]:
        return self._streamed(self._body(messages, params, stream=True), ChatLines)

    def _body(self, messages: Conversation, params: Params, *, stream: bool) -> bytes:
        self._check(params)
        check_one_answer(params)
        return request_body(messages, chat_options(self.path, params, stream=stream), self._encoder)


class OllamaAPI(_Ollama, _BlockingServed):
    """A model of Ollama by its own `/api/chat`, which knows more than its OpenAI-compatible address (for `GPTAPI`).

    Args:
        model_type: the model's name, such as `qwen3:8b`; it must be pulled already.
        api_base: the server's URL.
        key: the key of ollama.com; `"ENV"` takes `OLLAMA_API_KEY` from the environment, where it is set.
        meta_template: how roles are sent that the server does not know; without it `environment` is sent as `user`.
        extra_body: further fields of the request's body, which go before all others.
        **options: `headers`, `proxies`, `retry`, `timeout`, `transport`, `limiter` as for `GPTAPI`; `think` (True,
            False, "low" …), `keep_alive`, `json_mode`, `response_format`, `logprobs`; `max_new_tokens`, `temperature`,
            `top_p`, `top_k`, `repetition_penalty`, `stop_words`, `seed`, and any other of Ollama's options, such as
            `num_ctx`: without it Ollama cuts long conversations to a few thousand tokens.

    Images are taken as `data:` URLs. Ollama gives no token ids: `logprobs=True` brings log-probabilities alone.

    >>> OllamaAPI("qwen3:8b", num_ctx=32768, think=True, key=None)
    OllamaAPI('qwen3:8b')
    """


class AsyncOllamaAPI(_Ollama, _AsyncServed):
    """The async form of `OllamaAPI`."""


def _endpoint(api_base: str) -> URL:
    """The URL to post to, whichever of the server's addresses was given."""
    url = server_url(api_base)
    path = url.path.rstrip("/")
    for end in ("/chat", "/api", "/v1"):
        path = path.removesuffix(end)
    return url.with_path(f"{path}/api/chat").with_query(url.query)
