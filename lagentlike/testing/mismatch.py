"""What a call that is not on a tape differs in from the nearest one that is."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from .entry import Entry

__all__ = ["what_differs"]


def what_differs(call: str, request: dict[str, Any], entries: Iterable[Entry]) -> str:
    """Some lines for an error: the nearest entry, and the first thing in which it differs."""
    alike = [entry for entry in entries if entry.call == call]
    same = [entry for entry in alike if entry.request == request]
    if same:
        lines = ", ".join(str(entry.line) for entry in same)
        return f"it is there {len(same)} times (line {lines}), and was asked for once more"
    if not alike:
        return f"there is no {'model request' if call == 'model' else 'tool call'} in it"
    nearest = max(alike, key=lambda entry: _likeness(request, entry.request))  # the first of those that are as near
    return f"the nearest one (line {nearest.line}) differs in {_difference(nearest.request, request)}"


def _likeness(request: dict[str, Any], other: dict[str, Any]) -> tuple[float, ...]:
    if "name" in request:
        return request["name"] == other["name"], _ratio(request["arguments"], other["arguments"])
    common = 0
    for mine, its in zip(request["messages"], other["messages"], strict=False):
        if mine != its:
            break
        common += 1
    rest = [messages[common : common + 1] for messages in (request["messages"], other["messages"])]
    return (
        request["model"] == other["model"],
        common,
        _ratio(*rest),
        -abs(len(request["messages"]) - len(other["messages"])),
        request["params"] == other["params"],
    )


def _ratio(one: Any, other: Any) -> float:
    """How alike two values are, from 0 to 1; long ones are looked at by their beginning."""
    return difflib.SequenceMatcher(None, _text(one)[:2000], _text(other)[:2000], autojunk=False).quick_ratio()


def _difference(recorded: dict[str, Any], asked: dict[str, Any]) -> str:
    """The first thing that differs, with its lines that were recorded (-) and that are asked (+)."""
    if "name" in asked:
        if recorded["name"] != asked["name"]:
            return f"the tool: {recorded['name']!r} was recorded, {asked['name']!r} is called"
        return f"the arguments of {asked['name']!r}:\n{_diff(recorded['arguments'], asked['arguments'])}"
    if recorded["model"] != asked["model"]:
        return f"the model: {recorded['model']!r} was recorded, {asked['model']!r} is asked"
    were, are = recorded["messages"], asked["messages"]
    for place, (was, is_) in enumerate(zip(were, are, strict=False)):
        if was != is_:
            return f"messages[{place}] ({is_.get('role')}):\n{_diff(was, is_)}"
    if len(were) != len(are):
        place = min(len(were), len(are))
        more = "more" if len(are) > len(were) else "fewer"
        found = (are if more == "more" else were)[place]
        shown = _diff({}, found) if more == "more" else _diff(found, {})
        return f"messages[{place}]: there are {len(are)}, which is {more} than the {len(were)} recorded\n{shown}"
    names = sorted(recorded["params"].keys() | asked["params"].keys())
    unlike = [name for name in names if recorded["params"].get(name) != asked["params"].get(name)]
    was, is_ = ({name: each["params"].get(name) for name in unlike} for each in (recorded, asked))
    return f"the parameters {', '.join(unlike)}:\n{_diff(was, is_)}"


def _diff(was: Any, is_: Any) -> str:
    compared = list(difflib.unified_diff(_lines(was), _lines(is_), lineterm="", n=0))[2:]  # without its head
    lines = [line for line in compared if not line.startswith("@@")]
    shown = [line if len(line) <= _MOST_LETTERS else f"{line[:_MOST_LETTERS]}…" for line in lines[:_MOST_LINES]]
    left_out = len(lines) - len(shown)
    return "\n".join([*shown, f"… {left_out} more lines"] if left_out else shown)


_MOST_LINES = 24
_MOST_LETTERS = 300


def _lines(value: Any) -> list[str]:
    """A value as lines, the lines of its texts each by itself."""
    written = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    return [line.strip() for line in written.replace("\\n", "\\n\n").splitlines()]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
