"""A function as a tool: its schema, and the check of arguments."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
from collections.abc import Callable
from datetime import datetime, UTC
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from lagentlike.actions.schema import MAX_ARGUMENTS, ToolSchema, wire_name
from lagentlike.errors import InvalidArgument, ToolArgumentsError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Size:
    width: int
    height: int = 2


class Point(BaseModel):
    x: float = Field(description="across")
    title: str = "p"


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Options(TypedDict):
    deep: bool


def schema_of(kind: Any, **more: Any) -> dict[str, Any]:
    def function(value: Any) -> None:
        """Do it."""

    function.__annotations__["value"] = kind
    return ToolSchema(function, "do", **more).parameters["properties"]["value"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, {"type": "integer"}),
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (float, {"type": "number"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (list, {"type": "array", "items": {}}),
        (dict, {"type": "object", "additionalProperties": True}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Any, {}),
        (
            Point,
            {
                "type": "object",
                "properties": {
                    "x": {"type": "number", "description": "across"},
                    "title": {"type": "string", "default": "p"},
                },
                "required": ["x"],
            },
        ),
        (Annotated[int, Field(gt=0, description="how many")], {
            "type": "integer", "description": "how many", "exclusiveMinimum": 0,
        }),
    ],
)  # fmt: skip
def test_types_become_json_schema(kind: Any, expected: dict[str, Any]) -> None:
    assert schema_of(kind) == expected


def test_dataclasses_and_typed_dicts_become_objects() -> None:
    assert schema_of(Size)["properties"] == {"width": {"type": "integer"}, "height": {"type": "integer", "default": 2}}
    assert schema_of(Options)["required"] == ["deep"]


def test_definitions_are_put_in_place_unless_they_are_recursive() -> None:
    def function(a: Point, b: Point, tree: Node) -> None: ...

    parameters = ToolSchema(function, "f").parameters
    assert parameters["properties"]["a"]["properties"] == parameters["properties"]["b"]["properties"]
    assert list(parameters["$defs"]) == ["Node"]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]


def test_a_union_told_apart_by_a_field_points_to_nothing_outside() -> None:
    schema = schema_of(Annotated[Cat | Dog, Field(discriminator="kind")])
    assert [option["properties"]["kind"]["const"] for option in schema["oneOf"]] == ["cat", "dog"]
    assert "$defs" not in json.dumps(schema)

    def function(pet: Annotated[Cat | Dog, Field(discriminator="kind")], discriminator: int = 0) -> None: ...

    tool = ToolSchema(function, "f")
    assert "discriminator" in tool.parameters["properties"]
    assert tool.validate({"pet": {"kind": "dog"}}) == {"pet": Dog(kind="dog")}
    with pytest.raises(ToolArgumentsError, match=r"pet \(object\)"):
        tool.validate({"pet": {"kind": "cow"}})


class Adder:
    def __call__(self, a: int, b: int) -> int:
        """Add.

        Args:
            a: the first.
        """
        return a + b


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (functools.partial(Adder().__call__, b=2), ["a", "b"]),
        (functools.partial(functools.partial(Adder()), 1), ["b"]),
        (functools.lru_cache(Adder().__call__), ["a", "b"]),
        (Adder(), ["a", "b"]),
    ],
)
def test_types_and_prose_are_those_of_the_function_within(function: Any, shown: list[str]) -> None:
    schema = ToolSchema(function, "add")
    assert schema.description == "Add."
    assert list(schema.parameters["properties"]) == shown
    assert all(item["type"] == "integer" for item in schema.parameters["properties"].values())
    assert schema.parameters["properties"].get("a", {}).get("description", "the first.") == "the first."


def test_required_and_defaults_are_kept() -> None:
    def function(a: int, b: int = 3, c: Colour = Colour.RED, d: object = math.pi, e: Point = Point(x=1)) -> None: ...  # noqa: B008

    parameters = ToolSchema(function, "f").parameters
    assert parameters["required"] == ["a"]
    assert parameters["properties"]["b"] == {"type": "integer", "default": 3}
    assert parameters["properties"]["c"]["default"] == "red"
    assert "default" not in parameters["properties"]["e"]


def google(a: int, b: list[str], c: float = 1.0) -> None:
    """Do something.

    In two paragraphs.

    Args:
        a: the first,
            which goes on.
        b (list[str]): the second.
        c: the third.

    Returns:
        nothing

    Raises:
        ValueError: never
    """


def numpy(a: int, b: list[str], c: float = 1.0) -> None:
    """Do something.

    In two paragraphs.

    Parameters
    ----------
    a : int
        the first,
        which goes on.
    b
        the second.
    c : float, optional
        the third.

    Returns
    -------
    None
    """


def sphinx(a: int, b: list[str], c: float = 1.0) -> None:
    """Do something.

    In two paragraphs.

    :param a: the first,
        which goes on.
    :param list b: the second.
    :param c: the third.
    :returns: nothing
    """


def tight(a: int, b: list[str], c: float = 1.0) -> None:
    """Do something.

    In two paragraphs.
    Args:
        a: the first, which goes on.
        b: the second.
        c: the third.
    """


@pytest.mark.parametrize("function", [google, numpy, sphinx, tight])
def test_prose_comes_from_docstrings_of_all_styles(function: Any) -> None:
    schema = ToolSchema(function, "f")
    assert schema.description == "Do something.\n\nIn two paragraphs."
    described = {name: item["description"] for name, item in schema.parameters["properties"].items()}
    assert described == {"a": "the first, which goes on.", "b": "the second.", "c": "the third."}


def test_the_types_of_a_docstring_are_used_where_there_are_no_annotations() -> None:
    def function(count, name):  # type: ignore[no-untyped-def]
        """Do it.

        Args:
            count (int): how many
            name: whatever
        """

    properties = ToolSchema(function, "f").parameters["properties"]
    assert properties == {"count": {"type": "integer", "description": "how many"}, "name": {"description": "whatever"}}


def test_a_field_description_goes_before_the_docstring() -> None:
    def function(a: Annotated[int, Field(description="from the type")]) -> None:
        """Do it.

        Args:
            a: from the docstring
        """

    assert ToolSchema(function, "f").parameters["properties"]["a"]["description"] == "from the type"


def test_a_field_may_hold_the_default_in_either_place() -> None:
    def function(
        a: Annotated[int, Field(default=3)],
        b: int = Field(4, ge=1, description="how many"),
        c: list[int] = Field(default_factory=list),  # noqa: B008
        d: str = Field(description="needed"),
    ) -> None:
        """Do it.

        Args:
            b: not this.
        """

    schema = ToolSchema(function, "f")
    assert schema.parameters["required"] == ["d"]
    assert schema.parameters["properties"]["a"] == {"type": "integer", "default": 3}
    assert schema.parameters["properties"]["b"] == {
        "type": "integer",
        "description": "how many",
        "default": 4,
        "minimum": 1,
    }
    assert schema.parameters["properties"]["d"]["description"] == "needed"
    assert schema.validate({"d": "x"}) == {"a": 3, "b": 4, "c": [], "d": "x"}
    assert schema.validate({"d": "x", "b": 1, "c": [2]}) == {"a": 3, "b": 1, "c": [2], "d": "x"}
    with pytest.raises(ToolArgumentsError, match="b: input should be greater than or equal to 1"):
        schema.validate({"d": "x", "b": 0})
    with pytest.raises(ToolArgumentsError, match="d is missing"):
        schema.validate({})
    with pytest.raises(InvalidArgument, match="give the parameter a default"):
        ToolSchema(function, "f", exclude=["b"])


def test_a_returned_dict_can_be_described_item_by_item() -> None:
    def function() -> dict[str, int]:
        """Do it.

        Returns:
            dict: a dict with
                * width (int): how wide
                * height: how high
        """
        return {}

    described = ToolSchema(function, "f", explode_return=True).description_dict
    assert described["return_data"] == [
        {"name": "width", "type": "int", "description": "how wide"},
        {"name": "height", "description": "how high"},
    ]


def test_lagents_shape_keeps_types_and_required() -> None:
    assert ToolSchema(google, "f").description_dict == {
        "name": "f",
        "description": "Do something.\n\nIn two paragraphs.",
        "parameters": [
            {"name": "a", "description": "the first, which goes on.", "type": "integer"},
            {"name": "b", "description": "the second.", "type": "array", "items": {"type": "string"}},
            {"name": "c", "description": "the third.", "type": "number", "default": 1.0},
        ],
        "required": ["a", "b"],
        "return_data": [{"description": "nothing"}],
    }


def test_the_openai_form_is_made_once() -> None:
    schema = ToolSchema(google, "Kit.google")
    assert schema.openai is schema.openai
    assert schema.openai["type"] == "function"
    assert schema.openai["function"]["name"] == "Kit__google"
    json.dumps(schema.openai)


@pytest.mark.parametrize(
    ("name", "wire"), [("a", "a"), ("Kit.api", "Kit__api"), ("math.evaluate", "math__evaluate"), ("计算", "__")]
)
def test_names_on_the_wire_are_what_servers_take(name: str, wire: str) -> None:
    assert wire_name(name) == wire


def test_session_id_is_never_shown() -> None:
    def function(a: int, session_id: Any = 0) -> None: ...

    schema = ToolSchema(function, "f")
    assert schema.takes_session
    assert list(schema.parameters["properties"]) == ["a"]
    with pytest.raises(ToolArgumentsError, match="no argument session_id"):
        schema.validate({"a": 1, "session_id": 7})


def test_parameters_can_be_chosen_and_hidden() -> None:
    def function(a: int, b: int = 1, c: int = 2) -> None: ...

    assert list(ToolSchema(function, "f", exclude=["b"]).parameters["properties"]) == ["a", "c"]
    assert list(ToolSchema(function, "f", include=["a"]).parameters["properties"]) == ["a"]
    with pytest.raises(InvalidArgument, match="give the parameter a default"):
        ToolSchema(function, "f", exclude=["a"])
    with pytest.raises(InvalidArgument, match="no such parameter"):
        ToolSchema(function, "f", exclude=["z"])


def test_signatures_that_no_model_can_call_are_refused() -> None:
    def star(*values: int) -> None: ...

    def positional(a: int, /) -> None: ...

    with pytest.raises(InvalidArgument, match=r"take a list instead of \*args"):
        ToolSchema(star, "star")
    with pytest.raises(InvalidArgument, match="drop the /"):
        ToolSchema(positional, "positional")

    def pieces(text: str) -> Any:
        yield text

    async def later_pieces(text: str) -> Any:
        yield text

    for function in (pieces, functools.partial(later_pieces, text="a")):
        with pytest.raises(InvalidArgument, match="return a list or a text"):
            ToolSchema(function, "pieces")


def test_keyword_arguments_take_other_names() -> None:
    def function(a: int, **more: int) -> None: ...

    schema = ToolSchema(function, "f")
    assert schema.parameters["additionalProperties"] == {"type": "integer"}
    assert schema.validate({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(ToolArgumentsError, match="b: input should be a valid integer"):
        schema.validate({"a": 1, "b": "2"})


def test_keyword_arguments_do_not_reach_hidden_parameters() -> None:
    def function(a: int, limit: int = 5, session_id: Any = 0, **more: Any) -> None: ...

    schema = ToolSchema(function, "f", exclude=["limit"])
    for name in ("limit", "session_id"):
        with pytest.raises(ToolArgumentsError, match=f"there is no argument {name}"):
            schema.validate({"a": 1, name: 7})


def test_parameters_may_have_names_that_pydantic_uses() -> None:
    def function(schema: str, copy: bool, json: int, model_config: str, _private: int, self_: int = 0) -> None: ...

    given = {"schema": "s", "copy": True, "json": 1, "model_config": "m", "_private": 2}
    assert ToolSchema(function, "f").validate(given) == given


def test_an_unknown_annotation_and_a_type_without_json_are_refused() -> None:
    def unknown(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    class Opaque:
        pass

    def opaque(a: Any) -> None: ...

    with pytest.raises(InvalidArgument, match="define the type at the top of the module"):
        ToolSchema(unknown, "f").parameters  # noqa: B018
    for kind in (Opaque, Callable[[int], int], type):
        opaque.__annotations__["a"] = kind
        with pytest.raises(InvalidArgument, match="JSON cannot give"):
            ToolSchema(opaque, "f").parameters  # noqa: B018


def rich(
    a: int,
    colour: Colour = Colour.RED,
    size: Size = Size(1),  # noqa: B008
    point: Point | None = None,
    pair: tuple[int, str] = (1, "a"),
    lax: Annotated[int, Field(strict=False)] = 0,
    anything: Any = None,
) -> None:
    """Do it."""


RICH = ToolSchema(rich, "rich")


def test_values_arrive_as_python_types() -> None:
    arguments = {"a": 1, "colour": "blue", "size": {"width": 3}, "point": {"x": 1}, "pair": [2, "b"]}
    expected = {"a": 1, "colour": Colour.BLUE, "size": Size(3), "point": Point(x=1), "pair": (2, "b")}
    assert RICH.validate(arguments) == expected
    assert RICH.validate(json.dumps(arguments)) == expected


def test_what_is_not_given_is_left_to_the_function() -> None:
    assert RICH.validate({"a": 1}) == {"a": 1}


def test_values_are_never_coerced_unless_it_is_declared() -> None:
    assert RICH.validate({"a": 1, "lax": "3"}) == {"a": 1, "lax": 3}
    for wrong in ["3", 1.5, True, None, [1], {"v": 1}]:
        with pytest.raises(ToolArgumentsError, match=r"a: input should be a valid integer, got"):
            RICH.validate({"a": wrong})
    with pytest.raises(ToolArgumentsError, match="lax: "):
        RICH.validate({"a": 1, "lax": 3.5})
    with pytest.raises(ToolArgumentsError, match=r"size\.width"):
        RICH.validate({"a": 1, "size": {"width": "3"}})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "a is missing"),
        ({"a": 1, "zz": 2}, "there is no argument zz"),
        ({"a": 1, "colour": "green"}, "colour: input should be 'red' or 'blue', got 'green'"),
        ('{"a": 1', "no valid JSON"),
        ("{'a': 1}", "no valid JSON"),
        ('{"a": 1,}', "no valid JSON"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("null", "must be a JSON object, not null"),
        ("[1]", "must be a JSON object, not a list"),
        ('"a"', "must be a JSON object, not a text"),
        ([1], "must be a JSON object, not a list"),
        (3, "must be a JSON object, not a number"),
        ("[" * 5_000, "nested too deeply"),
        ("[" * 100_000, "more than 10,000 lists and objects"),
        ({"a": float("nan")}, "NaN and Infinity are no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "no valid JSON"),
        ("x" * (MAX_ARGUMENTS + 1), f"more than {MAX_ARGUMENTS:,}"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words_a_model_can_act_on(arguments: Any, said: str) -> None:
    with pytest.raises(ToolArgumentsError) as caught:
        RICH.validate(arguments)
    assert said in str(caught.value)
    assert "It takes a (integer), " in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_an_empty_text_means_no_arguments() -> None:
    def function(a: int = 1) -> None: ...

    schema = ToolSchema(function, "f")
    assert schema.validate("") == schema.validate(" \n") == schema.validate(None) == {}


def test_lone_surrogates_become_replacement_characters() -> None:
    def function(text: str) -> None: ...

    schema = ToolSchema(function, "f")
    for arguments in [
        {"text": "a\ud800b\x00😀"},
        '{"text": "a\\ud800b\\u0000\\ud83d\\ude00"}',
        '{"text": "a\ud800b\\u0000😀"}',
    ]:
        assert schema.validate(arguments) == {"text": "a\ufffdb\x00😀"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
@settings(max_examples=300, deadline=None)
def test_any_json_value_is_taken_or_refused(value: Any) -> None:
    for arguments in (value, {"a": value}, {"a": 1, "anything": value}, json.dumps(value)):
        try:
            RICH.validate(arguments)
        except ToolArgumentsError as error:
            str(error).encode()


class Kind(enum.Enum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [Kind.ONE, UUID(int=7), datetime(2026, 11, 27, tzinfo=UTC), (1, 2), 10**30, -0.0, True, [1.5, {"a": None}], {1: 2}],
    ids=repr,
)
def test_a_value_given_from_python_arrives_as_it_is(value: Any) -> None:
    def take(value: Any) -> None:
        """Take it."""

    (arrived,) = ToolSchema(take, "take").validate({"value": value}).values()
    expected = json.loads(json.dumps(value)) if isinstance(value, tuple | dict) else value
    assert (repr(arrived), type(arrived)) == (repr(expected), type(expected))
