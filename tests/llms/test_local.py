"""Models of this process: calls in the text format of the model's family, whole and in streams."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lagentlike.agents import AIAgent
from lagentlike.errors import InvalidArgument
from lagentlike.llms import TinyLM
from lagentlike.llms.base import AsyncBaseLLM, BaseLLM
from lagentlike.llms.local import AsyncLocalLLM, LocalLLM
from lagentlike.llms.scheduler import Request, Scheduler
from lagentlike.llms.tiny.engine import GenerationStep
from lagentlike.prompts.parsers import tool_format, tool_format_names
from lagentlike.schema import ModelStatusCode, ToolCall
from lagentlike.tools import calculator

TOOLS = [api.schema.openai for api in calculator.apis().values()]
CALL = ToolCall("calculator", {"expression": "6 * 7"}, id="functions.calculator:0")
ASKED = [{"role": "user", "content": "6 * 7?"}]
MODELS = {
    "deepseek-v3": "deepseek-ai/DeepSeek-V3",
    "deepseek-v3.1": "deepseek-ai/DeepSeek-V3.1",
    "glm-4.5": "zai-org/GLM-4.5-Air",
    "hermes": "/models/llama3/Qwen3-8B/",
    "kimi-k2": "moonshotai/Kimi-K2-Instruct",
    "llama3": "meta-llama/Llama-3.1-8B-Instruct",
    "mistral": "mistralai/Mistral-7B-Instruct-v0.3",
    "mistral-v11": "mistralai/Devstral-Small-2507",
    "pythonic": "meta-llama/Llama-4-Scout-17B-16E",
    "qwen3-coder": "Qwen/Qwen3-Coder-30B-A3B",
}


class Speller:
    """A decoder that spells out one reply, a character a token."""

    room = 8

    def __init__(self, reply: str, wait: threading.Event | None = None) -> None:
        self.reply = reply
        self.wait = wait
        self.going: list[tuple[Request, int]] = []

    def join(self, requests: list[Request]) -> None:
        self.going += [(request, 0) for request in requests]

    def step(self) -> bool:
        if self.wait is not None:
            self.wait.wait(20)
        still = []
        for request, at in self.going:
            end = at == len(self.reply) - 1
            letter = self.reply[at]
            if not request.dropped and request.take(GenerationStep(ord(letter), -0.5, letter, "stop" if end else None)):
                still.append((request, at + 1))
        self.going = still
        return bool(still)


class _Spelling:
    """A model around the decoder."""

    kind = "Spelling"
    max_length = 10_000
    _vocab_size = 0x110000

    def __init__(self, path: str, reply: str, wait: threading.Event | None = None, **gen_params: Any) -> None:
        super().__init__(path, **gen_params)  # type: ignore[call-arg]  # of a model
        self._line = Scheduler(lambda: Speller(reply, wait), "lagentlike-spelling")

    @property
    def engine(self) -> Any:
        return self

    @property
    def _scheduler(self) -> Scheduler:
        return self._line

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Any = None) -> list[int]:
        return [ord(letter) for letter in str(messages)]

    def tokenize(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


class Spelling(_Spelling, LocalLLM):
    pass


class AsyncSpelling(_Spelling, AsyncLocalLLM):
    pass


async def streamed(llm: BaseLLM | AsyncBaseLLM, **params: Any) -> list[tuple[Any, str, Any]]:
    if isinstance(llm, AsyncBaseLLM):
        return [part async for part in llm.stream_chat(ASKED, **params)]
    return list(llm.stream_chat(ASKED, **params))


@pytest.mark.parametrize("kind", [Spelling, AsyncSpelling])
@pytest.mark.parametrize("name", tool_format_names())
async def test_calls_are_read_in_the_format_of_the_model_and_not_shown(name: str, kind: Any) -> None:
    written = tool_format(name).write([CALL])
    llm = kind(MODELS[name], f"\nLet me see.\n{written}")
    *parts, (status, _, last) = await streamed(llm, tools=TOOLS)
    assert [(call.name, call.arguments) for call in last.tool_calls] == [(CALL.name, CALL.arguments)]
    assert (last.text, last.finish_reason, status) == ("Let me see.", "tool_calls", ModelStatusCode.END)
    assert "".join(chunk for _, chunk, _ in parts) == "\nLet me see."
    assert [chunk for _, chunk, _ in parts][:4] == ["\nL", "e", "t", " m"]  # as soon as it is sure
    assert all("\nLet me see.".startswith(answer.text) for _, _, answer in parts[:-1])
    answer = llm.chat(ASKED, tools=TOOLS)
    assert (await answer if isinstance(llm, AsyncBaseLLM) else answer).tool_calls[0].arguments == CALL.arguments
    *parts, (_, _, last) = await streamed(llm)  # without tools on offer it is text
    assert "".join(chunk for _, chunk, _ in parts) == last.text == f"\nLet me see.\n{written}"
    assert last.tool_calls is None


def test_a_format_may_be_named() -> None:
    written = tool_format("llama3").write([CALL])
    assert Spelling("mine", written, tool_format="llama3").chat(ASKED, tools=TOOLS).tool_calls
    assert Spelling("mine", written).chat(ASKED, tools=TOOLS, tool_format="llama3").tool_calls
    assert not Spelling("mine", written).chat(ASKED, tools=TOOLS).tool_calls
    with pytest.raises(InvalidArgument, match="tool_format='nothing'"):
        TinyLM(tool_format="nothing")


def test_a_call_that_must_be_made_is_one_of_hermes() -> None:
    rest = ' {"expression": "6 * 7"}}\n</tool_call>'
    answer = Spelling(MODELS["llama3"], rest).chat(ASKED, tools=TOOLS, tool_choice="required")
    assert answer.tool_calls is not None
    assert answer.tool_calls[0].arguments == CALL.arguments
    with pytest.raises(InvalidArgument, match="no call can be required in the format 'llama3'"):
        Spelling("mine", rest).chat(ASKED, tools=TOOLS, tool_choice="required", tool_format="llama3")


def test_an_interrupt_gives_up_a_request_that_is_waited_for() -> None:
    wait = threading.Event()
    agent = AIAgent(Spelling("mine", "Hello.", wait), enabled_toolsets=[])
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.append(agent.run_conversation("hi")))
    thread.start()
    while not agent.interrupt():  # until the run is under way
        thread.join(0.01)
    thread.join(10)
    wait.set()
    assert [result["finish_reason"] for result in found] == ["interrupted"]
