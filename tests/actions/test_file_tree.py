"""Files that are written together: as many as a diff has."""

from __future__ import annotations

import resource
from pathlib import Path

from lagentlike.actions.file_tree import FileTree


def test_more_files_are_put_than_may_be_open(tmp_path: Path) -> None:
    tree = FileTree(tmp_path)
    folder = tmp_path / "deep" / "folder"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name.name) for name in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 50, before[1]))
    try:
        tree.put({folder / str(number): b"x" for number in range(100)})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(list(folder.iterdir())) == 100
