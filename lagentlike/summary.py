"""Pictures of a tree of units: `repr`, `summary()` and Mermaid."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

from .memory import MemoryManager
from .schema import Usage

if TYPE_CHECKING:
    from .module import Module

__all__ = ["Summary", "mermaid", "tree"]


def tree(unit: Module) -> str:
    """The nested `repr` of a unit, as `nn.Module` has it."""
    lines = [f"({name}): {_indented(repr(child))}" for name, child in unit._children.items()]
    extra = unit.extra_repr()
    head = f"{type(unit).__name__}("
    if not lines:
        return f"{head}{extra})"
    body = "\n  ".join([extra, *lines] if extra else lines)
    return f"{head}\n  {body}\n)"


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


class Summary:
    """What a tree is made of and what it did so far; prints as a table.

    Attributes:
        rows: one dict a unit: `path`, `unit` (class), `model`, `tools`, `calls`, `usage`.
        sessions: one dict a session: `session_id`, `messages`, `usage`, over all units.
        usage: of all sessions together.
    """

    def __init__(self, unit: Module) -> None:
        self.rows = [_row(path, module) for path, module in unit.named_modules()]
        self.sessions = _sessions(unit)
        self.usage = sum((session["usage"] for session in self.sessions), Usage())

    def __str__(self) -> str:
        units: list[tuple[str, ...]] = [("unit", "class", "model", "tools", "calls", "tokens")]
        for row in self.rows:
            path = row["path"]
            label = "  " * path.count(".") + ("  " + path.rpartition(".")[2] if path else "(root)")
            tokens = row["usage"].total_tokens
            cells = (row["model"] or "", ", ".join(row["tools"]), str(row["calls"]), str(tokens) if tokens else "")
            units.append((label, row["unit"], *cells))
        text = _table(units)
        if self.sessions:
            rows: list[tuple[str, ...]] = [("session", "messages", "requests", "tokens in", "tokens out")]
            for session in self.sessions:
                usage = session["usage"]
                numbers = (session["messages"], usage.requests, usage.prompt_tokens, usage.completion_tokens)
                rows.append((repr(session["session_id"]), *map(str, numbers)))
            text += "\n\n" + _table(rows)
        return text

    __repr__ = __str__


def mermaid(unit: Module) -> str:
    """The tree as a Mermaid flowchart; a shared unit is drawn once."""
    ids: dict[int, str] = {}
    lines = ["flowchart TD"]
    for path, module in unit.named_modules():
        ids[id(module)] = f"n{len(ids)}"
        words = [_escaped(path or module.name), f"<i>{type(module).__name__}</i>", _escaped(_model(module))]
        lines.append(f'  {ids[id(module)]}["{"<br/>".join(filter(None, words))}"]')
    for module in unit.modules():
        lines += [f"  {ids[id(module)]} --> {ids[id(child)]}" for child in module.children()]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Text as a Mermaid label takes it."""
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def _row(path: str, unit: Module) -> dict[str, Any]:
    usage = Usage()
    for memory in _memories(unit):
        usage += memory_usage(memory, unit.name)
    tools = _tools(unit)
    return {
        "path": path,
        "unit": type(unit).__name__,
        "model": _model(unit),
        "tools": tools,
        "calls": unit.calls,
        "usage": usage,
    }


def _tools(unit: Module) -> list[str]:
    """Names of the tools of an executor; of other units, none."""
    described = getattr(unit, "description", None)
    return [tool["name"] for tool in described()] if callable(described) else []


def _sessions(unit: Module) -> list[dict[str, Any]]:
    sessions: dict[Any, dict[str, Any]] = {}
    for module in unit.modules():
        for state in module._states.values():
            if not isinstance(state, MemoryManager):
                continue
            for session_id in state.session_ids():
                entry = sessions.setdefault(session_id, {"session_id": session_id, "messages": 0, "usage": Usage()})
                memory = state.get(session_id)
                entry["messages"] += len(memory)
                entry["usage"] += memory_usage(memory, module.name)
    return list(sessions.values())


def _memories(unit: Module) -> list[Any]:
    managers = [state for state in unit._states.values() if isinstance(state, MemoryManager)]
    return [memory for manager in managers for memory in manager.memory_map.values()]


def memory_usage(memory: Any, name: str) -> Usage:
    """What the answers cost that a memory's own unit gave (a message passed on by others is not counted again)."""
    usage = Usage()
    for message in memory:
        if message.usage is not None and message.is_from(name):
            usage += message.usage
    return usage


def _model(unit: Module) -> str:
    llm = getattr(unit, "llm", None)
    return "" if llm is None else str(getattr(llm, "model", None) or type(llm).__name__)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
