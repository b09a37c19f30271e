"""The program that tries to get out of a sandbox, and tells which of its attempts were refused.

It needs nothing but Python: `python -I -S checks_program.py JSON` writes a JSON object of name -> what was wrong, empty
where the attempt was refused. The JSON that it is given has what must not be reached: `files`, `variable` (of the
environment), `port` (on the host's loopback), `socket` (abstract); and what must be so: `passwd`, `sizes` (path -> most
bytes of its file system), `network` (whether there is one), `file_size` (the largest file).
"""

import ctypes
import errno
import json
import os
import platform
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Make all attempts."""
    given = json.loads(sys.argv[1])
    found = {}
    for name, attempt in _attempts(given).items():
        try:
            found[name] = attempt() or ""
        except OSError as error:
            found[name] = "" if error.errno in _REFUSED else f"it failed otherwise: {error}"
    json.dump(found, sys.stdout)


_REFUSED = {
    *(errno.EPERM, errno.EACCES, errno.ENOENT, errno.EROFS, errno.ENOSYS, errno.ENXIO, errno.ENODEV, errno.ESRCH),
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT),
    *(errno.EADDRNOTAVAIL, errno.ENOTDIR),
}

Attempt = Callable[[], str | None]
"""Raises an `OSError` or gives nothing if it was refused; else says what it got."""


def _attempts(given: dict[str, Any]) -> dict[str, Attempt]:
    outside = {} if given["network"] else _network(given)
    return {**_files(given), **_processes(given), **outside, **_privileges(), **_calls(), **_bounds(given)}


def _files(given: dict[str, Any]) -> dict[str, Attempt]:
    reads = {f"read {label}": _reads(path) for label, path in given["files"].items()}
    writes = {f"write to {path}": _writes(path) for path in ("/", "/usr", "/etc", "/dev", "/run", "/proc")}
    return {
        **reads,
        **writes,
        "write to this Python": _writes(sys.base_prefix),
        "write kernel settings": _opens("/proc/sys/kernel/core_pattern", os.O_WRONLY),
        "write to sysrq-trigger": _opens("/proc/sysrq-trigger", os.O_WRONLY),
        "read /etc/shadow": _reads("/etc/shadow"),
        "read the host's users": lambda: _differs(Path("/etc/passwd").read_text(), given["passwd"]),
        "read the kernel's memory": _opens("/proc/kcore", os.O_RDONLY),
        "read the kernel's page counts": _opens("/proc/kpagecount", os.O_RDONLY),
        "read the kernel's allocations": _opens("/proc/slabinfo", os.O_RDONLY),
        "read the kernel's log": _opens("/dev/kmsg", os.O_RDONLY),
        "see /sys": lambda: _list("/sys"),
        "see /boot": lambda: _list("/boot"),
        "see /var/log": lambda: _list("/var/log"),
        "see services in /run": lambda: _list("/run"),
        "reach docker's socket": _connects(socket.AF_UNIX, "/var/run/docker.sock"),
        "see devices": _devices,
        "make a program that runs as its owner": _as_owner,
        "make a device": lambda: os.mknod("device", 0o60600, os.makedev(8, 0)),
    }


def _processes(given: dict[str, Any]) -> dict[str, Attempt]:
    return {
        "see the environment": lambda: given["variable"] if given["variable"] in os.environ else None,
        "see the environment of process 1": lambda: _contains("/proc/1/environ", given["variable"]),
        "see the host's processes": _other_processes,
        "keep descriptors of the host": _descriptors,
        "have a terminal": _opens("/dev/tty", os.O_RDWR),
        "share a session with the host": lambda: None if os.getsid(0) > 0 else "its session began outside",
        "see the host's name": lambda: _differs(socket.gethostname(), "sandbox"),
        "see the host's shared memory": lambda: "\n".join(Path("/proc/sysvipc/shm").read_text().splitlines()[1:]),
    }


def _network(given: dict[str, Any]) -> dict[str, Attempt]:
    return {
        "see network interfaces": lambda: ", ".join(name for _, name in socket.if_nameindex() if name != "lo"),
        "reach the internet": _routes(socket.AF_INET, "192.0.2.1"),
        "reach the internet by IPv6": _routes(socket.AF_INET6, "2001:db8::1"),
        "reach cloud metadata": _routes(socket.AF_INET, "169.254.169.254"),
        "reach private addresses": _routes(socket.AF_INET, "10.0.0.1"),
        "reach the host's loopback": _connects(socket.AF_INET, ("127.0.0.1", given["port"])),
        "reach the host's abstract sockets": _connects(socket.AF_UNIX, "\0" + given["socket"]),
    }


def _privileges() -> dict[str, Attempt]:
    return {
        "be somebody else": lambda: _differs((os.getuid(), os.getgid()), (65534, 65534)),
        "have groups": lambda: ", ".join(str(group) for group in os.getgroups() if group != 65534),
        "have capabilities": lambda: _status("CapEff", 0, 16) or _status("CapPrm", 0, 16) or _status("CapAmb", 0, 16),
        "get privileges from programs": lambda: _status("NoNewPrivs", 1),
        "use system calls unfiltered": lambda: _status("Seccomp", 2),
        "become root": _become_root,
        "change the root directory": lambda: os.chroot("/usr"),
        "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
        "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
        "open a vsock": lambda: socket.socket(40, socket.SOCK_STREAM).close(),
        "open the kernel's crypto": lambda: socket.socket(38, socket.SOCK_SEQPACKET).close(),
    }


def _calls() -> dict[str, Attempt]:
    """System calls that must be refused, with arguments that do no harm should they not be."""
    column = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
    if column is None:
        return {"make system calls": lambda: f"they cannot be tried on {platform.machine()}"}
    attempts: dict[str, Attempt] = {}
    for name, (numbers, arguments) in _CALLS.items():
        attempts[f"call {name}"] = _call(numbers[column], *arguments)
    attempts["call clone for a user namespace"] = _call((56, 220)[column], 0x10000000 | 17, 0, 0, 0, 0)
    attempts["type into a terminal"] = _call((16, 29)[column], 0, 0x5412, 0)
    attempts["type into a console"] = _call((16, 29)[column], 0, 0x541C, 0)
    if column == 0:
        attempts["make calls of another kind"] = _call(0x40000000 | 39)
    return attempts


_CALLS: dict[str, tuple[tuple[int, int], tuple[int, ...]]] = {
    "ptrace": ((101, 117), (0, 0, 0, 0)),
    "process_vm_readv": ((310, 270), (1, 0, 0, 0, 0, 0)),
    "unshare for a user namespace": ((272, 97), (0x10000000,)),
    "unshare for mounts": ((272, 97), (0x20000,)),
    "clone3": ((435, 435), (0, 0)),
    "setns": ((308, 268), (0, 0)),
    "mount": ((165, 40), (0, 0, 0, 0, 0)),
    "umount2": ((166, 39), (0, 0)),
    "pivot_root": ((155, 41), (0, 0)),
    "move_mount": ((429, 429), (0, 0, 0, 0, 0)),
    "open_tree": ((428, 428), (0, 0, 0)),
    "fsopen": ((430, 430), (0, 0)),
    "mount_setattr": ((442, 442), (0, 0, 0, 0, 0)),
    "keyctl": ((250, 219), (0, 0, 0)),
    "add_key": ((248, 217), (0, 0, 0, 0, 0)),
    "request_key": ((249, 218), (0, 0, 0, 0)),
    "bpf": ((321, 280), (0, 0, 0)),
    "io_uring_setup": ((425, 425), (1, 0)),
    "perf_event_open": ((298, 241), (0, 0, 0, 0, 0)),
    "userfaultfd": ((323, 282), (0,)),
    "init_module": ((175, 105), (0, 0, 0)),
    "kexec_load": ((246, 104), (0, 0, 0, 0)),
    "open_by_handle_at": ((304, 265), (-1, 0, 0)),
    "quotactl": ((179, 60), (0, 0, 0, 0)),
    "syslog": ((103, 116), (10, 0, 0)),
    "swapon": ((167, 224), (0, 0)),
    "reboot": ((169, 142), (0, 0, 0, 0)),
    "settimeofday": ((164, 170), (0, 0)),
    "sethostname": ((170, 161), (0, 0)),
    "personality": ((135, 92), (0x0040000,)),
}


def _bounds(given: dict[str, Any]) -> dict[str, Attempt]:
    sizes = {f"fill {path}": _fills(path, most) for path, most in given["sizes"].items()}
    return {
        **sizes,
        "write large files": lambda: _passes(resource.getrlimit(resource.RLIMIT_FSIZE)[1], given["file_size"]),
        "dump core": lambda: _passes(resource.getrlimit(resource.RLIMIT_CORE)[1], 0),
    }


# Kinds of attempts


def _reads(path: str) -> Attempt:
    return lambda: f"{path} was read" if Path(path).read_bytes() is not None else None


def _opens(path: str, flags: int) -> Attempt:
    def attempt() -> str:
        os.close(os.open(path, flags))
        return f"{path} was opened"

    return attempt


def _writes(folder: str) -> Attempt:
    return _opens(os.path.join(folder, "attempt"), os.O_WRONLY | os.O_CREAT)  # noqa: PTH118


def _connects(family: int, address: Any) -> Attempt:
    def attempt() -> str:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as connection:
            connection.settimeout(1)
            connection.connect(address)
        return f"{address!r} answers"

    return attempt


def _routes(family: int, address: str) -> Attempt:
    """Whether there is a way there; a datagram socket that is connected sends nothing."""

    def attempt() -> str:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as connection:
            connection.connect((address, 9))
        return f"there is a way to {address}"

    return attempt


def _call(number: int, *arguments: int) -> Attempt:
    def attempt() -> str | None:
        ctypes.set_errno(0)
        result = _syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
        if result == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
            return None
        return f"the kernel looked at it (result {result}, error {ctypes.get_errno()})"

    return attempt


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def _become_root() -> str | None:
    try:
        os.setuid(0)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EINVAL):  # EINVAL where the sandbox has no root at all
            return None
        raise
    return "it is root"


def _list(path: str) -> str:
    return ", ".join(os.listdir(path)[:5])  # noqa: PTH208


def _as_owner() -> str:
    descriptor = os.open("attempt", os.O_WRONLY | os.O_CREAT, 0o700)
    try:
        for attempt in (lambda: os.fchmod(descriptor, 0o4700), lambda: os.open("another", os.O_CREAT, 0o4700)):
            try:
                attempt()
            except PermissionError:
                continue
            return "one was made"
    finally:
        os.close(descriptor)
        os.unlink("attempt")  # noqa: PTH108
    return ""


def _devices() -> str:
    usual = {"core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"}
    return ", ".join(sorted(set(os.listdir("/dev")) - usual - {"console", "urandom", "zero"})[:5])  # noqa: PTH208


def _other_processes() -> str:
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    return ", ".join(str(pid) for pid in seen if pid > 16)


def _descriptors() -> str:
    own = os.readlink("/proc/self/ns/user")  # noqa: PTH115  # a descriptor of the namespace it is in gives it nothing
    kept = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # the one with which the folder was listed
        if int(name) > 2 and target != own:
            kept.append(target)
    return ", ".join(kept)


def _contains(path: str, text: str) -> str | None:
    return f"{path} has {text}" if text in Path(path).read_bytes().decode("utf-8", "replace") else None


def _status(name: str, wanted: int, base: int = 10) -> str | None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return _differs(int(line.split()[1], base), wanted)
    return f"the kernel does not tell {name}"


def _differs(found: Any, wanted: Any) -> str | None:
    return None if found == wanted else f"it is {found!r}, not {wanted!r}"[:200]


def _fills(path: str, most: int) -> Attempt:
    def attempt() -> str | None:
        status = os.statvfs(path)
        return _passes(status.f_blocks * status.f_frsize, most + 65536)

    return attempt


def _passes(found: int, most: int) -> str | None:
    return None if 0 <= found <= most else f"the limit is {found}, not {most}"


if __name__ == "__main__":
    main()
