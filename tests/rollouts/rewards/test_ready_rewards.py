"""The ready rewards on text, form and tools."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.errors import InvalidArgument
from lagentlike.rollouts.rewards import exact_match, f1, format_reward, tool_use
from lagentlike.trajectory import as_parts, Trajectory


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("The Eiffel Tower!", "eiffel tower", True),
        ("an  apple\n", ["pear", "Apple"], True),
        ("theory", "ory", False),
        ("42", 42, True),
        ("", "", True),
        ("4", "5", False),
    ],
)
def test_exact_match_compares_as_squad_does(prediction: str, answer: Any, right: bool) -> None:
    assert exact_match(prediction, answer) == float(right)


def test_exact_match_can_look_at_a_part() -> None:
    text = "<answer>3</answer> or rather <answer> 4 </answer>"
    assert exact_match(text, "4", pattern="<answer>(.*?)</answer>") == 1.0
    assert exact_match("four", "", pattern="<answer>(.*?)</answer>") == 0.0


@pytest.mark.parametrize("answer", [None, [], [None], {}])
def test_a_right_answer_that_is_none_is_an_error(answer: Any) -> None:
    with pytest.raises(InvalidArgument, match="answer"):
        exact_match("4", answer)


@pytest.mark.parametrize(
    ("prediction", "answer", "value"),
    [
        ("the red apple", "a green apple", 0.5),
        ("red apple", "red apple", 1.0),
        ("red red", "red", 2 / 3),
        ("blue", "red", 0.0),
        ("", "red", 0.0),
        ("", "the", 1.0),
        ("red", ["blue", "red fox"], 2 / 3),
    ],
)
def test_f1_counts_shared_words_as_squad_does(prediction: str, answer: Any, value: float) -> None:
    assert f1(prediction, answer) == pytest.approx(value)


def said(*contents: str, calls: list[dict[str, Any]] | None = None, **options: Any) -> Trajectory:
    answers: list[dict[str, Any]] = [as_parts({"role": "assistant", "content": content}) for content in contents]
    if calls is not None:
        answers[0]["tool_calls"] = calls
    return Trajectory([as_parts({"role": "user", "content": "?"}), *answers], **options)


@pytest.mark.parametrize(
    ("text", "well"),
    [
        ("<think>a</think><answer>b</answer>", True),
        ("so: <think>a\nb</think> and <answer>b</answer>.", True),
        ("<think> </think><answer>b</answer>", False),
        ("<answer>b</answer><think>a</think>", False),
        ("<think>a<answer>b</answer></think>", False),
        ("<think>a</think><think>a</think><answer>b</answer>", False),
        ("<think>a<answer>b</answer>", False),
        ("", False),
    ],
)
def test_tags_stand_once_and_in_order(text: str, well: bool) -> None:
    value = format_reward(tags=["think", "answer"])(said(text))
    assert (value["reward"], value["tags"]) == (float(well), well)


def test_every_answer_needs_the_tags_and_only_the_last_the_pattern() -> None:
    form = format_reward(r"<think>.*</think> \d+", tags=["think"])
    assert form(said("<think>a</think>", "<think>b\n</think> 4"))["reward"] == 1.0
    assert form(said("no", "<think>b</think> 4")) == {
        "reward": 0.0,
        "pattern": True,
        "tags": False,
        "tool_calls": True,
    }
    assert form(Trajectory([]))["reward"] == 0.0


def call(name: str = "calculator", arguments: Any = None) -> dict[str, Any]:
    return {"id": None, "type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "calculator",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string"}},
                "required": ["expression"],
                "additionalProperties": False,
            },
        },
    }
]


@pytest.mark.parametrize(
    ("one", "well"),
    [
        (call(arguments={"expression": "1"}), True),
        (call(arguments='{"expression": '), False),
        (call(arguments={}), False),
        (call(arguments={"expression": "1", "more": 2}), False),
        (call("other", {"expression": "1"}), False),
        (call("", {"expression": "1"}), False),
    ],
)
def test_tool_calls_must_fit_what_was_offered(one: dict[str, Any], well: bool) -> None:
    assert format_reward()(said("", calls=[one], tools=TOOLS))["reward"] == float(well)


def test_a_call_that_could_not_be_read_is_bad_form() -> None:
    assert format_reward()(said('<tool_call>{"name": ', tools=TOOLS))["reward"] == 0.0


def used(*results: tuple[str, str]) -> Trajectory:
    messages = [as_parts({"role": "user", "content": "?"})]
    for name, text in results:
        messages += [
            {**as_parts({"role": "assistant", "content": ""}), "tool_calls": [call(name, {})]},
            as_parts({"role": "tool", "name": name, "content": text}),
        ]
    return Trajectory([*messages, as_parts({"role": "assistant", "content": "done"})])


def test_tool_use_counts_calls_and_errors() -> None:
    assert tool_use("calculator")(used(("calculator", "4")))["reward"] == 1.0
    assert tool_use(["calculator", "search"])(used(("calculator", "4")))["not_called"] == ["search"]
    assert tool_use("calculator")(used(("calculator", "Error: no"), ("calculator", "4"))) == {
        "reward": 0.0,
        "calls": 2,
        "errors": 1,
        "not_called": [],
    }
    assert tool_use("calculator", allow_errors=True)(used(("calculator", "Error: no")))["reward"] == 1.0
    assert tool_use(max_calls=1)(used(("a", "1"), ("b", "2")))["reward"] == 0.0
    assert tool_use(min_calls=0)(used())["reward"] == 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: format_reward("("),
        lambda: format_reward(tags="think"),
        lambda: format_reward(tags=["<think>"]),
        lambda: format_reward(tool_calls=False),
        lambda: tool_use([""]),
        lambda: tool_use(min_calls=-1),
        lambda: tool_use(min_calls=2, max_calls=1),
    ],
)
def test_wrong_arguments_are_refused(make: Any) -> None:
    with pytest.raises(InvalidArgument):
        make()
