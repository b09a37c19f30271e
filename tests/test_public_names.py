"""The public names, pinned: adding or dropping one is a decision, made here and in the changelog."""

from __future__ import annotations

import importlib

import pytest

# Package or module -> the names it exports on purpose, sorted.
PUBLIC_NAMES: dict[str, tuple[str, ...]] = {}


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_exports_exactly_the_pinned_names(module: str) -> None:
    exported = importlib.import_module(module).__all__
    assert sorted(exported) == sorted(PUBLIC_NAMES[module])


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_every_exported_name_is_there(module: str) -> None:
    imported = importlib.import_module(module)
    missing = [name for name in imported.__all__ if not hasattr(imported, name)]
    assert not missing, f"{module}.__all__ names what it does not have: {missing}"


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_every_exported_name_shows_in_dir(module: str) -> None:
    imported = importlib.import_module(module)
    assert set(imported.__all__) <= set(dir(imported))
