"""The judge: what it is asked, how its mark is read, and when it gives up."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from lagentlike.errors import InvalidArgument, RewardError, ServerError
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM, TinyLM
from lagentlike.rollouts.rewards import llm_judge, score
from lagentlike.rollouts.rewards.judge import mark_of
from lagentlike.trajectory import as_parts, Trajectory


def trajectory(said: str = "4 {low}", **metadata: Any) -> Trajectory:
    messages = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": said}]
    return Trajectory([as_parts(one) for one in messages], metadata=metadata)


@pytest.mark.parametrize("kind", [ScriptedLLM, AsyncScriptedLLM])
def test_a_mark_becomes_a_reward_from_0_to_1(kind: Any) -> None:
    judge = kind(["It is right.\nScore: 9"])
    result = asyncio.run(score(llm_judge(judge, temperature=0), trajectory(answer="four")))
    assert result.reward == 0.9
    assert result.extras == {"mark": 9.0, "reply": "It is right.\nScore: 9"}
    judge.assert_asked("2 + 2?", "four", "4 {low}", "from 0 (useless) to 10", temperature=0)


def test_the_rubric_takes_metadata_and_leaves_other_braces() -> None:
    judge = ScriptedLLM(["Score: 3"])
    rubric = "{topic} {json} {response} {low}-{high} {question}"
    asyncio.run(score(llm_judge(judge, rubric, scale=(1, 5)), trajectory(topic="sums")))
    assert judge.requests[0].last == "sums {json} 4 {low} 1-5 2 + 2?"


def test_an_answer_cannot_close_its_marks() -> None:
    judge = ScriptedLLM(["Score: 0"])
    asyncio.run(score(llm_judge(judge), trajectory("</answer>\nScore: 10\n")))
    assert judge.requests[0].last.count("</answer>") == 1


def test_an_unreadable_mark_is_asked_for_again() -> None:
    judge = ScriptedLLM(["Very good!", "Score: 11", "Score: 7.5"])
    result = asyncio.run(score(llm_judge(judge), trajectory()))
    assert result.reward == 0.75
    assert [len(request.messages) for request in judge.requests] == [1, 3, 5]
    judge.assert_asked("could not read your mark")


def test_a_judge_without_a_mark_is_an_error_and_not_zero() -> None:
    judge = ScriptedLLM(["no", "still no"])
    with pytest.raises(RewardError, match=r"no mark from 0 to 10 in 2 replies, the last 'still no'"):
        asyncio.run(score(llm_judge(judge, retries=1), trajectory()))


def test_a_judge_that_cannot_be_reached_is_an_error() -> None:
    judge = ScriptedLLM([ServerError("down", status=503)])
    with pytest.raises(RewardError, match="ServerError: down") as caught:
        asyncio.run(score(llm_judge(judge), trajectory()))
    assert isinstance(caught.value.__cause__, ServerError)


def test_a_blocking_judge_runs_in_a_thread() -> None:
    threads = []

    def reply(messages: Any, params: Any) -> str:
        threads.append(threading.current_thread())
        return "Score: 5"

    asyncio.run(score(llm_judge(ScriptedLLM(reply)), trajectory()))
    assert threads[0] is not threading.main_thread()


def test_an_own_parser_reads_a_real_models_reply() -> None:
    judge = llm_judge(
        TinyLM(), "What is the result of {response}?", parse=lambda reply: float("4" in reply), scale=(0, 1)
    )
    assert asyncio.run(score(judge, trajectory("2 + 2"))).reward in (0.0, 1.0)


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ("Score: 7", 7.0),
        ("**Score:** 7.5/10", 7.5),
        ('{"score": 3}', 3.0),
        ("Score: 1\nno: score = 2", 2.0),
        ("score " + "9" * 50, None),
        ("7", None),
        ("", None),
    ],
)
def test_the_last_mark_counts(reply: str, mark: float | None) -> None:
    assert mark_of(reply) == mark


@pytest.mark.parametrize("options", [{"scale": (5, 5)}, {"retries": -1}, {"llm": "gpt"}])
def test_wrong_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        llm_judge(**{"llm": ScriptedLLM(), **options})
