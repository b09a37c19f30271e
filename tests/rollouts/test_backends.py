"""Rollouts over servers that take token ids: every prompt is the former one, what was sampled, and the new text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from lagentlike.agents import HFAgent
from lagentlike.errors import InvalidArgument
from lagentlike.llms import AsyncTinyLM, AsyncTokenAPI
from lagentlike.llms.tiny.engine import TinyEngine, WEIGHTS
from lagentlike.rollouts import RolloutEvent, RunResult
from lagentlike.schema import Completion
from lagentlike.serving import ModelServer
from lagentlike.tools import calculator

from ..llms.token_servers import LlamaCppServer, LMDeployServer, SGLangServer

QUESTIONS = ["What is the result of 1 + 1?", "What is 12 * 7?", "Hello", "Tell me about zorvik7."]
each_server = pytest.mark.parametrize("server", ["lagentlike", "sglang", "lmdeploy", "llamacpp"])


class RecordingModel(AsyncTinyLM):
    """The embedded model, which keeps the prompts that reached it as ids."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[list[int]] = []

    async def _chat(self, messages: Any, params: dict[str, Any]) -> Completion:
        self.prompts.append(list(params["prompt_ids"]))
        return await super()._chat(messages, params)


@asynccontextmanager
async def serving(server: str) -> AsyncIterator[tuple[str, list[list[int]]]]:
    """A server's address, and the prompts that it was sent."""
    model = RecordingModel()
    if server == "lagentlike":
        async with ModelServer(model, "tinylm", port=0) as ours:
            yield ours.url, model.prompts
        return
    async with {"sglang": SGLangServer, "lmdeploy": LMDeployServer, "llamacpp": LlamaCppServer}[server]() as fake:
        prompts: list[list[int]] = []
        yield fake.url, prompts
        prompts += [body[fake.prompt] for body in fake.bodies]


def agent_of(server: str, url: str, **options: Any) -> HFAgent:
    config = {"backend": "client", "server": server, "tokenizer": WEIGHTS, "api_base": url, **options}
    return HFAgent("tinylm", [calculator], backend_config=config)


async def run(server: str, **config: Any) -> tuple[RunResult, list[list[int]], dict[tuple[int, int], list[list[int]]]]:
    """A run; the prompts that the server got; and what each chain sampled, answer by answer, as the engine gave it."""
    sampled: dict[tuple[int, int], list[list[int]]] = {}

    def watch(event: RolloutEvent) -> None:
        if event.kind == "answer":
            assert event.message is not None
            assert event.message.tokens is not None
            sampled.setdefault((event.query, event.chain), []).append(event.message.tokens.ids)

    async with serving(server) as (url, prompts):
        result = await agent_of(server, url).run(
            QUESTIONS, max_turns=4, num_chains=2, generation_config={"max_new_tokens": 48, **config}, on_event=watch
        )
    return result, prompts, sampled


def recomputed(ids: list[int]) -> np.ndarray:
    """Log-probabilities of all tokens at each place, by a pass over the whole row."""
    network = TinyEngine.load().network
    logits = network.prefill(ids[:-1], network.cache(len(ids)), every=True).astype(np.float64)
    top = logits.max(-1, keepdims=True)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True)))


@each_server
async def test_every_prompt_sent_goes_on_from_the_ids_so_far(server: str) -> None:
    seed = {} if server == "lmdeploy" else {"seed": 5}
    result, prompts, sampled = await run(server, temperature=1.3, **seed)
    engine, sent = TinyEngine.load(), {tuple(prompt) for prompt in prompts}
    assert [trajectory.error for trajectory in result] == [None] * len(result)
    turns = 0
    for trajectory in result:
        answers = sampled[trajectory.query, trajectory.chain]
        assert trajectory.counts.turns == len(answers)
        assert (trajectory.counts.missing, trajectory.counts.rewritten) == (0, 0)
        [segment] = trajectory.segments
        assert [segment.ids[turn.start : turn.stop] for turn in segment.turns] == answers  # no token drifted
        for turn, following in zip(segment.turns, segment.turns[1:], strict=False):
            assert tuple(segment.ids[: turn.start]) in sent
            new = engine.decode(segment.ids[turn.stop : following.start], skip_special_tokens=False)
            ended = segment.ids[turn.stop - 1] == engine.end_of_turn
            assert new.startswith("\n<|im_start|>" if ended else "<|im_end|>\n<|im_start|>")
            assert new.endswith("<|im_end|>\n<|im_start|>assistant\n")
            assert "<tool_response>" in new
            turns += 1
        assert tuple(segment.ids[: segment.turns[-1].start]) in sent
    assert turns >= 2  # of several turns, or there was nothing to see
    assert len(prompts) == sum(map(len, sampled.values()))


@each_server
async def test_log_probabilities_over_http_equal_a_recompute_over_the_row(server: str) -> None:
    result, _, _ = await run(server, temperature=1.0)
    for segment in (segment for trajectory in result for segment in trajectory.segments):
        assert segment.logprobs is not None
        truth = recomputed(segment.ids)
        for place in np.flatnonzero(segment.mask):
            assert segment.logprobs[place] == pytest.approx(truth[place - 1, segment.ids[place]], abs=2e-4)


@each_server
async def test_rows_over_http_are_those_of_the_engine_in_this_process(server: str) -> None:
    result, _, _ = await run(server, temperature=0)
    local = await HFAgent("tiny", [calculator]).run(
        QUESTIONS, max_turns=4, num_chains=2, generation_config={"max_new_tokens": 48, "temperature": 0}
    )
    for served, truth in zip(result, local, strict=True):
        assert [segment.ids for segment in served.segments] == [segment.ids for segment in truth.segments]
        assert [segment.mask for segment in served.segments] == [segment.mask for segment in truth.segments]
        assert [text["content"] for text in served.messages] == [text["content"] for text in truth.messages]


async def test_a_backend_with_an_address_sends_ids_to_the_engine_of_its_name() -> None:
    for backend, server in [("vllm", "vllm"), ("async_vllm", "vllm"), ("sglang", "sglang"), ("lmdeploy", "lmdeploy")]:
        config = {"backend": backend, "api_base": "http://127.0.0.1:9", "tokenizer": WEIGHTS}
        agent = HFAgent("m", backend_config=config)
        assert isinstance(agent.agent.llm, AsyncTokenAPI)
        assert agent.agent.llm.server == server
        assert agent.agent.prompts is agent.agent.llm.prompts
    given = HFAgent(agent.agent.llm)
    assert given.agent.prompts is agent.agent.llm.prompts
    ours = {"backend": "client", "server": "lagentlike", "api_base": "http://127.0.0.1:9"}
    assert HFAgent("tinylm", backend_config=ours).agent.prompts is not None  # its tokenizer is in the package


@pytest.mark.parametrize(
    ("config", "template", "says"),
    [
        ({"backend": "client", "tokenizer": "t"}, None, "without server= conversations are sent as messages"),
        ({"backend": "client"}, "qwen2.5", "name the engine that runs there"),
        ({"backend": "client", "server": "tgi"}, None, "vllm, sglang, lmdeploy, llamacpp, lagentlike"),
        ({"backend": "client", "server": "vllm"}, None, "give a directory with a tokenizer.json"),
        ({"backend": "client", "server": "vllm", "tp": 2}, None, "knows max_new_tokens"),
    ],
)
def test_what_is_missing_to_send_ids_is_said(config: dict[str, Any], template: str | None, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        HFAgent("no/such", template=template, backend_config={"api_base": "http://127.0.0.1:9", **config})


async def test_a_server_that_is_no_such_engine_ends_its_chains_with_the_cure() -> None:
    async with SGLangServer() as server:
        [trajectory] = await agent_of("vllm", server.url).run("Hello")
    assert trajectory.finish_reason == "error"
    assert "name the engine that runs there" in (trajectory.error or "")
