"""A JSON answer that fits a pydantic model."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ValidationError

from ...errors import InvalidArgument
from .str_parser import StrParser

__all__ = ["JSONParser"]

_INSTRUCTION = "Answer with one JSON object that fits this JSON Schema, and nothing else:\n{schema}"


class JSONParser(StrParser):
    """Reads the model's text as a JSON object that fits a pydantic model.

    Args:
        template: instruction shown to the model, with places such as `{schema}` for the JSON Schema; or just the
            pydantic model class, for the usual instruction.
        **model_types: exactly one pydantic model class, under the name of its place in the template.

    `parse_response` gives the object as a plain dict (what was found), or `{"error": …, "text": …}` if the text holds
    no object that fits. JSON inside a code fence or after some words is found too.
    """

    def __init__(self, template: str | type[BaseModel] = _INSTRUCTION, **model_types: type[BaseModel]) -> None:
        if isinstance(template, type) and not model_types:
            model_types, template = {"schema": template}, _INSTRUCTION
        if len(model_types) != 1 or not isinstance(template, str):
            raise InvalidArgument(
                "model_types", sorted(model_types), "give exactly one class, such as JSONParser(Answer)"
            )
        ((self.name, self.model_type),) = model_types.items()
        if not (isinstance(self.model_type, type) and issubclass(self.model_type, BaseModel)):
            raise InvalidArgument(self.name, self.model_type, "give a class derived from pydantic.BaseModel")
        super().__init__(template)

    def format_instruction(self) -> str:
        schema = json.dumps(self.model_type.model_json_schema(), ensure_ascii=False)
        return self.template.replace("{" + self.name + "}", schema)

    def parse_response(self, data: str) -> dict[str, Any]:
        try:
            return self.model_type.model_validate_json(_outermost_object(data)).model_dump(mode="json")
        except Exception as error:  # noqa: BLE001  # whatever a validator raises on what a model wrote means the same
            return {"error": _first_line(error), "text": data}

    def __repr__(self) -> str:
        return f"JSONParser({self.model_type.__name__})"


def _outermost_object(text: str) -> str:
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError("the answer holds no JSON object")
    return text[start : end + 1]


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    return str(error) or type(error).__name__
