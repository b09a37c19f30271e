"""HFAgent on the embedded model: the documented program, token-exact rows, backends, agents by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from lagentlike.agents import AsyncSequential, AutoAgent, CodeAgent, HFAgent, ReactAgent
from lagentlike.errors import InvalidArgument, MissingTokens
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM, TinyLM
from lagentlike.llms.tiny.engine import TinyEngine
from lagentlike.rollouts import EnvironmentPool, tokenize_trajectories
from lagentlike.rollouts.agents.react import parse_react
from lagentlike.rollouts.environments import current_environment
from lagentlike.schema import ToolCall
from lagentlike.serving import ModelServer
from lagentlike.tools import calculator, tool

QUESTION = [{"role": "user", "content": "What is the result of 1 + 1?"}]


async def test_the_documented_program_gives_the_documented_messages() -> None:
    agent = HFAgent(
        model_name_or_path="tiny", tools=[calculator], template="qwen2.5", backend_config={"backend": "tiny"}
    )
    result = await agent.run(messages=QUESTION, max_turns=3, num_chains=1)
    [trajectory] = result.trajectories
    call_id = trajectory["messages"][1]["tool_calls"][0]["id"]
    called = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "1 + 1"}}\n</tool_call>'
    assert trajectory["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "What is the result of 1 + 1?"}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": called}],
            "tool_calls": [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": "calculator", "arguments": {"expression": "1 + 1"}},
                }
            ],
        },
        {
            "role": "tool",
            "tool_call_id": call_id,
            "tool_name": "calculator",
            "content": [{"type": "text", "text": "2"}],
        },
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "The result of 1 + 1 is 2."}],
            "tool_calls": [],
        },
    ]
    inputs = agent.tokenize_trajectories()
    assert {"input_ids", "attention_mask", "labels", "action_mask", "logprobs"} <= set(inputs)


async def test_rows_hold_the_tools_block_and_train_nothing_of_the_template() -> None:
    agent = HFAgent(tools=[calculator])
    [trajectory] = await agent.run(QUESTION)
    batch = agent.tokenize_trajectories(tensors="np")
    engine = TinyEngine.load()
    ids, mask = batch["input_ids"][0], batch["action_mask"][0].astype(bool)
    assert '"name": "calculator"' in engine.decode(ids)
    spans = [engine.decode(piece, skip_special_tokens=False) for piece in runs(ids, mask)]
    assert spans == [
        '<tool_call>\n{"name": "calculator", "arguments": {"expression": "1 + 1"}}\n</tool_call><|im_end|>',
        "The result of 1 + 1 is 2.<|im_end|>",
    ]
    assert ids[-1] == engine.end_of_turn  # no generation prompt behind the last answer
    assert (batch["labels"][0][mask] == ids[mask]).all()
    assert (batch["labels"][0][~mask] == -100).all()
    assert trajectory.counts.extended == 1
    assert len(trajectory.segments) == 1


def runs(ids: np.ndarray, mask: np.ndarray) -> list[list[int]]:
    """The unbroken runs of sampled ids."""
    found: list[list[int]] = []
    for index, (id_, sampled) in enumerate(zip(ids, mask, strict=True)):
        if sampled:
            if index == 0 or not mask[index - 1]:
                found.append([])
            found[-1].append(int(id_))
    return found


async def test_log_probabilities_equal_a_recompute_over_the_row() -> None:
    agent = HFAgent(tools=[calculator])
    config = {"temperature": 1.0, "seed": 3, "max_new_tokens": 60}
    result = await agent.run(["What is 12 * 7?", "Who are you?"], num_chains=3, generation_config=config)
    network = TinyEngine.load().network
    for segment in (segment for trajectory in result for segment in trajectory.segments):
        logits = network.prefill(segment.ids[:-1], network.cache(len(segment)), every=True).astype(np.float64)
        top = logits.max(-1, keepdims=True)
        recomputed = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
        assert segment.logprobs is not None
        for place, sampled in enumerate(segment.mask):
            if sampled:
                assert segment.logprobs[place] == pytest.approx(recomputed[place - 1, segment.ids[place]], abs=2e-4)


async def test_chains_of_one_query_draw_with_seeds_of_their_own_and_a_run_repeats() -> None:
    agent = HFAgent()
    config = {"temperature": 1.5, "seed": 1, "max_tokens": 20}
    first = await agent.run("Write about tea.", num_chains=4, generation_config=config)
    again = await agent.run("Write about tea.", num_chains=4, generation_config=config)
    texts = [trajectory.final_response for trajectory in first]
    assert len(set(texts)) > 1
    assert texts == [trajectory.final_response for trajectory in again]


async def test_a_conversation_with_a_history_goes_on_from_it() -> None:
    history = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "My name is Zorvik."},
        {"role": "assistant", "content": "Nice to meet you, Zorvik."},
        {"role": "user", "content": "What is my name?"},
    ]
    agent = HFAgent(system_prompt="not this one")
    [trajectory] = await agent.run(history)
    assert trajectory.final_response == "Your name is Zorvik."
    assert [message["role"] for message in trajectory.messages] == ["system", "user", "assistant", "user", "assistant"]
    [segment] = trajectory.segments
    assert [turn.message for turn in segment.turns] == [4]  # what was given is not trained


async def test_the_conversation_ends_where_the_context_is_full() -> None:
    agent = HFAgent(tools=[calculator], max_model_len=240)
    [trajectory] = await agent.run(QUESTION)
    assert trajectory.finish_reason == "max_model_len"
    assert trajectory.error is None
    assert trajectory.messages[-1]["role"] == "tool"  # no call without its result
    [short] = await HFAgent(tools=[calculator], max_model_len=20).run(QUESTION)
    assert short.finish_reason == "max_model_len"


async def test_an_answer_that_is_cut_off_is_told_from_one_that_ends() -> None:
    result = await HFAgent().run(["Who are you?"], generation_config={"max_tokens": 3})
    assert [item.finish_reason for item in result] == ["max_model_len"]
    assert result[0].token_count == 3


async def test_it_is_an_agent_like_any_other() -> None:
    agent = HFAgent(tools=[calculator])
    assert (await agent("What is the result of 2 + 3?", session_id="a")).content == "The result of 2 + 3 is 5."
    assert [path for path, _ in agent.named_modules()] == ["", "actions", "actions.calculator", "agent"]
    assert "agent.memory" in agent.state_dict("a")
    pipeline = AsyncSequential(agent)
    assert (await pipeline("What is the result of 2 + 4?")).content == "The result of 2 + 4 is 6."


async def test_conversations_and_trajectories_are_tokenized_too() -> None:
    agent = HFAgent(tools=[calculator])
    with pytest.raises(InvalidArgument, match="there was no run yet"):
        agent.tokenize_trajectories()
    result = await agent.run(QUESTION)
    sampled = agent.tokenize_trajectories(result, tensors="np")
    written = agent.tokenize_trajectories([result[0].messages], tensors="np")
    assert (written["input_ids"] == sampled["input_ids"]).all()  # well-formed answers tokenize as they were sampled
    assert (written["action_mask"] == sampled["action_mask"]).all()
    assert "logprobs" not in written


async def test_a_server_that_gives_ids_gives_the_rows_of_the_engine_itself() -> None:
    server = ModelServer(AsyncTinyLM(), ["tinylm"], port=0)
    await server.start()
    try:
        agent = HFAgent("tinylm", [calculator], backend_config={"backend": "client", "api_base": server.url})
        result = await agent.run(QUESTION)
    finally:
        await server.stop()
    [local] = await HFAgent("tiny", [calculator]).run(QUESTION)
    assert result[0].segments[0].ids == local.segments[0].ids
    assert result[0].segments[0].mask == local.segments[0].mask
    assert result[0].segments[0].logprobs == pytest.approx(local.segments[0].logprobs, abs=1e-5)
    assert result[0].counts.missing == 0


async def test_transformers_in_this_process_give_the_rows_of_the_engine_itself() -> None:
    [local] = await HFAgent("tiny", [calculator]).run(QUESTION)
    agent = HFAgent("tiny", [calculator], backend_config={"backend": "transformers"})
    [trajectory] = await agent.run(QUESTION)
    assert trajectory.segments[0].ids == local.segments[0].ids
    assert trajectory.segments[0].mask == local.segments[0].mask
    assert trajectory.segments[0].logprobs == pytest.approx(local.segments[0].logprobs, abs=1e-4)
    [given] = await HFAgent(agent.agent.llm, [calculator]).run(QUESTION)
    assert given.segments == trajectory.segments


async def test_missing_ids_are_said_and_not_made_up() -> None:
    agent = HFAgent(AsyncScriptedLLM(["Hello"]))
    result = await agent.run("Hi")
    with pytest.raises(MissingTokens, match="no token ids for 1 of 1 answers"):
        tokenize_trajectories(result)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InvalidArgument, match=r"toools=\[\]: HFAgent has no argument toools nor templat"):
        HFAgent("tiny", toools=[], templat="x")
    with pytest.raises(ValueError, match="the backends are tiny, transformers, client"):
        HFAgent("tiny", backend_config={"backend": "gpt"})
    with pytest.raises(InvalidArgument, match="knows max_new_tokens, temperature"):
        HFAgent("tiny", backend_config={"backend": "tiny", "tp": 2})
    with pytest.raises(InvalidArgument, match="template"):
        HFAgent("tiny", template="qwen99")
    with pytest.raises(InvalidArgument, match="the client backend needs the server's URL"):
        HFAgent("m", backend_config={"backend": "client"})
    with pytest.raises(InvalidArgument, match="max_model_len=0"):
        HFAgent("tiny", max_model_len=0)
    with pytest.raises(InvalidArgument, match="model_name_or_path"):
        HFAgent(TinyLM())  # type: ignore[arg-type]  # that is the test


async def test_a_stateful_tool_works_on_the_environment_of_its_chain() -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def reset(self) -> None:
            self.count = 0

        def step(self, by: int) -> int:
            self.count += by
            return self.count

    @tool(stateful=True)
    async def add(by: int) -> int:
        """Add to the counter."""
        counted: int = await current_environment().step(by)
        return counted

    def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> Any:
        results = [message["content"] for message in messages if message["role"] == "tool"]
        return results[-1] if len(results) == 2 else ToolCall("add", {"by": 3}, id=str(len(results)))

    with pytest.raises(InvalidArgument, match="the tool 'add' is stateful"):
        HFAgent(AsyncScriptedLLM(answer), tools=[add])
    async with EnvironmentPool(Counter, 2) as pool:
        agent = HFAgent(AsyncScriptedLLM(answer), tools=[add], environment=pool)
        result = await agent.run("count", num_chains=8)
    assert [item.final_response for item in result] == ["6"] * 8


def test_run_sync_works_without_a_loop() -> None:
    agent = HFAgent(AsyncTinyLM(), tools=[calculator])
    assert agent.run_sync(QUESTION).trajectories[0].final_response == "The result of 1 + 1 is 2."


async def test_a_model_that_writes_calls_as_text_reasons_and_acts() -> None:
    replies = [
        'Thought: add\nAction: calculator\nAction Input: {"expression": "20 + 22"}',
        "Thought: I know the answer\nFinal Answer: 42",
    ]
    llm = AsyncScriptedLLM(replies)
    [trajectory] = await ReactAgent(llm, tools=[calculator]).run("20 + 22?")
    assert [message["role"] for message in trajectory.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert trajectory.messages[3]["content"][0]["text"] == "Observation: 42"
    assert '"name": "calculator"' in trajectory.messages[0]["content"][0]["text"]
    assert llm.requests[0].params.get("tools") is None


async def test_tools_that_the_model_is_told_of_in_words_are_not_listed_as_offered() -> None:
    replies = ['Action: calculator\nAction Input: {"expression": "20 + 22"}', "Final Answer: 42"]
    agent = ReactAgent(AsyncScriptedLLM(replies * 2), tools=[calculator])
    [trajectory] = await agent.run("20 + 22?")
    assert trajectory.tools == []
    assert (await agent("20 + 22?")).content == "Final Answer: 42"  # as an agent, it is shown observations as well
    asked = agent.agent.llm.requests[-1]
    assert asked.last == "Observation: 42"
    assert asked.params.get("tools") is None


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("Final Answer: 3", []),
        ("Thought: x\nFinal Answer: 3\nAction: f\nAction Input: {}", []),
        ("Action: f\nAction Input: {}", [("f", {})]),
        ("Action: f\nAction Input: {'a': 1}", [("f", "{'a': 1}")]),
        ("Action: f\nAction Input: [1]", [("f", "[1]")]),
        ("Action: f\nAction Input: {}\nAction: g\nAction Input: {}", [("f", {}), ("g", {})]),
        ("Action: f", []),
        ("", []),
    ],
)
def test_react_text_is_read_whatever_it_is(text: str, calls: list[tuple[str, Any]]) -> None:
    assert [(call.name, call.arguments) for call in parse_react(text)] == calls


async def test_a_code_agent_runs_what_the_model_writes() -> None:
    ran = []

    @tool
    def python(code: str) -> str:
        """Run Python code."""
        ran.append(code)
        return "5050"

    agent = CodeAgent("tiny", tools=[python])
    [trajectory] = await agent.run("What is the sum of the numbers from 1 to 100?")
    assert ran == ["print(sum(range(1, 100 + 1)))"]
    assert trajectory.final_response == "The answer is 5050."
    assert trajectory.counts.extended == 1


def test_agents_are_made_by_name() -> None:
    agent = AutoAgent.from_config({"agent_type": "code", "model_name_or_path": "tiny"})
    assert type(agent) is CodeAgent
    assert type(AutoAgent.from_pretrained("tiny", tools=[calculator])) is HFAgent
    with pytest.raises(InvalidArgument, match="the agents are hf, react, code"):
        AutoAgent.from_config({"agent_type": "cod"})

    class Mine(HFAgent):
        pass

    AutoAgent.register_agent("mine-for-a-test", Mine)
    assert type(AutoAgent.from_pretrained("tiny", agent_type="mine-for-a-test")) is Mine
    with pytest.raises(InvalidArgument, match="it means CodeAgent already"):
        AutoAgent.register_agent("code", Mine)


def test_rollouts_import_no_torch_and_no_engine() -> None:
    program = (
        "import sys, lagentlike.agents, lagentlike.rollouts\n"
        "from lagentlike.agents import HFAgent\n"
        "agent = HFAgent('tiny')\n"
        "agent.run_sync('Hello')\n"
        "found = {'torch', 'transformers', 'vllm', 'lmdeploy', 'ray', 'wandb', 'peft'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
