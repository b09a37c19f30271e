"""Trajectories as datasets for the trainers of TRL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, get_args, Literal

from ...errors import InvalidArgument
from ...trajectory import Trajectory
from .chat import answers_in, by_query, chat_messages, prompt_length
from .tables import datasets_module

__all__ = ["TrlKind", "to_trl", "trl_rows"]

TrlKind = Literal["sft", "prompt_completion", "preference", "prompt"]


def to_trl(trajectories: Iterable[Trajectory], kind: TrlKind = "sft", *, margin: float = 0.0) -> Any:
    """Trajectories as a `datasets.Dataset` that a trainer of TRL takes; see `trl_rows`. Needs `lagentlike[export]`.

    The messages are JSON to the dataset, so that calls with different arguments keep their own keys.

    Raises:
        InvalidArgument: there is nothing to make rows of.
        MissingExtra: datasets is not installed.
    """
    rows = trl_rows(trajectories, kind, margin=margin)
    if not rows:
        raise InvalidArgument("trajectories", [], f"none of them gives a row of kind {kind!r}; see trl_rows")
    return datasets_module().Dataset.from_list(rows, on_mixed_types="use_json")


def trl_rows(trajectories: Iterable[Trajectory], kind: TrlKind = "sft", *, margin: float = 0.0) -> list[dict[str, Any]]:
    """Trajectories as rows of the conversational formats of TRL.

    The formats are those of https://huggingface.co/docs/trl/dataset_formats, as TRL 1.16 reads them. `tools` is JSON
    text, which its trainers read; it is there if any trajectory was offered tools. Rows are text: a trainer tokenizes
    them anew. For the tokens as they were sampled use `tokenize_trajectories` or `verl_rollouts`.

    Args:
        kind: what a row is:
            "sft": `messages`, `tools` - one for each trajectory (`SFTTrainer`).
            "prompt_completion": `prompt`, `completion`, `tools` - one for each answer; only it is trained on
            (`SFTTrainer`).
            "preference": `prompt`, `chosen`, `rejected`, `tools`, and the rewards `score_chosen` and `score_rejected` -
            the best and the worst chain of each query and agent (`DPOTrainer`, `RewardTrainer`).
            "prompt": `prompt` and the metadata - one for each query and agent (`GRPOTrainer`, `RLOOTrainer`).
        margin: in "preference", the smallest difference of rewards; equal rewards never make a pair.

    Trajectories that failed are left out of "sft" and "prompt_completion", those without a reward of "preference".
    """
    if kind not in get_args(TrlKind):
        raise InvalidArgument("kind", kind, f"give one of {', '.join(get_args(TrlKind))}")
    listed = list(trajectories)
    if kind == "preference":
        rows = [row for group in by_query(listed).values() for row in _pair(group, margin)]
    elif kind == "prompt":
        return [_prompt(group[0]) for group in by_query(listed).values()]
    else:
        make: Callable[[Trajectory], list[dict[str, Any]]] = _whole if kind == "sft" else _answers
        rows = [row for trajectory in listed if trajectory.error is None for row in make(trajectory)]
    if all(row["tools"] == "[]" for row in rows):
        for row in rows:
            del row["tools"]
    return rows


def _whole(trajectory: Trajectory) -> list[dict[str, Any]]:
    return [{"messages": chat_messages(trajectory), "tools": _tools(trajectory)}] if answers_in(trajectory) else []


def _answers(trajectory: Trajectory) -> list[dict[str, Any]]:
    messages, tools = chat_messages(trajectory), _tools(trajectory)
    return [
        {"prompt": messages[:index], "completion": [messages[index]], "tools": tools}
        for index in answers_in(trajectory)
        if index
    ]


def _pair(group: list[Trajectory], margin: float) -> list[dict[str, Any]]:
    """The best and the worst of a group whose prompts are the same."""
    first = group[0]
    prompt = chat_messages(first)[: prompt_length(first)]
    judged = []
    for trajectory in group:
        messages, end = chat_messages(trajectory), prompt_length(trajectory)
        if trajectory.reward is not None and messages[:end] == prompt and messages[end:]:
            judged.append((trajectory.reward, messages[end:]))
    if not judged or not prompt:
        return []
    best, worst = max(judged, key=lambda one: one[0]), min(judged, key=lambda one: one[0])
    if best[0] == worst[0] or best[0] - worst[0] < margin:
        return []
    return [
        {
            "prompt": prompt,
            "chosen": best[1],
            "rejected": worst[1],
            "score_chosen": best[0],
            "score_rejected": worst[0],
            "tools": _tools(first),
        }
    ]


def _prompt(trajectory: Trajectory) -> dict[str, Any]:
    metadata = {key: value for key, value in trajectory.metadata.items() if key != "prompt"}
    return {"prompt": chat_messages(trajectory)[: prompt_length(trajectory)], **metadata}


def _tools(trajectory: Trajectory) -> str:
    return json.dumps(trajectory.tools, ensure_ascii=False)
