"""Models behind servers that take prompts as token ids: vLLM, SGLang, LMDeploy, llama.cpp, `lagentlike serve-model`."""

from __future__ import annotations

from typing import Any

from yarl import URL

from ..errors import InvalidArgument, RequestRefused
from ..prompts.chat.template import ChatTemplate
from ..schema import Completion
from .base import Conversation, Params
from .codec import encode
from .served import _AsyncServed, _BlockingServed, _Served, server_url
from .token_model import _TokenModel, chat_tokenizer, of_batch
from .token_wire import SERVERS

__all__ = ["AsyncTokenAPI", "TokenAPI"]


class _TokenAPI(_TokenModel, _Served):
    """What both colours share: the server, and the call as a coroutine."""

    own_parameters = frozenset("tokenizer server template prompt_ids tool_format".split())

    def __init__(
        self,
        model_type: str,
        tokenizer: Any,
        server: str = "vllm",
        *,
        api_base: str,
        template: ChatTemplate | str | None = None,
        **options: Any,
    ) -> None:
        if server not in SERVERS:
            raise InvalidArgument("server", server, f"name the engine that runs there: {', '.join(SERVERS)}")
        super().__init__(model_type, _endpoint(api_base, SERVERS[server].path), **options)
        self.server = server
        self.prompts = chat_tokenizer(tokenizer, template)

    async def _complete(self, messages: Conversation, params: Params, index: int = 0) -> Completion:
        self._check(params)
        params, server = of_batch(params, index), SERVERS[self.server]
        prompt = self._prompt(messages, params, index)
        body = {**server.request(self.path, prompt.ids, params), **(params.get("extra_body") or {})}
        try:
            answer = await self._ask(encode(body, "parameters"), self._transport.post, server.parse)
        except RequestRefused as error:
            if error.status not in (404, 405):
                raise
            raise RequestRefused(
                f"{error}; it was asked at {self.url.path} as server={self.server!r} is: "
                f"name the engine that runs there ({', '.join(SERVERS)}), and the model as it is called there",
                status=error.status,
                raw=error.raw,
            ) from None
        return self._read(prompt, answer, params, server.drops_last)


class TokenAPI(_TokenAPI, _BlockingServed):
    """A model behind a server that takes prompts as token ids: vLLM, SGLang, LMDeploy, llama.cpp or our own.

    Conversations are rendered here, with the model's own tokenizer; the server is sent ids and gives ids. So
    `prompt_ids=` goes on from exact token ids, and an answer's `tokens` are exact: the ids it was sampled from, the
    sampled ids, their log-probabilities.

    Args:
        model_type: the model's name, as the server knows it.
        tokenizer: its tokenizer: a Hugging Face directory or name, a fast tokenizer, or a `ChatTokenizer`.
        server: the engine that runs there: `"vllm"` (from 0.10.2 on), `"sglang"`, `"lmdeploy"`, `"llamacpp"`, or
            `"lagentlike"`, which is `lagentlike serve-model`.
        api_base: the server's URL, with or without `/v1`.
        template: a `ChatTemplate` or the name of one; None for the tokenizer's own.
        key: the API key, or several that are used in turn; `"ENV"` takes `OPENAI_API_KEY` from the environment.
        headers, proxies, retry, timeout, transport, limiter: as for `GPTAPI`.
        extra_body: further fields of the request's body, which go before all others.
        max_new_tokens, temperature, top_p, top_k, repetition_penalty, stop_words: as for any model.
        **gen_params: `logprobs=True` puts ids and log-probabilities into `Completion.tokens`; `seed`, which LMDeploy's
            server does not take; `tools`, `tool_choice`, `tool_format` and `prompt_ids` as for `HFTransformer`; any
            other sampling parameter of the engine.

    Log-probabilities are as the engine gives them; see the guide to rollouts for how to start each server so that they
    are the model's own.

    Raises:
        InvalidArgument: there is no such server or tokenizer, or a parameter cannot be used.
        MissingTokens: from a call: the server gave no token ids.

    >>> from lagentlike.llms.tiny.engine import WEIGHTS
    >>> TokenAPI("tinylm", WEIGHTS, "lagentlike", api_base="http://127.0.0.1:8000").url.path
    '/v1/completions'
    """


class AsyncTokenAPI(_TokenAPI, _AsyncServed):
    """The async form of `TokenAPI`; a call that is cancelled closes its connection, at which the engine stops."""


def _endpoint(api_base: str, path: str) -> URL:
    """The URL to post to, whichever of a server's addresses was given."""
    url = server_url(api_base)
    base = url.path.rstrip("/")
    for end in ("/chat/completions", "/completions", "/completion", "/generate", "/v1"):
        base = base.removesuffix(end)
    return url.with_path(base + path).with_query(url.query)
