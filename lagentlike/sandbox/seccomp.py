"""The system calls that a sandbox is refused, as a BPF program.

`bwrap --seccomp` loads it for the program that it starts, and nothing below that can take it off. Names and numbers are
those of the kernel's `unistd.h`; the list is what Docker and Flatpak refuse programs without capabilities, and what no
program needs that computes.
"""

from __future__ import annotations

import errno
import platform
import struct
from functools import cache

__all__ = ["DENIED", "program"]

_NUMBERS = {
    # name: (x86_64, aarch64); None where there is no such call
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "sysfs": (139, None),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
}
_CONDITIONAL = {
    "chmod": (90, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "creat": (85, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "ioctl": (16, 29),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "personality": (135, 92),
    "socket": (41, 198),
}

DENIED = tuple(_NUMBERS)
"""Names of the calls that are refused whatever their arguments."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_NEWEST = 462
"""Calls with higher numbers are newer than this list: programs are told that the kernel has none."""

_NAMESPACES = 0x7E020000
"""CLONE_NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWNS."""

_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK; no vsock, packets, or the kernel's crypto."""

_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into a terminal."""

_AS_OWNER = 0o6000
"""The modes of a program that runs as its owner or group: what is in a workspace could be run outside."""

_MODES = {"chmod": 1, "creat": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "mknod": 1, "mknodat": 2}
"""Which argument is the mode of a file."""

_OPENING = {"open": 1, "openat": 2}
"""Which argument has the flags; the one after it is the mode, if a file is made."""

_MAKING = 0o100 | 0o20000000
"""O_CREAT and O_TMPFILE."""

# BPF's words, and where `struct seccomp_data` has what is looked at (the lower halves of arguments).
_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _KILL = 0x7FFF0000, 0x80000000


@cache
def program(machine: str = "") -> bytes | None:
    """The BPF program for a kind of processor, this machine's by default; None if there is none for it.

    Args:
        machine: `x86_64` or `aarch64`.
    """
    known = _ARCHITECTURES.get(machine or platform.machine())
    if known is None:
        return None
    column, architecture = known
    lines = [
        *_unless(_EQUAL, architecture, _KILL, load=_ARCHITECTURE),
        _line(_LOAD, _NUMBER),
        *_if(_GREATER_EQUAL, _NEWEST + 1, _refuse(errno.ENOSYS)),
    ]
    for numbers in _NUMBERS.values():
        number = numbers[column]
        if number is not None:
            lines += _if(_EQUAL, number, _refuse(errno.EPERM))
    for name, body in _bodies().items():
        number = _CONDITIONAL[name][column]
        if number is not None:
            lines += [_line(_EQUAL, number, 0, len(body)), *body]
    return b"".join([*lines, _line(_RETURN, _ALLOW)])


def _bodies() -> dict[str, list[bytes]]:
    """What is looked at in the calls that depend on their arguments."""
    not_permitted = _refuse(errno.EPERM)
    no_such_call = [
        _line(_RETURN, _refuse(errno.ENOSYS))
    ]  # what it would do cannot be seen; programs use the older one
    as_owner = _if(_ANY_BIT, _AS_OWNER, not_permitted)
    typing = [line for request in _TERMINAL_INPUT for line in _if(_EQUAL, request, not_permitted)]
    usual = [line for value in (0, 0xFFFFFFFF) for line in _if(_EQUAL, value, _ALLOW)]
    families = [line for family in _FAMILIES for line in _if(_EQUAL, family, _ALLOW)]
    return {
        "clone3": no_such_call,
        "openat2": no_such_call,
        "clone": _looking(0, _if(_ANY_BIT, _NAMESPACES, not_permitted)),
        "ioctl": _looking(1, typing),
        "personality": _looking(0, [*usual, _line(_RETURN, not_permitted)]),
        "socket": _looking(0, [*families, _line(_RETURN, _refuse(errno.EAFNOSUPPORT))]),
        **{name: _looking(argument, as_owner) for name, argument in _MODES.items()},
        **{
            name: _looking(
                argument, [_line(_ANY_BIT, _MAKING, 1, 0), _line(_RETURN, _ALLOW), *_looking(argument + 1, as_owner)]
            )
            for name, argument in _OPENING.items()
        },
    }


def _line(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One `struct sock_filter`; `yes` and `no` are how many lines are passed over."""
    return struct.pack("=HBBI", code, yes, no, value)


def _if(test: int, value: int, answer: int) -> list[bytes]:
    """Answer if what was loaded passes a test."""
    return [_line(test, value, 0, 1), _line(_RETURN, answer)]


def _unless(test: int, value: int, answer: int, *, load: int) -> list[bytes]:
    return [_line(_LOAD, load), _line(test, value, 1, 0), _line(_RETURN, answer)]


def _looking(argument: int, tests: list[bytes]) -> list[bytes]:
    """Load an argument, test it, and allow what passed."""
    return [_line(_LOAD, _ARGUMENTS + 8 * argument), *tests, _line(_RETURN, _ALLOW)]


def _refuse(error: int) -> int:
    return 0x00050000 | error
