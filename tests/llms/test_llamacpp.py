"""llama.cpp's server: what it is asked and tells beside answers, against its wire over the embedded model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lagentlike.errors import BadResponse, RequestTimeout
from lagentlike.llms import AsyncLlamaCppAPI, LlamaCppAPI, TinyLM
from lagentlike.registry import create_object

from .asking import HI
from .fault_server import FaultServer, hang, refuse, reply
from .token_servers import LlamaCppServer


async def test_token_ids_come_with_log_probabilities() -> None:
    truth = TinyLM(logprobs=True).chat(HI)
    async with LlamaCppServer() as server:
        answer = await AsyncLlamaCppAPI(api_base=server.url).chat(HI, logprobs=True, repetition_penalty=1.2)
    assert answer == truth
    assert answer.tokens is not None
    assert truth.tokens is not None
    assert answer.tokens.ids == truth.tokens.ids
    assert (answer.usage.prompt_tokens, answer.usage.cached_tokens) == (21, 2)  # type: ignore[union-attr]
    body = server.bodies[0]
    assert body["repeat_penalty"] == 1.2
    assert "repetition_penalty" not in body


async def test_prompts_and_ids_are_the_servers_own() -> None:
    async with LlamaCppServer() as server:
        llm = AsyncLlamaCppAPI(api_base=f"{server.url}/v1")
        ids = await llm.tokenize("Hello you")
        assert ids == TinyLM().tokenize("Hello you")
        assert await llm.detokenize(ids) == "Hello you"
        assert (await llm.apply_template(HI)).endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
        assert (await llm.props())["total_slots"] == 2


def test_the_blocking_form_tells_the_same() -> None:
    async def ask() -> tuple[Any, ...]:
        async with LlamaCppServer() as server:
            llm = LlamaCppAPI(api_base=server.url)
            calls = (llm.wait_until_loaded, llm.props, lambda: llm.tokenize("tea"), lambda: llm.detokenize([5]),
                     lambda: llm.apply_template(HI), lambda: llm.chat(HI), llm.close)  # fmt: skip
            return tuple([await asyncio.to_thread(call) for call in calls])

    _, props, ids, text, prompt, answer, _ = asyncio.run(ask())
    assert props["model_path"] == "tinylm.gguf"
    assert ids == TinyLM().tokenize("tea")
    assert text == TinyLM().detokenize([5])
    assert "hi<|im_end|>" in prompt
    assert answer == TinyLM().chat(HI)


async def test_a_model_that_still_loads_is_waited_for() -> None:
    async with LlamaCppServer() as server:
        server.loading = 2
        await AsyncLlamaCppAPI(api_base=server.url).wait_until_loaded(30)
        assert server.loading == 0
        server.loading = 1000
        with pytest.raises(RequestTimeout, match=r"not loaded after 0\.3 s: .*Loading model"):
            await AsyncLlamaCppAPI(api_base=server.url).wait_until_loaded(0.3)


async def test_a_server_that_does_not_answer_is_not_waited_for_longer() -> None:
    async with FaultServer(hang) as server, asyncio.timeout(10):
        with pytest.raises(RequestTimeout, match=r"not loaded after 0\.2 s"):
            await AsyncLlamaCppAPI(api_base=server.url).wait_until_loaded(0.2)


async def test_what_another_server_says_is_not_taken_for_llamacpps() -> None:
    async with FaultServer(refuse(404), reply({"ok": True}), reply({"tokens": "x"})) as server:
        llm = AsyncLlamaCppAPI(api_base=server.url, retry=0)
        with pytest.raises(Exception, match="404"):
            await llm.wait_until_loaded(5)
        for _ in range(2):
            with pytest.raises(BadResponse, match="at /tokenize has no tokens"):
                await llm.tokenize("x")


def test_it_is_made_from_a_dict() -> None:
    llm = create_object({"type": "lagentlike.llms.LlamaCppAPI", "grammar": 'root ::= "yes" | "no"'})
    assert (str(llm.url), llm.gen_params["grammar"]) == (
        "http://127.0.0.1:8080/v1/chat/completions",
        'root ::= "yes" | "no"',
    )
