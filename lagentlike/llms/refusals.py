"""What a server's error answer means, as the exception to raise."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from ..errors import (
    AuthenticationFailed,
    BadResponse,
    ContextLengthExceeded,
    LLMError,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    RequestTimeout,
    ServerError,
)

__all__ = ["mask_error", "masked", "refusal", "refusal_in_stream", "retry_after"]


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, *, secrets: Iterable[str] = (), where: str = "the server"
) -> LLMError:
    """The exception for an answer whose HTTP status is not 2xx.

    Args:
        status, headers, body: the answer.
        secrets: texts that must not appear in the exception, even if the server repeats them.
        where: who answered, for the message.
    """
    error = _fields(body)
    text = masked(_message(error, body), secrets)
    raw = masked(body[:4096].decode("utf-8", "backslashreplace"), secrets)
    return _classified(status, error, text, headers, raw, where)


def refusal_in_stream(event: Mapping[str, Any], *, where: str = "the server") -> LLMError:
    """The exception for an error object that came inside a stream."""
    error = _inner(event)
    text = _message(error, b"") or "an error without a message"
    raw = json.dumps(event, ensure_ascii=False, default=str)[:1024]
    return _classified(_status(error), error, text, {}, raw, where)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret in it replaced by `***`, and the beginning of one too where the text ends within it."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
            cut = next((size for size in range(len(secret) - 1, _FEW, -1) if text.endswith(secret[:size])), 0)
            text = text[: len(text) - cut] + "***" if cut else text
    return text


_FEW = 7  # characters, which tell nothing of a key


def mask_error(error: LLMError, secrets: Iterable[str]) -> None:
    """Replace every secret in what an error says, and in what it keeps of the server's answer."""
    error.args = (masked(str(error), secrets),)
    error.raw = masked(error.raw, secrets)


def _classified(
    status: int, error: Mapping[str, Any], text: str, headers: Mapping[str, str], raw: str, where: str
) -> LLMError:
    message = f"{where} answered {status}: {text}" if text else f"{where} answered {status}"
    details: dict[str, Any] = {"status": status, "raw": raw}
    out_of_money = _says(error, _QUOTA)
    if status == 429 or (status >= 400 and out_of_money) or _says(error, ("rate_limit_exceeded",)):
        kind = QuotaExhausted if out_of_money else RateLimited
        return kind(message, retry_after=retry_after(headers), **details)
    if status in (401, 403):
        return AuthenticationFailed(f"{message} (check the key)", **details)
    if status in (400, 413, 422, 500):
        window = _window(error, text)
        if window is not None:
            return ContextLengthExceeded(message, used=window[0], limit=window[1], **details)
    if status == 408:
        return RequestTimeout(message, **details)
    if status >= 500:
        return ServerError(message, **details)
    if 300 <= status < 400:
        target = headers.get("Location", "nowhere")
        return RequestRefused(f"{message}; it redirects to {target}, which is not followed: mend api_base", **details)
    if status >= 400:
        return RequestRefused(message, **details)
    return BadResponse(f"{where} answered {status} without an answer", **details)


_QUOTA = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "exceeded your current quota",
    "insufficient balance",
    "credit balance is too low",
    "billing_error",
)


def _says(error: Mapping[str, Any], phrases: Iterable[str]) -> bool:
    told = " ".join(str(error.get(name, "")) for name in ("code", "type", "message")).lower()
    return any(phrase in told for phrase in phrases)


# Each family of servers has its own words for a prompt that is too long; `used` and `limit` are in tokens.
_WINDOW = (
    # OpenAI, vLLM, DeepSeek
    (
        r"maximum context length is (?P<limit>\d+)[^.]{0,40}\. however, (?:you requested|your messages resulted in"
        r"|your request has|your prompt contains)(?: at least)? (?P<used>\d+) (?:input )?tokens"
    ),
    r"maximum context length is (?P<limit>\d+) tokens and your request has (?P<used>\d+) input tokens",
    r"maximum context length is (?P<limit>\d+)",
    # vLLM
    r"prompt \(length (?P<used>\d+)\) is longer than the maximum model length of (?P<limit>\d+)",
    # LMDeploy
    r"input length \((?P<used>\d+)\) must be smaller than the model context length \((?P<limit>\d+)\)",
    # SGLang
    r"input \((?P<used>\d+) tokens\) is longer than the model's context length \((?P<limit>\d+) tokens\)",
    r"model's maximum context length of (?P<limit>\d+) tokens\. you requested a total of (?P<used>\d+) tokens",
    # llama.cpp
    r"request \((?P<used>\d+) tokens\) exceeds the available context size \((?P<limit>\d+) tokens\)",
    r"exceeds? the available context size",
    # Anthropic
    r"prompt is too long: (?P<used>\d+) tokens > (?P<limit>\d+)",
    r"exceed context limit: (?P<used>\d+) \+ \d+ > (?P<limit>\d+)",
    # Gemini
    r"input token count \((?P<used>\d+)\) exceeds the maximum number of tokens allowed \((?P<limit>\d+)\)",
    # TGI
    r"must be <= (?P<limit>\d+)\. given: (?P<used>\d+) `inputs` tokens",
    r"exceeds the (?:model )?context (?:length|window)",
    r"exceeds? maximum context length",
)
_WINDOW_CODES = ("context_length_exceeded", "exceed_context_size_error", "context_window_exceeded", "string_above_max")


def _window(error: Mapping[str, Any], text: str) -> tuple[int | None, int | None] | None:
    """(used, limit) when the error says that the prompt is too long."""
    found = next((match for pattern in _WINDOW if (match := re.search(pattern, text[:2048], re.IGNORECASE))), None)
    if found is None and not _says(error, _WINDOW_CODES):
        return None
    told = found.groupdict() if found is not None else {}
    return _int(told.get("used", error.get("n_prompt_tokens"))), _int(told.get("limit", error.get("n_ctx")))


def _fields(body: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return _inner(value) if isinstance(value, dict) else {}


def _inner(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that holds `message`, `type` and `code`: `{"error": {...}}`, or the answer itself."""
    error = value.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {**value, "message": error}
    return value


def _message(error: Mapping[str, Any], body: bytes) -> str:
    for name in ("message", "detail", "msg"):
        text = error.get(name)
        if text:
            return (text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, default=str))[:1000]
    return " ".join(body[:300].decode("utf-8", "backslashreplace").split())


def _status(error: Mapping[str, Any]) -> int:
    """The HTTP status that an error inside a stream stands for; the server's fault unless it says otherwise."""
    for name in ("status", "status_code", "http_code", "code"):
        number = _int(error.get(name))
        if number is not None and 400 <= number < 600:
            return number
    if _window(error, str(error.get("message", ""))) is not None or _says(error, ("invalid_request", "badrequest")):
        return 400
    if _says(error, ("authentication", "permission")):
        return 401
    if _says(error, ("rate_limit", "quota")):
        return 429
    return next((status for word, status in _STATUS_OF.items() if _says(error, (word,))), 500)


_STATUS_OF = {"not_found_error": 404, "request_too_large": 413, "overloaded_error": 529}


def _number(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _int(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return None
