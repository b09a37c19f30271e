"""Models behind servers that take token ids: our own server for real, the formats of others on loopback."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tokenizers import Tokenizer

from lagentlike.errors import (
    BadResponse,
    ContextLengthExceeded,
    InvalidArgument,
    MissingTokens,
    RealRequestsForbidden,
    RequestRefused,
)
from lagentlike.llms import AsyncTinyLM, AsyncTokenAPI, forbid_real_requests, TinyLM, TokenAPI
from lagentlike.llms.tiny.engine import WEIGHTS
from lagentlike.prompts.chat.tokenizer import ChatTokenizer
from lagentlike.schema import Completion, TokenSpan, ToolCall
from lagentlike.serving import ModelServer

from .asking import given_up
from .fault_server import FaultServer, reply
from .test_token_wire import LLAMACPP, LMDEPLOY, SGLANG, VLLM
from .token_servers import LlamaCppServer, LMDeployServer, SGLangServer

HELLO = [{"role": "user", "content": "Hello"}]
TEA = [{"role": "user", "content": "Write about tea."}]
ONE_PLUS_ONE = [{"role": "user", "content": "What is the result of 1 + 1?"}]
CALCULATOR: Any = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluate an arithmetic expression.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}
FAKES: dict[str, Callable[[], Any]] = {
    "sglang": SGLangServer,
    "lmdeploy": LMDeployServer,
    "llamacpp": LlamaCppServer,
}
each_server = pytest.mark.parametrize("name", ["lagentlike", "vllm", "sglang", "lmdeploy", "llamacpp"])


@asynccontextmanager
async def served(name: str) -> AsyncIterator[str]:
    """The address of a server of this kind over the embedded model; vLLM's format is the one of our own."""
    server = FAKES[name]() if name in FAKES else ModelServer(AsyncTinyLM(), "tinylm", port=0)
    async with server:
        yield server.url


def client(name: str, url: str, **options: Any) -> AsyncTokenAPI:
    return AsyncTokenAPI("tinylm", WEIGHTS, name, api_base=url, **{"temperature": 0.0, "logprobs": True, **options})


def tokens(answer: Completion) -> TokenSpan:
    assert answer.tokens is not None
    return answer.tokens


@each_server
async def test_an_answer_over_http_is_that_of_the_engine_itself(name: str) -> None:
    truth = TinyLM(logprobs=True).chat(HELLO)
    async with served(name) as url:
        answer = await client(name, url).chat(HELLO)
    assert answer == truth
    assert answer.finish_reason == "stop"
    assert tokens(answer).ids == tokens(truth).ids
    assert tokens(answer).prompt_ids == tokens(truth).prompt_ids
    assert tokens(answer).logprobs == pytest.approx(tokens(truth).logprobs, abs=1e-6)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(tokens(truth).ids)
    assert answer.usage.prompt_tokens == len(tokens(truth).prompt_ids or ())


@each_server
async def test_it_goes_on_from_exact_ids_that_no_text_would_give(name: str) -> None:
    local = TinyLM()
    ids = local.tokenize("Wh") + local.tokenize("at") + (tokens(local.chat(HELLO, logprobs=True)).prompt_ids or [])
    truth = local.chat(HELLO, prompt_ids=ids, logprobs=True, max_new_tokens=12)
    async with served(name) as url:
        answer = await client(name, url, max_new_tokens=12).chat(HELLO, prompt_ids=ids)
    assert tokens(answer).prompt_ids == ids
    assert tokens(answer).ids == tokens(truth).ids
    assert answer == truth


@each_server
async def test_an_answer_that_is_cut_ends_where_the_limit_is(name: str) -> None:
    async with served(name) as url:
        answer = await client(name, url, max_new_tokens=3).chat(HELLO)
    assert answer.finish_reason == "length"
    assert len(tokens(answer).ids) == 3
    assert answer == TinyLM(max_new_tokens=3).chat(HELLO)


@each_server
async def test_tools_are_offered_in_the_prompt_and_calls_read_from_the_text(name: str) -> None:
    truth = TinyLM(logprobs=True).chat(ONE_PLUS_ONE, tools=[CALCULATOR])
    async with served(name) as url:
        llm = client(name, url)
        answer = await llm.chat(ONE_PLUS_ONE, tools=[CALCULATOR])
        forced = await llm.chat(HELLO, tools=[CALCULATOR], tool_choice="required")
    [call] = answer.tool_calls or ()
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("calculator", {"expression": "1 + 1"})
    assert answer.finish_reason == "tool_calls"
    assert tokens(answer).ids == tokens(truth).ids
    assert [call.name for call in forced.tool_calls or ()] == ["calculator"]


@pytest.mark.parametrize("name", ["lagentlike", "sglang", "llamacpp"])
async def test_stop_words_end_an_answer_and_a_seed_repeats_it(name: str) -> None:
    async with served(name) as url:
        llm = client(name, url, temperature=1.5, top_k=0, top_p=1.0, max_new_tokens=24)
        assert await llm.chat(HELLO, seed=5) == await llm.chat(HELLO, seed=5)
        stopped = await llm.chat(HELLO, temperature=0, stop_words=["e"])
        batch = await llm.chat([TEA, TEA, TEA], seed=1)
        alone = await llm.chat(TEA, seed=2)
    assert "e" not in stopped
    assert stopped.finish_reason == "stop"
    whole = name != "llamacpp"  # which tells nothing of the tokens of a stop word
    assert ("e" in llm.detokenize(tokens(stopped).ids)) is whole  # what was sampled is kept
    assert batch[1] == alone
    assert len(set(batch)) > 1


async def test_token_ids_are_kept_only_where_they_are_asked_for() -> None:
    async with served("lagentlike") as url:
        llm = client("lagentlike", url, logprobs=None)
        assert (await llm.chat(HELLO)).tokens is None
        assert llm.usage.requests == 1


def test_the_blocking_form_answers_alike() -> None:
    async def ask() -> tuple[Completion, list[Completion]]:
        async with served("lagentlike") as url:
            llm = TokenAPI("tinylm", WEIGHTS, "lagentlike", api_base=url, temperature=0)
            try:
                return await asyncio.to_thread(llm.chat, HELLO), await asyncio.to_thread(
                    llm.chat, [HELLO, ONE_PLUS_ONE]
                )
            finally:
                await asyncio.to_thread(llm.close)

    answer, batch = asyncio.run(ask())
    assert answer == TinyLM().chat(HELLO)
    assert batch == TinyLM().chat([HELLO, ONE_PLUS_ONE])
    assert list(inspect.signature(TokenAPI).parameters) == list(inspect.signature(AsyncTokenAPI).parameters)


@pytest.mark.parametrize("name", ["sglang", "lmdeploy", "llamacpp"])
async def test_a_cancelled_call_is_given_up_by_the_server(name: str) -> None:
    async with FAKES[name]() as server:
        server.delay = 30.0
        await given_up(client(name, server.url).chat(HELLO), server)


@each_server
async def test_a_prompt_that_is_too_long_is_a_refusal(name: str) -> None:
    async with served(name) as url:
        with pytest.raises(RequestRefused) as refused:
            await client(name, url).chat(HELLO, prompt_ids=[1] * 5000)
    assert "the model reads" in str(refused.value)
    assert isinstance(refused.value, ContextLengthExceeded) == (name in ("lagentlike", "vllm"))


@pytest.mark.parametrize(("name", "asked_as"), [("sglang", "vllm"), ("lmdeploy", "vllm"), ("vllm", "sglang")])
async def test_a_server_that_is_named_wrongly_is_said_to_be(name: str, asked_as: str) -> None:
    async with served(name) as url:
        with pytest.raises(RequestRefused, match=f"as server='{asked_as}' is: name the engine that runs there"):
            await client(asked_as, url).chat(HELLO)


@pytest.mark.parametrize(("name", "asked_as"), [("sglang", "lmdeploy"), ("lmdeploy", "sglang")])
async def test_engines_with_the_same_address_are_told_apart_by_their_answers(name: str, asked_as: str) -> None:
    async with served(name) as url:
        with pytest.raises(InvalidArgument, match=f"give server='{name}'"):
            await client(asked_as, url).chat(HELLO, max_new_tokens=4)


@pytest.mark.parametrize(
    ("name", "response"), [("vllm", VLLM), ("sglang", SGLANG), ("lmdeploy", LMDEPLOY), ("llamacpp", LLAMACPP)]
)
async def test_an_answer_to_another_prompt_is_refused(name: str, response: dict[str, Any]) -> None:
    async with FaultServer(reply(response)) as server:
        llm = client(name, server.url, retry=0)
        assert (await llm.chat(HELLO, prompt_ids=[1, 2, 3])).usage is not None  # it was sampled from 3 tokens
        with pytest.raises(BadResponse, match="read 3 tokens that are not the 4 it was sent"):
            await llm.chat(HELLO, prompt_ids=[1, 2, 3, 4])


async def test_a_server_without_ids_is_asked_once() -> None:
    silent = {**VLLM, "choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]}
    async with FaultServer(reply(silent)) as server:
        with pytest.raises(MissingTokens, match=r"vLLM does from 0\.10\.2 on"):
            await client("vllm", server.url).chat(HELLO)
        assert len(server.requests) == 1
        assert server.requests[0].line == "POST /v1/completions HTTP/1.1"


@pytest.mark.parametrize(
    ("base", "server", "url"),
    [
        ("http://h:1", "vllm", "http://h:1/v1/completions"),
        ("http://h:1/v1/", "vllm", "http://h:1/v1/completions"),
        ("http://h:1/v1/chat/completions", "vllm", "http://h:1/v1/completions"),
        ("http://h:1/v1", "sglang", "http://h:1/generate"),
        ("http://h:1/generate", "lmdeploy", "http://h:1/generate"),
        ("http://h:1/v1", "llamacpp", "http://h:1/completion"),
        ("https://h/gate/way/v1", "lmdeploy", "https://h/gate/way/generate"),
    ],
)
def test_any_of_a_servers_addresses_will_do(base: str, server: str, url: str) -> None:
    assert str(TokenAPI("m", WEIGHTS, server, api_base=base).url) == url


def test_the_tokenizer_may_be_given_in_any_form() -> None:
    plain = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    for template, forms in [(None, [str(WEIGHTS), WEIGHTS]), ("qwen2.5", [WEIGHTS, plain])]:
        chat = ChatTokenizer.load(WEIGHTS, template)
        given = [TokenAPI("m", form, api_base="http://h", template=template) for form in forms]
        for llm in [*given, TokenAPI("m", chat, api_base="http://h")]:
            assert llm.detokenize(llm.tokenize("tea")) == "tea"
            assert llm.prompts.encode_chat(HELLO) == chat.encode_chat(HELLO)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"server": "tgi"}, "name the engine that runs there: vllm, sglang, lmdeploy, llamacpp, lagentlike"),
        ({"tokenizer": "no/such-model"}, "give a directory with a tokenizer.json, or a name on the hub"),
        ({"tokenizer": ChatTokenizer.load(WEIGHTS), "template": "qwen2.5"}, "has one already"),
        ({"api_base": "ftp://h"}, "give a URL"),
        ({"temperatur": 1.0}, "did you mean temperature"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], says: str) -> None:
    given = {"model_type": "m", "tokenizer": WEIGHTS, "api_base": "http://h", **arguments}
    with pytest.raises(InvalidArgument, match=says):
        TokenAPI(**given)


def test_it_is_a_real_request_and_one_answer_a_conversation() -> None:
    llm = TokenAPI("m", WEIGHTS, api_base="http://127.0.0.1:9")
    with forbid_real_requests(), pytest.raises(RealRequestsForbidden):
        llm.chat(HELLO)
    with pytest.raises(InvalidArgument, match=r"use llm\.chat\(\[messages\] \* n\)"):
        llm.chat(HELLO, n=2)
