"""vLLM and LMDeploy in this process: what they are asked, and what becomes of what they give."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from lagentlike.agents import HFAgent
from lagentlike.errors import BadResponse, ContextLengthExceeded, InvalidArgument, MissingExtra
from lagentlike.llms import (
    AsyncLMDeployPipeline,
    AsyncVllmModel,
    BatchedVllmModel,
    forbid_real_requests,
    INTERNLM2_META,
    LMDeployPipeline,
    TinyLM,
    VllmModel,
)
from lagentlike.llms.tiny.engine import WEIGHTS
from lagentlike.schema import Completion, TokenSpan
from lagentlike.tools import calculator

from .engine_modules import Calls, lmdeploy, RequestOutputKind, vllm

HELLO = [{"role": "user", "content": "Hello"}]
ONE_PLUS_ONE = [{"role": "user", "content": "What is the result of 1 + 1?"}]
TEA = [{"role": "user", "content": "Write about tea."}]
QUESTIONS = ["What is the result of 1 + 1?", "Hello", "What is 12 * 7?"]

Opened = Callable[[], AbstractContextManager[Calls]]
ASYNC: dict[str, tuple[Opened, Any]] = {
    "async_vllm": (vllm, AsyncVllmModel),
    "vllm": (vllm, BatchedVllmModel),
    "lmdeploy": (lmdeploy, AsyncLMDeployPipeline),
    "old lmdeploy": (lambda: lmdeploy(old=True), AsyncLMDeployPipeline),
}
BLOCKING: dict[str, tuple[Opened, Any]] = {"vllm": (vllm, VllmModel), "lmdeploy": (lmdeploy, LMDeployPipeline)}
each_async = pytest.mark.parametrize("name", sorted(ASYNC))
each_blocking = pytest.mark.parametrize("name", sorted(BLOCKING))


@pytest.fixture(autouse=True)
def nothing_leaves_this_process() -> Iterator[None]:
    with forbid_real_requests():
        yield


def tokens(answer: Completion) -> TokenSpan:
    assert answer.tokens is not None
    return answer.tokens


@each_async
async def test_an_answer_is_the_ids_and_log_probabilities_of_the_engine(name: str) -> None:
    opened, model = ASYNC[name]
    truth = TinyLM(logprobs=True).chat(HELLO)
    with opened() as calls:
        answer = await model(str(WEIGHTS), temperature=0, logprobs=True).chat(HELLO)
    assert answer == truth
    assert answer.finish_reason == "stop"
    assert tokens(answer).ids == tokens(truth).ids
    assert tokens(answer).prompt_ids == tokens(truth).prompt_ids == calls.batches[0][0]
    assert tokens(answer).logprobs == pytest.approx(tokens(truth).logprobs)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(tokens(truth).ids)


@each_blocking
def test_the_blocking_form_answers_alike_and_batches(name: str) -> None:
    opened, model = BLOCKING[name]
    with opened():
        llm = model(str(WEIGHTS), temperature=0)
        assert llm.chat(HELLO) == TinyLM().chat(HELLO)
        assert llm.chat([HELLO, ONE_PLUS_ONE]) == TinyLM().chat([HELLO, ONE_PLUS_ONE])
        drawn = llm.chat([TEA, TEA], temperature=3, seed=1)
        assert drawn[0] != drawn[1] == llm.chat(TEA, temperature=3, seed=2)
        assert llm.usage.requests == 6


@each_async
async def test_prompt_ids_are_sent_as_they_are_and_tools_read_from_the_text(name: str) -> None:
    opened, model = ASYNC[name]
    local = TinyLM()
    ids = local.tokenize("Wh") + local.tokenize("at") + (tokens(local.chat(HELLO, logprobs=True)).prompt_ids or [])
    with opened() as calls:
        llm = model(str(WEIGHTS), temperature=0)
        answer = await llm.chat(HELLO, prompt_ids=ids, max_new_tokens=5)
        called = await llm.chat(ONE_PLUS_ONE, tools=calculator_schema())
    assert calls.batches[0] == [ids]
    assert answer == local.chat(HELLO, prompt_ids=ids, max_new_tokens=5)
    assert answer.finish_reason == "length"
    assert answer.tokens is None  # nobody asked for them
    assert [(call.name, call.arguments) for call in called.tool_calls or ()] == [
        ("calculator", {"expression": "1 + 1"})
    ]


def calculator_schema() -> list[Any]:
    return HFAgent("tiny", [calculator]).actions.tools()


async def test_vllm_is_asked_in_its_own_words() -> None:
    with vllm() as calls:
        llm = AsyncVllmModel(str(WEIGHTS), tp=2, dtype="bfloat16", engine={"enforce_eager": True}, tokenizer=WEIGHTS)
        await llm.chat(HELLO, max_new_tokens=7, top_k=0, stop_words=["END"], seed=3, min_p=0.1)
    assert calls.opened["tensor_parallel_size"] == 2
    assert calls.opened["enforce_eager"] is True
    [sampling] = calls.sampling
    assert (sampling.max_tokens, sampling.top_k, sampling.stop, sampling.seed) == (7, -1, ["END"], 3)
    assert (sampling.logprobs, sampling.min_p) == (0, 0.1)
    assert sampling.output_kind is RequestOutputKind.FINAL_ONLY


async def test_lmdeploy_is_asked_in_its_own_words() -> None:
    with lmdeploy() as calls:
        llm = AsyncLMDeployPipeline(str(WEIGHTS), tp=2, engine={"session_len": 512})
        await llm.chat(HELLO, max_new_tokens=7, top_k=-1, temperature=0.7, stop_words=["END"], seed=3)
        await llm.chat(HELLO, max_new_tokens=7, temperature=0)
        with pytest.raises(ContextLengthExceeded, match="session_len is 512"):
            await llm.chat(HELLO, prompt_ids=[1] * 512)
    assert (calls.opened["tp"], calls.opened["session_len"], calls.opened["logprobs_mode"]) == (2, 512, "raw_logprobs")
    sampled, greedy = calls.sampling
    assert (sampled.max_new_tokens, sampled.top_k, sampled.temperature, sampled.random_seed) == (7, 0, 0.7, 3)
    assert (sampled.do_sample, sampled.stop_words, sampled.logprobs) == (True, ["END"], 1)
    assert sampled.include_stop_str_in_output
    assert not greedy.do_sample


@pytest.mark.parametrize("name", ["async_vllm", "lmdeploy", "old lmdeploy"])
async def test_a_cancelled_call_is_aborted_in_the_engine(name: str) -> None:
    opened, model = ASYNC[name]
    with opened() as calls:
        llm, calls.delay = model(str(WEIGHTS)), 30.0
        asking = asyncio.ensure_future(llm.chat(HELLO))
        while not calls.batches:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(5):
            while not calls.aborted:
                await asyncio.sleep(0.01)


async def test_what_tasks_ask_vllm_at_once_is_one_batch_and_what_was_cancelled_is_left_out() -> None:
    before = batch_threads()
    with vllm() as calls:
        llm = BatchedVllmModel(str(WEIGHTS), temperature=0, max_new_tokens=4)
        asked = [asyncio.ensure_future(llm.chat(HELLO)) for _ in range(5)]
        await asyncio.sleep(0)
        asked[0].cancel()
        answers = await asyncio.gather(*asked[1:])
        assert len(set(answers)) == 1
        assert len(calls.batches) < 5
        with pytest.raises(ValueError, match="out of vocabulary"):
            await llm.chat(HELLO, prompt_ids=[10**6])
        assert await llm.chat(HELLO) == answers[0]  # the thread lives
        assert batch_threads() - before
        del llm, asked
        gc.collect()
    async with asyncio.timeout(5):
        while batch_threads() - before:  # it ends with its model, and lets the engine go
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("model", [VllmModel, AsyncVllmModel])
def test_an_engine_that_does_not_open_says_so_where_it_was_asked_for(model: Any) -> None:
    with vllm(), pytest.raises(ValueError, match="Unknown dtype: float12"):
        model(str(WEIGHTS), dtype="float12")


def batch_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "lagentlike-vllm-batches"}


@each_async
def test_one_model_serves_event_loops_one_after_the_other(name: str) -> None:
    opened, model = ASYNC[name]
    with opened():
        llm = model(str(WEIGHTS), temperature=0)
        assert asyncio.run(llm.chat(HELLO)) == asyncio.run(llm.chat(HELLO))


@pytest.mark.parametrize("backend", ["async_vllm", "vllm", "lmdeploy"])
async def test_rollouts_in_process_have_the_rows_of_the_embedded_engine(backend: str) -> None:
    config = {"temperature": 0, "max_new_tokens": 48}
    local = await HFAgent("tiny", [calculator]).run(QUESTIONS, max_turns=3, generation_config=config)
    with ASYNC[backend][0]() as calls:
        agent = HFAgent(str(WEIGHTS), [calculator], backend_config={"backend": backend})
        result = await agent.run(QUESTIONS, max_turns=3, generation_config=config)
    sent = {tuple(prompt) for batch in calls.batches for prompt in batch}
    for trajectory, truth in zip(result, local, strict=True):
        assert trajectory.error is None
        [segment], [expected] = trajectory.segments, truth.segments
        assert (segment.ids, segment.mask) == (expected.ids, expected.mask)
        assert segment.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        assert all(tuple(segment.ids[: turn.start]) in sent for turn in segment.turns)
    assert any(trajectory.counts.extended for trajectory in result)


async def test_an_engine_that_read_other_ids_is_not_believed() -> None:
    with vllm() as calls:
        calls.prefix = (1,)  # as one does that adds a token of its own
        with pytest.raises(BadResponse, match="have it neither cut prompts nor add tokens"):
            await AsyncVllmModel(str(WEIGHTS)).chat(HELLO, max_new_tokens=2)


@pytest.mark.parametrize("name", ["async_vllm", "lmdeploy"])
def test_an_engine_that_is_not_needed_any_more_can_be_closed(name: str) -> None:
    opened, model = ASYNC[name]
    with opened() as calls:
        model(str(WEIGHTS)).close()
    assert calls.closed == 1


def test_a_meta_template_is_rendered_as_text_where_there_are_no_tools() -> None:
    with vllm() as calls:
        answer = VllmModel(str(WEIGHTS), INTERNLM2_META, logprobs=True, max_new_tokens=3).chat(HELLO)
    text = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert calls.batches == [[TinyLM().tokenize(text)]]
    assert tokens(answer).prompt_ids == calls.batches[0][0]


@pytest.mark.parametrize(("model", "extra"), [(VllmModel, "vllm"), (LMDeployPipeline, "lmdeploy")])
def test_an_engine_that_is_not_installed_is_named_with_its_extra(model: Any, extra: str) -> None:
    with pytest.raises(MissingExtra, match=rf"pip install 'lagentlike\[{extra}\]'"):
        model("m")


def test_an_unknown_option_of_a_backend_is_named() -> None:
    with vllm(), pytest.raises(InvalidArgument, match=r"backend 'vllm' knows .*tp, dtype, engine, tokenizer"):
        HFAgent(str(WEIGHTS), backend_config={"backend": "vllm", "device": "cpu"})
