"""The completions protocol from the server's side, with prompts of token ids as vLLM takes them.

See https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html and `CompletionRequest` in vLLM's
`vllm/entrypoints/openai/completion/protocol.py`.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ..schema import Completion, TokenSpan
from .openai_protocol import (
    BadRequest,
    Choices,
    generation_params,
    read_fields,
    SHARED_FIELDS,
    TokenBytes,
    usage_of,
    whole,
)

__all__ = ["CompletionRequest", "completion_body", "read_completion_request"]


@dataclass(frozen=True)
class CompletionRequest(Choices):
    """A checked request: the ids or the text to go on from, and how."""

    model: str
    prompt: str | list[int]
    params: dict[str, Any]
    n: int = 1
    logprobs: bool = False
    return_token_ids: bool = False


def read_completion_request(body: Any) -> CompletionRequest:
    """Check the parsed body of a request.

    Raises:
        BadRequest: something is missing, wrong or not served.
    """
    read = read_fields(body, _FIELDS, "prompt", "a list of token ids, or a text")
    params = {**generation_params(read), "logprobs": True}  # their ids are needed for the answer's `token_ids`
    if read.get("logprobs"):
        params["top_logprobs"] = read["logprobs"]
    return CompletionRequest(
        read["model"],
        read["prompt"],
        params,
        read.get("n", 1),
        logprobs="logprobs" in read,
        return_token_ids=read.get("return_token_ids", False),
    )


def completion_body(
    request: CompletionRequest, answers: list[Completion], token_bytes: TokenBytes | None
) -> dict[str, Any]:
    """The body of the response: one choice for each answer."""
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [_choice(request, index, answer, token_bytes) for index, answer in enumerate(answers)],
        "usage": usage_of(answers),
    }


def _choice(
    request: CompletionRequest, index: int, answer: Completion, token_bytes: TokenBytes | None
) -> dict[str, Any]:
    tokens = answer.tokens
    choice: dict[str, Any] = {
        "index": index,
        "text": answer.text,
        "logprobs": None,
        "finish_reason": answer.finish_reason or "stop",
        "stop_reason": None,
    }
    if request.logprobs and tokens is not None:
        choice["logprobs"] = _logprobs(tokens, token_bytes)
    if request.return_token_ids:
        choice["token_ids"] = None if tokens is None else tokens.ids
        choice["prompt_token_ids"] = None if tokens is None else tokens.prompt_ids
    return choice


def _logprobs(tokens: TokenSpan, token_bytes: TokenBytes | None) -> dict[str, Any]:
    """Four lists of one item a token: its text, where that begins, its log-probability, and the likeliest others'."""

    def text(id_: int) -> str:
        return f"token_id:{id_}" if token_bytes is None else token_bytes(id_).decode("utf-8", "replace")

    texts = [text(id_) for id_ in tokens.ids]
    offsets = list(accumulate(map(len, texts[:-1]), initial=0))
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


_FIELDS = {**SHARED_FIELDS, "prompt": _prompt, "logprobs": whole(0, 20)}
