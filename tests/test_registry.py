"""Objects built from `dict(type=...)`, or passed through."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from lagentlike.agents import Agent, ReAct, Sequential
from lagentlike.errors import InvalidArgument
from lagentlike.hooks import MessageLogger
from lagentlike.llms import ScriptedLLM
from lagentlike.registry import create_object, import_object


@pytest.mark.parametrize("value", [None, 5, "text", [1], {}, {"role": "system", "content": "x"}])
def test_anything_else_is_passed_through(value: Any) -> None:
    assert create_object(value) is value


@pytest.mark.parametrize("kind", [Fraction, "fractions.Fraction", lambda **options: Fraction(**options)])
def test_builds_what_is_described(kind: Any) -> None:
    config = {"type": kind, "numerator": 1, "denominator": 2}
    assert create_object(config) == Fraction(1, 2)
    assert config["type"] is kind


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("Fraction", "full dotted path"),
        ("fractions.Nothing", "has no 'Nothing'"),
        ("no_such_module.Thing", "cannot import 'no_such_module'"),
        ("", "full dotted path"),
        (".x", "full dotted path"),
        ("fractions.", "has no ''"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(path: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        create_object({"type": path}, "llm")
    assert str(caught.value).startswith(f"llm['type']={path!r}")


@pytest.mark.parametrize("kind", [5, None, ["fractions.Fraction"], "fractions.__name__"])
def test_a_type_that_cannot_be_called_is_named(kind: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"config\['type'\]=.*give a class"):
        create_object({"type": kind})


def test_imports_by_path() -> None:
    assert import_object("fractions.Fraction") is Fraction


def test_everywhere_an_object_is_taken_its_description_is_too() -> None:
    agent = Agent(
        llm={"type": ScriptedLLM, "replies": ["a"]},
        template={"type": "lagentlike.prompts.PromptTemplate", "template": "Be {style}."},
        memory={"type": "lagentlike.memory.Memory", "recent_n": 3},
        output_format={"type": "lagentlike.prompts.ToolParser", "tool_type": "t"},
        aggregator={"type": "lagentlike.agents.aggregator.InternLMToolAggregator"},
        hooks={"type": MessageLogger},
    )
    assert agent("hi").formatted["tool_type"] is None
    row = Sequential({"type": Agent, "llm": agent.llm}, {"type": "lagentlike.agents.Agent", "name": "second"})
    assert [child.name for child in row] == ["Agent", "second"]
    reasoner = ReAct(
        {"type": "lagentlike.llms.ScriptedLLM", "replies": ["done"]}, [{"type": "lagentlike.actions.FinishAction"}]
    )
    assert reasoner("hi").content == "done"
