"""Temporary directories: removed with their process, or by the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lagentlike.sandbox import folders
from lagentlike.sandbox.folders import OwnedFolder, remove_tree


@pytest.fixture(autouse=True)
def unswept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has made none yet."""
    monkeypatch.setattr(folders, "_swept", set())


KILLED = """
import os, sys
from lagentlike.sandbox.folders import OwnedFolder
folder = OwnedFolder("test", sys.argv[1])
(folder.path / "file").write_text("left behind")
print(folder.path, flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        first = OwnedFolder("test", tmp_path)
        assert (left / "file").exists(), "its owner lives"
    folders._swept.clear()
    second = OwnedFolder("test", tmp_path)
    assert not left.exists()
    assert first.path.exists(), "this process has it"
    first.remove()
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    (tmp_path / "lagentlike-other-x").mkdir()
    (tmp_path / "lagentlike-test-file").write_text("no directory")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lagentlike-test-link").symlink_to(tmp_path / "elsewhere")
    before = set(tmp_path.iterdir())
    OwnedFolder("test", tmp_path).remove()
    assert set(tmp_path.iterdir()) == before


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_leaves_it_alone(tmp_path: Path) -> None:
    folder = OwnedFolder("test", tmp_path)
    child = os.fork()
    if child == 0:
        folder.remove()
        os._exit(0)
    os.waitpid(child, 0)
    assert folder.path.is_dir()
    folder.remove()
    folder.remove()


def test_its_mode_is_as_wished(tmp_path: Path) -> None:
    folder = OwnedFolder("test", tmp_path, 0o711)
    assert folder.path.stat().st_mode & 0o777 == 0o711
    folder.remove()


def test_whatever_code_made_is_removed(tmp_path: Path) -> None:
    """Deeper than Python can follow, and closed."""
    folder = tmp_path / "made"
    folder.mkdir()
    script = "import os\nfor _ in range(1200): os.mkdir('x' * 10); os.chdir('x' * 10)"
    subprocess.run([sys.executable, "-S", "-c", script], cwd=folder, check=True)
    (folder / "closed").mkdir()
    (folder / "closed" / "file").touch()
    (folder / "closed").chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    remove_tree(folder)
