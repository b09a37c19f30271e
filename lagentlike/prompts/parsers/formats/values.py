"""Argument values that a model wrote as bare text, in the types that the tool's schema gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..tool_call import loads_strictly

__all__ = ["parameters_of", "typed"]

_PYTHON = {"True": "true", "False": "false", "None": "null"}
_ANY = frozenset(("string", "number", "integer", "boolean", "null", "array", "object"))


def parameters_of(tools: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The JSON Schema of each tool's arguments, by the tool's name."""
    functions = [tool.get("function", tool) for tool in tools]
    return {str(function.get("name")): function.get("parameters") or {} for function in functions}


def typed(text: str, name: str, parameters: Mapping[str, Any] | None) -> Any:
    """The value of the argument `name` that a text stands for.

    A text is taken as it is where the schema says string; where it says another type, as the JSON of that type
    (`True`, `False` and `None` are understood); where it allows several, as the first of null, boolean, number, array
    and object that it is the JSON of, and else as text. A text that is none of what the schema allows stays text: the
    tool's check tells the model.

    Args:
        text: what the model wrote.
        name: the argument.
        parameters: JSON Schema of all arguments of the tool; None where the tool is not known. Then what is JSON but
            no string is taken as that.
    """
    schema = (parameters or {}).get("properties", {}).get(name)
    types = _ANY if schema is None else _types(schema, parameters or {}, 0)
    if types == {"string"}:
        return text
    plain = text.strip()
    try:
        value = loads_strictly(_PYTHON.get(plain, plain))
    except ValueError:
        return text
    return value if _type(value) & types and not isinstance(value, str) else text


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> frozenset[str]:
    """The JSON types that a schema allows."""
    if not isinstance(schema, Mapping) or depth > 8:
        return _ANY
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return _types(root.get("$defs", root.get("definitions", {})).get(name), root, depth + 1)
    if "type" in schema:
        return frozenset((schema["type"],) if isinstance(schema["type"], str) else schema["type"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return frozenset().union(*(_types(option, root, depth + 1) for option in schema[key]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return frozenset().union(*(_type(value) for value in values))
    if len(schema.get("allOf", ())) == 1:
        return _types(schema["allOf"][0], root, depth + 1)
    return _ANY


def _type(value: Any) -> frozenset[str]:
    """The JSON types that a value has."""
    if isinstance(value, bool):
        return frozenset(("boolean",))
    if isinstance(value, int):
        return frozenset(("integer", "number"))
    if isinstance(value, float):
        return frozenset(("number", "integer")) if value.is_integer() else frozenset(("number",))
    names = {str: "string", type(None): "null", list: "array", dict: "object"}
    return frozenset((names[type(value)],))
