"""Trajectories in the shapes of verl: prompt datasets, and the token rows of its rollouts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from ...errors import InvalidArgument, MissingTokens
from ...ledger import Segment
from ...schema import to_plain
from ...trajectory import Trajectory
from .chat import by_query, chat_messages, prompt_length, right_answer
from .tables import write_parquet

__all__ = ["to_verl", "verl_prompts", "verl_rollouts"]


def to_verl(
    trajectories: Iterable[Trajectory],
    path: str | os.PathLike[str],
    kind: Literal["prompts", "rollouts"] = "prompts",
    **options: Any,
) -> None:
    """Write a Parquet file for verl: `verl_prompts`, or `verl_rollouts` with one list a row.

    Args:
        trajectories: such as a `RunResult`.
        path: the file.
        kind: which of the two.
        **options: arguments of that function.

    Raises:
        InvalidArgument, MissingTokens: see there.
        MissingExtra: pyarrow is not installed (`lagentlike[export]`).
    """
    if kind == "prompts":
        rows = verl_prompts(trajectories, **options)
        write_parquet({name: [row[name] for row in rows] for name in _PROMPT_COLUMNS}, path)
    elif kind == "rollouts":
        write_parquet({name: list(array) for name, array in verl_rollouts(trajectories, **options).items()}, path)
    else:
        raise InvalidArgument("kind", kind, "give 'prompts' or 'rollouts'")


_PROMPT_COLUMNS = ("data_source", "prompt", "ability", "reward_model", "extra_info")


def verl_prompts(
    trajectories: Iterable[Trajectory],
    *,
    data_source: str = "lagentlike",
    ability: str = "agent",
    split: str = "train",
    style: str = "rule",
) -> list[dict[str, Any]]:
    """One row for each query and agent, as verl's `RLHFDataset` reads them from Parquet.

    The columns are those of https://verl.readthedocs.io/en/latest/preparation/prepare_data.html, as verl 0.9.1 has
    them: `data_source`, `prompt` (chat messages), `ability`, `reward_model` (`style`, `ground_truth`: text, JSON where
    the right answer is none), `extra_info` (`split`, `index`, `agent`, and `metadata` as JSON text).

    Args:
        trajectories: of each query and agent the first counts.
        data_source: name of the data set, by which verl chooses its reward function.
        ability: what kind of task it is.
        split: "train" or "test".
        style: "rule", or "model" for a reward model.

    Raises:
        TypeError: the metadata of a query has no JSON form.
    """
    rows = []
    for index, group in enumerate(by_query(trajectories).values()):
        first = group[0]
        metadata = to_plain(first.metadata, "metadata")
        answer = right_answer(metadata)
        rows.append(
            {
                "data_source": data_source,
                "prompt": [_bare(one) for one in chat_messages(first)[: prompt_length(first)]],
                "ability": ability,
                "reward_model": {"style": style, "ground_truth": answer if isinstance(answer, str) else _text(answer)},
                "extra_info": {"split": split, "index": index, "agent": first.agent, "metadata": _text(metadata)},
            }
        )
    return rows


def verl_rollouts(
    trajectories: Iterable[Trajectory],
    *,
    pad_id: int = 0,
    prompt_length: int | None = None,
    response_length: int | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """One row for each segment of each trajectory, in the tensors of verl's agent loops.

    The shapes are those of `AgentLoopWorker.generate_sequences` in verl 0.9.1 (verl/experimental/agent_loop): prompts
    are padded on the left, responses on the right; a response is everything from the first sampled token on.

    Args:
        trajectories: such as a `RunResult`; each has token ids.
        pad_id: what rows are filled with.
        prompt_length, response_length: widths; by default those of the longest.

    Returns:
        int64: `prompts` `[rows, prompt_length]`; `responses` and `response_mask` (1 exactly on sampled tokens)
        `[rows, response_length]`; `input_ids`, `attention_mask` and `position_ids`
        `[rows, prompt_length + response_length]`; `uid` `[rows]`, the number of the query, by which GRPO groups rows.
        float32 `[rows, response_length]`: `rollout_log_probs` (missing if a segment has none) and `rm_scores`, the
        trajectory's reward on the last token of each of its rows (missing if no trajectory has a reward).

    Raises:
        MissingTokens: a trajectory has no token ids for some answer.
        InvalidArgument: a row is longer than allowed, or only some trajectories have a reward.
    """
    rows = [(trajectory, segment) for trajectory in _checked(list(trajectories)) for segment in trajectory.segments]
    starts = [_begin(segment) for _, segment in rows]
    ends = [len(segment) - start for start, (_, segment) in zip(starts, rows, strict=True)]
    before = _width("prompt_length", prompt_length, starts)
    after = _width("response_length", response_length, ends)
    batch: dict[str, np.ndarray[Any, Any]] = {
        "prompts": np.full((len(rows), before), pad_id, np.int64),
        "responses": np.full((len(rows), after), pad_id, np.int64),
        "response_mask": np.zeros((len(rows), after), np.int64),
        "attention_mask": np.zeros((len(rows), before + after), np.int64),
        "uid": np.array([trajectory.query for trajectory, _ in rows], np.int64),
    }
    if all(segment.logprobs is not None for _, segment in rows):
        batch["rollout_log_probs"] = np.zeros((len(rows), after), np.float32)
    if any(trajectory.reward is not None for trajectory, _ in rows):
        batch["rm_scores"] = np.zeros((len(rows), after), np.float32)
    for row, (trajectory, segment) in enumerate(rows):
        _fill(batch, row, segment, starts[row], before)
        if "rm_scores" in batch and ends[row]:
            batch["rm_scores"][row, ends[row] - 1] = trajectory.reward
    batch["input_ids"] = np.concatenate([batch["prompts"], batch["responses"]], axis=1)
    batch["position_ids"] = np.maximum(np.cumsum(batch["attention_mask"], axis=1) - 1, 0)
    return batch


def _begin(segment: Segment) -> int:
    """Where the first answer begins; of a conversation that nobody sampled here it is what is trained."""
    if segment.turns:
        return segment.turns[0].start
    return segment.mask.index(True) if True in segment.mask else len(segment)


def _fill(batch: dict[str, np.ndarray[Any, Any]], row: int, segment: Segment, start: int, before: int) -> None:
    size = len(segment) - start
    batch["prompts"][row, before - start :] = segment.ids[:start]
    batch["responses"][row, :size] = segment.ids[start:]
    batch["response_mask"][row, :size] = segment.mask[start:]
    batch["attention_mask"][row, before - start : before + size] = 1
    if "rollout_log_probs" in batch and segment.logprobs is not None:
        batch["rollout_log_probs"][row, :size] = segment.logprobs[start:]


def _checked(trajectories: list[Trajectory]) -> list[Trajectory]:
    for index, trajectory in enumerate(trajectories):
        if trajectory.counts.missing:
            raise MissingTokens(
                f"trajectory {index}: the engine gave no token ids for {trajectory.counts.missing} of its answers"
            )
    judged = sum(trajectory.reward is not None for trajectory in trajectories)
    if 0 < judged < len(trajectories):
        raise InvalidArgument(
            "trajectories",
            f"{len(trajectories)} trajectories",
            f"{len(trajectories) - judged} have no reward, which is not 0: "
            "leave them out, as in [one for one in result if one.reward is not None]",
        )
    return trajectories


def _width(argument: str, given: int | None, sizes: list[int]) -> int:
    longest = max(sizes, default=0)
    if given is None:
        return longest
    if longest > given:
        raise InvalidArgument(
            argument, given, f"row {sizes.index(longest)} has {longest} tokens: give more, or drop it"
        )
    return given


def _bare(message: dict[str, Any]) -> dict[str, Any]:
    """Role and content: what one column of Parquet can hold alike for all messages."""
    return {"role": message["role"], "content": message["content"]}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
