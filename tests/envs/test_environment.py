"""Environments: groups with exact tokens, failures that are told apart, slots that are always given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from lagentlike.envs import AgentEnv, AgentEnvConfig, ScoredGroup
from lagentlike.envs.command import told
from lagentlike.envs.groups import group_of
from lagentlike.errors import EnvironmentFailed, InvalidArgument, RewardError
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM
from lagentlike.sandbox.executor import ToolExecutor
from lagentlike.schema import Completion, TokenSpan
from lagentlike.tools import calculator, ToolRegistry

from .conftest import bash, Notes, writes
from .test_agent import teacher_forced

DONE = writes("echo done > note.txt")


def executor_of(env: AgentEnv[Any]) -> ToolExecutor:
    executor = env._sandboxes._executor
    assert executor is not None
    return executor


def check_free(env: AgentEnv[Any]) -> None:
    assert executor_of(env).get_stats()["trajectories"] == 0, "no try holds a slot any more"


async def one_group(env: AgentEnv[Any], item: Any) -> dict[str, Any]:
    group, again = await env.collect_trajectories(item)
    assert isinstance(group, dict), env.failures
    assert again == []
    return group


async def test_a_group_of_the_embedded_model_has_exact_masks_and_logprobs(
    example: Callable[[str], ModuleType],
) -> None:
    arithmetic = example("arithmetic")
    async with arithmetic.Arithmetic() as env:
        group = await one_group(env, {"term": "123 * 45", "answer": 5535})
    read = ScoredGroup.read(group)
    assert read.rows == len(read.masks) == len(read.scores) == env.config.group_size == 4
    assert read.inference_logprobs is not None
    assert read.messages is None, "nobody asked for them"
    assert 0 < read.sampled < sum(map(len, read.tokens))
    for tokens, masks, logprobs in zip(read.tokens, read.masks, read.inference_logprobs, strict=True):
        assert len(tokens) == len(masks) == len(logprobs)
        expected = teacher_forced(tokens)
        for place, (id_, mask) in enumerate(zip(tokens, masks, strict=True)):
            assert mask in (-100, id_)
            assert logprobs[place] == (1.0 if mask == -100 else pytest.approx(expected[place], abs=1e-3))


async def test_a_try_is_scored_in_its_own_slot_which_is_empty_for_the_next() -> None:
    async with Notes(DONE, slots_per_container=1, max_containers=1, group_size=3) as env:
        group = await one_group(env, "x")
        assert group["scores"] == [1.0, 1.0, 1.0]
        assert env.seen == ["setup", "left: ", "left: ", "left: "], "three tries share one slot, one after the other"
        assert group["overrides"] == [{"seen": True}] * 3
        roles = [message["role"] for message in group["messages"][0]]
        assert roles == ["system", "user", "assistant", "user", "assistant"]
        assert "note.txt (x)" in group["messages"][0][1]["content"]
        check_free(env)


async def test_an_agent_that_fails_is_worth_nothing_and_tells_what_it_did() -> None:
    async with Notes(writes("echo a", "echo b", "echo c", "echo d")) as env:
        group = await one_group(env, "x")
        assert group["scores"] == [0.0, 0.0]
        assert group["metadata"][0] == {"error": "Reached maximum steps (3)"}
        assert len(group["messages"][0]) == 2 + 3 * 2
    async with Notes(RuntimeError("the model is gone")) as env:
        tried = await env.play("x")
        assert (tried.score, tried.result.error) == (0.0, "Generation error: the model is gone")
        assert [message["role"] for message in tried.messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("setup fails", "EnvironmentFailed: setup_trajectory_workspace raised OSError: no data set"),
        ("score fails", "EnvironmentFailed: verify_and_score_trajectory raised ValueError: no parser"),
        ("metadata is no data", "EnvironmentFailed: verify_and_score_trajectory raised TypeError"),
        ("score is nan", "RewardError: reward verify_and_score_trajectory: it gave nan"),
    ],
)
async def test_a_broken_environment_is_told_and_never_scored(item: str, told: str) -> None:
    async with Notes(DONE) as env:
        assert await env.collect_trajectories(item) == (None, [])
        [(failed, why)] = env.failures
        assert failed == item
        assert why.startswith(told)
        check_free(env)
        with pytest.raises((EnvironmentFailed, RewardError)):
            await env.play(item)
        assert (await one_group(env, "x"))["scores"] == [1.0, 1.0], "the next task is fine"


async def test_a_sandbox_that_dies_under_a_try_is_no_fault_of_the_agent() -> None:
    async with Notes(writes("kill -9 $PPID; sleep 20", "echo done > note.txt")) as env:
        assert await env.collect_trajectories("x") == (None, [])
        assert "is gone" in env.failures[0][1]
        check_free(env)


async def test_no_slot_in_time_is_no_fault_of_the_agent() -> None:
    async with Notes(DONE, slots_per_container=1, max_containers=1, acquire_timeout_s=0.1, group_size=1) as env:
        await env._sandboxes.start()
        await executor_of(env).acquire_trajectory("somebody else")
        assert await env.collect_trajectories("x") == (None, [])
        assert "no sandbox slot came free" in env.failures[0][1]


async def test_a_tool_server_that_is_gone_is_no_fault_of_the_agent() -> None:
    class External(Notes):
        def build_tools(self) -> ToolRegistry:
            tools = ToolRegistry()
            tools.register(calculator, external=True)
            return tools

        async def setup_trajectory_workspace(self, item: Any, **more: Any) -> dict[str, Any]:
            return {}

    asks = '<tool_call>{"name": "calculator", "arguments": {"expression": "6 * 7"}}</tool_call>'
    server = {"tool_server_url": "http://127.0.0.1:9", "tool_server_token": "0123456789abcdef"}
    async with External([asks] * 2, group_size=1, **server) as env:
        assert await env.collect_trajectories("x") == (None, [])
        assert "calculator cannot be had: the ToolServer does not answer" in env.failures[0][1]
        assert executor_of(env).get_stats()["backend"]["containers"] == 0, "no sandbox was started for it"


async def test_cancelling_a_group_gives_its_slots_back(no_leaks: None) -> None:
    async with Notes(writes("sleep 60")) as env:
        task = asyncio.create_task(env.collect_trajectories("x"))
        while executor_of(env).get_stats()["trajectories"] < 2:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        check_free(env)
        assert env.failures == []


async def test_tools_that_are_not_offered_are_the_hooks_alone() -> None:
    asks = '<tool_call>{"name": "read_file", "arguments": {"path": "note.txt"}}</tool_call>'
    async with Notes([asks, "I cannot."], group_size=1) as env:
        group = await one_group(env, "x")
        assert "read_file" in group["messages"][0][3]["content"]
        assert '"success": false' in group["messages"][0][3]["content"]


async def test_an_answer_to_a_task_of_no_data_set() -> None:
    async with Notes(DONE) as env:
        text, more = await env.run_agent("Write it")
        assert (text, more) == ("It is written.", {"success": True, "error": None, "tool_calls": 1})
        check_free(env)
        await env.run_agent("Write it", trajectory_id="mine")
        assert executor_of(env).get_stats()["trajectories"] == 1, "this try goes on"
        assert (await executor_of(env).read_artifact("mine", "note.txt")).text == "done\n"


async def test_no_sandbox_is_started_where_no_tool_needs_one(example: Callable[[str], ModuleType]) -> None:
    arithmetic = example("arithmetic")
    config, _ = arithmetic.Arithmetic.config_init()
    config.tool_pool_mode = "docker"  # which is not here
    async with arithmetic.Arithmetic(config) as env:
        assert (await env.play({"term": "1 + 1", "answer": 2})).result.success


@pytest.mark.parametrize("mode", ["local", "bwrap"])
async def test_the_embedded_model_works_in_a_terminal(mode: str, example: Callable[[str], ModuleType]) -> None:
    terminal = example("terminal")
    config, _ = terminal.Terminal.config_init()
    config.tool_pool_mode, config.agent_temperature = mode, 0.0
    async with terminal.Terminal(config) as env:
        items = [await env.get_next_item() for _ in range(8)]
        tries = await asyncio.gather(*(env.play(item) for item in items))
        assert len({item["question"].split()[0] for item in items}) > 3, "jobs of several kinds"
        assert [one.score for one in tries] == [1.0] * 8
        undone = await env.play({**items[0], "check": "test -e nowhere"})
        assert (undone.score, undone.metadata) == (0.0, {"check": False})


async def test_an_example_tests_programs_in_the_sandbox(example: Callable[[str], ModuleType]) -> None:
    coding = example("coding")
    config, _ = coding.Coding.config_init()
    config.tool_pool_mode, config.agent_temperature = "bwrap", 0.0
    async with coding.Coding(config) as env:  # the embedded model writes this program
        assert (await one_group(env, coding.TASKS[0]))["scores"] == [1.0, 1.0]
        wrong = await env.play({**coding.TASKS[0], "prints": "1276"})
        assert wrong.score == 0.0
        assert "1275" in wrong.metadata["pytest"]


class Rewritten(AgentEnv[AgentEnvConfig]):
    """One of two tries has its history rewritten, so that its tokens are two runs."""

    def build_tools(self) -> ToolRegistry:
        return ToolRegistry()

    async def setup_agent_env(self) -> None: ...

    async def get_next_item(self) -> None: ...

    def build_task(self, item: Any) -> str:
        return str(item)

    async def score_trajectory(self, item: Any, final_response: str) -> float:
        return float(final_response == "b")


def spans(*answers: tuple[str, list[int], list[int]]) -> list[Completion]:
    return [
        Completion(text, tokens=TokenSpan(ids, [-0.5] * len(ids), prompt_ids=prompt)) for text, prompt, ids in answers
    ]


async def test_each_run_of_tokens_is_a_row_in_groups_that_compare_the_same_scores() -> None:
    call = bash("ls")
    replies = spans((call, [1, 2], [3, 4]), ("a", [9, 9, 9], [5]), ("b", [1, 2], [6]))
    env = Rewritten(AgentEnvConfig(group_size=2, include_messages=True), AsyncScriptedLLM(replies))
    async with env:
        first, _ = await env.collect_trajectory("x")
        second, _ = await env.collect_trajectory("x")
    assert first is not None
    assert second is not None
    one, two = group_of([first, second], include_messages=True)
    assert one["masks"] == [[-100, -100, 3, 4], [-100, -100, 6]]
    assert two["masks"] == [[-100, -100, -100, 5], [-100, -100]], "nothing of the second one is trained twice"
    assert two["tokens"] == [[9, 9, 9, 5], [1, 2]]
    assert one["scores"] == two["scores"] == [0.0, 1.0]
    for group in (one, two):
        ScoredGroup.read(group)


def test_an_environment_runs_in_one_event_loop_after_another() -> None:
    env = Notes(DONE, slots_per_container=1, max_containers=1)  # so that tries wait for each other

    async def once() -> list[float]:
        async with env:
            group = await one_group(env, "x")
            return list(group["scores"])

    assert [asyncio.run(once()) for _ in range(2)] == [[1.0, 1.0]] * 2


async def test_why_there_was_no_answer_is_counted() -> None:
    def away(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        raise ConnectionError("the server is away")

    async with Notes(away) as env:
        group = await one_group(env, "x")
        assert group["scores"] == [0.0, 0.0]
        (why,) = env.unanswered
        assert "the server is away" in why
        assert told(env, {"eval/right": 0.0}) == ["eval/right: 0", f"2 tries came to no answer: {why}"]
    assert env.failures == [], "it is no fault of the environment"


async def test_the_mean_score_of_some_tasks() -> None:
    at_once: list[int] = [0]

    class Scores(Rewritten):
        async def score_trajectory(self, item: Any, final_response: str) -> float:
            at_once.append(at_once[-1] + 1)
            await asyncio.sleep(0.01)
            at_once.append(at_once[-1] - 1)
            if item == "broken":
                raise OSError("no judge")
            return float(item)

    async with Scores(AgentEnvConfig(max_eval_workers=2), AsyncScriptedLLM(["a"] * 20)) as env:
        assert await env.mean_score(range(5)) == 2.0
        assert max(at_once) == 2
        with pytest.raises(EnvironmentFailed, match="no judge"):
            await env.mean_score([1, "broken", 2])
        with pytest.raises(InvalidArgument, match="at least one task"):
            await env.mean_score([])


async def test_a_model_without_tokens_gives_groups_to_read_alone() -> None:
    async with Notes(DONE) as env:
        group = await one_group(env, "x")
        assert group["tokens"] == [[], []]
        assert group["scores"] == [1.0, 1.0]


def test_tools_are_in_a_registry() -> None:
    class Listed(Rewritten):
        def build_tools(self) -> Any:
            return [calculator]

    with pytest.raises(InvalidArgument, match=r"build_tools\(\)=.*have it give a ToolRegistry"):
        Listed()


def test_an_environment_wants_its_own_config() -> None:
    with pytest.raises(InvalidArgument, match="AgentEnvConfig"):
        Rewritten({"group_size": 2})  # type: ignore[arg-type]  # that is the point
    assert isinstance(Rewritten().server, AsyncTinyLM)
