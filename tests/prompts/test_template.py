"""A prompt with places to fill in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagentlike.agents import Agent
from lagentlike.errors import InvalidArgument
from lagentlike.llms import ScriptedLLM
from lagentlike.prompts import PromptTemplate


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("Hello {name}!", {"name": "you"}, "Hello you!"),
        ("{a}{b}{a}", {"a": 1, "b": 2}, "121"),
        ('{"json": [1, {"x": 2}]} {x}', {"x": "y"}, '{"json": [1, {"x": 2}]} y'),
        ("{unknown} {a}", {"a": 1}, "{unknown} 1"),
        ("{{a}}", {"a": 1}, "{1}"),
        ("{a", {"a": 1}, "{a"),
        ("{a} }{", {"a": "{b}", "b": 2}, "{b} }{"),
        ("", {"a": 1}, ""),
        ("f'{x!r}' {a.b} {a[0]} {0}", {"a": 1, "x": 2}, "f'{x!r}' {a.b} {a[0]} {0}"),
    ],
)
def test_names_are_filled_in_and_all_else_stays(template: str, values: dict[str, Any], text: str) -> None:
    assert PromptTemplate(template).format(**values) == text


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_a_text_without_places_stays_as_it_is(text: str) -> None:
    assert PromptTemplate(text).format(unlikely_name=1) == text.replace("{unlikely_name}", "1")


def test_jinja_templates_are_rendered_in_a_sandbox() -> None:
    pytest.importorskip("jinja2")
    template = PromptTemplate("{% for item in items %}{{ item }};{% endfor %}", "jinja")
    assert template.format(items=[1, 2]) == "1;2;"
    with pytest.raises(Exception, match="unsafe"):
        PromptTemplate("{{ ''.__class__.__mro__ }}", "jinja").format()


@pytest.mark.parametrize(
    ("arguments", "name"), [(("x", "yaml"), "format_type="), ((5,), "template="), ((None,), "template=")]
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, name: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        PromptTemplate(*arguments)


def test_a_template_is_a_system_prompt_as_it_is() -> None:
    agent = Agent(ScriptedLLM(["x"]), PromptTemplate("Be {style}."))
    agent("hi")
    assert agent.llm.requests[0].messages[0] == {"role": "system", "content": "Be {style}."}
    assert repr(PromptTemplate("x" * 100)) == f"PromptTemplate('{'x' * 57}...')"
