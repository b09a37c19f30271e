"""Files below one directory: read, write, change and search them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from ..errors import ToolError
from ..sandbox import Isolation
from .base import BaseAction, tool_api
from .file_root import Root

__all__ = ["EditFile", "ReadFile", "Root", "SearchFiles", "WriteFile", "file_tools"]

SEARCH_SECONDS = 20.0


class _FileTool(BaseAction):
    """A tool for files.

    Args:
        root: the directory it works in: a path, or a `Root`, which several tools may share.
        description: what models are told, in place of the docstring of `run`.
        name: its name.
    """

    _default_name = ""

    def __init__(
        self,
        root: Root | str | os.PathLike[str] | None = None,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(description, name or self._default_name)
        self.root = root if isinstance(root, Root) else Root(root)

    def close(self) -> None:
        """End the processes that work for it; the next call starts one again."""
        self.root.close()

    def extra_repr(self) -> str:
        return f"root={str(self.root.path)!r}"


class ReadFile(_FileTool):
    """Read a text file, its lines numbered."""

    read_only = True
    _default_name = "read_file"

    @tool_api
    def run(self, path: str, offset: int = 1, limit: int = 500) -> str:
        """Read a text file, or list a directory. Lines are numbered: `12|text`.

        Args:
            path: The file.
            offset: Number of the first line that is wanted, from 1.
            limit: Most lines, at most 2000.
        """
        return self.root.ask("read", path=path, offset=offset, limit=limit)


class WriteFile(_FileTool):
    """Write a text file, whole or not at all."""

    _default_name = "write_file"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.needs_approval = _outside(self.root)

    @tool_api
    def run(self, path: str, content: str) -> str:
        """Write a text file, in place of the one that is there. Directories that are missing are made.

        Args:
            path: The file.
            content: All of its text.
        """
        return self.root.ask("write", path=path, content=content)


class EditFile(_FileTool):
    """Change text files: by the exact replacement of a text that is there once, or by a unified diff."""

    _default_name = "patch"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.needs_approval = _outside(self.root)

    @tool_api
    def run(
        self,
        path: str | None = None,
        old_string: str | None = None,
        new_string: str | None = None,
        replace_all: bool = False,
        diff: str | None = None,
    ) -> str:
        """Change files: replace a text in one file, or apply a unified diff of one or more files.

        Give path, old_string and new_string; or diff, which changes all its files or none.

        Args:
            path: The file in which to replace.
            old_string: The text that is there, exactly, with enough around it to be there only once.
            new_string: The text that takes its place.
            replace_all: Whether to replace it wherever it is.
            diff: A unified diff, with --- and +++ lines and hunks.
        """
        if diff is not None and old_string is None and new_string is None:
            return self.root.ask("apply", diff=diff)
        if path is None or old_string is None or new_string is None or diff is not None:
            raise ToolError("give path, old_string and new_string, or only diff")
        return self.root.ask("replace", path=path, old=old_string, new=new_string, everywhere=replace_all)


class SearchFiles(_FileTool):
    """Search files: for lines that fit an expression, or for names that fit a pattern.

    ripgrep does it where it is installed, and else Python; both are stopped after 20 seconds. Files that are no text or
    larger than 10 MiB are left out. So is what is hidden or ignored by git, as ripgrep sees it; Python leaves out
    directories such as `.git` and `node_modules`.
    """

    read_only = True
    _default_name = "search_files"

    @tool_api
    def run(
        self,
        pattern: str,
        target: Literal["content", "files"] = "content",
        path: str = ".",
        file_glob: str | None = None,
        limit: int = 50,
    ) -> str:
        """Search in files (`path:line:text` for each line that fits), or for files by name, newest first.

        Args:
            pattern: A regular expression for lines; for files a glob such as *.py or src/**/*.md.
            target: What is searched.
            path: The directory or file to search.
            file_glob: Only files of such names, when lines are searched.
            limit: Most results, at most 500.
        """
        asked = {"pattern": pattern, "names": target == "files", "path": path, "glob": file_glob, "limit": limit}
        return self.root.ask("search", SEARCH_SECONDS, **asked)


def file_tools(
    root: str | os.PathLike[str] | None = None, confined: bool = True, isolation: Isolation | str | None = None
) -> list[BaseAction]:
    """`ReadFile`, `WriteFile`, `EditFile` and `SearchFiles` for one directory.

    Args:
        root: the directory; this process's working directory by default.
        confined: False lets paths lead out of it, where there is no sandbox.
        isolation: how the work is held back from this machine: `"bwrap"`, an `Isolation`, or `"unsafe_local"`.
    """
    shared = Root(root, confined, isolation)
    return [ReadFile(shared), WriteFile(shared), EditFile(shared), SearchFiles(shared)]


def _outside(root: Root) -> Any:
    """Whether a call writes outside the directory, where that is allowed."""
    return lambda arguments: (
        f"it writes to {arguments['path']}, which is outside {root.path}"
        if not root.confined and isinstance(arguments.get("path"), str) and root.leaves(arguments["path"])
        else False
    )
