"""The files of a run: committed together, and put right when a run goes on."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from ...errors import StateError
from ...records import ConversationRecord, Damage, LineFile
from ...records.files import sharegpt_line
from ...records.lines import read_lines, sync_folder
from ...records.record import checked_line
from .journal import journal_line, read_journal, VERSION
from .keys import content_hash, KeySet

__all__ = ["Recovery", "RunStore", "Written"]

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class Written:
    """A finished sample: its record and its ShareGPT form, each a line."""

    key: str
    record: bytes
    derived: bytes
    summary: dict[str, Any]


@dataclass(slots=True)
class Recovery:
    """What was found, and put right, when a run went on.

    Attributes:
        done: samples with a whole record.
        damages: lines that could not be used, as texts.
        redone: samples the journal has as done whose record is damaged or gone: they are made again.
        adopted: samples whose record was written, and the journal not yet.
        dropped: records of samples that are no longer asked for, or that were there twice.
        mended: files that were written anew.
    """

    done: int = 0
    damages: list[str] = field(default_factory=list)
    redone: int = 0
    adopted: int = 0
    dropped: int = 0
    mended: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = {"redone": self.redone, "adopted": self.adopted, "dropped": self.dropped}
        parts = [f"{self.done} samples are there", *(f"{count} {name}" for name, count in told.items() if count)]
        return "; ".join([*parts, *self.damages[:5]])


class RunStore:
    """The records, the trajectories and the journal of a run.

    A sample is done when its record, its ShareGPT form and its line in the journal are on the disk; they are written
    in this order. The records are the truth: each has its own checksum, and the other two are made from them where they
    do not fit.

    Args:
        folder: the run's folder.
        identity: what the journal's head tells of configuration and dataset.
        wanted: gives the keys of all samples that are asked for.
        resume: go on with what is there.
        force: drop what is no longer asked for instead of refusing.
        retry_failed: give samples that were set aside all their attempts again.
        on_done: called with the plain data of each record that is there.

    Raises:
        StateError: there is a run already and it is not to be gone on with, or it is one of another configuration,
            another dataset, or another version.
        OSError: a file cannot be read or written.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        wanted: Callable[[], KeySet],
        resume: bool,
        force: bool,
        retry_failed: bool,
        on_done: Callable[[dict[str, Any]], None],
    ) -> None:
        self.folder = folder
        self.records = folder / "records" / "trajectories.jsonl"
        self.derived = folder / "trajectories.jsonl"
        self.journal = folder / "journal.log"
        self.done, self.set_aside = KeySet(), KeySet()
        self.attempts: dict[str, int] = {}
        self.failures: dict[str, dict[str, Any]] = {}
        self.recovery = Recovery()
        self._wanted, self._on_done = wanted, on_done
        self._identity = dict(identity)
        self._asked: KeySet | None = None  # None where every record is of a sample asked for
        self._knows_head = False
        if any(path.exists() and path.stat().st_size for path in (self.records, self.derived, self.journal)):
            if not resume:
                raise StateError(f"{str(folder)!r} has a run already: resume it, or give another run_name")
            self._recover(force)
        else:
            self._begin()
        self._files = [LineFile(path) for path in (self.records, self.derived, self.journal)]
        if retry_failed and self.failures:
            self.commit([], [journal_line("retry", key=key) for key in self.failures])
            self.failures.clear()
        self.set_aside = KeySet(self.failures)

    def commit(self, written: Iterable[Written], entries: Iterable[bytes] = ()) -> None:
        """Put finished samples, and other entries of the journal, on the disk.

        Raises:
            OSError: something could not be written; what is there is whole.
        """
        batch = list(written)
        records, derived, journal = self._files
        records.append([item.record for item in batch])
        derived.append([item.derived for item in batch])
        journal.append([*(journal_line("done", key=item.key) for item in batch), *entries])

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _head(self) -> bytes:
        return journal_line("run", version=VERSION, **self._identity)

    def _begin(self) -> None:
        with LineFile(self.journal) as journal:
            journal.append([self._head()])

    # Going on

    def _recover(self, force: bool) -> None:
        damages: list[Damage] = []
        if force:
            self._asked = self._wanted()
        kept = self._read_journal(damages, force)
        journaled, self.done = self.done, KeySet()
        recovery = self.recovery
        if not self._knows_head:
            self._asked = self._wanted()
        for record in self._good(damages.append):
            self.done.add(record["id"])
            self.failures.pop(record["id"], None)
            recovery.done += 1
            self._on_done(record)
        if recovery.dropped and not (force or self._knows_head):
            raise StateError(
                f"{self.journal}: its head is lost, and {recovery.dropped} of the records are no samples of this "
                "configuration and dataset: give another run_name, or --force to drop them"
            )
        recovery.redone = journaled.without(self.done)
        recovery.adopted = self.done.without(journaled)
        recovery.damages = [str(damage) for damage in damages]
        damaged = {damage.path for damage in damages}
        if self.records in damaged or recovery.dropped:
            self._rewrite(self.records, _lines(self.records, self._keeper()))
        if recovery.mended or not self._is_derived():
            self._rewrite(self.derived, map(_derived, _lines(self.records)))
        if recovery.mended or recovery.redone or recovery.adopted or force or self.journal in damaged:
            done = (journal_line("done", key=checked_line(line)["id"]) for line in _lines(self.records))
            self._rewrite(self.journal, chain([self._head()], kept, done))
        if recovery.mended or recovery.damages:
            logger.warning("%s: %s", self.folder, recovery)

    def _read_journal(self, damages: list[Damage], force: bool) -> list[bytes]:
        """Read the journal; returns the lines about failures, which stay."""
        kept: list[bytes] = []
        for entry in read_journal(self.journal, damages):
            kind = entry.pop("kind")
            if kind == "run":
                self._check(entry, force)
            elif self._asked is not None and entry["key"] not in self._asked:
                continue
            elif kind == "done":
                self.done.add(entry["key"])
            else:
                kept.append(journal_line(kind, **entry))
                if kind == "failed":
                    self.attempts[entry["key"]] = entry["attempt"]
                    continue
                self.attempts.pop(entry["key"], None)
                self.failures.pop(entry["key"], None)
                if kind == "set_aside":
                    self.failures[entry["key"]] = entry
        return kept

    def _check(self, head: Mapping[str, Any], force: bool) -> None:
        """Refuse a run that is another one."""
        self._knows_head = True
        if head.get("version") != VERSION:
            raise StateError(f"{self.journal}: version {head.get('version')!r}; this program writes {VERSION}")
        if force:
            return
        for name, what in (("config", "configuration"), ("dataset", "dataset")):
            before, now = head.get(name) or {}, self._identity[name]
            if content_hash(before) != content_hash(now):
                changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
                told = ", ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in changed)
                raise StateError(
                    f"{str(self.folder)!r} is a run with another {what} ({told}): give another run_name, or --force "
                    "to keep only the samples that are still asked for"
                )

    def _good(self, on_damage: Callable[[Damage], None]) -> Iterator[dict[str, Any]]:
        """The records that are whole and asked for, each sample once."""
        if not self.records.exists():
            return
        keeps, whole = self._keeper(), 0
        for record in read_lines(self.records, _record, on_damage):
            if keeps(record):
                yield record
            else:
                whole += 1
        self.recovery.dropped = whole

    def _keeper(self) -> Callable[[dict[str, Any]], bool]:
        """What tells of each record in turn whether it is asked for and was not there before."""
        seen: set[int] = set()

        def keeps(record: dict[str, Any]) -> bool:
            key = int(record["id"][:16], 16)
            if key in seen or (self._asked is not None and record["id"] not in self._asked):
                return False
            seen.add(key)
            return True

        return keeps

    def _is_derived(self) -> bool:
        """Whether the trajectories are what the records give."""
        if not self.derived.exists():
            return not self.records.exists()
        if self.derived.stat().st_size and not _ends_whole(self.derived):
            return False
        expected = map(_derived, _lines(self.records))
        return all(one == other for one, other in zip_longest(expected, _lines(self.derived)))

    def _rewrite(self, path: Path, lines: Iterator[bytes]) -> None:
        """Put a file of these lines in the place of one that is damaged; at any moment one of them is there, whole."""
        self.recovery.mended.append(path.name if path.parent == self.folder else f"{path.parent.name}/{path.name}")
        draft = path.with_name(f".{path.name}.new")
        path.parent.mkdir(exist_ok=True)
        try:
            with draft.open("wb") as file:
                for line in lines:
                    file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        sync_folder(path.parent)


def _record(line: bytes) -> dict[str, Any]:
    record = checked_line(line)
    if _KEY.fullmatch(str(record.get("id"))) is None:
        raise StateError(f"its id {record.get('id')!r} is none of a sample")
    return record


def _derived(line: bytes) -> bytes:
    return sharegpt_line(ConversationRecord.from_line(line))


def _lines(path: Path, keeps: Callable[[dict[str, Any]], bool] | None = None) -> Iterator[bytes]:
    """The lines of a file; with `keeps`, those that are whole records it is true for."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            text = line.removesuffix(b"\n")
            if text.isspace() or not text:
                continue
            if keeps is not None:
                try:
                    if text is line or not keeps(_record(text)):
                        continue
                except (ValueError, RecursionError):
                    continue
            yield text


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
