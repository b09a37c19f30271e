"""Answers of gpt-oss: read from their ids, and gone on from."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.actions import calculator
from lagentlike.agents import HFAgent
from lagentlike.llms.base import AsyncBaseLLM, Conversation, Params
from lagentlike.prompts.chat import ChatTokenizer
from lagentlike.rollouts import tokenize_trajectories
from lagentlike.schema import Completion, TokenSpan

from .families import CALCULATOR, tokenizer_of

ASKED = [{"role": "user", "content": "What is 1 + 1? <|call|>"}]
CALLING = (
    "<|channel|>analysis<|message|>I should reckon.<|end|><|start|>assistant<|channel|>commentary "
    'to=functions.calculator <|constrain|>json<|message|>{"expression":"1 + 1"}<|call|>'
)
FINAL = "<|channel|>analysis<|message|>Two.<|end|><|start|>assistant<|channel|>final<|message|>It is 2.<|return|>"


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(tokenizer_of("gpt-oss"))


def sampled(tokenizer: ChatTokenizer, text: str) -> list[int]:
    """The ids of an answer with special tokens, its plain text cut into tokens otherwise than the tokenizer would."""
    ids: list[int] = []
    rest = text
    while rest:
        token = next((one for one in tokenizer._special if rest.startswith(one)), rest[0])
        ids += [tokenizer._special[token]] if token in tokenizer._special else tokenizer.encode(token)
        rest = rest[len(token) :]
    return ids


def test_an_answer_is_read_into_thinking_calls_and_words(tokenizer: ChatTokenizer) -> None:
    called = tokenizer.answer(sampled(tokenizer, CALLING))
    assert called["thinking"] == "I should reckon."
    assert called["content"] == ""
    assert called["tool_calls"][0]["function"] == {"name": "calculator", "arguments": {"expression": "1 + 1"}}
    assert tokenizer.answer(sampled(tokenizer, FINAL)) == {
        "role": "assistant",
        "content": "It is 2.",
        "thinking": "Two.",
    }
    broken = tokenizer.answer(sampled(tokenizer, CALLING.replace('"}', "")))
    assert broken["tool_calls"][0]["function"]["arguments"] == '{"expression":"1 + 1'
    assert tokenizer.answer(tokenizer.encode("plain")) == {"role": "assistant", "content": ""}


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_prompt_after_a_call_goes_on_from_the_sampled_ids(tokenizer: ChatTokenizer, rounds: int) -> None:
    chat: list[dict[str, Any]] = list(ASKED)
    ids = tokenizer.encode_chat(chat, [CALCULATOR], add_generation_prompt=True)
    for number in range(rounds):
        said = sampled(tokenizer, CALLING)
        chat += [tokenizer.answer(said), {"role": "tool", "content": f"{number}<|end|>", "name": "calculator"}]
        so_far = ids + said
        ids = tokenizer.continue_ids(so_far, chat, [CALCULATOR])
        assert ids[: len(so_far)] == so_far
        written = tokenizer.decode(ids[len(so_far) :], skip_special_tokens=False)
        assert written == (
            "<|start|>functions.calculator to=assistant<|channel|>commentary<|message|>"
            f'"{number}<|end|>"<|end|><|start|>assistant'
        )


def test_after_an_answer_thinking_is_dropped_and_the_prompt_written_anew(tokenizer: ChatTokenizer) -> None:
    prompt, said = tokenizer.encode_chat(ASKED, add_generation_prompt=True), sampled(tokenizer, FINAL)
    chat = [*ASKED, tokenizer.answer(said), {"role": "user", "content": "Thanks."}]
    ids = tokenizer.continue_ids(prompt + said, chat)
    assert ids == tokenizer.encode_chat(chat, add_generation_prompt=True)
    assert "Two." not in tokenizer.decode(ids)


def test_ids_of_another_conversation_are_not_gone_on_from(tokenizer: ChatTokenizer) -> None:
    said = sampled(tokenizer, CALLING)
    chat = [*ASKED, tokenizer.answer(said), {"role": "tool", "content": "2", "name": "calculator"}]
    other = tokenizer.encode_chat([{"role": "user", "content": "Else?"}], [CALCULATOR], add_generation_prompt=True)
    assert tokenizer.continue_ids(other + said, chat, [CALCULATOR]) == tokenizer.encode_chat(chat, [CALCULATOR], True)


class Recorded(AsyncBaseLLM):
    """Answers with given token ids, as an engine would that is sent prompts as ids."""

    real = False

    def __init__(self, prompts: ChatTokenizer, *answers: list[int]) -> None:
        super().__init__("gpt-oss")
        self.prompts = prompts
        self.answers = list(answers)

    def detokenize(self, ids: list[int]) -> str:
        return self.prompts.decode(ids)

    async def _chat(self, messages: Conversation, params: Params) -> Completion:
        ids = self.answers.pop(0)
        span = TokenSpan(ids, [-0.5] * len(ids), params["prompt_ids"])
        return Completion(self.prompts.decode(ids), finish_reason="stop", tokens=span)


async def test_a_rollout_of_gpt_oss_is_one_segment_with_its_call_carried_out(tokenizer: ChatTokenizer) -> None:
    turns = [sampled(tokenizer, CALLING), sampled(tokenizer, FINAL)]
    agent = HFAgent(Recorded(tokenizer, *turns), tools=[calculator])
    [trajectory] = await agent.run("What is 1 + 1?", max_turns=3)
    assert trajectory.error is None
    assert [message["role"] for message in trajectory.messages] == ["user", "assistant", "tool", "assistant"]
    assert trajectory.messages[2]["content"][0]["text"] == "2"
    assert trajectory.final_response == "It is 2."
    assert len(trajectory.segments) == 1
    rows = tokenize_trajectories([trajectory], tensors="np")
    assert rows["input_ids"][rows["action_mask"].astype(bool)].tolist() == turns[0] + turns[1]
    assert trajectory.counts.rewritten == 0
