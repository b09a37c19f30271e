"""Whatever happens to a run's process or files: no sample lost, none twice, no damage accepted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.errors import StateError
from lagentlike.records import read_records, records_beside
from lagentlike.rollouts.batch import run_batch
from lagentlike.rollouts.batch.keys import KeySet
from lagentlike.rollouts.batch.store import RunStore

from .kill_runs import kill_runs
from .making import check_run, make, prompts

ROWS = 6
EXPECTED = Counter(f"echo say {place}" for place in range(ROWS))


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder for thousands of openings, in memory where there is room: each waits for the disk several times."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that came to its end; tests work on copies."""
    folder = tmp_path_factory.mktemp("finished")
    run_batch(make, prompts(folder / "rows.jsonl", ROWS), "run", folder=folder)
    return folder


def files(run: Path) -> dict[str, Path]:
    return {
        "records": records_beside(run / "trajectories.jsonl"),
        "derived": run / "trajectories.jsonl",
        "journal": run / "journal.log",
    }


def reopened(run: Path, keys: list[str], identity: dict[str, Any]) -> tuple[list[str], RunStore]:
    """The ids of the samples that are there when a run is opened to go on."""
    done: list[str] = []
    store = RunStore(run, identity, lambda: KeySet(keys), True, False, False, lambda record: done.append(record["id"]))
    store.close()
    return done, store


@pytest.fixture
def identity(finished: Path) -> dict[str, Any]:
    from lagentlike.rollouts.batch.journal import read_journal

    head = next(read_journal(finished / "run" / "journal.log", []))
    return {"config": head["config"], "dataset": head["dataset"]}


def originals(run: Path) -> dict[str, bytes]:
    lines = files(run)["records"].read_bytes().splitlines()
    return {record.id: line for record, line in zip(read_records(files(run)["records"]), lines, strict=True)}


def check_reopened(
    finished: Path, copy: Path, identity: dict[str, Any], damage: Callable[[], None]
) -> tuple[list[str], RunStore]:
    """Damage a copy, open it to go on, and fail unless what is there then is whole and was there before."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(finished / "run", copy)
    damage()
    before = originals(finished / "run")
    done, store = reopened(copy, list(before), identity)
    assert len(set(done)) == len(done)
    kept = files(copy)["records"].read_bytes().splitlines()
    assert kept == [before[key] for key in done]
    whole = files(finished / "run")["derived"].read_bytes().splitlines()
    order = list(before)
    assert files(copy)["derived"].read_bytes().splitlines() == [whole[order.index(key)] for key in done]
    return done, store


@pytest.mark.parametrize("name", ["records", "derived", "journal"])
def test_a_file_cut_off_anywhere_in_its_last_two_lines(
    finished: Path, in_memory: Path, identity: dict[str, Any], name: str
) -> None:
    whole = files(finished / "run")[name].read_bytes()
    lines = whole.splitlines(keepends=True)
    start = len(whole) - len(lines[-1]) - len(lines[-2])
    copy = in_memory / "run"
    for offset in range(start, len(whole)):
        done, store = check_reopened(
            finished, copy, identity, lambda offset=offset: files(copy)[name].write_bytes(whole[:offset])
        )
        gone = sum(offset < end for end in (len(whole), len(whole) - len(lines[-1])))
        assert len(done) == (ROWS - gone if name == "records" else ROWS)
        torn = offset not in (start, len(whole) - len(lines[-1]))
        if name != "derived":
            assert (store.recovery.redone, store.recovery.adopted) == ((gone, 0) if name == "records" else (0, gone))
            assert any("torn" in told for told in store.recovery.damages) == torn


def test_flipped_bits_are_found_and_their_samples_made_again(
    finished: Path, in_memory: Path, identity: dict[str, Any]
) -> None:
    rng = random.Random(7)
    copy = in_memory / "run"
    redone = 0
    for number in range(1000):
        name = ["records", "derived", "journal"][number % 3]
        content = bytearray(files(finished / "run")[name].read_bytes())
        place = rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)
        done, store = check_reopened(
            finished, copy, identity, lambda name=name, content=content: files(copy)[name].write_bytes(content)
        )
        assert len(done) < ROWS if name == "records" else len(done) == ROWS
        if name == "records":
            assert store.recovery.redone == ROWS - len(done)
            assert store.recovery.damages
        redone += ROWS - len(done)
    assert redone >= 334


@pytest.mark.parametrize("name", ["records", "derived", "journal"])
def test_nul_bytes_are_found(finished: Path, in_memory: Path, identity: dict[str, Any], name: str) -> None:
    whole = files(finished / "run")[name].read_bytes()
    copy = in_memory / "run"
    for place in range(0, len(whole) - 64, 97):
        content = whole[:place] + bytes(64) + whole[place + 64 :]
        done, _ = check_reopened(
            finished, copy, identity, lambda content=content: files(copy)[name].write_bytes(content)
        )
        assert len(done) < ROWS if name == "records" else len(done) == ROWS
    done, _ = check_reopened(  # a tail of NULs, as some file systems leave after a power cut
        finished, copy, identity, lambda: files(copy)[name].write_bytes(whole + bytes(4096))
    )
    assert len(done) == ROWS


def test_a_damaged_run_is_completed_and_tells_what_it_found(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    records = files(tmp_path / "run")["records"]
    content = records.read_bytes().replace(b"echo say 2", b"echo sAy 2")
    records.write_bytes(content[:-5])
    result = run_batch(make, tmp_path / "rows.jsonl", "run", folder=tmp_path, resume=True)
    assert result.recovery.redone == 2
    assert len(result.recovery.damages) == 2
    assert result.statistics["resumed"]["done"] == ROWS - 2
    assert check_run(tmp_path / "run", EXPECTED) == sorted(originals(finished / "run"))


def test_empty_lines_change_nothing(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    records = files(tmp_path / "run")["records"]
    records.write_bytes(records.read_bytes() + b"\n \n")
    result = run_batch(make, tmp_path / "rows.jsonl", "run", folder=tmp_path, resume=True)
    assert (result.recovery.done, result.recovery.redone) == (ROWS, 0)


def test_a_lost_journal_is_rebuilt_from_the_records(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    files(tmp_path / "run")["journal"].unlink()
    result = run_batch(make, tmp_path / "rows.jsonl", "run", folder=tmp_path, resume=True)
    assert (result.recovery.done, result.recovery.adopted) == (ROWS, ROWS)
    check_run(tmp_path / "run", EXPECTED)


def test_records_of_another_run_are_refused_where_the_journal_is_lost(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    files(tmp_path / "run")["journal"].unlink()
    with pytest.raises(StateError, match="its head is lost, and 6 of the records are no samples of this"):
        run_batch(make, tmp_path / "rows.jsonl", "run", folder=tmp_path, resume=True, config={"model": "other"})


def test_a_journal_of_another_version_is_refused(finished: Path, tmp_path: Path) -> None:
    from lagentlike.rollouts.batch.journal import journal_line

    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    files(tmp_path / "run")["journal"].write_bytes(journal_line("run", version=0) + b"\n")
    with pytest.raises(StateError, match="version 0; this program writes 1"):
        run_batch(make, tmp_path / "rows.jsonl", "run", folder=tmp_path, resume=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("workers", "kills"), [(0, 6), (2, 2)])
def test_runs_that_are_killed_lose_nothing_and_repeat_nothing(tmp_path: Path, workers: int, kills: int) -> None:
    counts = kill_runs(tmp_path, kills, rows=40, workers=workers, seed=workers)
    assert counts["after"] == kills


NOTING = """
import functools, sys
sys.path.insert(0, sys.argv[1])
import making
from lagentlike.rollouts.batch import run_batch
if __name__ == "__main__":
    source = functools.partial(making.noting, sys.argv[2] + "/notes")
    run_batch(source, sys.argv[2] + "/rows.jsonl", "run", folder=sys.argv[2], batch_size=3, resume=True)
"""


def test_what_a_tool_did_is_done_at_most_once_more_for_each_kill_and_under_the_same_id(tmp_path: Path) -> None:
    prompts(tmp_path / "rows.jsonl", 12)
    notes, command = tmp_path / "notes", [sys.executable, "-c", NOTING, str(Path(__file__).parent), str(tmp_path)]
    for kills in range(1, 3):
        with subprocess.Popen(command) as process:
            while process.poll() is None and (not notes.exists() or len(notes.read_text().split()) < 5 * kills):
                time.sleep(0.005)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command, check=True)
    times = Counter(notes.read_text().split())
    assert sorted(times) == check_run(tmp_path / "run", Counter({"done": 12}))
    assert max(times.values()) <= 3
    assert times.total() <= 12 + 2 * 6  # a worker is given twice three, and more when their results are on the disk
