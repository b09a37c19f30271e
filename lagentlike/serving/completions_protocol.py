"""The completions protocol from the server's side, with prompts of token ids as vLLM takes them.

See https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html and `CompletionRequest` in vLLM's
`vllm/entrypoints/openai/completion/protocol.py`.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from ..schema import Completion, TokenSpan
from .openai_protocol import (
    BadRequest,
    CHAT_FIELDS,
    Choices,
    generation_params,
    read_fields,
    SHARED_FIELDS,
    TokenBytes,
    usage_of,
    whole,
)

__all__ = ["CompletionChunks", "CompletionRequest", "completion_body", "read_completion_request"]


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(Choices):
    """A checked request with the ids or the text to go on from."""

    prompt: str | list[int]


def read_completion_request(body: Any) -> CompletionRequest:
    """Check the parsed body of a request.

    Raises:
        BadRequest: something is missing, wrong or not served.
    """
    read = read_fields(body, _FIELDS, "prompt", "a list of token ids, or a text")
    params = {**generation_params(read), "logprobs": True}  # their ids are needed for the answer's `token_ids`
    if read.get("logprobs"):
        params["top_logprobs"] = read["logprobs"]
    ids = read.get("return_token_ids", False)
    return CompletionRequest(
        **Choices.shared(read), prompt=read["prompt"], params=params, logprobs="logprobs" in read, return_token_ids=ids
    )


def completion_body(
    request: CompletionRequest, answers: list[Completion], token_bytes: TokenBytes | None
) -> dict[str, Any]:
    """The body of the response: one choice for each answer."""
    choices = []
    for index, answer in enumerate(answers):
        reason = answer.finish_reason or "stop"
        choice = _choice(request, index, answer.text, answer.tokens, token_bytes, reason)
        if request.return_token_ids:
            choice["prompt_token_ids"] = None if answer.tokens is None else answer.tokens.prompt_ids
        choices.append(choice)
    return {**_body(request, choices), "usage": usage_of(answers)}


@dataclass
class CompletionChunks:
    """The response in chunks, each with the tokens that came with its text."""

    request: CompletionRequest
    prompt_ids: list[int]
    token_bytes: TokenBytes | None = None
    _head: dict[str, Any] = field(init=False)
    _sent: Counter[int] = field(default_factory=Counter)  # tokens of each choice
    _written: Counter[int] = field(default_factory=Counter)  # characters of their texts

    def __post_init__(self) -> None:
        self._head = _body(self.request, [])

    def opening(self, index: int) -> dict[str, Any]:
        """The chunk that a choice begins with: no text yet, and the prompt's ids where ids are wanted."""
        chunk = self._chunk(index, "", TokenSpan([], []), None)
        if self.request.return_token_ids:
            chunk["choices"][0]["prompt_token_ids"] = self.prompt_ids
        return chunk

    def text(self, index: int, text: str, answer: Completion) -> dict[str, Any]:
        """A chunk with new text of an answer that has come so far."""
        return self._chunk(index, text, self._new(index, answer.tokens), None)

    def closing(self, index: int, answer: Completion) -> list[dict[str, Any]]:
        """The chunk that a choice ends with: tokens without text, such as the end of turn, and why it stopped."""
        return [self._chunk(index, "", self._new(index, answer.tokens), answer.finish_reason or "stop")]

    def usage(self, answers: list[Completion]) -> dict[str, Any]:
        """The chunk after the last one, with what all choices cost."""
        return {**self._head, "usage": usage_of(answers)}

    def _new(self, index: int, tokens: TokenSpan | None) -> TokenSpan:
        """The tokens of a choice that were not sent yet."""
        if tokens is None:
            return TokenSpan([], [])
        sent, self._sent[index] = self._sent[index], len(tokens.ids)
        top = tokens.top_logprobs
        return TokenSpan(tokens.ids[sent:], (tokens.logprobs or [])[sent:], None, None if top is None else top[sent:])

    def _chunk(self, index: int, text: str, tokens: TokenSpan, reason: str | None) -> dict[str, Any]:
        choice = _choice(self.request, index, text, tokens, self.token_bytes, reason)
        if choice["logprobs"] is not None:
            start = self._written[index]
            self._written[index] += sum(map(len, choice["logprobs"]["tokens"]))
            choice["logprobs"]["text_offset"] = [start + offset for offset in choice["logprobs"]["text_offset"]]
        return {**self._head, "choices": [choice]}


def _body(request: CompletionRequest, choices: list[dict[str, Any]]) -> dict[str, Any]:
    made = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time())}
    return {**made, "model": request.model, "choices": choices}


def _choice(
    request: CompletionRequest,
    index: int,
    text: str,
    tokens: TokenSpan | None,
    token_bytes: TokenBytes | None,
    reason: str | None,
) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": reason,
        "stop_reason": None,
    }
    if request.logprobs and tokens is not None:
        choice["logprobs"] = _logprobs(tokens, token_bytes)
    if request.return_token_ids:
        choice["token_ids"] = None if tokens is None else tokens.ids
    return choice


def _logprobs(tokens: TokenSpan, token_bytes: TokenBytes | None) -> dict[str, Any]:
    """Four lists of one item a token: its text, where that begins, its log-probability, and the likeliest others'."""

    def text(id_: int) -> str:
        return f"token_id:{id_}" if token_bytes is None else token_bytes(id_).decode("utf-8", "replace")

    texts = [text(id_) for id_ in tokens.ids]
    offsets = list(accumulate(map(len, texts), initial=0))[:-1]
    sampled = [max(logprob, _LOWEST) for logprob in tokens.logprobs or ()]
    top = tokens.top_logprobs or [[] for _ in tokens.ids]
    steps = zip(texts, sampled, top, strict=True)
    likeliest = [{**{text(id_): max(other, _LOWEST) for id_, other in others}, own: p} for own, p, others in steps]
    return {"tokens": texts, "text_offset": offsets, "token_logprobs": sampled, "top_logprobs": likeliest}


_LOWEST = -9999.0  # what vLLM writes for minus infinity, which JSON has not


def _prompt(name: str, value: Any) -> str | list[int]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value and all(type(id_) is int and id_ >= 0 for id_ in value):
        return value
    raise BadRequest(f"{name} must be a list of token ids or a text, and not empty; one prompt a request", param=name)


_STREAMING = {name: CHAT_FIELDS[name] for name in ("stream", "stream_options")}
_FIELDS = {**SHARED_FIELDS, **_STREAMING, "prompt": _prompt, "logprobs": whole(0, 20)}
