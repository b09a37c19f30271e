"""Rewards: their arguments by name, what they may return, how they fail, and how they are put together."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest

from lagentlike.errors import InvalidArgument, RewardError
from lagentlike.rollouts.rewards import (
    check_reward,
    exact_match,
    f1,
    get_reward,
    missing,
    per_agent,
    per_step,
    reward,
    RewardGroup,
    RewardResult,
    score,
    wants,
)
from lagentlike.trajectory import as_parts, Trajectory


def trajectory(answer: str = "The answer is 4.", **options: Any) -> Trajectory:
    return Trajectory(
        [as_parts({"role": "user", "content": "2 + 2?"}), as_parts({"role": "assistant", "content": answer})], **options
    )


def scored(given: Any, one: Trajectory | None = None, context: Any = None, **options: Any) -> RewardResult:
    return asyncio.run(score(given, one or trajectory(), context, **options))


# Arguments by name


def test_arguments_come_by_name_from_everywhere() -> None:
    seen: dict[str, Any] = {}

    @reward
    def look(
        prediction: str,
        final_response: str,
        trajectory: Trajectory,
        messages: list[Any],
        context: Any,
        environment: Any,
        level: int,
        finish_reason: str,
        chain: str,
        unknown: str = "default",
    ) -> float:
        seen.update(locals())
        return 1.0

    one = trajectory(metadata={"level": 3})
    context = {"environment": "env", "chain": "the chain"}
    scored(look, one, context)
    assert seen["prediction"] == seen["final_response"] == "The answer is 4."
    assert seen["trajectory"] is one
    assert seen["messages"] is one.messages
    assert seen["context"] is context
    assert (seen["environment"], seen["level"], seen["finish_reason"]) == ("env", 3, "terminal")
    assert (seen["chain"], seen["unknown"]) == ("the chain", "default")


def test_answer_and_ground_truth_stand_for_each_other() -> None:
    assert scored(lambda answer: answer, trajectory(metadata={"ground_truth": 2})).reward == 2.0
    assert scored(lambda ground_truth: ground_truth, trajectory(metadata={"answer": 3})).reward == 3.0


def test_metadata_goes_before_a_field_of_the_trajectory_but_not_before_a_fixed_name() -> None:
    one = trajectory(metadata={"query": "What?", "messages": "mine"})
    assert scored(lambda query, messages: query == "What?" and messages is one.messages, one).reward == 1.0


def test_keyword_arguments_take_the_metadata_that_is_left() -> None:
    def look(answer: str, **metadata: Any) -> bool:
        return metadata == {"level": 1}

    assert scored(look, trajectory(metadata={"answer": "4", "level": 1, "prediction": "no"})).reward == 1.0


def test_a_parameter_that_nobody_can_fill_is_named_with_what_there_is() -> None:
    @reward
    def look(colour: str) -> float:
        return 1.0

    with pytest.raises(RewardError, match=r"reward look: .*'colour'.*it has 'answer'"):
        scored(look, trajectory(metadata={"answer": 1}))


def test_an_environment_is_missing_where_the_rollout_has_none() -> None:
    with pytest.raises(RewardError, match="EnvironmentPool"):
        scored(lambda environment: 1, context={"environment": None})


def test_what_is_missing_is_known_before_the_rollout_starts() -> None:
    both = exact_match + reward(name="other")(lambda level, prediction: 1.0)
    assert missing(both, ["level"]) == ["answer"]
    assert missing(both, ["level", "ground_truth"]) == []
    check_reward(None, [set()])
    check_reward("f1", [{"answer"}, {"ground_truth"}])
    with pytest.raises(InvalidArgument, match=r"'level'.*it has 'answer'"):
        check_reward(both, [{"answer", "level"}, {"answer"}])


def test_it_can_be_asked_what_a_reward_wants() -> None:
    both = exact_match + reward(name="seen")(lambda environment: 1.0)
    assert wants(both, "environment")
    assert wants(per_agent({"writer": both}), "environment")
    assert not wants(per_step(lambda step: 1.0) + f1, "environment")


@pytest.mark.parametrize("function", [lambda x, /: x, lambda *args: 1.0])
def test_parameters_that_cannot_be_given_by_name_are_refused_at_once(function: Any) -> None:
    with pytest.raises(InvalidArgument, match="by name"):
        reward(function)


# What it returns


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (0.5, 0.5),
        (True, 1.0),
        (np.float32(0.25), 0.25),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array(2.0), 2.0),
        ({"reward": np.float64(0.5)}, 0.5),
    ],
)
def test_any_kind_of_number_is_a_reward(value: Any, number: float) -> None:
    result = scored(lambda: value)
    assert result.reward == number
    assert type(result.reward) is float


def test_a_tensor_without_dimensions_is_a_number() -> None:
    torch = pytest.importorskip("torch")
    assert scored(lambda: torch.tensor(0.5)).reward == 0.5


def test_extras_are_plain_data() -> None:
    result = scored(lambda: {"reward": 1, "parts": {"a": np.float32(0.5)}, "ids": np.arange(2)})
    assert result == RewardResult(1.0, {"parts": {"a": 0.5}, "ids": [0, 1]})


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        np.float32("nan"),
        10**400,
        None,
        "1.0",
        [1.0],
        np.ones(2),
        1j,
        {},
        {"score": 1.0},
        {"reward": None},
        {"reward": float("nan")},
        {"reward": 1.0, "bad": set()},
        {"reward": 1.0, "bad": float("nan")},
    ],
    ids=repr,
)
def test_what_is_no_finite_number_is_an_error_and_never_zero(value: Any) -> None:
    with pytest.raises(RewardError, match=r"^reward odd: "):
        scored(reward(name="odd")(lambda: value))


# How it fails


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
@pytest.mark.parametrize("is_async", [False, True])
def test_whatever_a_reward_raises_is_a_reward_error(error: BaseException, is_async: bool) -> None:
    def plain() -> float:
        raise error

    async def awaited() -> float:
        raise error

    with pytest.raises(RewardError) as caught:
        scored(awaited if is_async else plain)
    assert caught.value.reward == ("awaited" if is_async else "plain")
    assert type(error).__name__ in str(caught.value)


def test_a_reward_error_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(RewardError("f1", "no")))
    assert (str(again), again.reward) == ("reward f1: no", "f1")


def test_an_async_reward_that_takes_too_long_is_stopped() -> None:
    stopped = []

    @reward(timeout=0.02)
    async def slow() -> float:
        try:
            await asyncio.sleep(30)
        finally:
            stopped.append(True)
        return 1.0

    with pytest.raises(RewardError, match=r"longer than 0\.02 seconds and was stopped"):
        scored(slow)
    assert stopped


def test_a_blocking_reward_that_takes_too_long_is_left_behind() -> None:
    release = threading.Event()
    with pytest.raises(RewardError, match="still running"):
        scored(lambda: float(release.wait(30)), timeout=0.02)
    release.set()


def test_its_own_time_limit_goes_before_that_of_the_rollout() -> None:
    @reward(timeout=5)
    async def slow() -> float:
        await asyncio.sleep(0.05)
        return 1.0

    assert scored(slow, timeout=0.01).reward == 1.0


def test_cancelling_the_score_cancels_the_reward() -> None:
    async def main() -> list[str]:
        told = []

        async def slow() -> float:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                told.append("cancelled")
                raise
            return 1.0

        task = asyncio.create_task(score(slow, trajectory()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return told

    assert asyncio.run(main()) == ["cancelled"]


def test_a_blocking_reward_never_runs_on_the_event_loop() -> None:
    async def main() -> tuple[int, RewardResult]:
        ticks = 0

        def block() -> float:
            time.sleep(0.1)
            return float(threading.current_thread() is not threading.main_thread())

        scoring = asyncio.create_task(score(block, trajectory()))
        while not scoring.done():
            ticks += 1
            await asyncio.sleep(0.005)
        return ticks, scoring.result()

    ticks, result = asyncio.run(main())
    assert ticks > 5
    assert result.reward == 1.0


# Putting them together


def test_a_weighted_sum_keeps_each_part() -> None:
    one = trajectory("a green apple", metadata={"answer": "red apple"})
    result = scored(exact_match * 2 + 0.5 * f1 + reward(name="rich")(lambda: {"reward": 1, "why": "so"}), one)
    assert result.reward == pytest.approx(0.25 + 1)
    assert result.extras == {"exact_match": 0.0, "f1": 0.5, "rich": 1.0, "rich.why": "so"}


def test_a_group_takes_weights_and_can_be_weighted_itself() -> None:
    group = RewardGroup([lambda prediction: 1.0], weights=[3])
    assert scored(group * 0.5).reward == 1.5
    assert scored(group * 0.5 + f1, trajectory("x", metadata={"answer": "x"})).reward == 2.5
    assert repr(exact_match * 0.5 + f1) == "0.5 * exact_match + f1"
    assert sum([exact_match, f1]).name == "exact_match + f1"  # type: ignore[list-item]


def test_the_parts_of_a_sum_run_side_by_side() -> None:
    meet = threading.Barrier(2, timeout=5)

    @reward
    def one() -> float:
        return meet.wait() * 0 + 1

    @reward
    def two() -> float:
        return meet.wait() * 0 + 2

    assert scored(one + two).reward == 3.0


def test_where_a_part_fails_the_sum_fails() -> None:
    with pytest.raises(RewardError, match=r"^reward part: "):
        scored(f1 + reward(name="part")(lambda: float("nan")), trajectory(metadata={"answer": "4"}))


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: RewardGroup([]), "at least one"),
        (lambda: RewardGroup([f1, f1]), "another name"),
        (lambda: RewardGroup([f1], weights=[1, 2]), "one for each"),
        (lambda: f1 * float("nan"), "finite"),
        (lambda: reward(timeout=0)(lambda: 1), "seconds"),
        (lambda: reward(name="")(lambda: 1), "non-empty"),
        (lambda: per_agent({}), "dict"),
        (lambda: per_agent({"writer": 3}), "rewards\\['writer'\\]"),  # type: ignore[dict-item]
        (lambda: scored(3), "give a function"),
        (lambda: scored(int), "give a function"),
    ],
)
def test_wrong_arguments_name_the_cure(make: Any, cure: str) -> None:
    with pytest.raises(InvalidArgument, match=cure):
        make()


def test_a_reward_is_still_the_function_it_was_made_of() -> None:
    assert exact_match("Four!", answer="four") == 1.0
    assert exact_match.__doc__ is not None
    assert exact_match.bind(answer="four")("Four!") == 1.0
    assert scored(exact_match.bind(answer="the answer is 4")).reward == 1.0
    with pytest.raises(InvalidArgument, match="prediction, answer"):
        exact_match.bind(colour="red")


def test_attributes_of_a_function_are_not_taken_for_those_of_the_reward() -> None:
    def odd() -> float:
        return 1.0

    odd.weight = "heavy"  # type: ignore[attr-defined]
    assert scored(reward(odd)).reward == 1.0
    assert scored(reward(reward(odd))).reward == 1.0


# For each step, for each agent


def turns() -> Trajectory:
    call = {"id": "a", "type": "function", "function": {"name": "calculator", "arguments": "{}"}}
    return Trajectory(
        [
            as_parts({"role": "user", "content": "?"}),
            as_parts({"role": "assistant", "content": "call", "tool_calls": [call]}),
            as_parts({"role": "tool", "content": "Error: no", "name": "calculator"}),
            as_parts({"role": "assistant", "content": "done"}),
        ]
    )


def test_a_reward_for_each_step_is_one_number_for_each_answer() -> None:
    @per_step
    def steps(message: Any, step: int, results: list[Any]) -> float:
        return 10 * step + len(results)

    result = scored(steps * 2, turns())
    assert result.step_rewards == [None, 2.0, None, 20.0]
    assert result.reward == 22.0
    assert missing(steps, []) == []


def test_a_step_may_be_left_without_a_number() -> None:
    async def steps(step: int) -> float | None:
        return None if step == 0 else 1.0

    assert scored(per_step(steps), turns()).step_rewards == [None, None, None, 1.0]
    assert scored(per_step(steps), Trajectory([])) == RewardResult(0.0, {}, [])


def test_a_step_that_fails_fails_the_reward() -> None:
    with pytest.raises(RewardError):
        scored(per_step(lambda step: float("nan")), turns())


def test_steps_are_summed_in_a_group() -> None:
    first = per_step(reward(name="first")(lambda step: step))
    second = per_step(reward(name="second")(lambda step: None if step else 1))
    result = scored(first + second * 3 + reward(name="whole")(lambda: 5), turns())
    assert result.step_rewards == [None, 3.0, None, 1.0]
    assert result.reward == 1 + 3 + 5


def test_each_agent_has_its_own_reward_and_the_others_none() -> None:
    both = per_agent({"writer": reward(lambda: 1), "critic": reward(weight=2)(lambda prediction: 3)})
    assert scored(both, trajectory(agent="writer")).reward == 1.0
    assert scored(both, trajectory(agent="critic")).reward == 6.0
    assert scored(both, trajectory(agent="judge")) == RewardResult(None)
    assert scored(both + reward(name="all")(lambda: 1), trajectory(agent="judge")).reward == 1.0
    assert missing(per_agent({"writer": f1}), []) == ["answer"]


# By name


def test_ready_rewards_are_found_by_name() -> None:
    assert get_reward("exact_match") is exact_match
    assert get_reward("format_reward", tags=["think"]).name == "format_reward"
    assert scored(get_reward("exact_match", answer="the answer is 4")).reward == 1.0
    assert get_reward("lagentlike.rollouts.rewards.f1") is f1
    assert scored("f1", trajectory("x", metadata={"answer": "x"})).reward == 1.0


@pytest.mark.parametrize("name", ["bleu", "no.such.module", 3])
def test_an_unknown_name_is_an_error_that_lists_the_names(name: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"exact_match|cannot import"):
        get_reward(name)


def test_names_of_modules_do_not_hide_rewards() -> None:
    import lagentlike.rollouts.rewards as package

    for name in package.__all__:
        assert not hasattr(getattr(package, name), "__path__")
        assert type(getattr(package, name)).__name__ != "module"
