"""The package's names, and the examples in its docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import lagentlike.actions
import lagentlike.tools

MODULES = [f"lagentlike.actions.{module.name}" for module in pkgutil.iter_modules(lagentlike.actions.__path__)]


@pytest.mark.parametrize("module", [*MODULES, "lagentlike.prompts.parsers.tool_call"])
def test_examples_in_docstrings_are_right(module: str) -> None:
    if module.endswith("_worker"):
        return
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("name", lagentlike.actions.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(lagentlike.actions, name) is not None
    assert name in dir(lagentlike.actions)


def test_the_face_of_functions_as_tools() -> None:
    from lagentlike.schema import ToolCall, ToolResult
    from lagentlike.tools import calculator

    assert lagentlike.tools.ToolCall is ToolCall
    assert lagentlike.tools.ToolResult is ToolResult
    assert calculator("1 + 1") == "2"
    with pytest.raises(AttributeError):
        lagentlike.actions.Nope  # noqa: B018


def test_a_tool_is_found_whatever_was_imported_before() -> None:
    from lagentlike.actions import calculator

    assert calculator is lagentlike.tools.calculator
    assert calculator("6 * 7") == "42"
