"""Models behind any server that speaks OpenAI's chat-completions format."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

from yarl import URL

from ..errors import InvalidArgument
from ..schema import Completion
from .base import Conversation, Params
from .openai_wire import (
    ChatAssembler,
    check_one_answer,
    MessageEncoder,
    parse_completion,
    Part,
    request_body,
    request_options,
)
from .served import _AsyncServed, _BlockingServed, _Served, server_url
from .transport import Assembler

__all__ = ["AsyncGPTAPI", "GPTAPI"]


class _ChatCompletions(_Served):
    """What both colours share: the calls as coroutines."""

    own_parameters = frozenset(["max_tokens_field"])

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
        max_tokens_field: str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(model_type, str) or not model_type:
            raise InvalidArgument("model_type", model_type, "give the model's name, as the server knows it")
        super().__init__(
            model_type,
            _endpoint(api_base),
            key=key,
            org=org,
            proxies=proxies,
            retry=retry,
            json_mode=json_mode or None,
            response_format=response_format,
            **options,
        )
        self._limit_field = max_tokens_field or _limit_field(model_type)
        self._encoder = MessageEncoder(meta_template)

    def _complete(self, messages: Conversation, params: Params, index: int = 0) -> Coroutine[Any, Any, Completion]:
        return self._ask(self._body(messages, params, stream=False), self._transport.post, parse_completion)

    def _arriving(self, messages: Conversation, params: Params) -> AsyncIterator[list[Part]]:
        return self._streamed(self._body(messages, params, stream=True), self._assembler)

    def _assembler(self) -> Assembler[Part]:
        """What builds an answer from its stream."""
        return ChatAssembler()

    def _body(self, messages: Conversation, params: Params, *, stream: bool) -> bytes:
        self._check(params)
        check_one_answer(params)
        options = request_options(self.path, params, self._limit_field, stream=stream)
        return request_body(messages, options, self._encoder)


class GPTAPI(_ChatCompletions, _BlockingServed):
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
        limiter: a `RateLimiter`, shared by the models of an account.
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


class AsyncGPTAPI(_ChatCompletions, _AsyncServed):
    """The async form of `GPTAPI`.

    >>> llm = AsyncGPTAPI("gpt-4o", key="k", temperature=0)
    >>> llm.gen_params["temperature"]
    0
    """


def _endpoint(api_base: str) -> URL:
    """The URL to post to; `/chat/completions` is added where it is missing."""
    url = server_url(api_base)
    path = url.path.rstrip("/") or "/v1"
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return url.with_path(path).with_query(url.query)


def _limit_field(model: str) -> str:
    """OpenAI's newer models refuse `max_tokens`; most other servers know nothing else."""
    newer = re.match(r"o\d|gpt-([5-9]|\d\d)", model.rpartition("/")[2])
    return "max_completion_tokens" if newer else "max_tokens"
