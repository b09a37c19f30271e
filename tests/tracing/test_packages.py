"""The examples in the package's docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import lagentlike.tracing


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(lagentlike.tracing.__path__)])
def test_examples_in_docstrings_are_right(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"lagentlike.tracing.{name}")).failed == 0
