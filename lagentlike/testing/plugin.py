"""A pytest fixture whose tests are answered from tapes beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .tape import record, replay, Tape

__all__ = ["pytest_addoption", "tape", "tape_path"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--tapes`."""
    parser.addoption(
        "--tapes",
        choices=("replay", "record", "add"),
        default="replay",
        help="answer tests that have the fixture `tape` from their tapes, record those anew, or add what is missing",
    )


@pytest.fixture
def tape_path(request: pytest.FixtureRequest) -> Path:
    """The test's tape: `tapes/<module>/<test>.jsonl` beside its module. Override it to have tapes elsewhere."""
    name = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")
    return request.path.parent / "tapes" / request.path.stem / f"{name}.jsonl"


@pytest.fixture
def tape(request: pytest.FixtureRequest, tape_path: Path) -> Iterator[Tape]:
    """The tape that the test runs under; `pytest --tapes=record` makes it."""
    mode = request.config.getoption("--tapes")
    if mode == "replay" and not tape_path.is_file():
        pytest.fail(f"there is no tape {tape_path}: make it with pytest --tapes=record")
    made = (
        record(tape_path) if mode == "record" else replay(tape_path, on_missing="record" if mode == "add" else "error")
    )
    with made:
        yield made
