"""The shape of the package: where imports may point, and habits that no module may have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lagentlike"

# From the top down. A unit (first name below `lagentlike`) may import only units of rows further down.
LAYERS = (
    {"cli"},
    {"serving", "envs", "training"},
    {"rollouts"},
    {"agents", "testing"},
    {"records"},
    {"tools"},
    {"actions", "llms"},
    {"sandbox"},
    {"module", "aggregators"},
    {"mapping", "summary", "turn"},
    {"hooks", "memory", "prompts", "tracing"},
    {"budget", "child_process", "cluster", "colour", "concurrency", "names", "registry", "tapes", "trajectory"},
    {"ledger"},
    {"schema"},
    {"errors", "token_span", "_lazy"},
)
DEPTH = {unit: depth for depth, layer in enumerate(LAYERS) for unit in layer}

FORBIDDEN_CALLS = {"eval"}
FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"), filename=str(MODULES[module]))


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` but those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from _runtime_nodes(other)
            continue
        yield child
        yield from _runtime_nodes(child)


@cache
def _imports(module: str) -> tuple[tuple[str, int], ...]:
    """(imported module, line) for every import that runs; `from package import module` imports that module."""
    found = []
    for node in _runtime_nodes(_tree(module)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = _source(module, node)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.append((inner if inner in MODULES else source, node.lineno))
    return tuple(found)


def _source(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def _unit(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def _where(module: str, line: int) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{line}"


def test_every_unit_has_its_place_in_the_layers() -> None:
    units = {_unit(module) for module in MODULES} - {"", "__main__"}
    assert units <= set(DEPTH), f"say in LAYERS where these belong: {sorted(units - set(DEPTH))}"


def test_imports_point_down() -> None:
    wrong = []
    for module in MODULES:
        unit = _unit(module)
        if unit not in DEPTH:
            continue  # the package's own face stands above all layers
        for target, line in _imports(module):
            if target == "lagentlike":
                wrong.append(f"{_where(module, line)} imports the package's face")
            elif target.startswith("lagentlike.") and not _may_import(unit, _unit(target)):
                wrong.append(f"{_where(module, line)} {unit} imports {target}")
    assert not wrong, "imports that do not point down:\n" + "\n".join(wrong)


def _may_import(unit: str, target: str) -> bool:
    return unit == target or DEPTH.get(target, -1) > DEPTH[unit]


def test_no_import_cycles() -> None:
    graph = {module: {target for target, _ in _imports(module) if target in MODULES} for module in MODULES}
    cycle = _find_cycle(graph)
    assert cycle is None, "import cycle: " + " -> ".join(cycle or ())


def _find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for target in sorted(graph[module]):
            cycle = visit(target, [*path, module])
            if cycle is not None:
                return cycle
        done.add(module)
        return None

    return next((cycle for module in graph if (cycle := visit(module, [])) is not None), None)


@pytest.mark.parametrize("module", MODULES)
def test_module_opens_with_one_sentence(module: str) -> None:
    docstring = ast.get_docstring(_tree(module))
    assert docstring, f"{module} has no docstring saying what it is for"
    opening = " ".join(docstring.split("\n\n")[0].split())
    assert opening.endswith("."), f"the docstring of {module} opens with {opening!r}: end the sentence with a full stop"
    assert not re.search(r"[.!?]\s+[A-Z]", opening), (
        f"the docstring of {module} opens with more than one sentence: {opening!r}"
    )


@pytest.mark.parametrize("module", [name for name in MODULES if not name.rpartition(".")[2].startswith("_")])
def test_module_says_what_is_public(module: str) -> None:
    tree = _tree(module)
    defined = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    exported = any(
        isinstance(target, ast.Name) and target.id == "__all__"
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    )
    assert exported or not defined, f"{module} defines {defined} but no __all__"


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_clear_of_bad_habits(module: str) -> None:
    found = [f"{_where(module, line)}: {what}" for what, line in _habits(module)]
    assert not found, "\n" + "\n".join(found)


def _habits(module: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield "bare except", node.lineno
            if all(isinstance(statement, ast.Pass) or _is_ellipsis(statement) for statement in node.body):
                yield "an exception swallowed with pass", node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "print" and _unit(module) != "cli":
                yield "print outside the command line", node.lineno
            if node.func.id in FORBIDDEN_CALLS:
                yield f"{node.func.id}()", node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((f"import of {name}", node.lineno) for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS)


def _is_ellipsis(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and statement.value.value is ...
    )
