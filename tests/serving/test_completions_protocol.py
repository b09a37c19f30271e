"""Completions with prompts of token ids, driven by OpenAI's client and by hand."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import openai
import pytest

from lagentlike.concurrency import run_in_background
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM, TinyLM
from lagentlike.llms.tiny.engine import TinyEngine
from lagentlike.serving import ModelServer

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def tiny() -> Iterator[ModelServer]:
    """A server over the embedded model, on the background loop."""
    server = ModelServer(AsyncTinyLM(), "tinylm", port=0)
    run_in_background(server.start())
    yield server
    run_in_background(server.stop())


@pytest.fixture
def client(tiny: ModelServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=tiny.url, api_key="unused", max_retries=0) as client:
        yield client


def prompt_ids() -> list[int]:
    return TinyEngine.load().render(HELLO)


async def post(url: str, body: Any) -> tuple[int, Any]:
    payload = json.dumps(body).encode()
    async with aiohttp.ClientSession() as http, http.post(f"{url}/completions", data=io.BytesIO(payload)) as response:
        return response.status, await response.json(content_type=None)


def test_a_prompt_of_ids_gives_the_ids_and_log_probabilities_of_the_model(client: openai.OpenAI) -> None:
    truth = TinyLM(logprobs=True).chat(HELLO)
    assert truth.tokens is not None
    answer = client.completions.create(
        model="tinylm", prompt=prompt_ids(), max_tokens=64, logprobs=2, extra_body={"return_token_ids": True}
    )
    [choice] = answer.choices
    extra: Any = choice.model_extra
    assert answer.object == "text_completion"
    assert choice.text == truth.text
    assert choice.finish_reason == "stop"
    assert extra["token_ids"] == truth.tokens.ids
    assert extra["prompt_token_ids"] == prompt_ids()
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs == pytest.approx(truth.tokens.logprobs, abs=1e-6)
    assert choice.logprobs.tokens is not None
    assert choice.logprobs.text_offset is not None
    text = "".join(choice.logprobs.tokens)
    places = zip(choice.logprobs.text_offset, choice.logprobs.tokens, strict=True)
    assert all(text.startswith(token, place) for place, token in places)
    assert choice.logprobs.top_logprobs is not None
    for likeliest, token, logprob in zip(
        choice.logprobs.top_logprobs, choice.logprobs.tokens, choice.logprobs.token_logprobs or (), strict=True
    ):
        assert 2 <= len(likeliest) <= 3
        assert likeliest[token] == logprob
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(prompt_ids())
    assert answer.usage.completion_tokens == len(truth.tokens.ids)


def test_ids_and_log_probabilities_come_where_they_are_asked_for_only(client: openai.OpenAI) -> None:
    [choice] = client.completions.create(model="tinylm", prompt=prompt_ids()).choices
    assert choice.logprobs is None
    assert "token_ids" not in (choice.model_extra or {})
    [sampled] = client.completions.create(model="tinylm", prompt=prompt_ids(), logprobs=0).choices
    assert sampled.logprobs is not None
    assert sampled.logprobs.tokens is not None
    assert [list(one) for one in sampled.logprobs.top_logprobs or ()] == [[token] for token in sampled.logprobs.tokens]


def test_a_prompt_of_text_is_tokenized_and_choices_draw_with_seeds_of_their_own(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tinylm",
        prompt="Once upon a time",
        n=3,
        seed=1,
        temperature=2.0,
        max_tokens=12,
        stream=False,
        extra_body={"return_token_ids": True, "top_k": -1},
    )
    sampled = [(choice.model_extra or {}) for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(one["prompt_token_ids"] == TinyLM().tokenize("Once upon a time") for one in sampled)
    assert len({tuple(one["token_ids"]) for one in sampled}) > 1


@pytest.mark.parametrize("top", [0, 2])
def test_the_chunks_of_a_stream_hold_what_the_whole_answer_does(client: openai.OpenAI, top: int) -> None:
    asked: dict[str, Any] = {"model": "tinylm", "prompt": prompt_ids(), "max_tokens": 12, "logprobs": top}
    asked |= {"n": 2, "seed": 1, "temperature": 1.5, "extra_body": {"return_token_ids": True}}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage == whole.usage
    assert not chunks[-1].choices
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert len([part for part in parts if part.text]) > 2  # it came bit by bit, each with its tokens
        assert all((part.model_extra or {})["token_ids"] for part in parts if part.text)
        assert "".join(part.text for part in parts) == choice.text
        told = [part.model_extra or {} for part in parts]
        assert [id_ for one in told for id_ in one["token_ids"]] == (choice.model_extra or {})["token_ids"]
        assert [one.get("prompt_token_ids") for one in told] == [prompt_ids()] + [None] * (len(parts) - 1)
        assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + [choice.finish_reason]
        for name in ("tokens", "text_offset", "token_logprobs", "top_logprobs"):
            told_too = [item for part in parts for item in getattr(part.logprobs, name)]
            for one, other in zip(told_too, getattr(choice.logprobs, name), strict=True):
                assert one == (other if isinstance(other, str) else pytest.approx(other, abs=1e-4))


def test_a_stream_without_extras_is_text(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tinylm", "prompt": prompt_ids()}
    chunks = list(client.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == client.completions.create(**asked).choices[0].text
    assert all(chunk.choices[0].logprobs is None and chunk.usage is None for chunk in chunks)
    assert all("token_ids" not in (chunk.choices[0].model_extra or {}) for chunk in chunks)


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"prompt": [1]}, "model", "'model' is missing"),
        ({"model": "tinylm"}, "prompt", "'prompt' is missing: give a list of token ids"),
        ({"model": "tinylm", "prompt": []}, "prompt", "list of token ids or a text"),
        ({"model": "tinylm", "prompt": [[1, 2]]}, "prompt", "one prompt a request"),
        ({"model": "tinylm", "prompt": [1, True]}, "prompt", "list of token ids"),
        ({"model": "tinylm", "prompt": [1, 10**9]}, "prompt", "each from 0 to"),
        ({"model": "tinylm", "prompt": [1], "stream": 1}, "stream", "give true or false"),
        ({"model": "tinylm", "prompt": [1], "logprobs": True}, "logprobs", "whole number from 0 to 20"),
        ({"model": "tinylm", "prompt": [1] * 100_000}, "messages", "the model reads"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(tiny: ModelServer, body: Any, param: str, says: str) -> None:
    status, answer = asyncio.run(post(tiny.url, body))
    assert status == 400
    assert answer["error"]["param"] == param
    assert says in answer["error"]["message"]


async def test_a_model_without_token_ids_says_so() -> None:
    async with ModelServer(AsyncScriptedLLM(["unused"]), "m", port=0) as server:
        status, answer = await post(server.url, {"model": "m", "prompt": [1, 2]})
    assert status == 400
    assert "this model takes messages only" in answer["error"]["message"]
