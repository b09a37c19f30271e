"""Toolsets: names resolve to tools, what cannot be used is left out, and draws follow their probabilities."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest

from lagentlike import tool
from lagentlike.actions import BaseAction, tool_api, toolsets
from lagentlike.actions.executor import ActionExecutor
from lagentlike.actions.toolsets import (
    availability,
    distributions,
    register_toolset,
    resolve_toolset,
    sample_toolsets,
    tools_of,
    Toolset,
)
from lagentlike.errors import InvalidArgument


@tool
def alpha() -> str:
    """Say alpha."""
    return "alpha"


@tool
def beta() -> str:
    """Say beta."""
    return "beta"


class Counter(BaseAction):
    """Count."""

    def run(self) -> int:
        """Count."""
        return 1


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    """Toolsets that a test registers are forgotten after it."""
    before = dict(toolsets._toolsets)
    toolsets._toolsets.clear()
    yield
    toolsets._toolsets.clear()
    toolsets._toolsets.update(before)


def names(tools: list[BaseAction]) -> list[str]:
    return [one.name for one in tools]


def test_resolves_includes_also_in_a_circle() -> None:
    register_toolset(Toolset("a", "A.", [alpha], includes=["b"]))
    register_toolset(Toolset("b", "B.", [beta], includes=["a"]))
    assert resolve_toolset("a") == ["alpha", "beta"]
    assert resolve_toolset("b") == ["beta", "alpha"]
    assert resolve_toolset("all") == ["alpha", "beta"]


def test_a_toolset_that_includes_all_has_all() -> None:
    register_toolset(Toolset("a", "A.", [alpha]))
    register_toolset(Toolset("everything", "All.", includes=["all"]))
    register_toolset(Toolset("b", "B.", [beta]))
    assert resolve_toolset("everything") == ["alpha", "beta"]


@pytest.mark.parametrize("ask", [resolve_toolset, lambda name: tools_of([name]), lambda name: tools_of(None, [name])])
def test_an_unknown_name_is_an_error_that_names_the_known(ask: object) -> None:
    register_toolset(Toolset("a", "A.", [alpha]))
    with pytest.raises(InvalidArgument, match="the toolsets are a, all"):
        ask("web")  # type: ignore[operator]


def test_disabled_go_after_enabled_and_a_shared_tool_comes_once() -> None:
    register_toolset(Toolset("a", "A.", [alpha]))
    register_toolset(Toolset("b", "B.", [beta, alpha]))
    register_toolset(Toolset("both", "Both.", includes=["a", "b"]))
    assert names(tools_of()) == ["alpha", "beta"]
    assert names(tools_of(["both"], ["a"])) == ["beta", "alpha"]
    assert names(tools_of(None, ["both"])) == []
    assert names(tools_of([])) == []


def test_what_is_unavailable_is_left_out_and_the_reason_logged(caplog: pytest.LogCaptureFixture) -> None:
    register_toolset(Toolset("a", "A.", [alpha]))
    register_toolset(Toolset("keyed", "B.", [beta], available=lambda: "set SOME_KEY"))
    register_toolset(Toolset("broken", "C.", [Counter], available=lambda: 1 / 0))  # type: ignore[arg-type,return-value]
    with caplog.at_level(logging.INFO):
        assert names(tools_of()) == ["alpha"]
    assert "keyed is left out: set SOME_KEY" in caplog.text
    assert availability() == {
        "a": None,
        "keyed": "set SOME_KEY",
        "broken": "its check failed: ZeroDivisionError: division by zero",
    }
    assert resolve_toolset("keyed") == ["beta"]


def test_factories_are_called_when_tools_are_asked_for_so_that_agents_share_nothing() -> None:
    register_toolset(Toolset("made", "M.", [Counter, lambda: [alpha, beta], {"type": Counter, "name": "Other"}]))
    first, second = tools_of(), tools_of()
    assert names(first) == ["Counter", "alpha", "beta", "Other"]
    assert first[0] is not second[0]
    assert first[1] is second[1]
    assert len(ActionExecutor(first)) == 4


def test_two_different_tools_of_one_name_are_an_error_that_names_both_toolsets() -> None:
    register_toolset(Toolset("a", "A.", [Counter]))
    register_toolset(Toolset("b", "B.", [lambda: Counter()]))
    with pytest.raises(InvalidArgument, match="toolsets a and b both"):
        tools_of()


def test_a_name_is_registered_once_unless_it_is_replaced() -> None:
    register_toolset(Toolset("a", "A.", [alpha]))
    with pytest.raises(InvalidArgument, match="replace=True"):
        register_toolset(Toolset("a", "A.", [beta]))
    register_toolset(Toolset("a", "A.", [beta]), replace=True)
    assert resolve_toolset("a") == ["beta"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "all"}, "means every toolset"),
        ({"name": "a b"}, "1 to 64 letters"),
        ({"tools": alpha}, "give a list"),
        ({"tools": ["alpha"]}, "functions that make them"),
        ({"includes": "web"}, "give a list"),
    ],
)
def test_a_toolset_that_cannot_be_is_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        Toolset(**{"name": "a", "description": "A.", **options})  # type: ignore[arg-type]


def test_a_factory_that_makes_no_tool_is_an_error_that_names_the_toolset() -> None:
    register_toolset(Toolset("odd", "O.", [lambda: "text"]))
    with pytest.raises(InvalidArgument, match="the toolset odd='text'"):
        tools_of()


def test_draws_follow_their_probabilities_and_a_seed_repeats_them() -> None:
    for name in ("always", "half", "never"):
        register_toolset(Toolset(name, "."))
    mixture = {"always": 1.0, "half": 0.5, "never": 0.0}
    draws = [sample_toolsets(mixture, random.Random(seed)) for seed in range(1000)]
    assert all("always" in drawn and "never" not in drawn for drawn in draws)
    assert 430 < sum("half" in drawn for drawn in draws) < 570
    assert draws == [sample_toolsets(mixture, random.Random(seed)) for seed in range(1000)]


def test_a_draw_of_nothing_takes_the_likeliest() -> None:
    for name in ("a", "b"):
        register_toolset(Toolset(name, "."))
    assert sample_toolsets({"a": 1e-12, "b": 1e-9}, random.Random(1)) == ["b"]
    assert sample_toolsets({"a": 0}, random.Random(1)) == []
    assert sample_toolsets({}, random.Random(1)) == []


def test_a_wrong_distribution_is_refused() -> None:
    register_toolset(Toolset("a", "."))
    with pytest.raises(InvalidArgument, match="the distributions are default"):
        sample_toolsets("unheard", random.Random(0))
    with pytest.raises(InvalidArgument, match="from 0 to 1"):
        sample_toolsets({"a": 50}, random.Random(0))
    with pytest.raises(InvalidArgument, match="the toolsets are"):
        sample_toolsets({"b": 1}, random.Random(0))


def test_named_distributions_are_probabilities() -> None:
    assert all(0 <= chance <= 1 for mixture in distributions.values() for chance in mixture.values())


def test_marks_reach_the_function_that_a_call_would_run() -> None:
    @tool(read_only=True, needs_approval=lambda arguments: arguments["n"] > 3 and "that is many")
    def look(n: int) -> int:
        """Look."""
        return n

    class Kit(BaseAction):
        """A kit."""

        needs_approval = True

        @tool_api(read_only=True, needs_approval=False)
        def peek(self) -> str:
            """Peek."""
            return ""

        @tool_api
        def poke(self) -> str:
            """Poke."""
            return ""

    executor = ActionExecutor([look, Kit()])
    looking, peek, poke = executor.find("look"), executor.find("Kit__peek"), executor.find("Kit.poke")
    assert executor.find("nothing") is None
    assert looking is not None
    assert peek is not None
    assert poke is not None
    assert (looking.read_only, peek.read_only, poke.read_only) == (True, True, False)
    assert looking.approval({"n": 3}) is None
    assert looking.approval('{"n": 4}') == "that is many"
    assert looking.approval("not json") is None
    assert looking.approval({"m": 1}) == "the check of look failed: KeyError: 'n'"
    assert peek.approval({}) is None
    assert poke.approval({}) == "Kit.poke asks before each call"


def test_a_wrong_mark_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="needs_approval='yes'"):
        tool(name="one", needs_approval="yes")(lambda: 1)  # type: ignore[call-overload]
