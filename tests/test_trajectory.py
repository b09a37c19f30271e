"""The trajectory as data: shape of its messages, JSON round trip, what it refuses."""

from __future__ import annotations

import json

import pytest

from lagentlike.errors import StateError
from lagentlike.ledger import TokenLedger
from lagentlike.schema import TokenSpan
from lagentlike.trajectory import as_parts, Trajectory


def _trajectory() -> Trajectory:
    ledger = TokenLedger()
    ledger.add(TokenSpan([7, 2], [-0.5, -0.1], [1, 5]), 1)
    messages = [
        as_parts({"role": "user", "content": "Hi"}),
        as_parts({"role": "assistant", "content": "Hello"}),
    ]
    return Trajectory(messages, ledger.segments, reward=1.0, metadata={"answer": "Hello"}, counts=ledger.counts)


def test_a_trajectory_survives_json() -> None:
    trajectory = _trajectory()
    assert Trajectory.from_dict(json.loads(json.dumps(trajectory.to_dict()))) == trajectory


def test_messages_have_content_parts_and_calls_with_their_arguments_as_a_dict() -> None:
    call = {"id": "", "type": "function", "function": {"name": "calculator", "arguments": '{"expression": "1 + 1"}'}}
    assert as_parts({"role": "assistant", "content": "", "tool_calls": [call]}, text="<tool_call>…") == {
        "role": "assistant",
        "content": [{"type": "text", "text": "<tool_call>…"}],
        "tool_calls": [
            {
                "id": None,
                "type": "function",
                "function": {"name": "calculator", "arguments": {"expression": "1 + 1"}},
            }
        ],
    }
    assert as_parts({"role": "tool", "tool_call_id": "", "name": "calculator", "content": "2"}) == {
        "role": "tool",
        "tool_call_id": None,
        "tool_name": "calculator",
        "content": [{"type": "text", "text": "2"}],
    }


def test_arguments_that_are_no_json_object_stay_the_models_text() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{'x': 1"}}
    shaped = as_parts({"role": "assistant", "content": None, "tool_calls": [call]})
    assert shaped["tool_calls"][0]["function"]["arguments"] == "{'x': 1"


def test_fields_can_be_read_like_items() -> None:
    trajectory = _trajectory()
    assert trajectory["messages"] is trajectory.messages
    assert dict(trajectory)["reward"] == 1.0
    assert trajectory.final_response == "Hello"
    assert trajectory.token_count == 2
    with pytest.raises(KeyError, match="a trajectory has no 'mesages'"):
        trajectory["mesages"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finish_reason": "tired"}, "finish_reason is 'tired'"),
        ({"colour": "blue"}, "colour"),
        ({"segments": [{"ids": [1], "mask": [], "logprobs": None, "turns": []}]}, "differ in length"),
        ({"segments": [{"ids": [1]}]}, "turns"),
    ],
)
def test_what_is_no_saved_trajectory_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(StateError, match=message):
        Trajectory.from_dict({**_trajectory().to_dict(), **change})
