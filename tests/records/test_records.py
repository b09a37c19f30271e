"""Records: nothing lost on the way back, and the formats derived from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from lagentlike.errors import StateError
from lagentlike.records import (
    append_record,
    append_records,
    ConversationRecord,
    Damage,
    from_openai,
    from_sharegpt,
    read_openai,
    read_records,
    read_sharegpt,
    records_beside,
    to_openai,
    to_sharegpt,
    to_trajectory,
)
from lagentlike.rollouts import tokenize_trajectories
from lagentlike.rollouts.export import trl_rows
from lagentlike.schema import ActionReturn, AgentMessage, TokenSpan, ToolCall, ToolResult, Usage

from .making import records, TOOLS


def some_record(**options: Any) -> ConversationRecord:
    """Two calls side by side, thinking, and token ids."""
    calls = [ToolCall("search", {"query": "tea"}, id="a"), ToolCall("search", {"query": "</tool_call>"}, id="b")]
    results = [ToolResult(True, '{"found": 1}', id="a", name="search"), ToolResult(False, error="no", id="b")]
    asked = TokenSpan([4, 5], [-0.5, -0.25], prompt_ids=[1, 2, 3])
    said = TokenSpan([7], [-1.0], prompt_ids=[1, 2, 3, 4, 5, 6])
    values: dict[str, Any] = {
        "id": "r-1",
        "model": "tiny",
        "messages": [
            AgentMessage(content="Be brief.", sender="system"),
            AgentMessage(content="Tea?"),
            AgentMessage(content="", sender="bot", tool_calls=calls, reasoning="I look.", tokens=asked),
            AgentMessage(content="…", sender="tools", tool_results=results),
            AgentMessage(content="Yes.", sender="bot", tokens=said, finish_reason="stop", usage=Usage(1, 6, 1)),
        ],
        "tools": TOOLS,
        "started_at": 1_700_000_000.0,
        "ended_at": 1_700_000_002.5,
        "finish_reason": "stop",
        "usage": Usage(2, 9, 3),
        "metadata": {"row": {"answer": "yes"}},
        "agent": "bot",
    }
    return ConversationRecord(**{**values, **options})


@given(records())
@settings(deadline=None)
def test_a_record_comes_back_from_its_line(record: ConversationRecord) -> None:
    line = record.to_line()
    assert b"\n" not in line
    assert ConversationRecord.from_line(line) == record


@pytest.mark.parametrize("text", ["\ud800 half", "\x00\u2028 \U0001f375", "", "a" * 100_000])
def test_odd_texts_and_numbers_come_back(text: str) -> None:
    record = some_record(metadata={text: [2**70, -(2**63), 0.1, None, True]})
    record.messages[1].content = text
    assert ConversationRecord.from_line(record.to_line()) == record


def test_what_a_tool_gave_back_is_not_turned_into_a_dict() -> None:
    record = some_record()
    record.messages[3].content = ActionReturn(result=[{"type": "text", "content": "4"}])
    assert ConversationRecord.from_line(record.to_line()).messages[3].content == record.messages[3].content


def test_what_has_no_json_form_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"metadata\['a'\] is nan"):
        some_record(metadata={"a": float("nan")}).to_line()


def test_every_flipped_bit_of_a_line_is_found() -> None:
    line = some_record().to_line()
    for place in range(len(line)):
        damaged = bytearray(line)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(StateError):
            ConversationRecord.from_line(bytes(damaged))


@pytest.mark.parametrize("change", [{"messages": 3}, {"id": 3}, {"usage": {"x": 1}}, {"more": 1}, {"metadata": []}])
def test_what_is_no_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StateError):
        ConversationRecord.from_dict({**some_record().to_dict(), **change})


def seen(record: ConversationRecord) -> list[tuple[Any, ...]]:
    """What a chat format holds of the messages."""
    return [
        (
            record.role_of(message),
            "" if message.tool_results else message.content or "",
            [(call.name, call.arguments, call.id) for call in message.tool_calls or ()],
            [(result.id, result.name, result.text) for result in message.tool_results or ()],
            message.reasoning or "",
        )
        for message in record.messages
    ]


@given(records())
@settings(deadline=None)
def test_chat_messages_come_back(record: ConversationRecord) -> None:
    back = from_openai(json.loads(json.dumps(to_openai(record))))
    assert seen(back) == seen(record)
    assert back.tools == record.tools


@given(records())
@settings(deadline=None)
def test_sharegpt_comes_back(record: ConversationRecord) -> None:
    back = from_sharegpt(json.loads(json.dumps(to_sharegpt(record))))
    assert seen(back) == seen(record)
    assert (back.tools, back.model, back.completed) == (record.tools, record.model, record.completed)


def test_openai_messages_tie_each_result_to_its_call() -> None:
    messages = to_openai(some_record())["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert messages[2]["content"] is None
    assert messages[2]["reasoning"] == "I look."
    assert [call["id"] for call in messages[2]["tool_calls"]] == [one["tool_call_id"] for one in messages[3:5]]
    assert messages[4]["content"] == "Error: no"


BROKEN = "Like so:\n<tool_call>\n{'name': x}\n</tool_call>"


def test_a_call_that_the_model_got_wrong_comes_back_as_the_text_it_is() -> None:
    said = [AgentMessage(content="1 + 1?"), AgentMessage(content=BROKEN, sender="assistant")]
    row = to_sharegpt(ConversationRecord("a", "tiny", said, agent="assistant"))
    back = from_sharegpt(row)
    assert (back.messages[-1].content, back.messages[-1].tool_calls) == (BROKEN, None)
    assert to_sharegpt(back)["conversations"] == row["conversations"]


def test_rows_of_others_are_read() -> None:
    turns = [("system", "Be brief."), ("user", "Weather?"), ("assistant", "Hot."), ("tool", "40 degrees")]
    back = from_sharegpt({"id": 3, "conversations": [{"from": who, "value": text} for who, text in turns]})
    assert [(back.role_of(message), message.content) for message in back.messages] == turns
    assert (back.model, back.completed, back.messages[-1].tool_results[0].output) == ("", True, "40 degrees")
    wrong = {"conversations": [], "timestamp": "yesterday"}
    with pytest.raises(StateError, match="this is no ShareGPT row: ValueError"):
        from_sharegpt(wrong)


def test_sharegpt_is_written_as_the_format_says() -> None:
    row = to_sharegpt(some_record())
    assert list(row) == ["conversations", "timestamp", "model", "completed"]
    assert row["timestamp"] == "2023-11-14T22:13:22.500000+00:00"
    system, human, call, results, answer = row["conversations"]
    assert system["from"] == "system"
    assert f"<tools>\n{json.dumps(TOOLS)}\n</tools>" in system["value"]
    assert system["value"].endswith("\n\nBe brief.")
    assert human == {"from": "human", "value": "Tea?"}
    assert call == {
        "from": "gpt",
        "value": "<think>\nI look.\n</think>\n"
        '<tool_call>\n{"name": "search", "arguments": {"query": "tea"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "search", "arguments": {"query": "<\\/tool_call>"}}\n</tool_call>',
    }
    assert results == {
        "from": "tool",
        "value": '<tool_response>\n{"tool_call_id": "a", "name": "search", "content": "{\\"found\\": 1}"}\n'
        '</tool_response>\n<tool_response>\n{"tool_call_id": "b", "name": "", "content": "Error: no"}\n'
        "</tool_response>",
    }
    assert answer == {"from": "gpt", "value": "<think>\n</think>\nYes."}


def test_another_agents_words_are_the_users() -> None:
    record = some_record(
        messages=[AgentMessage(content="Hi", sender="writer"), AgentMessage(content="Yo", sender="bot")]
    )
    assert [turn["from"] for turn in to_sharegpt(record)["conversations"]] == ["system", "human", "gpt"]


def test_rows_for_training_are_spliced_from_the_ids() -> None:
    trajectory = to_trajectory(some_record(), reward=0.5)
    rows = tokenize_trajectories([trajectory], tensors="np")
    assert rows["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert rows["action_mask"].tolist() == [[0, 0, 0, 1, 1, 0, 1]]
    assert rows["logprobs"].tolist() == [[0, 0, 0, -0.5, -0.25, 0, -1]]
    assert rows["rewards"] == np.float32(0.5)
    assert (trajectory.finish_reason, trajectory.wall_time, trajectory.usage) == ("no_tool_calls", 2.5, Usage(2, 9, 3))


def test_rows_for_supervised_training_have_the_calls_and_results() -> None:
    (row,) = trl_rows([to_trajectory(some_record(), reward=1.0)], "sft")
    assert [message["role"] for message in row["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


def test_both_files_of_a_folder_are_read_back(tmp_path: Path) -> None:
    path = append_record(tmp_path, some_record())
    append_records(tmp_path, [some_record(id="r-2"), some_record(id="r-3")])
    assert path == tmp_path / "trajectories.jsonl"
    assert [record.id for record in read_records(records_beside(path))] == ["r-1", "r-2", "r-3"]
    assert [seen(record)[-1][1] for record in read_sharegpt(path)] == ["Yes."] * 3


def test_chat_files_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(to_openai(some_record())) + "\n\n" + '{"messages": [{"ro')
    damages: list[Damage] = []
    (record,) = read_openai(path, damages.append)
    assert seen(record) == seen(some_record())
    assert [(damage.line, damage.torn) for damage in damages] == [(3, True)]


def test_inner_damage_is_an_error_unless_somebody_is_told(tmp_path: Path) -> None:
    path = records_beside(append_records(tmp_path, [some_record(id=name) for name in "abc"]))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"tea", b"\0ea") + lines[2])
    with pytest.raises(StateError, match=r"jsonl:2: the line is damaged"):
        list(read_records(path))
    damages: list[Damage] = []
    assert [record.id for record in read_records(path, damages.append)] == ["a", "c"]
    assert [(damage.line, damage.torn) for damage in damages] == [(2, False)]


def test_the_files_load_as_a_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    other = some_record(messages=some_record().messages[:2], completed=False)
    path = append_records(tmp_path, [some_record(), other])
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == ["conversations", "timestamp", "model", "completed"]
    assert [len(row["conversations"]) for row in loaded] == [5, 2]
    assert loaded[0]["conversations"] == to_sharegpt(some_record())["conversations"]
