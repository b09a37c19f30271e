"""The small model that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest

from .small_model import write_small_model


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an untrained model that `TinyLM` runs."""
    return write_small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an untrained model that transformers alone runs."""
    return write_small_model(tmp_path_factory.mktemp("foreign"), key_value_heads=2)
