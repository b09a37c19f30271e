"""What a sandbox holds back on this machine, found out by trying."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .bubblewrap import Bwrap
from .cgroups import controllers
from .isolation import Isolation, isolation_of
from .limits import Limits, MIB
from .process import Completed
from .spawner import spawner

__all__ = ["Control", "Report", "report"]

Status = Literal["enforced", "not enforced", "not checked"]


@dataclass(frozen=True)
class Control:
    """One thing that a sandbox holds back.

    Attributes:
        name: what it is.
        status: whether it holds here.
        detail: what was seen, or why it is not so.
    """

    name: str
    status: Status
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What a sandbox holds back on this machine; as text, a table.

    Attributes:
        isolation: the name of the isolation.
        controls: each thing that it should hold back.
    """

    isolation: str
    controls: tuple[Control, ...]

    @property
    def failures(self) -> list[Control]:
        """What does not hold."""
        return [control for control in self.controls if control.status == "not enforced"]

    def counts(self) -> dict[str, int]:
        """How many controls there are of each status."""
        statuses = [control.status for control in self.controls]
        return {status: statuses.count(status) for status in ("enforced", "not enforced", "not checked")}

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {"isolation": self.isolation, "controls": [vars(control) for control in self.controls]}

    def __str__(self) -> str:
        width = max(len(control.name) for control in self.controls)
        lines = [f"{one.name:{width}}  {one.status:12}  {one.detail}".rstrip() for one in self.controls]
        counts = ", ".join(f"{count} {status}" for status, count in self.counts().items())
        return "\n".join([*lines, f"{self.isolation}: {counts}"])


def report(isolation: Isolation | str | None = None) -> Report:
    """Try in sandboxes what they should hold back; it takes a few seconds.

    Args:
        isolation: which; the default one by default.

    Raises:
        SandboxUnavailable: none can be started.

    >>> report("unsafe_local").counts()["enforced"]
    0
    """
    chosen = isolation_of(isolation)
    if not isinstance(chosen, Bwrap):
        return Report(chosen.name, (Control("isolation", "not enforced", "code runs as the user"),))
    attempts = spawner.call(chosen.attempts, chosen._launch(["true"])).result()
    controls = [
        Control(f"cannot {name}", "not enforced" if problem else "enforced", problem)
        for name, problem in attempts.items()
    ]
    for name, measure in _MEASURES.items():
        controls.append(_measured(name, measure, chosen))
    for name, problem in controllers().missing.items():
        controls.append(Control(f"control group for {name}", "not enforced", problem))
    return Report(chosen.name, tuple(controls))


Measure = Callable[[Bwrap], tuple[bool | None, str]]
"""Whether a limit holds (None where that was not seen), and what was seen."""


def _measured(name: str, measure: Measure, isolation: Bwrap) -> Control:
    held: bool | None = None
    try:
        held, detail = measure(isolation)
    except (OSError, ValueError) as error:  # what was run did not come to its end
        detail = f"it could not be tried: {error}"
    return Control(name, "not checked" if held is None else "enforced" if held else "not enforced", detail)


def _memory(isolation: Bwrap) -> tuple[bool, str]:
    done = _python(isolation, "x = b'x' * (256 << 20); print('had it')", Limits(memory=64 * MIB))
    return not done.ok, done.problem(Limits(memory=64 * MIB)) or "256 MiB could be had where 64 are allowed"


def _memory_together(isolation: Bwrap) -> tuple[bool, str]:
    code = """
import os, time
children = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        x = b'x' * (40 << 20)
        time.sleep(0.5)
        os._exit(0)
    children.append(pid)
print(sum(os.waitpid(pid, 0)[1] == 0 for pid in children))
"""
    done = _python(isolation, code, Limits(memory=96 * MIB))
    had = done.stdout.text().strip() if done.ok else "0"
    return had in ("0", "1", "2"), f"{had} of 4 processes had 40 MiB each where 96 are allowed together"


def _processes(isolation: Bwrap) -> tuple[bool, str]:
    code = """
import os, signal
count = 1
try:
    while count < 40:
        if not os.fork():
            signal.pause()
        count += 1
except OSError:
    pass
print(count, flush=True)
os._exit(0)
"""
    done = _python(isolation, code, Limits(processes=12))
    had = int(done.stdout.text().strip() or 0)
    return 0 < had <= 12, f"{had} processes where 12 are allowed"


def _cpu(isolation: Bwrap) -> tuple[bool, str]:
    if "cpu" not in controllers().parents:
        return False, "without a control group for it, nothing limits it"
    code = """
import time
began, used = time.monotonic(), time.process_time()
while time.monotonic() < began + 0.6: pass
print((time.process_time() - used) / (time.monotonic() - began))
"""
    done = _python(isolation, code, Limits(cpus=0.25))
    share = float(done.stdout.text())
    return share < 0.5, f"{share:.2f} of a core where 0.25 are allowed"


def _time(isolation: Bwrap) -> tuple[bool, str]:
    done = _python(isolation, "while True: pass", Limits(seconds=0.3))
    return done.ending == "timeout" and done.seconds < 2, f"ended after {done.seconds:.2f} s where 0.3 are allowed"


def _output(isolation: Bwrap) -> tuple[bool, str]:
    done = isolation.run(["head", "-c", "1G", "/dev/zero"])
    kept = len(done.stdout.content())
    return done.ending == "flood" and kept < 2 * MIB, f"{kept:,} bytes kept, killed after {done.stdout.size:,}"


def _full_tmp(isolation: Bwrap) -> tuple[bool, str]:
    return _full(isolation, "/tmp", Limits(tmp=8 * MIB))  # noqa: S108  # the sandbox's own


def _full_workspace(isolation: Bwrap) -> tuple[bool, str]:
    return _full(isolation, "/workspace", Limits(disk=8 * MIB))


def _full(isolation: Bwrap, folder: str, limits: Limits) -> tuple[bool, str]:
    code = f"""
import os
try:
    for number in range(32):
        with open(f"{folder}/{{number}}", "wb") as file:
            file.write(bytes(1 << 20))
except OSError as error:
    print(os.strerror(error.errno), "after", number, "MiB")
else:
    print("32 MiB were written")
"""
    said = _python(isolation, code, limits).stdout.text().strip()
    return said.startswith(os.strerror(28)), f"{said}, where 8 are allowed"


def _workspace_on_disk(isolation: Bwrap) -> tuple[bool, str]:
    code = """
import os
try:
    for number in range(1000):
        with open(str(number), "wb") as file:
            file.write(bytes(1 << 20))
except OSError as error:
    print(os.strerror(error.errno))
"""
    with tempfile.TemporaryDirectory(prefix="lagentlike-check-") as folder:
        workspace = isolation.scratch_folder(Path(folder, "workspace"))
        done = _python(isolation, code, Limits(disk=128 * MIB), workspace=workspace)
        written = sum(file.stat().st_size for file in workspace.iterdir()) // MIB
    said = done.stdout.text().strip() if done.ending == "ended" else "killed"
    return done.disk_full, f"{said} after {written} MiB, where 128 are allowed"


def _grandchildren(isolation: Bwrap) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory(prefix="lagentlike-check-") as folder:
        workspace = isolation.scratch_folder(Path(folder, "workspace"))
        writing = "setsid sh -c 'while :; do echo x >> alive; sleep 0.02; done'"
        command = f"{writing} & while [ ! -e alive ]; do sleep 0.02; done"
        isolation.run(["sh", "-c", command], workspace=workspace)
        time.sleep(0.05)
        before = (workspace / "alive").stat().st_size
        time.sleep(0.3)
        after = (workspace / "alive").stat().st_size
    return after == before, f"one that left its session wrote {after - before} bytes after the end"


def _user(isolation: Bwrap) -> tuple[bool, str]:
    with isolation.start(["sleep", "10"]) as process:
        first = process.first_process()  # type: ignore[attr-defined]  # as Bwrap's are
        until = time.monotonic() + 5
        uids: set[int] = set()
        while not uids - {os.geteuid()} and time.monotonic() < until and os.geteuid() == 0:
            uids = {Path(f"/proc/{pid}").stat().st_uid for pid in _below(first)}
    if os.geteuid():
        return True, f"code is user {os.geteuid()}, who started it, and nobody else"
    return uids - {0} != set(), "user 65534; where its workspace belongs to root, root without capabilities"


def _below(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _end_with_parent(isolation: Bwrap) -> tuple[bool | None, str]:
    """A process that starts a sandbox is killed."""
    code = """
import sys, time
from lagentlike.sandbox import Bwrap
process = Bwrap().start(["sleep", "60"])
print(process.first_process(), flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with parent:
        assert parent.stdout is not None
        first = int(parent.stdout.readline() or 0)
        parent.kill()
    if not first:
        return None, "no other process of this Python could be started"
    until = time.monotonic() + 3
    while _lives(first) and time.monotonic() < until:
        time.sleep(0.01)
    gone = not _lives(first)
    return gone, "gone after its parent was killed" if gone else "its parent was killed, and it lives on"


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


_MEASURES: Mapping[str, Measure] = {
    "memory": _memory,
    "memory of several processes together": _memory_together,
    "number of processes": _processes,
    "processor time": _cpu,
    "time": _time,
    "output": _output,
    "size of /tmp": _full_tmp,
    "size of the workspace in memory": _full_workspace,
    "growth of a workspace on disk": _workspace_on_disk,
    "processes end with the sandbox": _grandchildren,
    "sandboxes end with this process": _end_with_parent,
    "user outside of the sandbox": _user,
    "hostile tenants on one kernel": lambda _: (
        None,
        "all share the kernel: use virtual machines",
    ),
}


def _python(isolation: Bwrap, code: str, limits: Limits, **options: Any) -> Completed:
    bounded = replace(limits, seconds=min(limits.seconds, 20))
    return isolation.run([sys.executable, "-I", "-S", "-c", code], limits=bounded, **options)
