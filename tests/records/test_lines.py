"""Appending lines: whole or not at all, whoever writes at the same time."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lagentlike.errors import InvalidArgument
from lagentlike.records import append_lines, LineFile

WRITER = """
import sys
from lagentlike.records import append_lines
for number in range(50):
    append_lines(sys.argv[1], [f"{sys.argv[2]} {number} ".encode() * 500])
"""


def test_threads_and_processes_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lines"
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"process-{one}"]) for one in range(2)]

    def write(name: str) -> None:
        for number in range(50):
            append_lines(path, [f"{name} {number} ".encode() * 500])

    threads = [threading.Thread(target=write, args=(f"thread-{one}",)) for one in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0]
    written = path.read_bytes().splitlines()
    assert len(written) == 200
    for line in written:
        name, number, *_ = line.split(b" ")
        assert line == b"%b %b " % (name, number) * 500
    for name in ("process-0", "process-1", "thread-0", "thread-1"):
        own = [int(line.split(b" ")[1]) for line in written if line.startswith(name.encode())]
        assert own == list(range(50))


@pytest.mark.parametrize("torn", [b"x", b"x" * 200_000])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n" + torn)
    with LineFile(path) as file:
        assert file.mended == len(torn)
        file.append([b"two"])
    assert path.read_bytes() == b"one\ntwo\n"
    assert f"a torn last line of {len(torn)} bytes" in caplog.text


def test_a_file_of_nothing_but_a_torn_line_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"x" * 100_000)
    with LineFile(path) as file:
        assert (file.mended, file.size) == (100_000, 0)


def test_a_write_that_fails_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with LineFile(path) as file:
        file.append([b"one"])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            with pytest.raises(OSError, match="nothing was added"):
                file.append([b"two", b"three" * 100])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == b"one\n"
        file.append([b"two"])
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_line_break_inside_a_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="a line holds no line break"):
        append_lines(tmp_path / "lines", [b"a\nb"])


def test_nothing_stays_open(tmp_path: Path, no_leaks: None) -> None:
    append_lines(tmp_path / "lines", [b"a"])
