"""A function as a tool: what a model is told about it, and the check of what the model calls it with."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, create_model, Field, PydanticSchemaGenerationError, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from ..errors import InvalidArgument, ToolArgumentsError
from ..prompts.parsers.room import Room
from ..prompts.parsers.tool_call import loads_strictly
from ..schema import copied
from .result import as_json, clean_text

__all__ = ["MAX_ARGUMENTS", "ToolSchema", "bare", "docstring_of", "wire_name"]

MAX_ARGUMENTS = 1024 * 1024
"""Longest text of arguments, in characters, that is read."""


class ToolSchema:
    """What a model is told about a function, and the check of its arguments; made once, kept with the tool.

    Types come from the signature (whatever pydantic knows, `Annotated[…, Field(…)]` included), prose from the docstring
    in Google's, NumPy's or Sphinx's style. A parameter `session_id` is not shown: the executor fills it in.

    Values are taken as they are: a text where a number is declared is an error. Who wants "3" taken for 3 declares it:
    `Annotated[int, Field(strict=False)]`.

    Args:
        function: the function, or a bound method.
        name: name of the tool; `Toolkit.api` for the methods of a toolkit.
        description: what the model is told it does; the docstring's text by default.
        include: the only parameters that are shown; None for all.
        exclude: parameters that are not shown; they need a default.
        explode_return: show the items of a returned dict, as the docstring lists them, one by one.
        returns_named_value: whether `x: text` under Returns names the value (and not its type).

    Raises:
        InvalidArgument: a model cannot call it: it takes `*args` or positional-only parameters, or hides a parameter
            that has no default; or it is a generator.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        description: str | None = None,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        explode_return: bool = False,
        returns_named_value: bool = False,
    ) -> None:
        self.function = function
        self.name = name
        self._description = description
        self._explode_return = explode_return
        self._returns_named_value = returns_named_value
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidArgument("function", name, "it yields, and a tool gives one result: return a list or a text")
        parameters = _signature(function, name).parameters
        self.takes_session = "session_id" in parameters
        self._hidden = _hidden(parameters, name, include, exclude)
        self._extra: inspect.Parameter | None = None
        self._shown: list[inspect.Parameter] = []
        for parameter in parameters.values():
            if parameter.kind in _CURES:
                cure = f"a model gives arguments by name: {_CURES[parameter.kind]}"
                raise InvalidArgument("function", f"{name}{_signature(function, name)}", cure)
            if parameter.kind is parameter.VAR_KEYWORD:
                self._extra = parameter
            elif parameter.name not in self._hidden:
                self._shown.append(parameter)
        self._names = {f"p{index}": parameter.name for index, parameter in enumerate(self._shown)}
        self._filled = {field for field, one in zip(self._names, self._shown, strict=True) if _default_is_a_fields(one)}

    def validate(self, arguments: Mapping[str, Any] | str | None) -> dict[str, Any]:
        """The arguments to call the function with, as Python values.

        Args:
            arguments: a dict, or the JSON text of one; an empty text and None mean no arguments.

        Raises:
            ToolArgumentsError: they do not fit; the message tells a model what to change.
        """
        given = self.as_object(arguments)
        validator = self._model.__pydantic_validator__
        try:
            text = as_json(given) or clean_text(_dumps(given))
        except TypeError:  # called from Python with values that JSON does not have
            return self._checked(validator.validate_python, copied(given))  # for the tool to edit
        except (ValueError, RecursionError) as error:
            raise self._refusal(_fault(error)) from None
        return self._checked(validator.validate_json, text)

    def as_object(self, arguments: Mapping[str, Any] | str | None) -> dict[str, Any]:
        """The arguments as they were given, as a dict.

        Raises:
            ToolArgumentsError: they are no dict, and no JSON text of one.
        """
        if type(arguments) is dict or isinstance(arguments, Mapping):
            return dict(arguments)
        if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
            return {}
        if not isinstance(arguments, str):
            raise self._refusal(f"they must be a JSON object, not {_kind(arguments)}")
        if len(arguments) > MAX_ARGUMENTS:
            raise self._refusal(f"they have {len(arguments):,} characters, more than {MAX_ARGUMENTS:,}: send less")
        if not Room().takes(arguments):
            raise self._refusal(Room.FULL)
        try:
            value = loads_strictly(arguments)
        except ValueError as error:
            raise self._refusal(f"they are no valid JSON: {_fault(error)}") from None
        if not isinstance(value, dict):
            raise self._refusal(f"they must be a JSON object, not {_kind(value)}")
        return value

    @cached_property
    def description(self) -> str:
        """What the tool does."""
        return self._description if self._description is not None else self._prose.text

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        try:
            schema = _without_titles(self._model.model_json_schema(by_alias=True))
        except PydanticUserError as error:
            raise self._unknown_type(error) from error
        schema = _inlined(schema, schema.pop("$defs", {}))
        schema.pop("description", None)
        properties = {name: _type_first(item) for name, item in schema.pop("properties", {}).items()}
        if schema.get("additionalProperties") is False:  # goes without saying, in every prompt
            del schema["additionalProperties"]
        return {"type": "object", "properties": properties, **schema}

    @cached_property
    def openai(self) -> dict[str, Any]:
        """The tool as a model server is told of it; always the same object."""
        function = {"name": wire_name(self.name), "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    @cached_property
    def description_dict(self) -> dict[str, Any]:
        """The tool in Lagent's shape: `name`, `description`, `parameters` (a list), `required`."""
        described = {
            "name": self.name,
            "description": self.description,
            "parameters": [
                {"name": name, "description": schema.get("description", ""), "type": _type_of(schema), **schema}
                for name, schema in self.parameters["properties"].items()
            ],
            "required": list(self.parameters.get("required", ())),
        }
        returns = self._prose.exploded() if self._explode_return else self._prose.returns
        return {**described, "return_data": returns} if returns else described

    @cached_property
    def _prose(self) -> _Prose:
        return _prose(docstring_of(self.function), self._returns_named_value)

    @cached_property
    def _model(self) -> type[BaseModel]:
        """A pydantic model of the arguments; its fields have names of their own, so that no parameter clashes."""
        hints = _type_hints(self.function, self.name)
        fields: dict[str, Any] = {}
        for field, parameter in zip(self._names, self._shown, strict=True):
            said = self._prose.parameters.get(parameter.name)
            kind = hints.get(parameter.name) or (said and _PLAIN_TYPES.get(said.type)) or Any
            fields[field] = _field(kind, parameter, said.description if said else "")
        base = _base(self._extra, hints)
        try:
            return create_model(self.name, __base__=base, **fields)
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise self._unknown_type(error) from error

    def _unknown_type(self, error: Exception) -> InvalidArgument:
        why = f"a parameter has a type that JSON cannot give: {str(error).partition(chr(10))[0]}"
        return InvalidArgument("function", f"{self.name}{inspect.signature(self.function)}", why)

    def _checked(self, read: Callable[[Any], BaseModel], value: Any) -> dict[str, Any]:
        try:
            found = read(value)
        except ValidationError as error:
            raise self._refusal("; ".join(_complaints(error))) from None
        except (ValueError, RecursionError) as error:
            raise self._refusal(_fault(error)) from None
        given, wanted = found.__dict__, found.__pydantic_fields_set__ | self._filled
        kwargs = {name: given[field] for field, name in self._names.items() if field in wanted}
        if found.__pydantic_extra__:
            if hidden := self._hidden & found.__pydantic_extra__.keys():
                raise self._refusal(f"there is no argument {', '.join(sorted(hidden))}")
            kwargs.update(found.__pydantic_extra__)
        return kwargs

    def _refusal(self, what: str) -> ToolArgumentsError:
        return ToolArgumentsError(f"the arguments of {self.name} do not fit: {what}. {self._usage()}")

    def _usage(self) -> str:
        required = self.parameters.get("required", ())
        shown = [
            f"{name} ({_type_of(schema)}{'' if name in required else ', optional'})"
            for name, schema in self.parameters["properties"].items()
        ]
        return f"It takes {', '.join(shown)}." if shown else "It takes no arguments."


_dumps = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


def wire_name(name: str) -> str:
    """A tool's name as model servers take it (`^[a-zA-Z0-9_-]{1,64}$`): `Toolkit.api` is `Toolkit__api`."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name.replace(".", "__"))[:64]


def bare(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function or callable object without decorators and `functools.partial`: with its name, types and prose."""
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = inspect.unwrap(function.func)
    return function


def docstring_of(function: Callable[..., Any]) -> str:
    """What a function's docstring says; of a callable object what its class's does, or its `__call__`'s."""
    target = bare(function)
    said = inspect.getdoc(target)
    if said is None and not inspect.isroutine(target):
        said = inspect.getdoc(type(target).__call__)
    return said or ""


_CURES = {
    inspect.Parameter.VAR_POSITIONAL: "take a list instead of *args",
    inspect.Parameter.POSITIONAL_ONLY: "drop the / from the signature, or wrap it in a function with named parameters",
}
_PLAIN_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list": list,
    "dict": dict,
    "int, optional": int,
    "float, optional": float,
    "str, optional": str,
    "bool, optional": bool,
}


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise InvalidArgument("function", function, f"the signature of {name} cannot be read: {error}") from error


def _hidden(
    parameters: Mapping[str, inspect.Parameter], name: str, include: Iterable[str] | None, exclude: Iterable[str] | None
) -> set[str]:
    """Names of the parameters that a model does not see."""
    included = set(parameters) if include is None else {*include}
    excluded = {*(exclude or ())}
    if unknown := sorted((included | excluded) - set(parameters)):
        raise InvalidArgument("include_arguments, exclude_arguments", unknown, f"{name} has no such parameter")
    hidden = (set(parameters) - included) | excluded
    for parameter in parameters.values():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        needed = named and _default_is_a_fields(parameter) and parameter.name != "session_id"
        if needed and parameter.name in hidden:
            raise InvalidArgument("exclude_arguments", parameter.name, f"{name} needs it: give the parameter a default")
    return hidden | (parameters.keys() & {"session_id"})


def _type_hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    target = bare(function)
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        raise InvalidArgument(
            "function", name, f"an annotation cannot be resolved ({error}): define the type at the top of the module"
        ) from error


def _field(kind: Any, parameter: inspect.Parameter, description: str) -> Any:
    """A field of the arguments' model: the type, and the field's default, prose and real name."""
    options: dict[str, Any] = {"alias": parameter.name}
    if isinstance(parameter.default, FieldInfo):
        kind = Annotated[kind, parameter.default]
    if description and not any(getattr(note, "description", None) for note in getattr(kind, "__metadata__", ())):
        options["description"] = description
    if _default_is_a_fields(parameter):
        return kind, Field(**options)
    if not _has_json(parameter.default):  # then the schema does not show it; the function has it anyway
        return kind, Field(default=None, json_schema_extra=_drop_default, **options)
    return kind, Field(default=parameter.default, **options)


def _default_is_a_fields(parameter: inspect.Parameter) -> bool:
    """Whether the function has no default of its own: there may be one in a pydantic `Field`."""
    return parameter.default is parameter.empty or isinstance(parameter.default, FieldInfo)


def _has_json(value: Any) -> bool:
    try:
        json.dumps(value, default=lambda item: item.value, allow_nan=False)
    except (TypeError, ValueError, AttributeError, RecursionError):
        return False
    return True


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _type_first(schema: dict[str, Any]) -> dict[str, Any]:
    """A property's schema in the order people write it."""
    return {key: schema[key] for key in ("type", "description") if key in schema} | schema


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=False, allow_inf_nan=False)


def _base(extra: inspect.Parameter | None, hints: Mapping[str, Any]) -> type[BaseModel]:
    """The base of the arguments' model; with `**kwargs`, other names are taken too."""
    if extra is None:
        return _Strict
    annotations = {"__pydantic_extra__": dict[str, hints.get(extra.name, Any)]}  # type: ignore[misc]  # a type made here
    namespace = {"__annotations__": annotations, "__module__": __name__, "model_config": ConfigDict(extra="allow")}
    return type("_Open", (_Strict,), namespace)


def _without_titles(schema: Any, names: bool = False) -> Any:
    """A JSON schema without the titles that pydantic makes up; `names` says that the keys are names of properties."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(value, key in ("properties", "$defs", "patternProperties") and not names)
        if key not in ("default", "const", "enum", "examples") or names
        else value
        for key, value in schema.items()
        if names or key != "title" or not isinstance(value, str)
    }


def _inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema with its definitions put in place, as small models and servers like it; recursive ones stay."""
    kept: dict[str, Any] = {}

    def inline(part: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(part, list):
            return [inline(item, inside) for item in part]
        if not isinstance(part, dict):
            return part
        name = str(part.get("$ref", "")).removeprefix("#/$defs/")
        if name not in definitions:
            if "oneOf" in part and isinstance(part.get("discriminator"), dict):  # it points to the definitions
                part = {key: value for key, value in part.items() if key != "discriminator"}
            return {key: inline(value, inside) for key, value in part.items()}
        if name in inside or name in kept:
            if name not in kept:
                kept[name] = None
                kept[name] = {key: inline(value, (name,)) for key, value in definitions[name].items()}
            return part
        beside = {key: inline(value, inside) for key, value in part.items() if key != "$ref"}
        return {**inline(definitions[name], (*inside, name)), **beside}

    whole: dict[str, Any] = inline(schema, ())
    return {**whole, "$defs": kept} if kept else whole


def _type_of(schema: Any) -> str:
    """The type in a word or two, for people and error messages; the schema may be somebody else's."""
    if not isinstance(schema, Mapping):
        return "any"
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, list):
        return " or ".join(dict.fromkeys(_type_of(option) for option in options))
    if isinstance(schema.get("type"), list):
        return " or ".join(map(str, schema["type"]))
    if isinstance(schema.get("enum"), list):
        return "one of " + ", ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    return str(schema.get("type", "any"))


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def _fault(error: Exception) -> str:
    if isinstance(error, RecursionError) or "Circular reference" in str(error):
        return "they are nested too deeply"
    if "Out of range float" in str(error):
        return "NaN and Infinity are no JSON: use null or a text"
    return str(error)


def _complaints(error: ValidationError) -> Iterable[str]:
    """What is wrong with each argument, without pydantic's own names for things."""
    for fault in error.errors(include_url=False, include_context=False)[:10]:
        place = ".".join(str(piece) for piece in fault["loc"])
        if fault["type"] == "missing":
            yield f"{place} is missing"
        elif fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            yield f"there is no argument {place}"
        else:
            what = fault["msg"][:1].lower() + fault["msg"][1:]
            yield f"{place}: {what}, got {_short(fault['input'])}" if place else what


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class _Said(NamedTuple):
    """What a docstring says of a parameter."""

    type: str
    description: str


class _Prose(NamedTuple):
    """What a docstring says of a function."""

    text: str
    parameters: dict[str, _Said]
    returns: list[dict[str, str]]

    def exploded(self) -> list[dict[str, str]]:
        """The items that the description of the one returned value lists, such as `* x (int): the width`."""
        lines = self.returns[0]["description"].split("\n")[1:] if len(self.returns) == 1 else []
        items = [found.groupdict() for line in lines if (found := _RETURNED_ITEM.match(line))]
        return [{key: value for key, value in item.items() if value} for item in items] or self.returns


_RETURNED_ITEM = re.compile(r"[-+* ]*`{0,2}(?P<name>\w+)`{0,2} *(?:\((?P<type>[^)]*)\))? *: *(?P<description>.*)")
_SECTION = re.compile(r"(?<=[^\n])\n(?=(?:Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):[ \t]*\n)")


def _prose(docstring: str, returns_named_value: bool) -> _Prose:
    if "\n" not in docstring:
        return _Prose(docstring.strip(), {}, [])
    import griffe  # 90 ms, and most programs need it late or never

    parsed = griffe.Docstring(_SECTION.sub("\n\n", docstring))  # griffe wants an empty line before a section
    style, _ = griffe.infer_docstring_style(parsed, method="heuristics")
    if style is None:
        return _Prose(docstring.strip(), {}, [])
    options = {"warnings": False}
    if style is griffe.Parser.google:
        options["returns_named_value"] = returns_named_value
    texts: list[str] = []
    parameters: dict[str, _Said] = {}
    returns: list[dict[str, str]] = []
    for section in parsed.parse(style, **options):
        if section.kind is griffe.DocstringSectionKind.text:
            texts.append(str(section.value))
        elif section.kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.other_parameters):
            for item in _items(section):
                parameters[item.name] = _Said(str(item.annotation or ""), _one_line(item.description))
        elif section.kind is griffe.DocstringSectionKind.returns:
            returns += [_returned(item) for item in _items(section)]
    return _Prose("\n\n".join(texts).strip(), parameters, returns)


def _items(section: Any) -> Sequence[Any]:
    return section.value  # type: ignore[no-any-return]


def _returned(item: Any) -> dict[str, str]:
    said = {"name": item.name, "description": item.description.strip(), "type": item.annotation}
    return {key: str(value) for key, value in said.items() if value}


def _one_line(text: str) -> str:
    return " ".join(text.split())
