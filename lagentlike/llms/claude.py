"""Claude, asked through Anthropic's own SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, ClassVar

from yarl import URL

from ..budget import charge_request
from ..errors import InvalidArgument, LLMError
from ..schema import Completion
from .base import Conversation, Params, Part
from .claude_sdk import KEY_HEADER, SDK
from .claude_wire import as_message, joined, message_request, MessageAssembler, parse_message, PAUSED
from .codec import encode
from .openai_wire import check_one_answer, sent_roles
from .served import _AsyncServed, _BlockingServed, _Served, server_url
from .transport import Opener, TransportOptions

__all__ = ["AsyncClaudeAPI", "ClaudeAPI"]


class _Claude(_Served):
    """What both colours share: the calls as coroutines."""

    key_variable: ClassVar[str] = "ANTHROPIC_API_KEY"
    key_host: ClassVar[str] = "api.anthropic.com"
    own_parameters = frozenset("cache thinking output_config container context_management".split())

    def __init__(
        self,
        model_type: str,
        retry: int | None = None,
        key: str | Sequence[str] | None = "ENV",
        proxies: Mapping[str, str] | None = None,
        meta_template: Sequence[Mapping[str, Any]] | None = None,
        api_base: str = "https://api.anthropic.com",
        **options: Any,
    ) -> None:
        if not isinstance(model_type, str) or not model_type:
            raise InvalidArgument("model_type", model_type, "give the model's name, such as 'claude-sonnet-4-5'")
        super().__init__(model_type, _endpoint(api_base), key=key, proxies=proxies, retry=retry, **options)
        self._roles = sent_roles(meta_template, _ROLES)

    @staticmethod
    def _authorization(key: str) -> dict[str, str]:
        return {KEY_HEADER: key}

    def _opener(self, options: TransportOptions) -> Opener:
        return SDK(str(self.url.with_path(self.url.path.removesuffix(_PATH))), self._access.proxy, options)

    async def _complete(self, messages: Conversation, params: Params, index: int = 0) -> Completion:
        answer = await self._ask(self._body(messages, params), self._transport.post, parse_message)
        for _ in range(_MOST_PAUSES):
            if answer.finish_reason != PAUSED:
                break
            charge_request()
            body = self._body([*messages, as_message(answer)], params)
            with _after(answer):
                answer = joined(answer, await self._ask(body, self._transport.post, parse_message))
        return answer

    async def _arriving(self, messages: Conversation, params: Params) -> AsyncIterator[list[Part]]:
        answer, before = Completion(), None
        for pauses_left in range(_MOST_PAUSES, -1, -1):
            asked = messages
            if before is not None:
                charge_request()
                asked = [*messages, as_message(before)]
            lists = self._streamed(self._body(asked, params, stream=True), MessageAssembler)
            async with aclosing(lists):  # type: ignore[type-var]  # generators close
                with _after(before):
                    async for parts in lists:
                        if before is not None:
                            parts = [(chunk, joined(before, so_far)) for chunk, so_far in parts]
                        answer = parts[-1][1]
                        if answer.finish_reason == PAUSED and pauses_left:
                            parts = parts[:-1]  # it goes on
                        if parts:
                            yield parts
            if answer.finish_reason != PAUSED:
                return
            before = answer

    def _body(self, messages: Conversation, params: Params, **more: Any) -> bytes:
        self._check(params)
        check_one_answer(params)
        return encode({**message_request(self.path, messages, params, self._roles), **more}, "messages")


class ClaudeAPI(_Claude, _BlockingServed):
    """Claude by Anthropic's own SDK (extra `anthropic`), or another server with its Messages API.

    Tools, several calls in one answer and their results, images and documents, thinking, streaming, structured output
    and prompt caching are native. What an answer holds beside text and calls (signed thinking, results of the API's own
    tools) is kept in its `blocks`, remembered by agents, and sent back as it was: the API asks for it in a tool loop.
    An answer that the API pauses while its own tools work is gone on with, up to ten times; each time is a request.

    Args:
        model_type: the model's name.
        retry: how often a request that failed in a way that may pass is made again (2 unless `transport` says so); the
            SDK makes none again.
        key: the API key; `"ENV"` takes `ANTHROPIC_API_KEY` from the environment, a list is used in turn (a key whose
            account has no money left is skipped), None sends none.
        proxies: `{"http": url, "https": url}`; None takes those of the environment (not for this machine), `{}` none.
        meta_template: which role a role is sent as: `[{"role": "critic", "api_role": "user"}]`. Without it
            `environment` messages are sent as `user`.
        api_base: the server's URL, with or without `/v1/messages`.
        extra_body: further fields of the request's body, which go before all others.
        headers, timeout, transport, limiter: as for `GPTAPI`; `headers={"anthropic-beta": …}` asks for what is new.
        max_new_tokens: most tokens an answer may have, thinking included; it must be given.
        temperature, top_p, top_k, stop_words: as for any model; those that are not set are not sent.
        **gen_params: `thinking` (most tokens it may take; True for as many as the model finds right, which is all that
            Opus 4.7 and later models take; False; or the API's dict), `reasoning_effort`, `response_format` (a pydantic
            class or a JSON schema), `cache=True` (or `"5m"`, `"1h"`), which caches tools, system prompt and the
            conversation so far, and any other field of the body. `tools` takes JSON schemas, and the API's own tools as
            they are.

    Raises:
        MissingExtra: the SDK is not installed.
        InvalidArgument: a parameter's name looks like a slip of a known one, or a value cannot be sent.

    >>> llm = ClaudeAPI("claude-sonnet-4-5", key="k", thinking=2048, max_new_tokens=4096, cache=True)
    >>> llm
    ClaudeAPI('claude-sonnet-4-5')
    """


class AsyncClaudeAPI(_Claude, _AsyncServed):
    """The async form of `ClaudeAPI`."""


_PATH = "/v1/messages"
_MOST_PAUSES = 10  # of one answer


@contextmanager
def _after(paused: Completion | None) -> Iterator[None]:
    """Have errors keep the text before a pause too."""
    try:
        yield
    except LLMError as error:
        error.partial = (paused or "") + error.partial
        raise


def _endpoint(api_base: str) -> URL:
    """The URL to post to; `/v1/messages` is added where it is missing."""
    url = server_url(api_base)
    path = url.path.rstrip("/").removesuffix("/messages").removesuffix("/v1")
    return url.with_path(path + _PATH).with_query(url.query)


_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "environment": "user",
}
