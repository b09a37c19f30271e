"""Functions and classes as tools, and what becomes of their results."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import math
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from lagentlike.actions import BaseAction, FunctionTool, tool, tool_api
from lagentlike.actions.result import as_return, as_seen, clean_text, shortened
from lagentlike.errors import InvalidArgument
from lagentlike.schema import ActionReturn, ActionStatusCode


@tool
def greet(name: str, loud: bool = False) -> str:
    """Greet somebody."""
    return f"Hello {name}{'!' if loud else '.'}"


def test_a_tool_is_still_its_function() -> None:
    assert greet("Ann", loud=True) == "Hello Ann!"
    assert greet.__name__ == "greet"
    assert greet.__doc__ == "Greet somebody."


def test_an_async_tool_is_still_its_function() -> None:
    @tool
    async def later(x: int) -> int:
        return x

    assert asyncio.run(later(3)) == 3


def test_a_tool_can_be_renamed_and_described() -> None:
    @tool(name="hi", description="Say hi.", timeout=3, max_length=100)
    def function(name: str) -> str:
        """Not this."""
        return name

    assert (function.name, function.timeout, function.max_length) == ("hi", 3.0, 100)
    assert function.description["name"] == "hi"
    assert function.description["description"] == "Say hi."


def test_a_function_without_a_docstring_has_no_description() -> None:
    @tool
    def silent(a: int) -> int:
        return a

    assert silent.description["description"] == ""
    assert silent.apis()["run"].schema.openai["function"]["description"] == ""


def test_a_partial_function_is_called_as_its_function_is() -> None:
    assert tool(functools.partial(greet.function, loud=True)).name == "greet"


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "a/b", 3])
def test_names_that_models_cannot_write_are_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="name="):
        tool(name=name)(greet.function)


def test_what_is_no_function_is_refused() -> None:
    class Thing:
        def method(self, x: int) -> int:
            return x

        def __call__(self, x: int) -> int:
            return x

    for wrong in (3, Thing, greet):
        with pytest.raises(InvalidArgument, match="give a function"):
            FunctionTool(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="tool_api"):
        tool(Thing.method)
    with pytest.raises(InvalidArgument, match="lambda"):
        tool(lambda x: x)
    assert tool(Thing().method).name == "method"
    assert tool(name="thing")(Thing()).description["required"] == ["x"]


def test_bad_limits_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="timeout=-1"):
        tool(timeout=-1)(greet.function)
    with pytest.raises(InvalidArgument, match="max_length=0"):
        tool(max_length=0)(greet.function)


class Double(BaseAction):
    """Double a number."""

    def run(self, x: int) -> int:
        return 2 * x


class Kit(BaseAction):
    """Several tools."""

    @tool_api
    def plain(self, x: int, hidden: int = 1) -> int:
        """Give it back."""
        return x

    @tool_api(exclude_arguments=["hidden"], returns_named_value=True)
    async def later(self, x: int, hidden: int = 1) -> int:
        """Give it back later.

        Returns:
            value: the same number
        """
        return x + hidden


def test_a_class_with_run_is_a_tool_described_by_its_docstring() -> None:
    assert not Double().is_toolkit
    assert Double().description["description"] == "Double a number."
    assert Double()({"x": 4}).format_result() == "8"


def test_a_class_with_marked_methods_is_a_toolkit() -> None:
    kit = Kit(name="K")
    assert kit.is_toolkit
    assert [api["name"] for api in kit.description["api_list"]] == ["plain", "later"]
    assert kit.description["api_list"][1]["return_data"] == [{"name": "value", "description": "the same number"}]
    assert [parameter["name"] for parameter in kit.description["api_list"][1]["parameters"]] == ["x"]
    assert kit({"x": 1}, "plain").type == "K.plain"
    assert asyncio.run(kit({"x": 1}, "later")).format_result() == "2"
    with pytest.raises(InvalidArgument, match="K has plain, later"):
        kit({"x": 1}, "run")


def test_marks_are_inherited_and_overridden_methods_keep_them() -> None:
    class Louder(Kit):
        def plain(self, x: int, hidden: int = 1) -> int:
            """Give more."""
            return 10 * x

    assert [api["description"] for api in Louder().description["api_list"]][1] == "Give it back later."
    assert Louder()({"x": 1}, "plain").format_result() == "10"


def test_methods_that_need_no_object_can_be_marked_too() -> None:
    class Kit(BaseAction):
        @staticmethod
        @tool_api
        def above(x: int) -> int:
            """Static, marked within."""
            return x + 1

        @tool_api
        @classmethod
        def below(cls, x: int) -> str:
            """Of the class, marked around."""
            return f"{cls.__name__} {x}"

        @classmethod
        @tool_api
        def within(cls, x: int) -> str:
            """Of the class, marked within."""
            return f"{cls.__name__} {x}"

    kit = Kit()
    assert [kit({"x": 1}, name).text for name in kit.apis()] == ["2", "Kit 1", "Kit 1"]
    assert list(kit.apis()) == ["above", "below", "within"]


def test_a_class_cannot_be_a_tool_and_a_toolkit() -> None:
    with pytest.raises(InvalidArgument, match="not both"):

        class Both(BaseAction):
            def run(self) -> None: ...

            @tool_api
            def other(self) -> None: ...


def test_a_description_can_be_given() -> None:
    assert Double("Twice.").description["description"] == "Twice."
    described = {"name": "twice", "description": "Twice.", "parameters": [], "required": ["x"]}
    action = Double(described)
    assert action.name == "twice"
    assert action.description == described
    assert action.apis()["run"].schema.openai["function"]["description"] == "Twice."
    with pytest.raises(InvalidArgument, match="description=3"):
        Double(3)  # type: ignore[arg-type]


def test_direct_calls_take_arguments_json_and_the_one_text() -> None:
    class Shout(BaseAction):
        def run(self, text: str, times: int = 1) -> str:
            """Shout."""
            return text.upper() * times

    shout = Shout()
    assert shout({"text": "a", "times": 2}).format_result() == "AA"
    assert shout('{"text": "a", "times": 2}').format_result() == "AA"
    assert shout("a").format_result() == "A"
    assert shout('{"other": 1}').format_result() == '{"OTHER": 1}'
    refused = shout({"text": 3})
    assert refused.state == ActionStatusCode.ARGS_ERROR
    assert "text: input should be a valid string" in refused.text


# Results


@dataclasses.dataclass
class Point:
    x: int


DATED = '{"when": "2020-01-02", "where": "a/b", "cost": "1.50"}'


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no")


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        (3, "3"),
        (True, "true"),
        (0.5, "0.5"),
        (None, "(no output)"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        (Point(1), '{"x": 1}'),
        ((1, 2), "[1, 2]"),
        ({"when": date(2020, 1, 2), "where": Path("a/b"), "cost": Decimal("1.50")}, DATED),
        ([Point(1), {"seen": {7}}, UUID(int=1)], f'[{{"x": 1}}, {{"seen": [7]}}, "{UUID(int=1)}"]'),
        ({"odd": len}, '{"odd": "<built-in function len>"}'),
        (math.nan, "nan"),
        ({1}, "{1}"),
        (b"bytes \xff", "bytes \ufffd"),
        ({1: 2}, "{1: 2}"),
        (Odd(), "(Odd that cannot be written: RuntimeError)"),
        ("a\ud800b", "a\ufffdb"),
        ({"k": "\udfff"}, '{"k": "\ufffd"}'),
        ("\ud83d\ude00", "😀"),
        ("é😀\x00\u202eשלום", "é😀\x00\u202eשלום"),
    ],
)
def test_any_value_becomes_a_text(value: Any, text: str) -> None:
    returned = as_return(value, "t", {})
    assert returned.format_result() == text
    returned.format_result().encode()


@pytest.mark.parametrize("value", [deep(100_000), cycle(), {"a": cycle()}, 10**5000, object()], ids=range(5))
def test_hopeless_values_become_a_short_text(value: Any) -> None:
    text = as_return(value, "t", {}).format_result()
    assert 0 < len(text) < 200


def test_long_texts_keep_their_head_and_tail() -> None:
    text = as_return("<" + "x" * 50_000_000 + ">", "t", {}, 1000).format_result()
    assert len(text) == 1000
    assert text.startswith("<x")
    assert text.endswith("x>")
    assert "49,999,002 characters are left out here" in text
    assert shortened("abc", 3) == "abc"
    assert len(shortened("x" * 100, 5)) == 5


def test_items_are_kept_as_they_are() -> None:
    items = [{"type": "text", "content": "see"}, {"type": "image", "content": "a.png"}]
    returned = as_return(items, "t", {"x": 1})
    assert returned.result == items
    assert returned.format_result() == "see\n[image](a.png)"
    assert as_return(ActionReturn(result=items), "t", {"x": 1}).args == {"x": 1}
    assert as_return([], "t", None).format_result() == "[]"


def test_terminal_output_is_as_a_terminal_leaves_it() -> None:
    assert as_seen("\x1b[31mred\x1b[0m\r\n 10%\r100%\nok") == "red\n100%\nok"
    assert clean_text("plain") == "plain"
