"""XML of strangers: without document types, so that no entity grows and none reads a file."""

from __future__ import annotations

from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate

__all__ = ["parse_xml"]

MAX_DEPTH = 200


def parse_xml(document: bytes | str) -> Element:
    """The root of a document, its names as ElementTree writes them: `{namespace}name`.

    Raises:
        ValueError: it is no XML, declares a document type, or is nested too deeply.

    >>> parse_xml('<feed xmlns="http://www.w3.org/2005/Atom"><title>A</title></feed>')[0].tag
    '{http://www.w3.org/2005/Atom}title'
    """
    builder = TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        builder.start(_tag(name), {_tag(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_tag(name))

    def refuse(*_: object) -> NoReturn:
        raise ValueError("it declares a document type, which is not read")

    parser = ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(document, True)
    except (ExpatError, LookupError) as error:
        raise ValueError(str(error)) from None
    return builder.close()


def _tag(name: str) -> str:
    return "{" + name if "}" in name else name
