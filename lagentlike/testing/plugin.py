"""A pytest fixture whose tests are answered from tapes beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
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
    name = re.sub(r"[^\w.-]+", "_", request.node.nodeid.partition("::")[2]).strip("_")
    if len(name) > _LONGEST_NAME:  # a parameter may be a whole prompt
        name = f"{name[:_LONGEST_NAME]}-{sha256(name.encode()).hexdigest()[:8]}"
    return request.path.parent / "tapes" / request.path.stem / f"{name}.jsonl"


_LONGEST_NAME = 100
_whose = pytest.StashKey[dict[Path, str]]()


@pytest.fixture
def tape(request: pytest.FixtureRequest, tape_path: Path) -> Iterator[Tape]:
    """The tape that the test runs under; `pytest --tapes=record` makes it."""
    mode = request.config.getoption("--tapes")
    whose = request.config.stash.setdefault(_whose, {}).setdefault(tape_path, request.node.nodeid)
    if whose != request.node.nodeid:
        pytest.fail(f"{whose} has the tape {tape_path} too: tell their parameters apart by ids=, or override tape_path")
    if mode == "replay" and not tape_path.is_file():
        pytest.fail(f"there is no tape {tape_path}: make it with pytest --tapes=record")
    made = (
        record(tape_path) if mode == "record" else replay(tape_path, on_missing="record" if mode == "add" else "error")
    )
    with made:
        yield made
