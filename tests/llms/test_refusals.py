"""What a server says when it refuses becomes the exception that tells what to do."""

from __future__ import annotations

import email.utils
import json
import time
from typing import Any

import pytest
from hypothesis import given, strategies

from lagentlike.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextLengthExceeded,
    LLMError,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    ServerError,
)
from lagentlike.llms.refusals import refusal, refusal_in_stream, retry_after

from .asking import ask, both_ways, model
from .fault_server import FaultServer, refuse, reply

LIMIT_8192 = "This model's maximum context length is 8192 tokens."

# (server, its message or its whole answer, tokens used, limit)
TOO_LONG: list[tuple[str, Any, int | None, int | None]] = [
    ("OpenAI", f"{LIMIT_8192} However, your messages resulted in 9010 tokens. Please reduce them.", 9010, 8192),
    ("OpenAI", {"error": {"message": "too long", "code": "context_length_exceeded"}}, None, None),
    ("OpenAI", "Your input exceeds the context window of this model. Please adjust it and try again.", None, None),
    ("vLLM", f"{LIMIT_8192} However, you requested 8203 tokens (7691 in the messages, 512 in …).", 8203, 8192),
    ("vLLM", f"{LIMIT_8192} However, your request has 8203 input tokens. Please reduce the length.", 8203, 8192),
    ("vLLM", f"{LIMIT_8192} However, your prompt contains at least 8193 input tokens, which …", 8193, 8192),
    ("vLLM", "The decoder prompt (length 5951) is longer than the maximum model length of 4096.", 5951, 4096),
    ("vLLM", f"'max_tokens' is too large: 1000. {LIMIT_8192[:-1]} and your request has 203 input tokens", 203, 8192),
    ("vLLM", {"object": "error", "message": LIMIT_8192, "code": 400}, None, 8192),
    ("LMDeploy", "Input length (9000) must be smaller than the model context length (8192).", 9000, 8192),
    ("LMDeploy", "The request exceeds the model context length.", None, None),
    ("SGLang", "The input (9000 tokens) is longer than the model's context length (8192 tokens).", 9000, 8192),
    ("llama.cpp", "the request exceeds the available context size, try increasing it", None, None),
    ("llama.cpp", {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 4}}, 9, 4),
    ("Anthropic", "prompt is too long: 210000 tokens > 200000 maximum", 210000, 200000),
    ("Gemini", "The input token count (12) exceeds the maximum number of tokens allowed (10).", 12, 10),
    ("TGI", "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and …", 5000, 4096),
]


@pytest.mark.parametrize(("server_name", "told", "used", "limit"), TOO_LONG)
async def test_too_long_a_prompt_is_recognised_in_every_wording(
    server_name: str, told: Any, used: int | None, limit: int | None
) -> None:
    body = {"error": {"message": told}} if isinstance(told, str) else told
    async with FaultServer(reply(body, 400)) as server:
        with pytest.raises(ContextLengthExceeded) as caught:
            await ask(model(server), "chat")
    assert (caught.value.used, caught.value.limit) == (used, limit)
    assert len(server.requests) == 1


@both_ways
async def test_too_long_a_prompt_is_not_retried(way: str) -> None:
    async with FaultServer(refuse(400, TOO_LONG[0][1])) as server:
        with pytest.raises(ContextLengthExceeded):
            await ask(model(server), way)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, RequestRefused),
        (400, RequestRefused),
        (401, AuthenticationFailed),
        (403, AuthenticationFailed),
        (404, RequestRefused),
        (418, RequestRefused),
        (429, RateLimited),
        (500, ServerError),
        (529, ServerError),
        (101, BadResponse),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[LLMError]) -> None:
    error = refusal(status, {}, b'{"error": {"message": "because"}}', where="there")
    assert type(error) is kind
    assert error.status == status
    assert str(error).startswith(f"there answered {status}")
    assert kind is BadResponse or "because" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        {"code": "insufficient_quota"},
        {"type": "insufficient_quota"},
        {"message": "You exceeded your current quota, please check your plan and billing details."},
        {"code": "billing_hard_limit_reached"},
    ],
)
def test_used_up_quota_is_told_from_a_rate_limit(error: dict[str, str]) -> None:
    assert isinstance(refusal(429, {}, json.dumps({"error": error}).encode()), QuotaExhausted)
    assert not isinstance(refusal(429, {}, b'{"error": {"code": "rate_limit_exceeded"}}'), QuotaExhausted)


@pytest.mark.parametrize("body", [b"<html> <b>Bad\n Gateway</b>", b'"text"', b"[1]", b"\xff", b'{"error": null}', b""])
def test_any_body_makes_a_message(body: bytes) -> None:
    assert "502" in str(refusal(502, {}, body))


@given(strategies.binary(max_size=300), strategies.integers(100, 599))
def test_no_body_makes_it_fail(body: bytes, status: int) -> None:
    assert isinstance(refusal(status, {}, body, secrets=("k",)), LLMError)


FIELDS = strategies.sampled_from(["error", "message", "code", "status", "type"])
VALUES = strategies.none() | strategies.integers() | strategies.text()


@given(strategies.dictionaries(FIELDS, VALUES | strategies.dictionaries(FIELDS, VALUES)))
def test_no_event_makes_it_fail(event: dict[str, Any]) -> None:
    assert isinstance(refusal_in_stream(event), LLMError)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "-1"}, 0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "Wed, 99 Oct 99999 07:28:00 GMT"}, None),
    ],
)
def test_waiting_time_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_waiting_time_as_a_date_is_counted_from_now() -> None:
    seconds = retry_after({"Retry-After": email.utils.formatdate(time.time() + 100, usegmt=True)})
    assert seconds is not None
    assert 98 < seconds <= 100


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}),
        (402, {"type": "billing_error", "message": "Your payment failed."}),
        (402, {"message": "Insufficient Balance", "type": "unknown_error"}),
    ],
)
def test_an_account_without_money_is_told_by_its_words(status: int, error: dict[str, str]) -> None:
    assert isinstance(refusal(status, {}, json.dumps({"error": error}).encode()), QuotaExhausted)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("overloaded_error", 529), ("not_found_error", 404), ("request_too_large", 413), ("api_error", 500)],
)
def test_claudes_errors_in_a_stream_have_the_status_that_they_have_elsewhere(kind: str, status: int) -> None:
    error = refusal_in_stream({"type": "error", "error": {"type": kind, "message": "no"}})
    assert error.status == status
    assert isinstance(error, ServerError) == (status >= 500)
