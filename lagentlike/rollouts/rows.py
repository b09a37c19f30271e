"""Trajectories as padded rows of token ids, masks and log-probabilities, as trainers read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from ..errors import InvalidArgument, MissingTokens
from ..ledger import Segment
from ..trajectory import Trajectory

__all__ = ["tokenize_trajectories"]


def tokenize_trajectories(
    trajectories: Iterable[Trajectory],
    *,
    pad_id: int = 0,
    max_length: int | None = None,
    tensors: Literal["np", "pt"] | None = None,
) -> dict[str, Any]:
    """One row for each segment of each trajectory, right-padded; no text is tokenized.

    Args:
        trajectories: such as a `RunResult`; each has token ids.
        pad_id: what fills a row behind its end.
        max_length: cut rows that are longer.
        tensors: "np" for numpy, "pt" for torch; by default torch where it is imported already.

    Returns:
        `[rows, length]`, int64: `input_ids`; `attention_mask`; `labels` (the id on tokens the model sampled, -100
        elsewhere); `action_mask` (1 exactly on those); `position_ids`; `reward_mask` (1 on the last token sampled in a
        trajectory). float32: `logprobs` (0.0 where not sampled; missing if a segment has none), `[rows, length]`, and
        `rewards` (NaN without one), `[rows]`. int64 `[rows]`: `trajectory`, the number of the trajectory of each row.

    Raises:
        MissingTokens: the engine gave no ids for some answer; the message names it and the cure.
    """
    listed = list(trajectories)
    for index, trajectory in enumerate(listed):
        _check(index, trajectory)
    rows = [(index, segment) for index, trajectory in enumerate(listed) for segment in trajectory.segments]
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1):
        raise InvalidArgument("max_length", max_length, "give a number of tokens of at least 1, or None")
    longest = max((len(segment) for _, segment in rows), default=0)
    length = longest if max_length is None else min(longest, max_length)
    batch: dict[str, Any] = {
        "input_ids": np.full((len(rows), length), pad_id, np.int64),
        "attention_mask": np.zeros((len(rows), length), np.int64),
        "labels": np.full((len(rows), length), -100, np.int64),
        "action_mask": np.zeros((len(rows), length), np.int64),
        "position_ids": np.zeros((len(rows), length), np.int64),
        "reward_mask": np.zeros((len(rows), length), np.int64),
        "rewards": np.full(len(rows), np.nan, np.float32),
        "trajectory": np.array([index for index, _ in rows], np.int64).reshape(len(rows)),
    }
    if all(segment.logprobs is not None for _, segment in rows):
        batch["logprobs"] = np.zeros((len(rows), length), np.float32)
    for row, (index, segment) in enumerate(rows):
        _fill(batch, row, segment, length)
        reward = listed[index].reward
        if reward is not None:
            batch["rewards"][row] = reward
    ends = {index: (row, turn.stop) for row, (index, one) in enumerate(rows) for turn in one.turns if len(turn)}
    for row, stop in ends.values():  # of each trajectory the last
        if stop <= length:
            batch["reward_mask"][row, stop - 1] = 1
    return _as_tensors(batch, tensors)


def _check(index: int, trajectory: Trajectory) -> None:
    counts = trajectory.counts
    if counts.missing:
        raise MissingTokens(
            f"trajectory {index}: the engine gave no token ids for {counts.missing} of {counts.turns} answers. "
            "Put the agent in train() mode, name the engine of your server (server='vllm', 'sglang', 'lmdeploy', "
            "'llamacpp' or 'lagentlike'), or tokenize messages with a ChatTokenizer for supervised training"
        )


def _fill(batch: dict[str, Any], row: int, segment: Segment, length: int) -> None:
    ids = np.asarray(segment.ids[:length], np.int64)
    sampled = np.asarray(segment.mask[:length], bool)
    size = len(ids)
    batch["input_ids"][row, :size] = ids
    batch["attention_mask"][row, :size] = 1
    batch["action_mask"][row, :size] = sampled
    batch["labels"][row, :size][sampled] = ids[sampled]
    batch["position_ids"][row] = np.minimum(np.arange(length), max(size - 1, 0))
    if "logprobs" in batch:
        batch["logprobs"][row, :size] = segment.logprobs[:length] if segment.logprobs is not None else 0.0


def _as_tensors(batch: dict[str, Any], tensors: str | None) -> dict[str, Any]:
    if tensors not in (None, "np", "pt"):
        raise InvalidArgument("tensors", tensors, "give 'np' for numpy or 'pt' for torch")
    if tensors is None:
        import sys

        tensors = "pt" if "torch" in sys.modules else "np"
    if tensors == "np":
        return batch
    try:
        import torch
    except ImportError:
        raise InvalidArgument("tensors", tensors, "pip install 'lagentlike[train]' for torch, or use 'np'") from None
    return {name: torch.from_numpy(array) for name, array in batch.items()}
