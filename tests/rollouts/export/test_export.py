"""Exports: nothing lost on the way back, and shapes that other libraries take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from lagentlike.errors import InvalidArgument, MissingTokens, StateError
from lagentlike.ledger import TokenLedger
from lagentlike.rollouts.export import (
    from_datasets,
    from_jsonl,
    from_parquet,
    to_datasets,
    to_jsonl,
    to_parquet,
    to_trl,
    to_verl,
    trl_rows,
    verl_prompts,
    verl_rollouts,
)
from lagentlike.schema import TokenSpan, Usage
from lagentlike.trajectory import as_parts, Trajectory

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "Evaluate.",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string"}},
                "required": ["expression"],
            },
        },
    }
]


def called(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    text = f"I see.\n<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return as_parts({"role": "assistant", "content": text, "tool_calls": [call]})


def spans(*pieces: tuple[list[int], list[int], list[float] | None]) -> TokenLedger:
    ledger = TokenLedger()
    for number, (prompt, sampled, logprobs) in enumerate(pieces):
        ledger.add(TokenSpan(sampled, logprobs, prompt_ids=prompt), 1 + 2 * number)
    return ledger


def chain(query: int, number: int, reward: float | None, answer: str = "It is 4.", **options: Any) -> Trajectory:
    """A chain with one tool call; its last prompt goes on from the first answer."""
    ledger = spans(([1, 2, 3], [7, 8], [-0.5, -0.25]), ([1, 2, 3, 7, 8, 4], [9], [-1.0]))
    arguments = {"expression": "2+2"} if number else {"code": ["2", 2], "deep": {"a": None}}
    return Trajectory(
        [
            as_parts({"role": "system", "content": "Be brief."}),
            as_parts({"role": "user", "content": f"{query} + 2? é \u2028 \x00"}),
            called("calculator", arguments),
            as_parts({"role": "tool", "name": "calculator", "tool_call_id": "call_1", "content": "4"}),
            as_parts({"role": "assistant", "content": answer}),
        ],
        **{
            "segments": ledger.segments,
            "counts": ledger.counts,
            "tools": TOOLS,
            "reward": reward,
            "reward_extras": {"f1": 0.5},
            "step_rewards": [None, None, 1.0, None, 0.0],
            "metrics": {"turns": 2.0},
            "query": query,
            "chain": number,
            "session_id": f"s-{query}",
            "metadata": {"answer": "4", "nested": {"a": [1, None, True]}},
            "wall_time": 0.25,
            "usage": Usage(2, 9, 3),
            **options,
        },
    )


def group() -> list[Trajectory]:
    return [
        chain(0, 0, 0.0, "It is 5."),
        chain(0, 1, 1.0),
        chain(0, 2, 0.5, "Hm."),
        chain(1, 0, 1.0),
        chain(1, 1, 1.0),
        chain(2, 0, None, error="ServerError: down", finish_reason="error"),
        chain(2, 1, 0.0),
    ]


# Files that are read back


def test_json_lines_come_back_equal(tmp_path: Path) -> None:
    assert to_jsonl(group(), tmp_path / "run.jsonl") == 7
    assert from_jsonl(tmp_path / "run.jsonl") == group()
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]


def test_half_a_surrogate_pair_survives(tmp_path: Path) -> None:
    odd = [chain(0, 0, 1.0, "odd \ud83d end")]
    to_jsonl(odd, tmp_path / "run.jsonl")
    to_parquet(odd, tmp_path / "run.parquet")
    assert from_jsonl(tmp_path / "run.jsonl") == from_parquet(tmp_path / "run.parquet") == odd


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"trajectory 1: metadata\['bad'\]"):
        to_jsonl([chain(0, 0, 1.0), chain(0, 1, 1.0, metadata={"bad": {1, 2}})], tmp_path / "run.jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ['{"messages": [', "[1]", '{"messages": [], "colour": 1}', "3"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "run.jsonl"
    to_jsonl(group()[:1], path)
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(StateError, match=r"run\.jsonl:2: "):
        from_jsonl(path)


def test_parquet_comes_back_equal_and_can_be_filtered(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    to_parquet(group(), path)
    assert from_parquet(path) == group()
    good = pyarrow.parquet.read_table(path, columns=["query", "final_response"], filters=[("reward", ">=", 1.0)])
    assert good["query"].to_pylist() == [0, 1, 1]


def test_no_trajectories_are_a_file_too(tmp_path: Path) -> None:
    to_parquet([], tmp_path / "none.parquet")
    to_jsonl([], tmp_path / "none.jsonl")
    assert from_parquet(tmp_path / "none.parquet") == from_jsonl(tmp_path / "none.jsonl") == []


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    to_verl(group(), tmp_path / "verl.parquet")
    with pytest.raises(StateError, match="not written by to_parquet"):
        from_parquet(tmp_path / "verl.parquet")


def test_a_dataset_comes_back_equal_also_from_disk(tmp_path: Path) -> None:
    import datasets

    dataset = to_datasets(group())
    assert dataset["reward"][:2] == [0.0, 1.0]
    dataset.save_to_disk(tmp_path / "data")
    assert from_datasets(dataset) == from_datasets(datasets.load_from_disk(tmp_path / "data")) == group()
    with pytest.raises(StateError, match="not made by to_datasets"):
        from_datasets(dataset.remove_columns("trajectory"))


# verl


def test_verl_prompts_have_its_columns_one_row_for_each_query(tmp_path: Path) -> None:
    import datasets

    path = tmp_path / "train.parquet"
    to_verl(group(), path, data_source="sums", ability="math")
    read = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert list(read) == verl_prompts(group(), data_source="sums", ability="math")
    row = read[1]
    assert list(row) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "4"}
    assert (row["extra_info"]["index"], row["extra_info"]["split"]) == (1, "train")
    assert json.loads(row["extra_info"]["metadata"]) == group()[0].metadata


def test_verl_rollouts_are_padded_on_both_sides() -> None:
    short = spans(([5], [6], [-0.125]))
    one = chain(3, 0, 0.5, segments=short.segments, counts=short.counts)
    batch = verl_rollouts([chain(0, 1, 1.0), one], pad_id=99, prompt_length=4, response_length=5)
    np.testing.assert_array_equal(batch["prompts"], [[99, 1, 2, 3], [99, 99, 99, 5]])
    np.testing.assert_array_equal(batch["responses"], [[7, 8, 4, 9, 99], [6, 99, 99, 99, 99]])
    np.testing.assert_array_equal(batch["response_mask"], [[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(batch["input_ids"][0], [99, 1, 2, 3, 7, 8, 4, 9, 99])
    np.testing.assert_array_equal(batch["attention_mask"][0], [0, 1, 1, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(batch["position_ids"], [[0, 0, 1, 2, 3, 4, 5, 6, 6], [0, 0, 0, 0, 1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(batch["rollout_log_probs"], [[-0.5, -0.25, 0, -1, 0], [-0.125, 0, 0, 0, 0]])
    np.testing.assert_array_equal(batch["rm_scores"], [[0, 0, 0, 1, 0], [0.5, 0, 0, 0, 0]])
    np.testing.assert_array_equal(batch["uid"], [0, 3])


def test_each_segment_is_a_row_with_the_reward_of_its_trajectory() -> None:
    ledger = spans(([1, 2], [3], [-1.0]), ([1, 9], [4, 5], [-1.0, -1.0]))
    batch = verl_rollouts([chain(0, 0, 2.0, segments=ledger.segments, counts=ledger.counts)])
    np.testing.assert_array_equal(batch["responses"], [[3, 0], [4, 5]])
    np.testing.assert_array_equal(batch["rm_scores"], [[2, 0], [0, 2]])


def test_verl_rollouts_as_parquet_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.parquet"
    listed = [chain(0, 1, 1.0), chain(0, 2, 0.0)]
    to_verl(listed, path, "rollouts")
    table = pyarrow.parquet.read_table(path)
    for name, array in verl_rollouts(listed).items():
        np.testing.assert_array_equal(np.array(table[name].to_pylist(), array.dtype), array)


def test_a_missing_reward_is_never_a_zero_in_verl() -> None:
    with pytest.raises(InvalidArgument, match=r"1 have no reward, which is not 0"):
        verl_rollouts(group())
    assert "rm_scores" not in verl_rollouts([chain(0, 0, None)])


def test_verl_rollouts_need_ids_and_room() -> None:
    ledger = TokenLedger()
    ledger.add(None, 1)
    with pytest.raises(MissingTokens, match="trajectory 0"):
        verl_rollouts([chain(0, 0, 1.0, segments=[], counts=ledger.counts)])
    with pytest.raises(InvalidArgument, match="row 0 has 3 tokens"):
        verl_rollouts([chain(0, 0, 1.0)], prompt_length=2)
    no_logprobs = spans(([1], [2], None))
    assert "rollout_log_probs" not in verl_rollouts(
        [chain(0, 0, 1.0), chain(0, 1, 1.0, segments=no_logprobs.segments, counts=no_logprobs.counts)]
    )


# TRL


def test_sft_rows_have_text_calls_and_tools() -> None:
    rows = trl_rows(group())
    assert len(rows) == 6  # one failed
    assert json.loads(rows[0]["tools"]) == TOOLS
    system, user, call, result, answer = rows[1]["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert call["content"] == "I see."
    assert call["tool_calls"][0]["function"] == {"name": "calculator", "arguments": {"expression": "2+2"}}
    assert result == {"role": "tool", "name": "calculator", "tool_call_id": "call_1", "content": "4"}
    assert answer == {"role": "assistant", "content": "It is 4."}
    assert user["role"] == "user"


def test_a_call_that_could_not_be_read_stays_text() -> None:
    one = chain(0, 1, 1.0)
    one.messages[2] = as_parts(
        {
            "role": "assistant",
            "content": '<tool_call>{"name": </tool_call>',
            "tool_calls": [{"id": "a", "function": {"name": "", "arguments": '{"name": '}}],
        }
    )
    assert trl_rows([one])[0]["messages"][2] == {"role": "assistant", "content": '<tool_call>{"name": </tool_call>'}


def test_prompt_completion_has_a_row_for_each_answer() -> None:
    rows = trl_rows([chain(0, 1, 1.0)], "prompt_completion")
    assert [(len(row["prompt"]), len(row["completion"])) for row in rows] == [(2, 1), (4, 1)]
    assert rows[1]["completion"] == [{"role": "assistant", "content": "It is 4."}]


def test_preferences_pair_the_best_and_the_worst_of_a_query() -> None:
    (row,) = trl_rows(group(), "preference")  # of query 1 all are equal, of query 2 one has no reward
    assert (row["score_chosen"], row["score_rejected"]) == (1.0, 0.0)
    assert row["chosen"][-1]["content"] == "It is 4."
    assert row["rejected"][-1]["content"] == "It is 5."
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert trl_rows(group(), "preference", margin=2.0) == []


def test_prompts_are_one_a_query_with_the_metadata() -> None:
    rows = trl_rows(group(), "prompt")
    assert len(rows) == 3
    assert rows[0]["answer"] == "4"
    assert [message["role"] for message in rows[0]["prompt"]] == ["system", "user"]


def test_assistant_messages_of_the_query_belong_to_the_prompt() -> None:
    history = [as_parts({"role": role, "content": role}) for role in ("user", "assistant", "user", "assistant")]
    one = Trajectory(history)
    one.counts.turns = 1
    assert [len(row["prompt"]) for row in trl_rows([one], "prompt")] == [3]
    assert [len(row["prompt"]) for row in trl_rows([one], "prompt_completion")] == [3]
    assert "tools" not in trl_rows([one])[0]


@pytest.mark.parametrize("kind", ["sft", "prompt_completion", "preference", "prompt"])
def test_trl_datasets_read_back_equal(kind: Any, tmp_path: Path) -> None:
    import datasets

    dataset = to_trl(group(), kind)
    dataset.save_to_disk(tmp_path / "data")
    assert list(datasets.load_from_disk(tmp_path / "data")) == trl_rows(group(), kind)


def test_trl_renders_the_rows_with_the_tools_as_the_tokenizer_does() -> None:
    from transformers import AutoTokenizer
    from trl.data_utils import apply_chat_template, extract_prompt, is_conversational

    import lagentlike.llms.tiny as tiny

    tokenizer = AutoTokenizer.from_pretrained(Path(tiny.__file__).parent / "weights")
    row = to_trl([chain(0, 1, 1.0)])[0]
    assert is_conversational(row)
    tools = json.loads(row["tools"])
    text = apply_chat_template(row, tokenizer, tools)["text"]
    assert text == tokenizer.apply_chat_template(row["messages"], tools=tools, tokenize=False)
    assert text.count('"calculator"') == 2  # offered once, and called once
    pair = dict(to_trl(group(), "preference")[0])
    prompt = pair.pop("prompt")
    assert is_conversational({"prompt": prompt})
    extracted = extract_prompt({"chosen": prompt + pair["chosen"], "rejected": prompt + pair["rejected"]})
    assert extracted["prompt"][: len(prompt)] == prompt


def test_wrong_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="preference"):
        to_trl(group(), "dpo")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="rollouts"):
        to_verl(group(), tmp_path / "x", "tokens")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="none of them"):
        to_trl([], "sft")
