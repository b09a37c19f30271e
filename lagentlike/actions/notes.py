"""Notes that a model keeps: for a session, or for all of them in a file."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidArgument, ToolError
from ..memory import SessionId
from ..memory.state import SessionValue
from .base import BaseAction, tool_api

__all__ = ["Notes"]


class Notes(BaseAction):
    """Notes that a model adds to, replaces, removes and searches.

    Without a file, each session has notes of its own, saved and forked with it. With one, all sessions and processes
    that are given it share its notes; it is written whole or not at all.

    Args:
        path: a JSON file.
        max_chars: most characters of all notes together.
        name: its name.

    >>> notes = Notes()
    >>> notes({"action": "add", "text": "The user likes tea."}).format_result()
    'noted (19 of 8,000 characters)'
    >>> notes({"action": "search", "text": "TEA"}).format_result()
    'The user likes tea.'
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, max_chars: int = 8000, name: str | None = "memory"
    ) -> None:
        super().__init__(None, name)
        if isinstance(max_chars, bool) or not isinstance(max_chars, int) or max_chars < 1:
            raise InvalidArgument("max_chars", max_chars, "give a number of characters of at least 1")
        self.max_chars = max_chars
        self.path = None if path is None else Path(path)
        self.notes: SessionValue[list[str]] = SessionValue(list)

    @tool_api
    def run(
        self,
        action: Literal["add", "replace", "remove", "search", "list"],
        text: str = "",
        old_text: str = "",
        session_id: SessionId = 0,
    ) -> str:
        """Keep notes of what will matter later: facts about the user and the work, decisions, what was tried.

        Args:
            action: add text; replace the note that holds old_text by text; remove the note that holds old_text; search
                for notes that hold all words of text; or list all.
            text: The note, or the words to search for.
            old_text: A part of one note that is in no other.
        """
        if action in ("search", "list"):
            words = text.casefold().split() if action == "search" else []
            found = [note for note in self._read(session_id) if all(word in note.casefold() for word in words)]
            return "\n".join(found) or ("there are no such notes" if words else "there are no notes")
        with self._changed(session_id) as notes:
            if action == "add":
                if not text.strip() or text in notes:
                    raise ToolError("text is empty" if not text.strip() else "this is noted already")
                notes.append(text)
            else:
                position = _position(notes, old_text)
                if action == "remove":
                    del notes[position]
                elif text.strip():
                    notes[position] = text
                else:
                    raise ToolError("text is empty: remove the note instead")
            size = sum(map(len, notes))
            if size > self.max_chars:
                raise ToolError(
                    f"the notes would have {size:,} characters, and {self.max_chars:,} is the most: shorten some"
                )
        return f"noted ({size:,} of {self.max_chars:,} characters)"

    def extra_repr(self) -> str:
        return "" if self.path is None else f"path={str(self.path)!r}"

    def _read(self, session_id: SessionId) -> list[str]:
        return list(self.notes[session_id]) if self.path is None else _loaded(self.path)

    @contextmanager
    def _changed(self, session_id: SessionId) -> Iterator[list[str]]:
        """The notes, to be changed; they are kept if nothing is raised."""
        if self.path is None:
            with _one_at_a_time:
                notes = self._read(session_id)
                yield notes
                self.notes[session_id] = notes
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when it is closed, or the process ends
            notes = _loaded(self.path)
            yield notes
            temporary = self.path.with_name(f"{self.path.name}.new")
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(notes, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)


_one_at_a_time = threading.Lock()  # of the calls of one message, which run side by side


def _loaded(path: Path) -> list[str]:
    try:
        notes: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ToolError(f"{path} holds no notes: {error}") from None
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ToolError(f"{path} holds no notes: it is no list of texts")
    return notes


def _position(notes: list[str], part: str) -> int:
    found = [number for number, note in enumerate(notes) if part and part in note]
    if len(found) != 1:
        raise ToolError(f"{len(found)} notes hold {part[:200]!r}: give a part of one note")
    return found[0]
