"""Trajectories as files and datasets, for others to read and train on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import attach

if TYPE_CHECKING:
    from .jsonl import from_jsonl, to_jsonl
    from .tables import from_datasets, from_parquet, to_datasets, to_parquet
    from .trl import to_trl, trl_rows
    from .verl import to_verl, verl_prompts, verl_rollouts

__all__ = [
    "from_datasets",
    "from_jsonl",
    "from_parquet",
    "to_datasets",
    "to_jsonl",
    "to_parquet",
    "to_trl",
    "to_verl",
    "trl_rows",
    "verl_prompts",
    "verl_rollouts",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "jsonl": ["from_jsonl", "to_jsonl"],
        "tables": ["from_datasets", "from_parquet", "to_datasets", "to_parquet"],
        "trl": ["to_trl", "trl_rows"],
        "verl": ["to_verl", "verl_prompts", "verl_rollouts"],
    },
)
