"""Scored groups: the tokens, masks and scores of several tries at one task, as trajectories travel to a trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator, ValidationError

from ..errors import InvalidArgument
from .result import NO_LOGPROB, NOT_SAMPLED

__all__ = ["ScoredGroup", "group_of"]


class ScoredGroup(BaseModel):
    """Several tries at one task, `rows` of them; every list has one item for each row.

    The fields are those of atroposlib's `ScoredDataGroup`, and `to_wire()` is what its trajectory API takes. What is no
    group (rows of different lengths, a score that is no number) cannot be made.

    Attributes:
        tokens: token ids, `[rows][length]`.
        masks: the id of each token that is trained, -100 elsewhere, `[rows][length]`.
        scores: what each row was worth, finite.
        inference_logprobs: log-probabilities at sampling, 1.0 on tokens that were not sampled, `[rows][length]`.
        advantages, ref_logprobs: of each token, where an environment knows them, `[rows][length]`.
        messages: the conversation of each row; each message has `role` and `content`.
        overrides: settings of each row for the trainer.
        group_overrides: settings of the group.
        generation_params, images: whatever else travels along.
        env_id: which environment it came from.
        distill_token_ids, distill_logprobs: a teacher's likeliest tokens, `[rows][length][k]`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    tokens: list[list[int]]
    masks: list[list[int]]
    scores: list[float]
    advantages: list[list[float]] | None = None
    ref_logprobs: list[list[float]] | None = None
    messages: list[list[dict[str, Any]]] | None = None
    generation_params: dict[str, Any] | None = None
    inference_logprobs: list[list[float]] | None = None
    overrides: list[dict[str, Any]] | None = None
    group_overrides: dict[str, Any] | None = None
    images: Any = None
    env_id: int | None = None
    distill_token_ids: list[list[list[int]]] | None = None
    distill_logprobs: list[list[list[float]]] | None = None

    @model_validator(mode="after")
    def _of_equal_lengths(self) -> Self:
        rows = len(self.tokens)
        if not rows:
            raise ValueError("tokens has no row: a group has at least one")
        for name in _BY_ROW:
            given = getattr(self, name)
            if given and len(given) != rows:
                raise ValueError(f"{name} has {len(given)} rows and tokens has {rows}: give one for each")
        if len(self.masks) != rows or len(self.scores) != rows:
            raise ValueError(f"tokens has {rows} rows, masks {len(self.masks)} and scores {len(self.scores)}")
        for name in _BY_TOKEN:
            for row, (values, tokens) in enumerate(zip(getattr(self, name) or (), self.tokens, strict=False)):
                if len(values) != len(tokens):
                    raise ValueError(f"{name}[{row}] has {len(values)} items and tokens[{row}] has {len(tokens)}")
        return self

    @model_validator(mode="after")
    def _of_sound_values(self) -> Self:
        for row, score in enumerate(self.scores):
            if not math.isfinite(score):
                raise ValueError(f"scores[{row}] is {score}, which is no finite number")
        for row, conversation in enumerate(self.messages or ()):
            for message in conversation:
                if "role" not in message or "content" not in message:
                    raise ValueError(f"messages[{row}] has a message without 'role' or 'content'")
        return self

    @classmethod
    def read(cls, given: Any, name: str = "group") -> Self:
        """A group of plain data.

        Raises:
            InvalidArgument: it is none; the message says where.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            faults = (_fault(item) for item in error.errors(include_url=False)[:3])
            raise InvalidArgument(name, given, "; ".join(faults)) from None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.tokens)

    @property
    def sampled(self) -> int:
        """How many tokens in it are trained."""
        return sum(value != NOT_SAMPLED for mask in self.masks for value in mask)

    def to_wire(self) -> dict[str, Any]:
        """Plain JSON data, every field in it."""
        return {name: getattr(self, name) for name in type(self).model_fields}


def _fault(item: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"])
    text = str(item["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text


_BY_ROW: Sequence[str] = (
    "advantages",
    "ref_logprobs",
    "messages",
    "inference_logprobs",
    "overrides",
    "distill_token_ids",
    "distill_logprobs",
)
_BY_TOKEN: Sequence[str] = (
    "masks",
    "advantages",
    "ref_logprobs",
    "inference_logprobs",
    "distill_token_ids",
    "distill_logprobs",
)


def group_of(rows: Sequence[Mapping[str, Any]], include_messages: bool) -> list[dict[str, Any]]:
    """Groups of the rows that tries at one task gave: one group, or one for each of their unbroken runs of tokens.

    A try that has fewer runs than another has a row in the later groups all the same, so that they compare the same
    scores: the beginning of its tokens, none of which is trained.

    Args:
        rows: one for each try, as `AgentEnv.collect_trajectory` gives them.
        include_messages: whether the conversations go along, in the first group.

    Raises:
        InvalidArgument: they make no group.
    """
    runs = [[*row.get("earlier", ()), row] for row in rows]
    groups = []
    for number in range(max(len(run) for run in runs)):
        parts = [run[number] if number < len(run) else _untrained(run[0]) for run in runs]
        known = all(len(part["inference_logprobs"]) == len(part["tokens"]) for part in parts)
        group = ScoredGroup.read(
            {
                "tokens": [part["tokens"] for part in parts],
                "masks": [part["masks"] for part in parts],
                "scores": [row["scores"] for row in rows],
                "inference_logprobs": [part["inference_logprobs"] for part in parts] if known else None,
                "overrides": [row.get("overrides") or {} for row in rows],
                "messages": [row["messages"] for row in rows] if include_messages else None,
                "group_overrides": {},
            }
        )
        groups.append({**group.to_wire(), "metadata": [row.get("metadata") or {} for row in rows]})
    return groups


def _untrained(run: Mapping[str, Any]) -> dict[str, Any]:
    """The beginning of a run, up to its first sampled token."""
    length = next((place for place, value in enumerate(run["masks"]) if value != NOT_SAMPLED), len(run["masks"]))
    return {
        "tokens": run["tokens"][:length],
        "masks": [NOT_SAMPLED] * length,
        "inference_logprobs": [NO_LOGPROB] * length,
    }
