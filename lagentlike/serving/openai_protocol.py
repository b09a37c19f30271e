"""The chat completions protocol of OpenAI from the server's side: request bodies in, response bodies out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import (
    BudgetExceeded,
    ContextLengthExceeded,
    InvalidArgument,
    LLMError,
    RateLimited,
    RequestRefused,
    RequestTimeout,
    ResponseTooLarge,
)
from ..schema import Completion, TokenSpan, Usage

__all__ = [
    "CHAT_FIELDS",
    "DONE",
    "SHARED_FIELDS",
    "BadRequest",
    "ChatRequest",
    "Choices",
    "Reply",
    "TokenBytes",
    "error_body",
    "failure",
    "generation_params",
    "read_chat_fields",
    "read_fields",
    "read_request",
    "usage_of",
    "whole",
]

DONE = b"[DONE]"
"""The last event of a stream that came to its end."""

TokenBytes = Callable[[int], bytes]
"""The bytes that a token id stands for."""


class BadRequest(Exception):
    """A request that cannot be served: HTTP status, message, and the field it is about; `details` for our clients."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        status: int = 400,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
        self.code = code
        self.details = details


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What requests for one or several choices share: which model, how it samples, and how the answer is to be sent."""

    model: str
    params: dict[str, Any]
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    return_token_ids: bool = False

    @staticmethod
    def shared(read: Mapping[str, Any]) -> dict[str, Any]:
        """Those of these fields, among the ones of a request that are set, which mean the same in all requests."""
        usage = bool(read.get("stream_options", {}).get("include_usage"))
        return {name: read[name] for name in ("model", "n", "stream") if name in read} | {"include_usage": usage}

    def params_of(self, choice: int) -> dict[str, Any]:
        """The generation parameters of one choice; each draws with a seed of its own."""
        if self.params.get("seed") is None:
            return self.params
        return {**self.params, "seed": self.params["seed"] + choice}


@dataclass(frozen=True, kw_only=True)
class ChatRequest(Choices):
    """A checked request with the messages that the model is to answer."""

    messages: list[dict[str, Any]]


def read_request(body: Any) -> ChatRequest:
    """Check the parsed body of a request.

    Raises:
        BadRequest: something is missing, wrong or not served.
    """
    read = read_chat_fields(body, CHAT_FIELDS)
    logprobs, ids = read.get("logprobs", False), read.get("return_token_ids", False)
    if read.get("top_logprobs") and not logprobs:
        raise BadRequest("top_logprobs needs logprobs=true", param="top_logprobs")
    params = generation_params(read)
    if logprobs or ids:
        params["logprobs"] = True
    return ChatRequest(
        **Choices.shared(read), messages=read["messages"], params=params, logprobs=logprobs, return_token_ids=ids
    )


def read_chat_fields(body: Any, fields: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    """The fields of a chat completion that are set, each checked; see `read_fields`."""
    return read_fields(body, fields, "messages", "a list such as [{'role': 'user', 'content': 'Hi'}]")


def read_fields(
    body: Any, fields: Mapping[str, Callable[[str, Any], Any]], needed: str, example: str
) -> dict[str, Any]:
    """The fields of a request's body that are set, each checked.

    Args:
        body: the parsed body.
        fields: what checks each field that is served.
        needed: the field that must be there besides `model`; `example` is what to give for it.

    Raises:
        BadRequest: something is missing, wrong or not served.
    """
    if not isinstance(body, Mapping):
        raise BadRequest(f"the body is {_kind(body)}: send a JSON object with 'model' and {needed!r}")
    for name, value in body.items():
        if name not in fields and name not in _WITHOUT_EFFECT and value not in _ONLY.get(name, (None,)):
            raise BadRequest(f"{name}={_short(value)} is not served here: leave it out", param=name)
    read = {name: check(name, body[name]) for name, check in fields.items() if body.get(name) is not None}
    if "model" not in read:
        raise BadRequest("'model' is missing: give its name, as GET /v1/models lists it", param="model")
    if needed not in read:
        raise BadRequest(f"{needed!r} is missing: give {example}", param=needed)
    return read


def generation_params(read: Mapping[str, Any]) -> dict[str, Any]:
    """The generation parameters among the fields of a request, under our names."""
    params = {target: read[name] for name, target in _PARAMS.items() if name in read}
    if params.get("top_k") == -1:  # as vLLM writes "all"
        params["top_k"] = 0
    return params


@dataclass
class Reply:
    """The response to one request, whole or in chunks."""

    request: ChatRequest
    token_bytes: TokenBytes | None = None
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answers: list[Completion]) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        choices = [
            self._choice(index, "message", self._message(answer), answer) for index, answer in enumerate(answers)
        ]
        body = self._body("chat.completion", choices)
        body["usage"] = usage_of(answers)
        if self.request.return_token_ids and answers[0].tokens is not None:
            body["prompt_token_ids"] = answers[0].tokens.prompt_ids
        return body

    def opening(self, index: int) -> dict[str, Any]:
        """The chunk that a choice begins with."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def text(self, index: int, text: str) -> dict[str, Any]:
        """A chunk with new text."""
        return self._chunk(index, {"content": text})

    def closing(self, index: int, answer: Completion) -> list[dict[str, Any]]:
        """The chunks that a choice ends with: tool calls, token ids with log-probabilities, the reason it stopped."""
        chunks = [
            self._chunk(index, {"tool_calls": [{"index": place, **call.as_openai()}]})
            for place, call in enumerate(answer.tool_calls or ())
        ]
        last = self._body("chat.completion.chunk", [self._choice(index, "delta", {}, answer)])
        if self.request.return_token_ids and answer.tokens is not None:
            last["prompt_token_ids"] = answer.tokens.prompt_ids
        return [*chunks, last]

    def usage(self, answers: list[Completion]) -> dict[str, Any]:
        """The chunk after the last one, with what all choices cost."""
        return {**self._body("chat.completion.chunk", []), "usage": usage_of(answers)}

    def _chunk(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._body("chat.completion.chunk", [choice])

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.request.model, "choices": choices}

    def _message(self, answer: Completion) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.reasoning is not None:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["content"] = answer.text or None
            message["tool_calls"] = [call.as_openai() for call in answer.tool_calls]
        return message

    def _choice(self, index: int, key: str, content: dict[str, Any], answer: Completion) -> dict[str, Any]:
        choice = {"index": index, key: content, "logprobs": None, "finish_reason": answer.finish_reason or "stop"}
        tokens = answer.tokens
        if self.request.logprobs and tokens is not None and tokens.logprobs is not None:
            choice["logprobs"] = {"content": self._logprobs(tokens), "refusal": None}
        if self.request.return_token_ids:
            choice["token_ids"] = None if tokens is None else tokens.ids
        return choice

    def _logprobs(self, tokens: TokenSpan) -> list[dict[str, Any]]:
        top = tokens.top_logprobs or [[] for _ in tokens.ids]
        return [
            {**self._token(id_, logprob), "top_logprobs": [self._token(*other) for other in others]}
            for id_, logprob, others in zip(tokens.ids, tokens.logprobs or (), top, strict=True)
        ]

    def _token(self, id_: int, logprob: float) -> dict[str, Any]:
        raw = f"token_id:{id_}".encode() if self.token_bytes is None else self.token_bytes(id_)
        return {"token": raw.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(raw)}


def failure(error: Exception) -> BadRequest:
    """The response that an error of the model amounts to."""
    if isinstance(error, BadRequest):
        return error
    if isinstance(error, InvalidArgument):
        return BadRequest(str(error), param=_WIRE_NAMES.get(error.argument, error.argument))
    if isinstance(error, ContextLengthExceeded):
        return BadRequest(str(error), param="messages", code="context_length_exceeded")
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return BadRequest(str(error), status=status, code=type(error).__name__)
    return BadRequest(f"the model failed: {type(error).__name__}", status=500, code="internal_error")


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (BudgetExceeded, 429),
    (RateLimited, 429),
    (RequestTimeout, 504),
    (ResponseTooLarge, 502),
    (RequestRefused, 400),
    (LLMError, 502),
)


def error_body(error: BadRequest) -> dict[str, Any]:
    """An error in the shape that OpenAI's clients read."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    body = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return {"error": body if error.details is None else {**body, "details": error.details}}


def usage_of(answers: list[Completion]) -> dict[str, Any]:
    """What the choices cost; they share one prompt."""
    usages = [answer.usage or Usage() for answer in answers]
    prompt, completion = usages[0].prompt_tokens, sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usages[0].cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": sum(usage.reasoning_tokens for usage in usages)},
    }


def _messages(name: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise BadRequest(f"{name} is {_short(value)}: give a non-empty list of messages", param=name)
    for index, message in enumerate(value):
        where = f"{name}[{index}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(
                f"{where} is {_short(message)}: a message is an object with 'role' and 'content'", param=where
            )
        if message.get("content") is None and not message.get("tool_calls"):
            raise BadRequest(f"{where} has neither 'content' nor 'tool_calls'", param=where)
        _calls(f"{where}.tool_calls", message.get("tool_calls"))
    return value


def _calls(where: str, calls: Any) -> None:
    if calls is None:
        return
    well_formed = isinstance(calls, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("function"), dict)
        and isinstance(call["function"].get("name"), str)
        and isinstance(call["function"].get("arguments"), str)
        for call in calls
    )
    if not well_formed:
        cure = "give a list of {'id', 'type': 'function', 'function': {'name', 'arguments'}}, arguments as JSON text"
        raise BadRequest(f"{where} is {_short(calls)}: {cure}", param=where)


def _tools(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"{name} is {_short(value)}: give a list", param=name)
    for index, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            cure = "give {'type': 'function', 'function': {'name': …, 'parameters': {…}}}"
            raise BadRequest(f"{name}[{index}] is {_short(tool)}: {cure}", param=f"{name}[{index}]")
    return value


def _stop(name: str, value: Any) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise BadRequest(f"{name} is {_short(value)}: give a non-empty text or a list of them", param=name)
    return words


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{name} is {_short(value)}: give a text", param=name)
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name} is {_short(value)}: give true or false", param=name)
    return value


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{name} is {_short(value)}: give an object", param=name)
    return value


def _any(name: str, value: Any) -> Any:
    return value


def whole(low: int, high: int) -> Callable[[str, Any], int]:
    """What checks a whole number from `low` to `high`."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadRequest(f"{name} is {_short(value)}: give a whole number from {low} to {high}", param=name)
        return value

    return check


def _number(low: float, high: float) -> Callable[[str, Any], float]:
    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadRequest(f"{name} is {_short(value)}: give a number from {low:g} to {high:g}", param=name)
        return value

    return check


_MANY = 2**31 - 1
_Fields = dict[str, Callable[[str, Any], Any]]
SHARED_FIELDS: _Fields = {
    "model": _text,
    "max_tokens": whole(1, _MANY),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": whole(-1, _MANY),
    "repetition_penalty": _number(0, 10),
    "seed": whole(0, 2**63 - 1),
    "stop": _stop,
    "n": whole(1, 64),
    "return_token_ids": _flag,
}
"""What checks the fields that chat completions and completions have in common."""
CHAT_FIELDS: _Fields = {
    **SHARED_FIELDS,
    "messages": _messages,
    "max_completion_tokens": whole(1, _MANY),
    "tools": _tools,
    "tool_choice": _any,
    "stream": _flag,
    "stream_options": _object,
    "logprobs": _flag,
    "top_logprobs": whole(0, 20),
}
"""What checks the fields of chat completions."""
# What a field is called among generation parameters; `max_completion_tokens` goes before `max_tokens`.
_PARAMS = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "stop": "stop_words",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "top_logprobs": "top_logprobs",
}
_WIRE_NAMES = {"max_new_tokens": "max_tokens", "stop_words": "stop", "prompt_ids": "prompt"}
# Fields that change nothing here whatever they say …
_WITHOUT_EFFECT = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
# … and those that are served with these values only.
_ONLY: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "parallel_tool_calls": (None, True),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "stream": (None, False),
    "echo": (None, False),
}


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), f"a {type(value).__name__}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
