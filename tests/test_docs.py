"""Every Python snippet of the documentation, run page by page."""

from __future__ import annotations

import contextlib
import io
import linecache
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path for path in [ROOT / "README.md", ROOT / "README.zh.md", *(ROOT / "docs").rglob("*.md")] if path.is_file()
)

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w+-]*)(?P<options>[^\n`]*)$")
NO_RUN = re.compile(r"^\s*<!--\s*no-run:(?P<reason>.*?)-->\s*$")
OUTPUT_LANGUAGES = ("text", "output")


@dataclass
class Snippet:
    """One fenced Python block of a page."""

    line: int  # of its first line of code, counted from 1
    code: str
    output: str | None = None  # what the page says it prints
    no_run: str | None = None  # why the page says not to run it


@dataclass
class Block:
    """One fenced block of any language."""

    opening: int  # index of the line that opens it
    closing: int
    language: str
    text: str


def snippets(page: str) -> list[Snippet]:
    """The Python blocks of a page of markdown, each with the output block that directly follows it."""
    lines = page.splitlines()
    found: list[Snippet] = []
    previous: Block | None = None
    for block in _blocks(lines):
        between = lines[previous.closing + 1 : block.opening] if previous else [""]
        follows_python = previous is not None and previous.language == "python" and not "".join(between).strip()
        if block.language in OUTPUT_LANGUAGES and follows_python:
            found[-1].output = block.text
        elif block.language == "python":
            mark = NO_RUN.match(lines[block.opening - 1]) if block.opening else None
            found.append(Snippet(block.opening + 2, block.text, no_run=mark["reason"].strip() if mark else None))
        previous = block
    return found


def _blocks(lines: list[str]) -> Iterator[Block]:
    opening: int | None = None
    indent, language = "", ""
    for number, line in enumerate(lines):
        match = FENCE.match(line)
        if opening is None and match:
            opening, indent, language = number, match["indent"], match["language"]
        elif opening is not None and line.strip() == "```":
            text = "\n".join(row.removeprefix(indent) for row in lines[opening + 1 : number])
            yield Block(opening, number, language, text)
            opening = None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_of_page_run_and_print_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("docs_" + re.sub(r"\W", "_", page.stem))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for snippet in snippets(page.read_text(encoding="utf-8")):
        where = f"{page.relative_to(ROOT)}:{snippet.line}"
        if snippet.no_run is not None:
            assert snippet.no_run, f"{where}: a no-run mark needs its reason"
            continue
        printed = _run(snippet, where, module)
        if snippet.output is not None:
            assert printed.rstrip() == snippet.output.rstrip(), f"{where} prints something else"


def _run(snippet: Snippet, where: str, module: types.ModuleType) -> str:
    """What the snippet prints when it runs as the next lines of the page's module."""
    lines = snippet.code.splitlines(keepends=True)
    linecache.cache[where] = (len(snippet.code), None, lines, where)  # tracebacks and inspect.getsource see the page
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet.code, where, "exec"), module.__dict__)
    return printed.getvalue()


def test_a_snippet_knows_its_line_its_output_and_its_mark() -> None:
    page = (
        "# T\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n"
        "<!-- no-run: needs a key -->\n```python\nx\n```\n\nwords\n\n```text\nno\n```\n"
    )
    first, second = snippets(page)
    assert (first.line, first.code, first.output, first.no_run) == (4, "print(1)", "1", None)
    assert (second.code, second.output, second.no_run) == ("x", None, "needs a key")


def test_a_snippet_inside_a_list_loses_its_indent() -> None:
    (snippet,) = snippets("- a\n\n    ```python\n    if True:\n        print(1)\n    ```\n")
    assert snippet.code == "if True:\n    print(1)"


def test_the_index_of_decisions_has_them_all() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "index.md").read_text(encoding="utf-8")
    missing = [path.name for path in sorted(folder.glob("0*.md")) if f"({path.name})" not in index]
    assert not missing, f"docs/decisions/index.md does not list {missing}"
