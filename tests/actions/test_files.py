"""Files below one directory: nothing leads out of it, nothing is half written, searches end."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, files, Terminal
from lagentlike.actions.file_worker import FileWorker, MAX_FILE
from lagentlike.actions.files import file_tools, Root
from lagentlike.errors import InvalidArgument, ToolError
from lagentlike.sandbox import Bwrap, Limits
from lagentlike.schema import AgentMessage, ToolCall, ToolResult


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("hush")
    return folder


@pytest.fixture
def tools(root: Path) -> ActionExecutor:
    return ActionExecutor(file_tools(root))


def call(executor: ActionExecutor, name: str, **arguments: Any) -> ToolResult:
    results = executor(AgentMessage(content="", tool_calls=[ToolCall(name, arguments)])).tool_results
    assert results is not None
    return results[0]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_reads_numbered_lines_from_a_range(tools: ActionExecutor, root: Path) -> None:
    (root / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 11)))
    assert call(tools, "read_file", path="a.txt", offset=3, limit=2).text == (
        "3|line 3\n4|line 4\n(6 more lines: go on with offset=5)"
    )
    assert call(tools, "read_file", path="a.txt", offset=99).text == "(a.txt has 10 lines)"
    assert call(tools, "read_file", path=".").text == "a.txt"


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"a\0b", "NUL bytes"), (b"\xff\xfe", "no UTF-8 text"), (None, "there is no file")],
)
def test_refuses_what_is_no_text(tools: ActionExecutor, root: Path, content: bytes | None, text: str) -> None:
    if content is not None:
        (root / "odd").write_bytes(content)
    assert text in call(tools, "read_file", path="odd").text
    assert text in call(tools, "patch", path="odd", old_string="a", new_string="b").text


def test_refuses_what_is_too_large_and_what_is_no_file(tools: ActionExecutor, root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    os.mkfifo(root / "pipe")
    assert "more than 10,485,760" in call(tools, "read_file", path="large").text
    assert "is no file" in call(tools, "read_file", path="pipe").text
    assert "is no file" in call(tools, "write_file", path="pipe", content="").text


@pytest.mark.parametrize(
    "path", ["../secret.txt", "/etc/passwd", "link.txt", "dir/secret.txt", "a/../../secret.txt", "~"]
)
def test_no_path_and_no_link_leads_out(tools: ActionExecutor, root: Path, path: str) -> None:
    (root / "link.txt").symlink_to("../secret.txt")
    (root / "dir").symlink_to("..", target_is_directory=True)
    before = (root.parent / "secret.txt").read_text()
    calls: list[dict[str, Any]] = [
        {"name": "read_file", "path": path},
        {"name": "write_file", "path": path, "content": "x"},
        {"name": "patch", "path": path, "old_string": "h", "new_string": "x"},
        {"name": "patch", "diff": f"--- {path}\n+++ {path}\n@@ -1 +1 @@\n-hush\n+x\n"},
        {"name": "search_files", "pattern": ".", "path": path},
    ]
    for arguments in calls:
        result = call(tools, **arguments)
        assert not result.success
        assert "leads out of" in result.text
    assert (root.parent / "secret.txt").read_text() == before
    assert "hush" not in call(tools, "search_files", pattern="hush").text


def test_unconfined_tools_go_anywhere_and_ask_before_they_write_there(root: Path) -> None:
    with pytest.raises(InvalidArgument, match="unsafe_local"):
        file_tools(root, confined=False)
    tools = ActionExecutor(file_tools(root, confined=False, isolation="unsafe_local"))
    assert call(tools, "read_file", path="../secret.txt").text == "1|hush"
    write = tools.find("write_file")
    assert write is not None
    assert write.approval({"path": "a.txt", "content": ""}) is None
    assert "outside" in str(write.approval({"path": "../a.txt", "content": ""}))


def test_writes_whole_files_and_keeps_their_permissions(tools: ActionExecutor, root: Path) -> None:
    assert call(tools, "write_file", path="in/a.sh", content="echo 1\n").text.startswith("wrote in/a.sh")
    (root / "in/a.sh").chmod(0o755)
    assert call(tools, "write_file", path="in/a.sh", content="echo 2\n").text.startswith("wrote over in/a.sh")
    assert (root / "in/a.sh").read_text() == "echo 2\n"
    assert (root / "in/a.sh").stat().st_mode & 0o777 == 0o755
    assert names_in(root / "in") == ["a.sh"]


def test_a_write_that_fails_leaves_the_old_file(tools: ActionExecutor, root: Path) -> None:
    (root / "a").write_text("old")
    assert "more than" in call(tools, "write_file", path="a", content="x" * (MAX_FILE + 1)).text
    assert "cannot be written" in call(tools, "write_file", path="a/b", content="x").text
    assert (root / "a").read_text() == "old"


def test_names_may_be_as_long_as_the_file_system_has_them(tools: ActionExecutor, root: Path) -> None:
    name = "文" * 85  # of three bytes each
    assert call(tools, "write_file", path=name, content="a\n").text == f"wrote {name}: 1 line"
    assert names_in(root) == [name]
    assert "File name too long" in call(tools, "write_file", path=name + "x", content="").text


@pytest.mark.parametrize(
    ("content", "lines"), [("", "0 lines"), ("a", "1 line"), ("a\n", "1 line"), ("a\nb", "2 lines")]
)
def test_a_write_tells_how_many_lines_there_are(tools: ActionExecutor, content: str, lines: str) -> None:
    assert call(tools, "write_file", path="a", content=content).text == f"wrote a: {lines}"


def test_replaces_a_text_that_is_there_once(tools: ActionExecutor, root: Path) -> None:
    (root / "a.py").write_text("x = 1\ny = 1\n  z = 1\n")
    assert "2 times, at lines" not in call(tools, "patch", path="a.py", old_string="x = 1", new_string="x = 2").text
    many = call(tools, "patch", path="a.py", old_string="= 1", new_string="= 3")
    assert "2 times, at lines 2, 3" in many.text
    missing = call(tools, "patch", path="a.py", old_string="    z = 1", new_string="")
    assert "its first line is at 3" in missing.text
    assert (root / "a.py").read_text() == "x = 2\ny = 1\n  z = 1\n"
    call(tools, "patch", path="a.py", old_string="= 1", new_string="= 3", replace_all=True)
    assert (root / "a.py").read_text() == "x = 2\ny = 3\n  z = 3\n"


def test_replaces_over_windows_line_ends(tools: ActionExecutor, root: Path) -> None:
    (root / "a.txt").write_bytes(b"a\r\nb\r\nc\r\n")
    call(tools, "patch", path="a.txt", old_string="a\nb", new_string="x\ny\nz")
    assert (root / "a.txt").read_bytes() == b"x\r\ny\r\nz\r\nc\r\n"


def test_a_diff_changes_makes_renames_and_deletes_files_all_or_none(tools: ActionExecutor, root: Path) -> None:
    (root / "old.txt").write_text("one\ntwo\n")
    (root / "gone.txt").write_text("bye\n")
    diff = (
        "--- a/old.txt\n+++ b/new.txt\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"
        "--- /dev/null\n+++ b/made.txt\n@@ -0,0 +1 @@\n+hi\n"
        "--- a/gone.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-bye\n"
    )
    broken = call(tools, "patch", diff=diff.replace("-bye", "-by"))
    assert "gone.txt: hunk 1 does not fit" in broken.text
    assert names_in(root) == ["gone.txt", "old.txt"]
    assert call(tools, "patch", diff=diff).success
    assert {name: (root / name).read_text() for name in names_in(root)} == {"new.txt": "one\n2\n", "made.txt": "hi\n"}
    assert "is there already" in call(tools, "patch", diff="--- /dev/null\n+++ made.txt\n@@ -0,0 +1 @@\n+x\n").text


@pytest.mark.parametrize("last", ["-two\n+2\n", "-two\n"])
def test_a_diff_of_which_a_file_cannot_be_written_changes_none(tools: ActionExecutor, root: Path, last: str) -> None:
    (root / "a").write_text("one\n")
    (root / "in").mkdir()
    (root / "in/b").write_text("two\n")
    (root / "in").chmod(0o555)
    target, range_ = ("in/b", "+1") if "+2" in last else ("/dev/null", "+0,0")
    diff = f"--- a\n+++ a\n@@ -1 +1 @@\n-one\n+1\n--- in/b\n+++ {target}\n@@ -1 {range_} @@\n{last}"
    assert "'in/b' cannot be written" in call(tools, "patch", diff=diff).text
    assert ((root / "a").read_text(), (root / "in/b").read_text()) == ("one\n", "two\n")
    assert names_in(root) == ["a", "in"]
    (root / "in").chmod(0o755)
    assert call(tools, "patch", diff=diff).success
    assert (root / "a").read_text() == "1\n"


def test_a_patch_without_its_arguments_says_what_it_takes(tools: ActionExecutor) -> None:
    assert "or only diff" in call(tools, "patch", path="a").text


@pytest.fixture(params=["python", "ripgrep"])
def searched(request: pytest.FixtureRequest, root: Path) -> ActionExecutor:
    """The search tool with each of the programs that search."""
    if request.param == "ripgrep" and shutil.which("rg") is None:
        pytest.skip("ripgrep is not installed")
    (root / "src/deep").mkdir(parents=True)
    (root / "src/a.py").write_text("import os\nx = 1\n")
    (root / "src/deep/b.py").write_text("import sys\n")
    (root / "c.md").write_text("import this\n")
    (root / "d.bin").write_bytes(b"import\0x")
    (root / ".git").mkdir()
    (root / ".git/e.py").write_text("import git\n")
    return ActionExecutor(
        file_tools(root, isolation=Bwrap() if request.param == "ripgrep" else ElsewhereBwrap("/none"))
    )


class ElsewhereBwrap(Bwrap):
    """A sandbox in which programs are looked for in one directory alone."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def environment(self, workspace: Path | None = None) -> dict[str, str]:
        return {**super().environment(workspace), "PATH": self._path}


def test_searches_lines_in_all_files_some_or_one(searched: ActionExecutor) -> None:
    lines = call(searched, "search_files", pattern="^import").text.splitlines()
    assert sorted(lines) == ["c.md:1:import this", "src/a.py:1:import os", "src/deep/b.py:1:import sys"]
    lines = call(searched, "search_files", pattern="^import", file_glob="*.py").text.splitlines()
    assert sorted(lines) == ["src/a.py:1:import os", "src/deep/b.py:1:import sys"]
    assert call(searched, "search_files", pattern="= 1", path="src/a.py").text == "a.py:2:x = 1"
    assert call(searched, "search_files", pattern="nowhere").text == "nothing was found"
    few = call(searched, "search_files", pattern="import", limit=2).text
    assert few.endswith("(there is more: the first 2 are shown)")


def test_searches_names(searched: ActionExecutor) -> None:
    def names(pattern: str) -> list[str]:
        return sorted(call(searched, "search_files", pattern=pattern, target="files").text.splitlines())

    assert names("*.py") == ["src/a.py", "src/deep/b.py"]
    assert names("src/*.py") == ["src/a.py"]
    assert names("src/**/*.py") == ["src/a.py", "src/deep/b.py"]
    assert names("**/[bc].*") == ["c.md", "src/deep/b.py"]
    assert names("*.{py,md}") == ["c.md", "src/a.py", "src/deep/b.py"]
    assert names("{src,lib}/**/{b,c}.*") == ["src/deep/b.py"]
    assert names("./c.md") == ["c.md"]


def test_what_is_found_in_a_directory_can_be_read(searched: ActionExecutor) -> None:
    assert call(searched, "search_files", pattern="sys", path="src").text == "src/deep/b.py:1:import sys"
    assert call(searched, "search_files", pattern="b.*", target="files", path="src/deep").text == "src/deep/b.py"
    assert call(searched, "search_files", pattern="sys", file_glob="*.{py,md}").text == "src/deep/b.py:1:import sys"


def test_a_wrong_expression_is_an_error(searched: ActionExecutor) -> None:
    result = call(searched, "search_files", pattern="(unclosed")
    assert not result.success
    assert "unclosed group" in result.text or "unterminated subpattern" in result.text


def test_an_expression_that_never_ends_is_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = ActionExecutor(file_tools(root, isolation=ElsewhereBwrap("/none")))
    monkeypatch.setattr(files, "SEARCH_SECONDS", 1)
    (root / "a").write_text("a" * 60)
    assert "took longer than 1 seconds" in call(tools, "search_files", pattern="(a+)+$(?!.)b|(a|aa)+c").text


def test_a_root_that_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(InvalidArgument, match="a directory that exists"):
        file_tools(root / "nowhere")


def test_says_which_tools_only_read(tools: ActionExecutor) -> None:
    apis = {name: tools.find(name) for name in tools}
    assert {name: api is not None and api.read_only for name, api in apis.items()} == {
        "read_file": True,
        "write_file": False,
        "patch": False,
        "search_files": True,
    }


def test_a_search_that_finds_far_too_much_ends_at_the_limit(searched: ActionExecutor, root: Path) -> None:
    (root / "many").write_text("x\n" * 2_000_000)
    found = call(searched, "search_files", pattern="x", limit=500, path="many").text
    assert len(found.splitlines()) == 501


@pytest.mark.parametrize("action", ["read", "write", "search"])
def test_a_link_that_is_put_in_the_way_is_not_followed(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in the same directory may put one there between the look and the opening."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in (outside, root / "in"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("private" if folder == outside else "ours")
    worker = FileWorker(root)  # with no sandbox around it
    find = worker.find

    def find_and_swap(path: str) -> Path:
        found = find(path)
        (root / "in").rename(root / "away")
        (root / "in").symlink_to(outside)
        return found

    monkeypatch.setattr(worker, "find", find_and_swap)
    arguments = {
        "read": {"offset": 1, "limit": 9},
        "write": {"content": "theirs"},
        "search": {"pattern": ".", "names": False, "glob": None, "limit": 9},
    }
    answer = worker.answer(action, path="in/file", **arguments[action])
    assert set(answer) == {"error"}
    assert "private" not in answer["error"]
    assert (outside / "file").read_text() == "private"


@pytest.fixture
def swapping(root: Path) -> Iterator[Terminal]:
    """A terminal of the same directory, in which a program swaps `in` for a link that leads out, again and again."""
    terminal = Terminal(root)
    (root / "in").mkdir()
    (root / "in/secret.txt").write_text("ours")
    swap = "while :; do mv in kept; ln -s .. in; rm in; ln -s kept in; rm in; mv kept in; done"
    assert call(ActionExecutor([terminal]), "terminal", command=swap, background=True).text == "started as p1"
    yield terminal
    terminal.close()


def test_no_race_of_a_program_in_the_terminal_leads_out(swapping: Terminal, tools: ActionExecutor, root: Path) -> None:
    said: dict[str, list[str]] = {}
    for _ in range(150):
        for name, arguments in (
            ("read_file", {"path": "in/secret.txt"}),
            ("write_file", {"path": "in/secret.txt", "content": "theirs"}),
            ("write_file", {"path": "in/made/new.txt", "content": "theirs"}),
            ("search_files", {"path": "in", "pattern": "h"}),
        ):
            said.setdefault(name, []).append(call(tools, name, **arguments).text)
    assert (root.parent / "secret.txt").read_text() == "hush"
    assert sorted(path.name for path in root.parent.iterdir()) == ["secret.txt", "work"]
    assert not any("hush" in text for texts in said.values() for text in texts)
    assert len(set(said["read_file"])) > 1, "nothing was swapped while files were read"


def test_work_is_done_in_the_sandbox(root: Path) -> None:
    (root / "rg").write_text("#!/bin/sh\necho $(/usr/bin/hostname); test -e ../secret.txt || echo nothing outside\n")
    (root / "rg").chmod(0o755)
    tools = ActionExecutor(file_tools(root, isolation=ElsewhereBwrap(str(root))))
    assert call(tools, "search_files", pattern="x").text == "sandbox\nnothing outside"


def test_a_process_that_ended_is_started_again(root: Path) -> None:
    shared = Root(root)
    (root / "a").write_text("text")
    assert shared.ask("read", path="a", offset=1, limit=1) == "1|text"
    (process,) = shared._idle
    process._process.kill()
    process._process.wait(10)
    assert shared.ask("read", path="a", offset=1, limit=1) == "1|text"
    again = pickle.loads(pickle.dumps(shared))  # as Ray sends agents: without processes
    assert again.ask("read", path="a", offset=1, limit=1) == "1|text"
    for one in (shared, again):
        one.close()


def test_a_long_search_delays_nobody(root: Path) -> None:
    shared = Root(root, isolation=ElsewhereBwrap("/none"))
    (root / "a").write_text("a" * 60)
    endless = {"pattern": "(a+)+$(?!.)b|(a|aa)+c", "names": False, "path": ".", "glob": None, "limit": 9}
    failures: list[str] = []

    def search() -> None:
        try:
            shared.ask("search", 2, **endless)
        except ToolError as error:
            failures.append(str(error))

    searching = threading.Thread(target=search)
    searching.start()
    time.sleep(0.5)
    assert shared.ask("read", path="a", offset=1, limit=1).startswith("1|aaa")
    assert searching.is_alive()
    searching.join()
    assert failures == ["it took longer than 2 seconds: ask for less, or more simply"]
    shared.close()


def test_a_read_ends_before_it_is_too_much_for_a_model(tools: ActionExecutor, root: Path) -> None:
    (root / "wide").write_text(("x" * 1000 + "\n") * 100)
    text = call(tools, "read_file", path="wide").text
    assert text.endswith("(71 more lines: go on with offset=30)")
    assert len(text) < 31_000


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    isolation = Bwrap(Limits(disk=8 << 20))
    root = isolation.scratch_folder(tmp_path / "full")
    tools = ActionExecutor(file_tools(root, isolation=isolation))
    content = "x" * (1 << 20)
    errors: list[ToolResult] = []
    until = time.monotonic() + 60
    while not errors and time.monotonic() < until:
        written = call(tools, "write_file", path=f"{len(names_in(root))}", content=content)
        errors += [] if written.success else [written]
    assert "File too large (the disk was full, since no more than 8 MiB may be written to it" in errors[0].text
    assert call(tools, "read_file", path="0").success
