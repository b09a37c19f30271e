"""The routes of a server as an OpenAPI document, and as a page for people."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pydantic import BaseModel

__all__ = ["Operation", "document", "page"]


@dataclass(frozen=True)
class Operation:
    """One route as clients see it.

    Attributes:
        method, path: what is asked; places in the path are written `{name}`.
        summary: what it does, in a sentence.
        body: what is sent: a pydantic model, or a JSON schema.
        answer: what comes back, in words.
        content: the media type of that.
        query: the parameters after the `?`, with what each does.
    """

    method: str
    path: str
    summary: str
    body: type[BaseModel] | dict[str, Any] | None = None
    answer: str = "Done."
    content: str = "application/json"
    query: tuple[tuple[str, str], ...] = ()


def document(title: str, description: str, operations: Sequence[Operation], secured: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes (https://spec.openapis.org/oas/v3.1.0)."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": importlib.metadata.version("lagentlike"), "description": description},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if secured:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
    return made


def page(api: dict[str, Any]) -> str:
    """A page that shows an OpenAPI document; it holds no script and loads nothing."""
    info = api["info"]
    rows = "".join(
        f"<section><h2><code>{method.upper()}</code> <code>{escape(path)}</code></h2><p>{escape(told['summary'])}</p>"
        f"{_body_of(told, api)}<p>Answer: {escape(told['responses']['200']['description'])}</p></section>"
        for path, methods in api["paths"].items()
        for method, told in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(info['title'])}</h1><pre>{escape(info['description'])}</pre>"
        f'<p>The same for programs: <a href="openapi.json">openapi.json</a></p>{rows}</body></html>'
    )


def _described(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.path}").strip("_")
    told: dict[str, Any] = {
        "operationId": name,
        "summary": operation.summary,
        "parameters": [
            {"name": place, "in": "path", "required": True, "schema": {"type": "string"}}
            for place in re.findall(r"{(\w+)}", operation.path)
        ]
        + [
            {"name": place, "in": "query", "description": does, "schema": {"type": "boolean"}}
            for place, does in operation.query
        ],
        "responses": {
            "200": {"description": operation.answer, "content": {operation.content: {}}},
            "default": {
                "description": "What went wrong.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if operation.body is not None:
        schema = operation.body
        if not isinstance(schema, dict):
            whole = schema.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(whole.pop("$defs", {}))
            schemas[whole["title"]] = whole
            schema = {"$ref": f"#/components/schemas/{whole['title']}"}
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return told


def _body_of(told: dict[str, Any], api: dict[str, Any]) -> str:
    schema = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if schema is None:
        return ""
    if "$ref" in schema:
        schema = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fields = schema.get("properties", {})
    needed = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{'' if name in needed else ' (optional)'}</td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in fields.items()
    )
    return f"<table>{rows}</table>"


_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
    "section{border-top:1px solid #ccc;padding:.5rem 0}h2{font-size:1.1rem;margin:.5rem 0}"
    "pre{white-space:pre-wrap;background:#f4f4f4;padding:1rem}td{padding:.1rem 1rem .1rem 0;vertical-align:top}"
)
