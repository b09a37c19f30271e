"""A model of one's own: what it need not do itself, and what it is told if it answers with nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncStreamingAgent, StreamingAgent
from lagentlike.errors import InvalidArgument
from lagentlike.llms import AsyncBaseLLM, BaseLLM


class Parrot(BaseLLM):
    def _chat(self, messages: Any, params: Any) -> Any:
        return messages[-1]["content"] or None


class AsyncParrot(AsyncBaseLLM):
    async def _chat(self, messages: Any, params: Any) -> Any:
        return messages[-1]["content"] or None


async def parts(agent: Any, text: str) -> list[str]:
    return [message.content async for message in agent(text)]


def test_a_model_may_answer_with_a_text() -> None:
    model = Parrot()
    assert Agent(model)("Polly").content == "Polly"
    assert [message.content for message in StreamingAgent(model)("Polly")] == ["Polly", "Polly"]
    assert asyncio.run(parts(AsyncStreamingAgent(AsyncParrot()), "Polly")) == ["Polly", "Polly"]
    assert [answer.finish_reason for answer in model.chat([[{"role": "user", "content": "Polly"}]])] == [None]
    assert model.usage.requests == 3


def test_a_model_that_gives_no_answer_is_named() -> None:
    with pytest.raises(InvalidArgument, match="the answer of Parrot=None: return a Completion, or a text"):
        Agent(Parrot())("")
    with pytest.raises(InvalidArgument, match="the answer of AsyncParrot=None"):
        asyncio.run(parts(AsyncStreamingAgent(AsyncParrot()), ""))
