"""Isolation by bubblewrap: namespaces, a read-only system, no network, limits."""

from __future__ import annotations

import atexit
import math
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from ..errors import InvalidArgument, SandboxUnavailable
from .cgroups import Cgroup, controllers
from .checks import attempts
from .isolation import Isolation, Launch, SCRATCH
from .keeper import keeper, MARK
from .limits import Limits
from .process import END_SECONDS, Process
from .quota import watch
from .seccomp import program

__all__ = ["Bwrap", "INSTALL", "SANDBOX_UID"]

SANDBOX_UID = 65534
"""Who code is in the sandbox; where this process is root, also who it is outside of it."""

INSTALL = (
    "Install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap; Arch: pacman -S "
    "bubblewrap). To run code as yourself without any boundary, say so: isolation='unsafe_local', or --unsafe-local on "
    "the command line."
)


class Bwrap(Isolation):
    """Isolation by bubblewrap, the program `bwrap`; the default.

    Each program has namespaces of its own (user, processes, network, mounts, IPC, host name, control groups): it sees
    the system and this Python read-only, a private `/tmp` in memory, one workspace, no network, no other process and no
    environment variable of this one. It is user 65534 without capabilities, can get no privileges, and is refused the
    system calls of `seccomp.DENIED`. It ends with this process.

    Where this process is root, the code is user 65534 outside of the sandbox too, unless its workspace belongs to root.

    It shares the kernel with this machine: it is no wall between tenants who attack each other.

    Raises:
        SandboxUnavailable: (when something is started) bwrap is missing, or a self-check of it failed.
    """

    name: ClassVar[str] = "bwrap"

    def _check(self, launch: Launch) -> None:
        _bwrap()
        kind = (_outer_uid(launch), launch.limits.network)
        if kind not in _checked:
            failed = {name: problem for name, problem in self.attempts(launch).items() if problem}
            if failed:
                told = "; ".join(f"{name}: {problem}" for name, problem in list(failed.items())[:5])
                raise SandboxUnavailable(f"{len(failed)} of its self-checks failed: code in it could {told}. {INSTALL}")
            _checked.add(kind)

    def attempts(self, launch: Launch) -> dict[str, str]:
        """What code tries in such a sandbox, and what was wrong each time; empty where it was refused.

        Raises:
            SandboxUnavailable: it cannot be started, or nothing can be tried in it.
        """
        with tempfile.TemporaryDirectory(prefix="lagentlike-check-") as folder:
            own = launch.workspace is not None and _outer_uid(launch) is None  # whose it is makes this kind of sandbox
            limits = Limits(network=launch.limits.network)
            probe = self._launch(["true"], workspace=folder if own else None, limits=limits)
            return attempts(self._start, probe, INSTALL)

    def hand_over(self, path: Path) -> None:
        if _can_drop() and path.stat().st_uid == 0:
            os.chown(path, SANDBOX_UID, SANDBOX_UID)

    def environment(self, workspace: Path | None = None) -> dict[str, str]:
        return {
            "HOME": SCRATCH if workspace is None else "/tmp",  # noqa: S108  # the sandbox's own
            "LANG": "C.UTF-8",
            "LOGNAME": "nobody",
            "OMP_NUM_THREADS": str(math.ceil(self.limits.cpus)),
            "PATH": os.pathsep.join([f"{sys.prefix}/bin", *_PATH]),
            "TERM": "dumb",
            "TMPDIR": "/tmp",  # noqa: S108  # the sandbox's own
            "USER": "nobody",
            **({"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}),
        }

    def _start(self, launch: Launch) -> Process:
        _leftovers.remove()
        layout = _filesystem(launch)
        uid = _outer_uid(launch)
        with ExitStack() as undo, ExitStack() as given:
            order_source, order = os.pipe()
            status, status_sink = os.pipe()
            for descriptor in (order, status):
                undo.callback(os.close, descriptor)
            for descriptor in (order_source, status_sink):
                given.callback(os.close, descriptor)
            userns = None if uid is None else _user_namespace(uid, _outer_gid(launch), given)
            filter_fd = _seccomp_fd(given)
            arguments = [
                *_FIXED,
                *([] if launch.limits.network else ["--unshare-net"]),
                *(_PLAIN_USER if userns is None else ["--userns", str(userns), *_CAPABILITIES_TO_DROP]),
                *([] if filter_fd is None else ["--seccomp", str(filter_fd)]),
                "--json-status-fd",
                str(status_sink),
                *layout,
                "--chdir",
                launch.cwd or _workspace_of(launch),
                "--clearenv",
            ]
            late = {} if uid is None else {name: launch.env[name] for name in launch.env if _ACTS_EARLY(name)}
            for name, value in {**self.environment(launch.workspace), **launch.env}.items():
                arguments += [] if name in late else ["--setenv", name, value]
            inner = [*([] if uid is None else _drop(launch, late)), *_rlimits(launch.limits, uid), *launch.argv]
            stdin, stdout, stderr = launch.streams
            try:
                group = controllers().make(launch.limits)
                undo.callback(_leftovers.add, group)
                popen = subprocess.Popen(
                    [_bwrap(), "--die-with-parent", "--args", str(order_source), "--", *inner],
                    cwd="/",
                    env={MARK: keeper.mark()},  # no more: an LD_PRELOAD that code has set must not reach bwrap
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=[fd for fd in (order_source, status_sink, filter_fd, userns) if fd is not None],
                    start_new_session=True,
                )
                undo.callback(_end, popen)
                _schedule_normally(popen.pid)
                group.add(popen.pid)
                process = _BwrapProcess(popen, _workspace_of(launch), launch.limits, status, group)
                if on_disk := _writable_folders(launch):
                    watch(process, on_disk, launch.limits.disk)
            except OSError as error:
                raise SandboxUnavailable(f"bwrap cannot be started: {error}. {INSTALL}") from error
            undo.pop_all()
        # bwrap waits for the rest of its arguments, so all that it starts is in the group
        with suppress(BrokenPipeError), os.fdopen(order, "wb") as sink:
            sink.write(b"".join(os.fsencode(one) + b"\0" for one in arguments))
        return process


def _end(popen: subprocess.Popen[bytes]) -> None:
    popen.kill()
    popen.wait()


def _schedule_normally(pid: int) -> None:
    """Take a priority in real time from a process: control groups take in none, and code must not hold a core."""
    if os.sched_getscheduler(pid) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_FIXED = (
    *("--new-session", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
    *("--hostname", "sandbox"),
)
_PLAIN_USER = ("--unshare-user", "--disable-userns", "--uid", str(SANDBOX_UID), "--gid", str(SANDBOX_UID))

# Where this process is root: bwrap keeps in its user namespace what it takes to become somebody else, and no more.
_CAPABILITIES_TO_DROP = tuple(
    word for name in ("CHOWN", "SETGID", "SETPCAP", "SETUID") for word in ("--cap-add", f"CAP_{name}")
)
_SETPRIV = (
    "/usr/bin/setpriv",
    f"--reuid={SANDBOX_UID}",
    f"--regid={SANDBOX_UID}",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
)

_ACTS_EARLY = re.compile(
    "LD_|MALLOC_|BASH|GLIBC_TUNABLES$|(GCONV_|LOC|NIS_|NLS)PATH$|GETCONF_DIR$|ENV$|SHELLOPTS$|PS4$|TZDIR$"
).match
"""Variables by which code could act in what still is root: those that glibc takes from programs with privileges (its
`unsecvars.h`), and those of shells. They are set when that is over."""

_checked: set[tuple[int | None, bool]] = set()
"""The kinds of sandboxes in which the self-checks have held: who code is outside, and whether there is a network."""


class _BwrapProcess(Process):
    shifts_signals = True

    def __init__(
        self, popen: subprocess.Popen[bytes], workspace: str, limits: Limits, status: int, group: Cgroup
    ) -> None:
        super().__init__(popen, workspace, limits)
        self._status = status
        self._told = b""
        self._group = group
        self._kills = self._asked = 0  # processes that were killed for want of memory, and those that were asked about
        self._killed = False
        _live.add(self)

    @property
    def ended(self) -> str:
        if not self._ended and not self._killed and self.poll() == -signal.SIGKILL and self._oom_kills() > self._asked:
            self._ended = "memory"
        return self._ended

    def memory_kills(self) -> int:
        before, self._asked = self._asked, self._oom_kills()
        return self._asked - before

    def _oom_kills(self) -> int:
        self._kills = max(self._kills, self._group.oom_kills())  # which tells of none once it is removed
        return self._kills

    def members(self) -> list[int]:
        return self._group.members() or super().members()

    @property
    def never_ran(self) -> bool:
        return self.popen.poll() == 1 and not self._killed and b'"exit-code"' not in self._status_text(0)

    @property
    def is_full(self) -> bool:
        return self._group.is_full()

    def interrupt(self) -> None:
        first = self.first_process()
        if first is not None and self.popen.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(first, signal.SIGINT)

    def kill(self) -> None:
        if self._owner != os.getpid() or self.popen.poll() is not None:
            return
        self._killed = True
        first = self.first_process()
        with suppress(ProcessLookupError):
            if first is not None:  # with the first process of a namespace, the kernel ends all others
                os.kill(first, signal.SIGKILL)
            else:
                self.popen.kill()

    def first_process(self) -> int | None:
        """The first process in the sandbox, by its number here."""
        found = re.search(rb'"child-pid": (\d+)', self._status_text(END_SECONDS))
        return None if found is None else int(found[1])

    def _status_text(self, seconds: float) -> bytes:
        """What bwrap said of itself, on a pipe that the program has no part in."""
        with self._guard:
            while self._status >= 0 and _is_readable(self._status, 0 if self._told else seconds):
                piece = os.read(self._status, 4096)
                if not piece:
                    os.close(self._status)
                    self._status = -1
                self._told += piece
        return self._told

    def _release(self) -> None:
        self._status_text(0)
        with self._guard:
            if self._status >= 0:
                os.close(self._status)
                self._status = -1
        self._oom_kills()
        if not self._group.remove():
            _leftovers.add(self._group)
        _live.discard(self)


def _is_readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()  # `select.select` takes no descriptor above 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


class _Leftovers:
    """Groups whose last processes were still on their way out."""

    def __init__(self) -> None:
        self._groups: list[Cgroup] = []

    def add(self, group: Cgroup) -> None:
        self._groups.append(group)

    def remove(self, patience: float = 0) -> None:
        groups, self._groups = self._groups, []
        until = time.monotonic() + patience
        while (groups := [group for group in groups if not group.remove()]) and time.monotonic() < until:
            time.sleep(0.01)
        self._groups += groups


_leftovers = _Leftovers()
_live: WeakSet[_BwrapProcess] = WeakSet()


@atexit.register
def _end_all() -> None:
    for process in list(_live):
        process.kill()
    for process in list(_live):
        process.close()
    _leftovers.remove(1.0)


# What the sandbox sees


def _workspace_of(launch: Launch) -> str:
    return SCRATCH if launch.workspace is None else str(launch.workspace)


def _writable_folders(launch: Launch) -> list[Path]:
    """The directories of this machine that it can write to."""
    folders = {mount.source.resolve() for mount in launch.mounts if mount.writable and mount.source.is_dir()}
    folders |= set() if launch.workspace is None else {launch.workspace}
    return [folder for folder in folders if folders.isdisjoint(folder.parents)]


def _filesystem(launch: Launch) -> list[str]:
    """The arguments that lay out its files: what lies inside of something else comes after it."""
    limits = launch.limits
    mounts: dict[str, tuple[str, ...]] = {**_system(), **(_network_files() if limits.network else {})}
    if _outer_uid(launch) is None and os.geteuid() == 0:
        mounts.update(_roots_own())
    for target in ("/tmp", "/dev/shm"):  # noqa: S108  # the sandbox's own
        mounts[target] = _in_memory(target, min(limits.tmp, limits.memory // 4))
    for mount in launch.mounts:
        source = str(mount.source)
        if not mount.source.is_absolute() or not mount.source.exists():
            raise InvalidArgument("mounts", source, "give absolute paths of what exists")
        mounts[source] = ("--bind" if mount.writable else "--ro-bind", source, source)
    if launch.workspace is None:
        mounts[SCRATCH] = _in_memory(SCRATCH, min(limits.disk, limits.memory // 2), "0755")
    else:
        _check_workspace(launch.workspace, mounts)
        mounts[str(launch.workspace)] = ("--bind", str(launch.workspace), str(launch.workspace))
    arguments: list[str] = []
    made = {"/"}
    for target in sorted(mounts, key=lambda path: (path.count("/"), path)):
        for parent in reversed(Path(target).parents):
            if str(parent) not in made:
                arguments += ["--perms", "0755", "--dir", str(parent)]
                made.add(str(parent))
        arguments += mounts[target]
        made.add(target)
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/"]


def _in_memory(target: str, size: int, mode: str = "1777") -> tuple[str, ...]:
    return ("--perms", mode, "--size", str(size), "--tmpfs", target)


def _check_workspace(workspace: Path, mounts: Mapping[str, tuple[str, ...]]) -> None:
    path = str(workspace)
    if path in ("/", "/var") or path in mounts or workspace.parts[:2] in _SYSTEM_ROOTS:
        raise InvalidArgument("workspace", path, "this belongs to the system: give a directory of your own")


_SYSTEM_ROOTS = {("/", name) for name in ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr")}


@cache
def _system() -> dict[str, tuple[str, ...]]:
    """The system and this Python, read-only."""
    mounts: dict[str, tuple[str, ...]] = {
        "/usr": ("--ro-bind", "/usr", "/usr"),
        "/proc": ("--proc", "/proc"),
        "/dev": ("--dev", "/dev"),
        "/run": ("--perms", "0755", "--dir", "/run"),
        "/var/tmp": ("--symlink", "/tmp", "/var/tmp"),  # noqa: S108  # the sandbox's own
    }
    for name in ("bin", "lib", "lib32", "lib64", "libx32", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            mounts[str(path)] = ("--symlink", os.readlink(path), str(path))  # noqa: PTH115  # as it is written
        elif path.exists():
            mounts[str(path)] = ("--ro-bind", str(path), str(path))
    for name in _ETC:
        path = Path("/etc", name)
        if path.exists():
            mounts[str(path)] = ("--ro-bind", str(path), str(path))
    for source in Path(__file__).with_name("etc").iterdir():
        mounts[f"/etc/{source.name}"] = ("--ro-bind", str(source), f"/etc/{source.name}")
    for folder in _python():
        if not folder.is_relative_to("/usr"):
            mounts[str(folder)] = ("--ro-bind", str(folder), str(folder))
    return mounts


@cache
def _roots_own() -> dict[str, tuple[str, ...]]:
    """What covers files of /proc that root may write or read without any capability."""
    covers = {path: path for path in ("/proc/fs", "/proc/pressure", "/proc/sys")}
    covers |= {f"/proc/{name}": "/dev/null" for name in _PROC_OF_ROOT}
    return {path: ("--ro-bind", cover, path) for path, cover in covers.items() if Path(path).exists()}


_PROC_OF_ROOT = (
    *("kallsyms", "kcore", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "mtrr"),
    *("pagetypeinfo", "sched_debug", "slabinfo", "timer_list", "vmallocinfo"),
)

_ETC = (
    *("alternatives", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "magic", "mime.types"),
    *("nsswitch.conf", "protocols", "services", "ssl/certs", "ssl/openssl.cnf"),
)


def _python() -> Iterable[Path]:
    """What this Python needs: its own directories, its packages, and this package."""
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), Path(__file__).parents[1]}
    folders.add(Path(sys.executable).resolve().parents[1])
    folders |= {folder.resolve() for folder in folders}
    private = {folder for folder in folders if Path.home().is_relative_to(folder)}  # not to show all of a home
    if private:
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        folders = folders - private | {Path(sysconfig.get_path(name)) for name in names} | {Path(sys.executable)}
    return sorted(folder for folder in folders if folder.exists() and len(folder.parts) > 2)


def _network_files() -> dict[str, tuple[str, ...]]:
    files = [Path("/etc", name) for name in ("hosts", "resolv.conf")]
    return {str(path): ("--ro-bind", str(path), str(path)) for path in files if path.exists()}


# What it may use


def _rlimits(limits: Limits, uid: int | None) -> list[str]:
    """The command that sets the limits of one process, before the program is started."""
    prlimit = _tool("prlimit")
    if prlimit is None:
        return []
    found = controllers().parents
    options = [f"--fsize={limits.disk}", "--core=0"]
    if "memory" not in found:  # of each process alone, and of what it reserves: only where there is nothing better
        options.append(f"--as={limits.memory}")
    if "pids" not in found and (uid is not None or _counts_by_namespace()):
        options.append(f"--nproc={limits.processes}")
    return [prlimit, *options]


@cache
def _counts_by_namespace() -> bool:
    """Whether the kernel counts a user's processes in each user namespace by itself (5.14 and later)."""
    numbers = re.findall(r"\d+", platform.release())[:2]
    return os.geteuid() != 0 and [int(number) for number in numbers] >= [5, 14]


def _seccomp_fd(given: ExitStack) -> int | None:
    """A descriptor from which bwrap reads the system calls that are refused."""
    code = program()
    if code is None:
        return None
    source, sink = os.pipe()
    given.callback(os.close, source)
    os.write(sink, code)
    os.close(sink)
    return source


# Who it is


def _drop(launch: Launch, late: Mapping[str, str]) -> list[str]:
    """The command by which root in the sandbox becomes nobody, and then sets the variables that come late."""
    own = f'{_tool("chown")} {SANDBOX_UID}:{SANDBOX_UID} {SCRATCH}; exec "$@"'
    given = ["/bin/sh", "-c", own, "sh"] if launch.workspace is None else []
    return [
        *given,
        *_SETPRIV,
        *(["/usr/bin/env", *(f"{name}={value}" for name, value in late.items())] if late else []),
    ]


def _outer_uid(launch: Launch) -> int | None:
    """Who code becomes outside of the sandbox; None if it stays who this process is."""
    if not _can_drop():
        return None
    owner = SANDBOX_UID if launch.workspace is None else launch.workspace.stat().st_uid
    return owner or None


@cache
def _can_drop() -> bool:
    return os.geteuid() == 0 and all(_tool(name) for name in ("setpriv", "unshare", "nsenter", "cat", "chown"))


def _outer_gid(launch: Launch) -> int:
    """Whose group code has outside of the sandbox, where it becomes somebody else."""
    return launch.workspace.stat().st_gid or SANDBOX_UID if launch.workspace is not None else SANDBOX_UID


def _user_namespace(uid: int, gid: int, given: ExitStack) -> int:
    """A descriptor of a user namespace of root and one user; kept, since making one takes some milliseconds."""
    if "pids" not in controllers().parents:  # processes are counted by namespace
        fresh = _new_user_namespace(uid, gid)
        given.callback(os.close, fresh)
        return fresh
    if (uid, gid) not in _namespaces:
        _namespaces[uid, gid] = _new_user_namespace(uid, gid)
    return _namespaces[uid, gid]


_namespaces: dict[tuple[int, int], int] = {}


def _new_user_namespace(uid: int, gid: int) -> int:
    """A user namespace in which there are root and one user, and in which no other can be made."""
    holder = subprocess.Popen(
        [str(_tool("unshare")), "--user", str(_tool("cat"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.read(1)  # it has its namespace
        place = Path(f"/proc/{holder.pid}")
        try:
            (place / "uid_map").write_text(f"0 0 1\n{SANDBOX_UID} {uid} 1\n")
            (place / "gid_map").write_text(f"0 0 1\n{SANDBOX_UID} {gid} 1\n")
            command = "echo 0 > /proc/sys/user/max_user_namespaces"
            subprocess.run(
                [str(_tool("nsenter")), f"--user={place}/ns/user", "/bin/sh", "-c", command], check=True, env={}
            )
            return os.open(place / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SandboxUnavailable(f"no user namespace can be made: {error}. {INSTALL}") from error


@cache
def _tool(name: str) -> str | None:
    return shutil.which(name, path="/usr/bin:/bin")


def _bwrap() -> str:
    found = shutil.which("bwrap")
    if sys.platform != "linux" or found is None:
        raise SandboxUnavailable(f"bwrap is not installed. {INSTALL}" if sys.platform == "linux" else _ELSEWHERE)
    return found


_ELSEWHERE = (
    "bubblewrap needs Linux. Run this in a Linux machine or container, or say that code may run as yourself without "
    "any boundary: isolation='unsafe_local', or --unsafe-local on the command line."
)
