"""Datasets: read as a stream, refused with a place, keys that stay the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lagentlike.errors import InvalidArgument
from lagentlike.rollouts.batch.dataset import Dataset
from lagentlike.rollouts.batch.keys import KeySet

from .making import prompts, write_rows


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2.*no JSON"),
        ("[1]", "line 2.*'prompt' or 'messages'"),
        ('{"prompt": "a", "messages": []}', "'prompt' or 'messages'"),
        ('{"prompt": 3}', "'prompt' is a text"),
        ('{"messages": []}', "ends with the user's"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "ends with the user's"),
        ('{"messages": [{"role": "user", "content": null}]}', "a text, or content in parts"),
        ('{"messages": [{"role": "user"}]}', "a text, or content in parts"),
    ],
)
def test_a_wrong_row_is_refused_with_its_place(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n{line}\n')
    with pytest.raises(InvalidArgument, match=reason):
        Dataset(path)


def test_what_is_carried_along_is_exact(tmp_path: Path) -> None:
    row = {"prompt": "a", "long": 10**30, "edge": 2**63, "half": "\ud800", "float": 0.1}
    [sample] = Dataset(write_rows(tmp_path / "rows.jsonl", [row])).samples(b"", 1, None)
    assert sample.row == row


def test_files_that_are_not_there_or_empty_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        Dataset(tmp_path / "no")
    (tmp_path / "rows.jsonl").write_text("\n\n")
    with pytest.raises(InvalidArgument, match="holds no row"):
        Dataset(tmp_path / "rows.jsonl")


def test_keys_follow_the_content_and_not_the_place(tmp_path: Path) -> None:
    first = Dataset(prompts(tmp_path / "a.jsonl", 5))
    rows = [{"tag": place, "prompt": f"say {place}"} for place in reversed(range(5))]
    second = Dataset(write_rows(tmp_path / "b.jsonl", rows))
    keys = {sample.row["tag"]: sample.key for sample in first.samples(b"", 1, None)}
    assert keys == {sample.row["tag"]: sample.key for sample in second.samples(b"", 1, None)}
    assert first.fingerprint != second.fingerprint
    assert not set(keys.values()) & {sample.key for sample in first.samples(b"other", 1, None)}


def test_a_key_set_holds_what_was_put_in() -> None:
    keys = [f"{number * 7919:032x}"[::-1] for number in range(100)]
    found = KeySet(keys[:60])
    assert [key in found for key in keys] == [True] * 60 + [False] * 40
    found.add(keys[80])
    assert keys[80] in found
    assert (len(found), found.without(KeySet(keys[:50])), KeySet().without(found)) == (61, 11, 0)


MEASURE = """
import resource, sys
from pathlib import Path
from lagentlike.rollouts.batch.dataset import Dataset
dataset = Dataset(Path(sys.argv[1]))
count = sum(1 for _ in dataset.samples(b"", 1, None))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
sys.stdout.write(f"{count} {int(peak.split()[1])}")
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for number in (1_000, 200_000):
        path = tmp_path / f"{number}.jsonl"
        with path.open("w") as file:
            file.writelines(
                f'{{"prompt": "What is {place} times {place}, and why is it so?"}}\n' for place in range(number)
            )
        told = subprocess.run([sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True)
        count, peak = map(int, told.stdout.split())
        assert count == number
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 16_000  # KiB; the rows themselves take twenty times that
