"""Code that does its worst in a sandbox, and what this machine notices of it."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lagentlike.sandbox import Bwrap, Limits, Mount, quota
from lagentlike.sandbox.cgroups import controllers
from lagentlike.sandbox.folders import remove_tree
from lagentlike.sandbox.limits import MIB
from lagentlike.sandbox.process import Completed, FLOOD

needs_memory_group = pytest.mark.skipif("memory" not in controllers().parents, reason="no control group for memory")
needs_pids_group = pytest.mark.skipif("pids" not in controllers().parents, reason="no control group for processes")


def python(code: str, limits: Limits | None = None, **options: object) -> Completed:
    bounded = replace(limits or Limits(), seconds=20)
    return Bwrap().run([sys.executable, "-I", "-S", "-c", code], limits=bounded, **options)


def available() -> int:
    """Bytes of memory that this machine has left."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# Memory and processes


@needs_memory_group
def test_a_memory_bomb_is_killed_at_its_limit() -> None:
    done = python("x = []\nwhile True: x.append(bytes(10 << 20))", Limits(memory=128 * MIB))
    assert (done.ending, done.returncode) == ("memory", -9)
    assert "more than 128 MiB" in done.problem(Limits(memory=128 * MIB))


@needs_memory_group
def test_a_program_is_told_that_what_it_ran_was_killed_for_memory() -> None:
    bomb = f"{sys.executable} -I -S -c \"x = b'x' * (1 << 30)\""
    limits = Limits(memory=64 * MIB)
    done = Bwrap().run(["sh", "-c", f"{bomb}; exit 3"], limits=limits)
    assert (done.ending, done.returncode, done.memory_kills) == ("ended", 3, 1)
    said = "exit code 3; more than 64 MiB of memory were used, and what used most of it was killed"
    assert done.problem(limits) == said
    assert Bwrap().run(["sh", "-c", "kill -9 $$"], limits=limits).problem(limits) == "killed by signal 9"


EIGHT = """
import os, time
start, lowest = time.monotonic(), None
for _ in range(8):
    if not os.fork():
        x = bytearray()
        while len(x) < 256 << 20:
            x += b"x" * (8 << 20)
        time.sleep(1)
        os._exit(0)
done = [os.wait()[1] for _ in range(8)]
print(sum(status == 0 for status in done))
"""


@needs_memory_group
def test_eight_memory_bombs_have_one_limit_together() -> None:
    """2 GiB are asked for where 256 MiB are allowed."""
    before = available()
    done = python(EIGHT, Limits(memory=256 * MIB))
    assert done.stdout.text().strip() in ("", "0")
    until = time.monotonic() + 20
    while before - available() > 512 * MIB and time.monotonic() < until:
        time.sleep(0.1)  # others use memory too
    assert before - available() < 512 * MIB, "all of it is given back"


@needs_pids_group
def test_a_fork_bomb_ends_at_its_limit_and_leaves_nothing() -> None:
    code = """
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            try:
                while True: os.fork()
            except OSError:
                time.sleep(60)
        count += 1
except OSError as error:
    seen = sum(name.isdigit() for name in os.listdir("/proc"))
    print(error.errno, seen, flush=True)
"""
    done = python(code, Limits(processes=32))
    number, seen = map(int, done.stdout.text().split())
    assert number == 11, "EAGAIN"
    assert seen <= 32 + 1, "and bwrap's own"
    until = time.monotonic() + 5
    while living(code) and time.monotonic() < until:
        time.sleep(0.02)
    assert not living(code)


def living(code: str) -> list[int]:
    """Processes that run a piece of code."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if code.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_what_leaves_its_session_ends_with_the_sandbox(tmp_path: Path) -> None:
    bwrap = Bwrap()
    workspace = bwrap.scratch_folder(tmp_path / "work")
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            open("alive", "a").write("x")
            time.sleep(0.02)
    os._exit(0)
os.wait()
while not os.path.exists("alive"): time.sleep(0.01)
"""
    assert python(code, workspace=workspace).ok
    time.sleep(0.2)
    before = (workspace / "alive").stat().st_size
    time.sleep(0.2)
    assert (workspace / "alive").stat().st_size == before


# Output


@pytest.mark.parametrize(
    "command",
    [
        "head -c 1G /dev/zero",
        "yes | tr -d '\\n'",
        "yes",
        "cat /dev/urandom",
    ],
    ids=["a gigabyte", "no newline", "lines", "binary"],
)
def test_a_flood_of_output_is_cut_and_killed(command: str) -> None:
    bwrap = Bwrap()
    bwrap.run(["true"])
    before = resident()
    done = bwrap.run(["sh", "-c", f"echo first; {command}"])
    assert done.ending == "flood"
    assert done.stdout.text().startswith("first")
    assert "bytes are left out here" in done.stdout.text()
    assert done.stdout.size < FLOOD + MIB
    assert resident() - before <= 4 * MIB


def test_two_million_lines_keep_their_head_and_tail() -> None:
    done = Bwrap().run(["seq", "2000000"])
    assert done.ok
    shown = done.stdout.text()
    assert shown.startswith("1\n2\n")
    assert shown.endswith("1999999\n2000000\n")
    assert len(shown) < 1.01 * MIB


# Disk


def filling(folder: str) -> str:
    return f"""
import errno, os
try:
    for number in range(64):
        with open(f"{folder}/{{number}}", "wb") as file:
            file.write(bytes(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno], number)
"""


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm", "/workspace"])
def test_what_is_in_memory_fills_up(folder: str) -> None:
    done = python(filling(folder), Limits(tmp=8 * MIB, disk=8 * MIB))
    problem, count = done.stdout.text().split()
    assert problem == "ENOSPC"
    assert int(count) <= 8


@pytest.mark.parametrize("folder", ["/", "/usr", "/var/lib", "/run", "/home"])
def test_nothing_else_can_be_written_to(folder: str) -> None:
    assert python(filling(folder)).stdout.text().split()[0] in ("EROFS", "ENOENT", "EACCES")


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm", "/workspace"])
def test_what_is_in_memory_is_full_before_memory_is(folder: str) -> None:
    """Whatever is allowed there: otherwise who fills it would be killed for the memory that it takes."""
    done = python(filling(folder), Limits(memory=96 * MIB))
    problem, count = done.stdout.text().split()
    assert (problem, done.ending) == ("ENOSPC", "ended")
    assert int(count) <= 48


@needs_memory_group
def test_files_without_content_count_as_memory() -> None:
    code = """
number = 0
while True:
    open(f"/tmp/{number}", "x").close()
    number += 1
    if number % 1000 == 0: print(number, flush=True)
"""
    done = python(code, Limits(memory=20 * MIB))
    assert done.ending == "memory"
    assert int(done.stdout.text().split()[-1]) < 64_000, "each takes about a KiB"


def sized(folder: Path) -> int:
    """MiB on disk below a directory."""
    done = subprocess.run(["du", "-sk", str(folder)], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0]) // 1024


GROWING = {
    "files": """
number = 0
while True:
    open(str(number), "wb").write(bytes(1 << 20))
    number += 1
""",
    "files that are removed while they are open": """
import os
held = []
while True:
    held.append(open("file", "wb", 0))
    os.unlink("file")
    held[-1].write(bytes(4 << 20))
""",
    "files that are mapped, closed and removed": """
import mmap, os
held = []
while True:
    with open("file", "w+b") as file:
        file.truncate(4 << 20)
        held.append(mmap.mmap(file.fileno(), 4 << 20))
    os.unlink("file")
    held[-1][:] = bytes(4 << 20)
""",
    "a directory that is closed": """
import os, time
os.mkdir("closed")
files = [open(f"closed/{number}", "wb", 0) for number in range(200)]
os.chmod("closed", 0)
for file in files: file.write(bytes(4 << 20))
time.sleep(20)
""",
    "paths that are too long": """
import os
for _ in range(60):
    os.mkdir("x" * 100)
    os.chdir("x" * 100)
number = 0
while True:
    open(str(number), "wb").write(bytes(1 << 20))
    number += 1
""",
}


@pytest.mark.parametrize("code", GROWING.values(), ids=GROWING)
def test_a_workspace_on_disk_is_full_at_its_limit(code: str, tmp_path: Path) -> None:
    workspace = Bwrap().scratch_folder(tmp_path / "work")
    limits = Limits(disk=64 * MIB)
    done = python(code, limits, workspace=workspace)
    assert (done.ending, done.returncode, done.disk_full) == ("ended", 1, True)
    assert "File too large" in done.stdout.text()
    assert "no more than 64 MiB" in done.problem(limits)
    assert sized(workspace) < 400, "a busy machine is late to look, but it does"
    remove_tree(workspace)
    assert not workspace.exists()


def test_what_is_removed_can_be_written_again(tmp_path: Path) -> None:
    workspace = Bwrap().scratch_folder(tmp_path / "work")
    code = """
import os, time
def fill():
    for number in range(32):
        with open(str(number), "wb", 0) as file:
            file.write(bytes(1 << 20))
        time.sleep(0.01)
for _ in range(3):
    try:
        fill()
    except OSError as error:
        print(error.strerror)
    for name in os.listdir():
        os.unlink(name)
    for _ in range(500):
        try:
            with open("last", "w") as file:
                file.write("there is room")
        except OSError:
            time.sleep(0.02)
        else:
            break
"""
    done = python(code, Limits(disk=16 * MIB), workspace=workspace)
    assert (done.stdout.text(), done.returncode, done.problem(Limits())) == ("File too large\n" * 3, 0, "")
    assert (workspace / "last").read_text() == "there is room"


STUBBORN = {
    "raises its limit again": """
import resource
number = 0
while True:
    try:
        open(str(number), "wb").write(bytes(1 << 20))
        number += 1
    except OSError:
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
""",
    "fills the holes of files": """
import mmap
maps = []
for number in range(400):
    with open(str(number), "w+b") as file:
        file.truncate(1 << 20)
        maps.append(mmap.mmap(file.fileno(), 1 << 20))
for one in maps:
    one[:] = bytes(1 << 20)
""",
}


@pytest.mark.parametrize("code", STUBBORN.values(), ids=STUBBORN)
def test_who_goes_on_to_write_to_a_full_disk_is_killed(code: str, tmp_path: Path) -> None:
    workspace = Bwrap().scratch_folder(tmp_path / "work")
    limits = Limits(disk=16 * MIB)
    done = python(code, limits, workspace=workspace)
    assert done.ending == "disk"
    assert "16 MiB to disk" in done.problem(limits)


def test_all_that_can_be_written_to_counts(tmp_path: Path) -> None:
    workspace, more = (Bwrap().scratch_folder(tmp_path / name) for name in ("work", "more"))
    code = f"""
for number in range(1000):
    for folder in (".", "{more}"):
        open(f"{{folder}}/{{number}}", "wb").write(bytes(1 << 20))
"""
    limits = Limits(disk=64 * MIB)
    done = python(code, limits, workspace=workspace, mounts=[Mount(more, writable=True)])
    assert (done.ending, done.disk_full) == ("ended", True)
    assert 16 < sized(more) < 500


def test_one_great_write_within_the_limit_is_let_end(tmp_path: Path) -> None:
    workspace = Bwrap().scratch_folder(tmp_path / "work")
    code = """
import os, time
for number in range(2):
    file = os.open(str(number), os.O_CREAT | os.O_WRONLY)
    try:
        print(os.write(file, bytes(240 << 20)))
    except OSError as error:
        print(error.strerror)
    time.sleep(1)
"""
    done = python(code, Limits(disk=256 * MIB, memory=1024 * MIB), workspace=workspace)
    assert (done.ending, done.stdout.text()) == ("ended", f"{240 << 20}\nFile too large\n")


def test_a_directory_that_it_has_by_two_ways_counts_once(tmp_path: Path) -> None:
    workspace = Bwrap().scratch_folder(tmp_path / "work")
    (tmp_path / "link").symlink_to(workspace)
    mounts = [Mount(tmp_path / "link", writable=True)]
    code = """
import time
for number in range(5):
    open(str(number), "wb").write(bytes(5 << 20))
    time.sleep(0.2)
"""
    done = python(code, Limits(disk=40 * MIB), workspace=workspace, mounts=mounts)
    assert (done.ok, done.disk_full) == (True, False)


def test_a_workspace_that_is_large_already_may_grow_as_much(tmp_path: Path) -> None:
    workspace = Bwrap().scratch_folder(tmp_path / "work")
    for number in range(3):
        (workspace / str(number)).write_bytes(bytes(10 * MIB))
    code = """
import time
for number in range(4):
    open(f"new-{number}", "wb").write(bytes(1 << 20))
    time.sleep(0.2)
"""
    assert python(code, Limits(disk=16 * MIB), workspace=workspace).ok


def test_a_workspace_does_not_get_files_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MOST_ENTRIES", 500)
    workspace = Bwrap().scratch_folder(tmp_path / "work")
    code = """
number = 0
while True:
    open(str(number), "x").close()
    number += 1
"""
    done = python(code, workspace=workspace)
    assert done.ending == "disk"
    assert "too many files" in done.problem(Limits())


def test_one_file_has_a_limit_at_once(tmp_path: Path) -> None:
    workspace = Bwrap().scratch_folder(tmp_path / "work")
    code = "open('big', 'wb').write(bytes(20 << 20))"
    done = python(code, Limits(disk=8 * MIB), workspace=workspace)
    assert not done.ok
    assert (workspace / "big").stat().st_size <= 8 * MIB


# Input


@pytest.mark.parametrize(
    "code", ["input()", "import sys; sys.stdin.read() or 1/0", "import getpass; getpass.getpass()"]
)
def test_nobody_waits_for_input(code: str) -> None:
    done = python(code)
    assert (done.ending, done.returncode) == ("ended", 1)


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(closing: str) -> None:
    done = Bwrap().run(["sh", "-c", f"exec {closing}; exec {sys.executable} -I -S -c 'raise SystemExit(3)'"])
    assert (done.ending, done.returncode) == ("ended", 3)


# What is seen


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Another session's file, readable to everybody here."""
    file = tmp_path / "another" / "file"
    file.parent.mkdir(mode=0o755)
    file.write_text("private")
    tmp_path.chmod(0o755)
    return file


def test_files_of_this_machine_are_not_there(secret: Path) -> None:
    paths = [
        *(str(secret), "/etc/shadow", "/etc/hostname", "/root/.bashrc", "/proc/kcore", "/sys/kernel", "/var/log"),
        *(f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/root/{secret}", "/var/run/docker.sock", "/boot"),
    ]
    code = f"""
for path in {paths!r}:
    try:
        open(path).read()
        print(path)
    except OSError:
        continue
"""
    done = python(code)
    assert (done.ok, done.stdout.text()) == (True, "")


def test_a_workspace_does_not_lead_out_of_itself(secret: Path, tmp_path: Path) -> None:
    bwrap = Bwrap()
    workspace = bwrap.scratch_folder(tmp_path / "work")
    (workspace / "link").symlink_to(secret)
    done = bwrap.run(["sh", "-c", f"cat link; cat ../another/file; ls .. ; cat {secret}"], workspace=workspace)
    assert "private" not in done.stdout.text()
    assert "another" not in [line.strip() for line in done.stdout.text().splitlines()]


def test_servers_of_this_machine_are_not_reached() -> None:
    name = f"\0lagentlike-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(name)
        abstract.listen()
        code = f"""
import socket
for family, address in ((2, ("127.0.0.1", {tcp.getsockname()[1]})), (1, {name!r}), (2, ("169.254.169.254", 80))):
    with socket.socket(family) as connection:
        connection.settimeout(2)
        try:
            connection.connect(address)
            print(address)
        except OSError:
            continue
"""
        done = python(code)
    assert (done.ok, done.stdout.text()) == (True, "")


def test_what_is_typed_into_a_terminal_is_refused() -> None:
    code = """
import fcntl, os, pty
main, other = pty.openpty()
for request in (0x5412, 0x541C):
    try:
        fcntl.ioctl(other, request, b"x")
        print("typed")
    except PermissionError:
        print("refused")
"""
    assert python(code).stdout.text() == "refused\nrefused\n"


@pytest.mark.parametrize("workspace", [False, True], ids=["in memory", "of this user"])
def test_the_kernels_settings_cannot_be_changed(workspace: bool, tmp_path: Path) -> None:
    """A file such as core_pattern is the way out of a sandbox whose code is root outside, whatever it may not do."""
    code = """
import os
for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches", "/sys/power/state"):
    try:
        os.open(path, os.O_WRONLY)
        print(path)
    except OSError:
        continue
"""
    done = python(code, workspace=tmp_path if workspace else None)
    assert (done.ok, done.stdout.text()) == (True, "")


# Many


def count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def test_many_sandboxes_leave_nothing_behind() -> None:
    bwrap = Bwrap()
    for _ in range(3):
        bwrap.run(["true"])
    groups = {folder for parent in controllers().parents.values() for folder in parent.glob("lagentlike-*")}
    before = [count(folder) for folder in ("/proc/self/fd", "/proc/self/task")]
    for _ in range(60):
        bwrap.run(["true"])
    after = [count(folder) for folder in ("/proc/self/fd", "/proc/self/task")]
    assert all(one <= other for one, other in zip(after, before, strict=True)), (before, after)
    own = f"lagentlike-{os.getpid()}-"

    def left() -> set[Path]:
        return {f for parent in controllers().parents.values() for f in parent.glob(f"{own}*")} - groups

    deadline = time.monotonic() + 10
    while len(left()) > len(controllers().parents) and time.monotonic() < deadline:
        bwrap.run(["true"])  # which removes the groups of those before it
    assert len(left()) <= len(controllers().parents), "at most the last one's"
