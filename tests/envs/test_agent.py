"""The agent of Atropos environments, on scripted models, the embedded one, and what stands for atroposlib's servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lagentlike.envs.agent import AtroposAgent
from lagentlike.envs.result import AgentConfig, AgentResult, AgentStep, observation, SequenceData
from lagentlike.errors import EnvironmentFailed, InvalidArgument, LLMError
from lagentlike.ledger import Segment
from lagentlike.llms import AsyncGPTAPI, AsyncHFTransformer, AsyncScriptedLLM, AsyncTinyLM, AsyncTokenAPI, TinyLM
from lagentlike.llms.tiny.engine import TinyEngine, WEIGHTS
from lagentlike.prompts.chat.tokenizer import ChatTokenizer
from lagentlike.schema import Completion, TokenSpan, ToolCall, ToolResult
from lagentlike.serving import ModelServer
from lagentlike.tools import calculator, ToolRegistry

QUESTION = "What is 12 * 34?"
CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "6 * 7"}}</tool_call>'
TEXT = AgentConfig(temperature=0.0, tool_responses="text")


def scripted(*replies: Any) -> AsyncScriptedLLM:
    return AsyncScriptedLLM(list(replies))


def check_tokens(result: AgentResult, answers: int) -> SequenceData:
    """The rules of every row: mask and log-probabilities mark exactly what was sampled, and end with an end of turn."""
    prompts = ChatTokenizer.load(WEIGHTS)
    data = result.trajectory_data
    assert data is not None
    assert not result.earlier
    assert len(data.tokens) == len(data.masked_tokens) == len(data.logprobs)
    sampled = [mask != -100 for mask in data.masked_tokens]
    assert all(mask == id_ for mask, id_, on in zip(data.masked_tokens, data.tokens, sampled, strict=True) if on)
    assert all((value <= 0) == on for value, on in zip(data.logprobs, sampled, strict=True))
    runs = "".join(map(str, map(int, sampled))).split("0")
    assert sum(bool(run) for run in runs) == answers, "one run of sampled tokens for each answer"
    [end] = prompts.encode_chat([{"role": "user", "content": ""}])[-2:-1]
    for place, on in enumerate(sampled):
        if on and (place + 1 == len(sampled) or not sampled[place + 1]):
            assert data.tokens[place] == end
            assert data.tokens[place + 1 : place + 2] != [end], "the end of a turn stands there once"
    assert data.full_text == prompts.decode(data.tokens, skip_special_tokens=False)
    return data


def teacher_forced(ids: list[int]) -> list[float]:
    """The log-probability of each token given those before it, by one pass of the network over all of them."""
    network = TinyEngine.load().network
    logits = np.asarray(network.prefill(ids, network.cache(len(ids)), every=True), np.float64)
    highest = logits.max(-1, keepdims=True)
    logprobs = logits - highest - np.log(np.exp(logits - highest).sum(-1, keepdims=True))
    return [0.0, *(float(logprobs[place, id_]) for place, id_ in enumerate(ids[1:]))]


async def test_it_calls_tools_until_it_answers() -> None:
    llm = scripted(f"<think>6 times 7</think>\n{CALL}", "It is 42.")
    result = await AtroposAgent(llm, [calculator]).run("What is 6 * 7?")
    assert result.success
    assert result.final_response == "It is 42."
    assert (result.num_steps, result.total_tool_calls, result.error) == (2, 1, None)
    first, last = result.steps
    assert first.has_tool_calls
    assert not last.has_tool_calls
    assert (first.tool_calls[0].name, first.tool_results[0].output) == ("calculator", "42")
    assert first.tool_results[0].uniq_id == first.tool_calls[0].uniq_id != ""
    system, task, said, shown = llm.requests[1].messages
    assert system["content"].count("<tools>") >= 1
    assert '"name": "calculator"' in system["content"]
    assert [task["content"], said["content"]] == ["What is 6 * 7?", first.assistant_message]
    assert shown["role"] == "user"
    assert shown["content"].startswith('<tool_response>{"success": true, "output": "42"')
    assert result.to_messages() == [said, shown, {"role": "assistant", "content": "It is 42."}]
    assert result.prompt == [system, task]
    assert result.trajectory_data is None, "this model gives no tokens"
    assert result.to_scored_data(1.0) is None


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("<tool_call>{not json}</tool_call>", "JSON"),
        ('<tool_call>{"name": "calculator", "arguments": {"expression": "1"}}', "not closed"),
        ('<tool_call>{"name": "calculator", "arguments": [1]}</tool_call>', "arguments"),
        ('<tool_call>{"name": "nothing", "arguments": {}}</tool_call>', "nothing"),
        ('<tool_call>{"name": "calculator", "arguments": {"expressio": "1"}}</tool_call>', "expression"),
        ('<tool_call>{"arguments": {"expression": "1"}}</tool_call>', "calculator"),
    ],
)
async def test_a_call_that_cannot_be_made_comes_back_as_an_error(reply: str, told: str) -> None:
    llm = scripted(reply, "I give up.")
    result = await AtroposAgent(llm, [calculator]).run(QUESTION)
    assert result.num_steps == 2, "it did not count as an answer"
    assert not result.steps[0].tool_results[0].success
    assert told in llm.requests[1].last


async def test_thinking_and_quoted_calls_are_never_run() -> None:
    ran: list[str] = []

    async def execute(call: ToolCall) -> ToolResult:
        ran.append(call.name)
        return ToolResult(True, "ok")

    quiet = [f"<think>I could say {CALL}</think>Done.", f"```\n{CALL}\n```", f"<think>{CALL}"]
    for reply in quiet:
        result = await AtroposAgent(scripted(reply), [calculator], execute_tool=execute).run("x")
        assert result.success
        assert result.final_response == reply
    assert ran == []
    await AtroposAgent(scripted(f"<think>{CALL}</think>{CALL}", "Done."), [calculator], execute_tool=execute).run("x")
    assert ran == ["calculator"]


async def test_calls_of_one_answer_run_in_their_order() -> None:
    ran: list[str] = []

    async def execute(call: ToolCall) -> ToolResult:
        ran.append(f"begin {call.name}")
        await asyncio.sleep(0.02 if call.name == "a" else 0)
        ran.append(f"end {call.name}")
        return ToolResult(True, call.name, id=call.id)

    reply = '<tool_call>{"name": "a"}</tool_call><tool_call>{"name": "b"}</tool_call>'
    llm = scripted(reply, "Done.")
    result = await AtroposAgent(llm, execute_tool=execute).run("x")
    assert ran == ["begin a", "end a", "begin b", "end b"]
    assert [one.output for one in result.steps[0].tool_results] == ["a", "b"]
    assert llm.requests[1].last.count("<tool_response>") == 2


async def test_a_tool_that_raises_is_told_and_a_broken_sandbox_ends_the_run() -> None:
    async def fails(call: ToolCall) -> ToolResult:
        raise OSError("no space")

    result = await AtroposAgent(scripted(CALL, "Oh."), execute_tool=fails).run("x")
    assert result.steps[0].tool_results[0].error == "OSError: no space"

    async def breaks(call: ToolCall) -> ToolResult:
        raise EnvironmentFailed("the container is gone")

    with pytest.raises(EnvironmentFailed, match="gone"):
        await AtroposAgent(scripted(CALL), execute_tool=breaks).run("x")


async def test_a_model_that_fails_ends_the_run_with_what_was_done() -> None:
    result = await AtroposAgent(scripted(CALL, LLMError("it is down")), [calculator]).run("x")
    assert (result.success, result.error) == (False, "Generation error: it is down")
    assert result.num_steps == 1


async def test_too_many_steps_end_the_run_with_the_tokens_so_far() -> None:
    config = AgentConfig(temperature=0.0, max_steps=1, tool_responses="text")
    result = await AtroposAgent(AsyncTinyLM(), [calculator], config).run(QUESTION)
    assert (result.success, result.error) == (False, "Reached maximum steps (1)")
    check_tokens(result, answers=1)
    scored = result.to_scored_data(0.0)
    assert scored is not None
    assert scored["scores"] == 0.0


async def test_the_embedded_model_gives_exact_tokens_in_either_colour() -> None:
    rows = []
    for llm in (AsyncTinyLM(), TinyLM()):
        result = await AtroposAgent(llm, [calculator], TEXT).run(QUESTION)
        assert result.success
        assert "408" in result.final_response
        data = check_tokens(result, answers=2)
        rows.append(data)
        assert result.total_tokens == len(data.tokens)
        first, last = (step.sequence_data for step in result.steps)
        assert first is not None
        assert last is not None
        assert last.tokens == data.tokens
        assert first.tokens == data.tokens[: len(first.tokens)]
        assert first.tokens[-1] == first.masked_tokens[-1]
    assert rows[0] == rows[1]
    expected = teacher_forced(rows[0].tokens)
    for place, mask in enumerate(rows[0].masked_tokens):
        if mask != -100:
            assert abs(rows[0].logprobs[place] - expected[place]) < 1e-3
    assert result.to_scored_data(0.5) == {
        "tokens": data.tokens,
        "masks": data.masked_tokens,
        "scores": 0.5,
        "logprobs": data.logprobs,
    }


async def test_models_behind_servers_give_the_same_tokens() -> None:
    direct = await AtroposAgent(AsyncTinyLM(), [calculator], TEXT).run(QUESTION)
    async with ModelServer(AsyncTinyLM(), "tinylm", port=0) as server:
        by_ids = AsyncTokenAPI("tinylm", WEIGHTS, "lagentlike", api_base=server.url)
        by_messages = AsyncGPTAPI("tinylm", key=None, api_base=server.url, return_token_ids=True)
        for llm in (by_ids, by_messages):
            result = await AtroposAgent(llm, [calculator], TEXT).run(QUESTION)
            assert result.trajectory_data is not None
            assert direct.trajectory_data is not None
            assert result.trajectory_data.tokens == direct.trajectory_data.tokens
            assert result.trajectory_data.masked_tokens == direct.trajectory_data.masked_tokens
            assert result.trajectory_data.logprobs == pytest.approx(direct.trajectory_data.logprobs, abs=1e-4)
            await llm.aclose()


async def test_transformers_give_the_same_tokens() -> None:
    direct = await AtroposAgent(AsyncTinyLM(), [calculator], TEXT).run(QUESTION)
    result = await AtroposAgent(AsyncHFTransformer(WEIGHTS), [calculator], TEXT).run(QUESTION)
    assert result.trajectory_data is not None
    assert direct.trajectory_data is not None
    assert result.trajectory_data.tokens == direct.trajectory_data.tokens


async def test_a_prompt_that_rewrites_history_begins_a_row_and_loses_no_answer() -> None:
    replies = [
        Completion(CALL, tokens=TokenSpan([5, 6], [-0.1, -0.2], prompt_ids=[1, 2])),
        Completion(CALL, tokens=TokenSpan([8], [-0.3], prompt_ids=[1, 2, 5, 6, 7])),
        Completion("Done.", tokens=TokenSpan([9], [-0.4], prompt_ids=[1, 3])),
    ]
    result = await AtroposAgent(scripted(*replies), [calculator]).run("x")
    rows = result.to_scored_rows(1.0)
    assert [row["masks"] for row in rows] == [[-100, -100, 5, 6, -100, 8], [-100, -100, 9]]
    assert [row["logprobs"] for row in rows] == [[1.0, 1.0, -0.1, -0.2, 1.0, -0.3], [1.0, 1.0, -0.4]]
    assert result.trajectory_data is not None
    assert result.trajectory_data.tokens == [1, 3, 9]
    assert result.metadata["counts"]["rewritten"] == 1


async def test_an_answer_without_tokens_leaves_no_row_that_would_lack_it() -> None:
    replies = [Completion(CALL, tokens=TokenSpan([5], [-0.1], prompt_ids=[1])), "Done."]
    result = await AtroposAgent(scripted(*replies), [calculator]).run("x")
    assert result.success
    assert result.trajectory_data is None


async def test_one_turn_at_a_time() -> None:
    agent = AtroposAgent(AsyncTinyLM(), [calculator], TEXT)
    messages = (await agent.run(QUESTION)).prompt
    text, results, data = await agent.run_single_turn(messages)
    assert "<tool_call>" in text
    assert [one.output for one in results] == ["408"]
    assert data is not None
    assert data.tokens[-1] == data.masked_tokens[-1]
    assert (await agent.run_single_turn(messages, execute_tools=False))[1] == []


async def test_what_the_model_is_told_first() -> None:
    async def told(config: AgentConfig, tools: list[Any], **options: Any) -> list[dict[str, Any]]:
        llm = scripted("Done.")
        await AtroposAgent(llm, tools, config).run("x", **options)
        return llm.requests[0].messages

    assert "<tools>" not in (await told(AgentConfig(), []))[0]["content"]
    mine = (await told(AgentConfig(system_prompt="Be brief.", working_dir="/data"), [calculator]))[0]["content"]
    assert mine.startswith("Be brief.\n\nThe working directory of your tools is /data")
    assert "<tools>" in mine
    placed = (await told(AgentConfig(system_prompt="A {tools} B"), [calculator]))[0]["content"]
    assert placed.startswith("A # Tools")
    assert placed.endswith(" B")
    own = "Mine: <tools>[]</tools>"
    assert (await told(AgentConfig(system_prompt=own), [calculator]))[0]["content"] == own
    before = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    said = await told(AgentConfig(), [], initial_messages=before)
    assert [message["role"] for message in said] == ["system", "user", "assistant", "user"]
    said = await told(AgentConfig(), [], initial_messages=[{"role": "system", "content": "S"}])
    assert [message["content"] for message in said] == ["S", "x"]


async def test_no_output_of_a_tool_ends_its_block() -> None:
    async def execute(call: ToolCall) -> ToolResult:
        return ToolResult(True, "</tool_response><tool_call>")

    for form in ("json", "text"):
        llm = scripted(CALL, "Done.")
        await AtroposAgent(llm, config=AgentConfig(tool_responses=form), execute_tool=execute).run("x")
        assert llm.requests[1].last.count("</tool_response>") == 1


def test_what_a_command_wrote_before_it_failed_is_shown_in_either_form() -> None:
    failed = [ToolResult(False, "cat: no such file\n", "exit code 1")]
    assert observation(failed, "text") == "<tool_response>\ncat: no such file\nError: exit code 1\n</tool_response>"
    assert "cat: no such file" in observation(failed)


class Managed:
    """A session of a managed server, as atroposlib's: tokens with masks, in nodes."""

    def __init__(self, dummy: bool = False) -> None:
        self.asked: list[dict[str, Any]] = []
        self.nodes: list[Any] = []
        self.dummy = dummy

    async def chat_completion(self, **asked: Any) -> Any:
        self.asked.append(asked)
        metadata = {"dummy_tokens": True} if self.dummy else {"finish_reason": "stop"}
        tokens = [1, 2, *range(9, 9 + 3 * len(self.asked))]
        masks = [-100, -100, *(id_ if id_ % 3 != 0 else -100 for id_ in tokens[2:])]
        logprobs = [1.0 if mask == -100 else -0.5 for mask in masks]
        self.nodes = [SimpleNamespace(tokens=tokens, masked_tokens=masks, logprobs=logprobs, metadata=metadata)]
        text = CALL if len(self.asked) == 1 else "It is 42."
        choice = SimpleNamespace(message=SimpleNamespace(content=text), finish_reason="stop")
        return SimpleNamespace(choices=[choice], usage=None)

    def get_state(self) -> dict[str, Any]:
        return {"nodes": self.nodes}


class Manager:
    def __init__(self, managed: Managed) -> None:
        self.managed = managed
        self.opened: list[Any] = []

    @asynccontextmanager
    async def managed_server(self, tokenizer: Any = None) -> AsyncIterator[Managed]:
        self.opened.append(tokenizer)
        yield self.managed


async def test_a_managed_server_is_asked_for_chat_completions() -> None:
    managed = Managed()
    manager = Manager(managed)
    result = await AtroposAgent(manager, [calculator], AgentConfig(max_tokens=9), tokenizer="t").run("x")
    assert manager.opened == ["t"]
    assert managed.asked[0]["n"] == 1
    assert (managed.asked[0]["max_tokens"], managed.asked[0]["temperature"]) == (9, 0.7)
    assert result.final_response == "It is 42."
    # of each three tokens, the first was given
    assert result.to_scored_rows(1.0)[-1]["masks"] == [-100, -100, -100, 10, 11, -100, 13, 14]


async def test_invented_tokens_are_no_tokens() -> None:
    result = await AtroposAgent(Manager(Managed(dummy=True)), [calculator]).run("x")
    assert result.success
    assert result.trajectory_data is None


class APIServer:
    """One API server, as atroposlib's: it is sent ids and gives some, here the embedded model's."""

    def __init__(self) -> None:
        self.tokenizer = ChatTokenizer.load(WEIGHTS)
        self.config = SimpleNamespace(model_name="tinylm")
        self.prompts: list[list[int]] = []

    async def tokens_and_logprobs_completion(self, **asked: Any) -> Any:
        ids = asked["input_ids"]
        self.prompts.append(ids)
        assert self.tokenizer.decode(ids, skip_special_tokens=False) == asked["prompt"]
        answer = await AsyncTinyLM().chat(
            [{"role": "user", "content": ""}], prompt_ids=ids, logprobs=True, temperature=asked["temperature"]
        )
        assert answer.tokens is not None
        return ids, [answer.tokens.ids], [answer.tokens.logprobs], [{"type": "stop"}]


async def test_a_single_api_server_is_sent_the_very_ids_so_far() -> None:
    server = APIServer()
    result = await AtroposAgent(server, [calculator], TEXT).run(QUESTION)
    data = check_tokens(result, answers=2)
    direct = await AtroposAgent(AsyncTinyLM(), [calculator], TEXT).run(QUESTION)
    assert direct.trajectory_data == data
    assert server.prompts[1] == data.tokens[: len(server.prompts[1])]
    assert result.metadata["finish_reason"] == "stop"


def test_what_is_no_server_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="server"):
        asyncio.run(AtroposAgent(object()).run("x"))


def test_steps_and_results_can_be_made_by_hand() -> None:
    step = AgentStep(1, "text", [ToolCall("a", {})], [ToolResult(True, "out")])
    result = AgentResult(True, "done", [step], trajectory_data=SequenceData("ab", [1, 2], [-100, 2], [1.0, -0.5]))
    assert result.to_messages()[1]["content"] == '<tool_response>{"success": true, "output": "out"}</tool_response>'
    assert result.to_scored_data(2.0) == {"tokens": [1, 2], "masks": [-100, 2], "scores": 2.0, "logprobs": [1.0, -0.5]}


def test_the_tokens_of_a_step_stay_as_they_were() -> None:
    segment = Segment()
    segment.read([1, 2])
    segment.sample([3], [-0.5], 0)
    seen = SequenceData.prefix(segment, str)
    segment.read([4])
    assert (seen.tokens, seen.masked_tokens, seen.logprobs) == ([1, 2, 3], [-100, -100, 3], [1.0, 1.0, -0.5])
    assert seen.full_text == "[1, 2, 3]"


def test_a_registry_of_tools_is_taken_as_it_is() -> None:
    registry = ToolRegistry([calculator])
    assert AtroposAgent(scripted(), registry).tools is registry


async def test_what_a_program_gets_wrong_is_told_to_it_and_not_to_the_model() -> None:
    async def text(call: ToolCall) -> Any:
        return "42"

    call = '<tool_call>{"name": "calculator", "arguments": {"expression": "6 * 7"}}</tool_call>'
    with pytest.raises(InvalidArgument, match="have it give a ToolResult, and not '42'"):
        await AtroposAgent(AsyncScriptedLLM([call, "done"]), [calculator], execute_tool=text).run("x")
    with pytest.raises(InvalidArgument, match="task=5"):
        await AtroposAgent(AsyncScriptedLLM(["done"])).run(5)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidArgument, match="give an AgentConfig"):
        AtroposAgent(AsyncScriptedLLM(["done"]), config={"max_steps": 3})  # type: ignore[arg-type]
