"""The tools of a slot: odd files, trees that change, commands that are too long, and nothing left open."""

from __future__ import annotations

import base64
import io
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lagentlike.sandbox import slot_worker as module
from lagentlike.sandbox.slot_worker import Worker

PATIENCE = 30.0
MIB = 1 << 20


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    (tmp_path / "workspace").mkdir()
    worker = Worker(tmp_path / "workspace", tmp_path / "state", 32_768)
    yield worker
    worker.close()


def ask(worker: Worker, tool: str, **arguments: Any) -> dict[str, Any]:
    return worker.run(tool, arguments, PATIENCE)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def archive(worker: Worker, path: str = ".") -> tarfile.TarFile:
    reply = ask(worker, "artifacts/archive", path=path, max_bytes=16 * MIB)
    assert reply["success"], reply
    return tarfile.open(fileobj=io.BytesIO(base64.b64decode(reply["content"])))


@pytest.mark.parametrize(("command", "error"), [("echo a\0b", "no NUL"), ("echo " + "é" * 70_000, "write_file")])
def test_a_command_that_bash_cannot_be_given_is_refused_and_leaves_nothing_open(
    worker: Worker, command: str, error: str
) -> None:
    before = _open_files()
    for _ in range(3):
        reply = ask(worker, "bash", command=command)
        assert not reply["success"]
        assert error in reply["error"]
    assert _open_files() == before
    assert ask(worker, "terminal_stateful", command=command)["success"], "it reads a file"


def test_what_is_no_file_is_refused_and_leaves_nothing_open(worker: Worker) -> None:
    os.mkfifo(worker.workspace / "pipe")
    before = _open_files()
    for path in (".", "pipe"):
        for tool, more in (("read_file", {}), ("artifacts/read", {"max_bytes": 9})):
            assert ask(worker, tool, path=path, **more) == {"success": False, "error": f"{path} is no file"}
    assert _open_files() == before


def test_lines_are_what_other_programs_take_for_lines(worker: Worker) -> None:
    (worker.workspace / "f").write_bytes(b"one\ftwo\x0b\r\nthree\xe2\x80\xa8still\nlast")
    reply = ask(worker, "read_file", path="f", offset=2)
    assert reply == {"success": True, "output": "three\u2028still\nlast", "metadata": {"lines": 3}}
    (worker.workspace / "empty").touch()
    assert ask(worker, "read_file", path="empty") == {"success": True, "output": "", "metadata": {"lines": 0}}
    assert "offset=2 is behind its end" in ask(worker, "read_file", path="empty", offset=2)["error"]


def test_names_that_are_no_text_are_told_as_well_as_that_goes(worker: Worker) -> None:
    name = os.fsdecode(b"bad\xff")
    (worker.workspace / name).write_text("x")
    (worker.workspace / "new\nline").write_text("y")
    reply = ask(worker, "artifacts/list", path=".", recursive=True)
    assert [entry[0] for entry in reply["entries"]] == ["bad\ufffd", "new\nline"]
    assert archive(worker).getnames() == [name, "new\nline"]


def test_an_archive_has_files_directories_and_links_and_nothing_else(worker: Worker) -> None:
    workspace = worker.workspace
    (workspace / "d").mkdir()
    (workspace / "d" / "file").write_text("x")
    os.link(workspace / "d" / "file", workspace / "twin")
    os.mkfifo(workspace / "pipe")
    (workspace / "away").symlink_to("/etc/passwd")
    with archive(worker) as found:
        kinds = {member.name: member.type for member in found}
        twin = found.extractfile("twin")
        assert twin is not None
        assert twin.read() == b"x"
    assert set(kinds) == {"away", "d", "d/file", "twin"}
    assert kinds["away"] == tarfile.SYMTYPE


def test_an_archive_that_would_unpack_to_much_more_than_it_has_is_refused(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED", MIB)
    for name in "ab":
        with (worker.workspace / name).open("wb") as sparse:
            sparse.truncate(MIB)
    assert archive(worker, "a").getmember("a").size == MIB
    with (worker.workspace / "huge").open("wb") as sparse:
        sparse.truncate(1 << 40)
    for path in (".", "huge"):
        reply = ask(worker, "artifacts/archive", path=path, max_bytes=16 * MIB)
        assert "the files are larger than" in reply["error"]


def test_a_tree_that_changes_is_listed_and_put_into_archives(worker: Worker) -> None:
    ended = threading.Event()
    folder, growing = worker.workspace / "w", worker.workspace / "growing"

    def change() -> None:
        while not ended.is_set():
            folder.mkdir(exist_ok=True)
            for number in range(20):
                (folder / str(number)).write_text("x")
            growing.write_bytes(b"x" * MIB)
            growing.write_bytes(b"")
            with suppress(OSError):
                shutil.rmtree(folder)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(40):
            assert ask(worker, "artifacts/list", path=".", recursive=True)["success"]
            with archive(worker) as found:
                for member in found:
                    assert member.isdir() or found.extractfile(member)
    finally:
        ended.set()
        changing.join()


def test_an_answer_that_is_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 100)
    answers = io.BytesIO()
    module._answer(answers, {"success": True, "output": "x" * 101})
    assert b"the answer is larger than 100 bytes: ask for less" in answers.getvalue()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")
def test_the_shell_comes_back_when_a_command_removed_what_it_needs(worker: Worker) -> None:
    assert ask(worker, "terminal_stateful", command="A=1")["success"]
    shutil.rmtree(worker.state)
    reply = ask(worker, "terminal_stateful", command="echo [$A]")
    assert (reply["output"], reply["metadata"]) == ("[]\n", {"new_shell": True})


@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")
def test_a_shell_in_which_echo_is_something_else_goes_on(worker: Worker) -> None:
    for command in ("A=1; echo() { :; }", "alias echo=false"):
        assert ask(worker, "terminal_stateful", command=command)["exit_code"] == 0
    assert ask(worker, "terminal_stateful", command="printf $A")["output"] == "1"
