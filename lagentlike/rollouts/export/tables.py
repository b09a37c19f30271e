"""Trajectories as tables: Parquet files and datasets, with columns to filter by and one that holds everything."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import MissingExtra, StateError
from ...trajectory import Trajectory
from .jsonl import as_line, from_line

__all__ = ["columns_of", "from_datasets", "from_parquet", "to_datasets", "to_parquet", "write_parquet"]

WHOLE = "trajectory"
"""The column that holds the whole trajectory, as JSON text."""


def to_parquet(trajectories: Iterable[Trajectory], path: str | os.PathLike[str]) -> None:
    """Write trajectories as a Parquet file, one a row.

    Columns are `query`, `chain`, `agent`, `reward`, `finish_reason`, `error`, `final_response`, `prompt_tokens`,
    `completion_tokens`, `wall_time`, and `trajectory`, the whole of it as JSON text. Needs `lagentlike[export]`.

    Raises:
        TypeError: something in a trajectory has no JSON form; the message names which and where.
        MissingExtra: pyarrow is not installed.
    """
    write_parquet(columns_of(trajectories), path)


def from_parquet(path: str | os.PathLike[str]) -> list[Trajectory]:
    """The trajectories that `to_parquet` wrote.

    Raises:
        StateError: the file has no such column, or a row is no saved trajectory.
        MissingExtra: pyarrow is not installed.
    """
    parquet = _pyarrow().parquet
    if WHOLE not in parquet.read_schema(os.fspath(path)).names:
        raise StateError(f"{path} has no column {WHOLE!r}: it was not written by to_parquet")
    table = parquet.read_table(os.fspath(path), columns=[WHOLE])
    return [from_line(line, f"{path}, row {row}: ") for row, line in enumerate(table[WHOLE].to_pylist())]


def to_datasets(trajectories: Iterable[Trajectory]) -> Any:
    """Trajectories as a `datasets.Dataset` with the columns of `to_parquet`. Needs `lagentlike[export]`.

    Raises:
        TypeError: something in a trajectory has no JSON form.
        MissingExtra: datasets is not installed.
    """
    datasets, pyarrow = datasets_module(), _pyarrow()
    return datasets.Dataset(pyarrow.table(columns_of(trajectories), schema=_schema()))


def from_datasets(dataset: Any) -> list[Trajectory]:
    """The trajectories of a dataset that `to_datasets` made.

    Raises:
        StateError: it has no such column, or a row is no saved trajectory.
    """
    if WHOLE not in dataset.column_names:
        raise StateError(f"the dataset has no column {WHOLE!r}: it was not made by to_datasets")
    return [from_line(line, f"row {row}: ") for row, line in enumerate(dataset[WHOLE])]


def columns_of(trajectories: Iterable[Trajectory]) -> dict[str, list[Any]]:
    """The columns of `to_parquet`."""
    listed = list(trajectories)
    return {
        "query": [one.query for one in listed],
        "chain": [one.chain for one in listed],
        "agent": [one.agent for one in listed],
        "reward": [one.reward for one in listed],
        "finish_reason": [one.finish_reason for one in listed],
        "error": [one.error for one in listed],
        "final_response": [_utf8(one.final_response) for one in listed],
        "prompt_tokens": [one.usage.prompt_tokens for one in listed],
        "completion_tokens": [one.usage.completion_tokens for one in listed],
        "wall_time": [one.wall_time for one in listed],
        WHOLE: [as_line(one, f"trajectory {row}: ") for row, one in enumerate(listed)],
    }


def write_parquet(columns: Mapping[str, list[Any]], path: str | os.PathLike[str]) -> None:
    """Write columns as a Parquet file."""
    pyarrow = _pyarrow()
    schema = _schema() if WHOLE in columns else None
    pyarrow.parquet.write_table(pyarrow.table(dict(columns), schema=schema), os.fspath(path))


def datasets_module() -> Any:
    """Hugging Face's datasets.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "export") from error
    return datasets


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "export") from error
    return pyarrow


def _schema() -> Any:
    pa = _pyarrow()
    text, whole, number = pa.string(), pa.int64(), pa.float64()
    kinds = {
        "query": whole,
        "chain": whole,
        "agent": text,
        "reward": number,
        "finish_reason": text,
        "error": text,
        "final_response": text,
        "prompt_tokens": whole,
        "completion_tokens": whole,
        "wall_time": number,
        WHOLE: pa.large_string(),
    }
    return pa.schema(list(kinds.items()))


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
