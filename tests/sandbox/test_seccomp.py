"""The BPF program of system calls that are refused, run by a small machine of its own for both processors."""

from __future__ import annotations

import errno
import os
import re
import struct
from pathlib import Path

import pytest

from lagentlike.sandbox import checks_program, seccomp

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = tuple(AUDIT)


def decide(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the kernel would do with a call."""
    arguments = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, AUDIT[machine] if architecture is None else architecture, 0, *arguments)
    program = seccomp.program(machine)
    assert program is not None
    lines = list(struct.iter_unpack("=HBBI", program))
    place = accumulator = 0
    for _ in range(len(lines) + 1):
        code, yes, no, value = lines[place]
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return int(value)
        else:
            passed = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            place += yes if passed else no
    raise AssertionError("the program does not end")


def refused(error: int) -> int:
    return 0x00050000 | error


def number(machine: str, name: str) -> int:
    column = MACHINES.index(machine)
    found = {**seccomp._NUMBERS, **seccomp._CONDITIONAL}[name][column]
    assert found is not None
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_listed_calls_are_refused_and_others_are_not(machine: str) -> None:
    for name in seccomp.DENIED:
        if seccomp._NUMBERS[name][MACHINES.index(machine)] is not None:
            assert decide(machine, number(machine, name)) == refused(errno.EPERM), name
    known = {number(machine, name) for name in seccomp.DENIED if seccomp._NUMBERS[name][MACHINES.index(machine)]}
    known |= {found[MACHINES.index(machine)] for found in seccomp._CONDITIONAL.values()}
    for other in set(range(463)) - known:
        assert decide(machine, other) == ALLOWED, other


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_kind_kill_the_program(machine: str) -> None:
    assert decide(machine, 1, architecture=0x40000003) == KILLED


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_that_are_newer_than_the_list_do_not_exist(machine: str) -> None:
    for other in (463, 5000, 0x40000000 | 39, 0xFFFFFFFF):
        assert decide(machine, other) == refused(errno.ENOSYS)


@pytest.mark.parametrize("machine", MACHINES)
def test_some_calls_depend_on_their_arguments(machine: str) -> None:
    clone, ioctl, socket = (number(machine, name) for name in ("clone", "ioctl", "socket"))
    assert decide(machine, clone, 0x01200011) == ALLOWED, "as fork does"
    for flag in (0x10000000, 0x20000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000):
        assert decide(machine, clone, flag | 17) == refused(errno.EPERM)
    assert decide(machine, number(machine, "clone3")) == refused(errno.ENOSYS)
    assert decide(machine, ioctl, 0, 0x5401) == ALLOWED
    assert decide(machine, ioctl, 0, 0x5412) == refused(errno.EPERM)
    assert decide(machine, ioctl, 0, 0x5412 | 1 << 32) == refused(errno.EPERM), "the kernel looks at the lower half"
    assert [decide(machine, socket, family) for family in (1, 2, 10, 16)] == [ALLOWED] * 4
    assert decide(machine, socket, 40) == refused(errno.EAFNOSUPPORT)
    assert decide(machine, number(machine, "personality"), 0xFFFFFFFF) == ALLOWED
    assert decide(machine, number(machine, "personality"), 0x0040000) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_no_file_becomes_a_program_that_runs_as_its_owner(machine: str) -> None:
    """It could be run outside, where it belongs to whoever the workspace belongs to."""
    allowed = {"x86_64": ["chmod", "creat", "fchmod", "mknod"], "aarch64": ["fchmod"]}[machine]
    places = {**dict.fromkeys(allowed, 1), "fchmodat": 2, "fchmodat2": 2, "mknodat": 2}
    for name, place in places.items():
        for mode in (0o755, 0o1777, 0o644):
            assert decide(machine, number(machine, name), *(0,) * place, mode) == ALLOWED, name
        for mode in (0o4755, 0o2755, 0o6000):
            assert decide(machine, number(machine, name), *(0,) * place, mode) == refused(errno.EPERM), name
    for name, place in {"openat": 2, **({"open": 1} if machine == "x86_64" else {})}.items():
        opening = number(machine, name)
        assert decide(machine, opening, *(0,) * place, os.O_RDONLY, 0o4755) == ALLOWED, "no file is made"
        assert decide(machine, opening, *(0,) * place, os.O_CREAT, 0o755) == ALLOWED
        for flags in (os.O_CREAT | os.O_WRONLY, os.O_TMPFILE | os.O_RDWR):
            assert decide(machine, opening, *(0,) * place, flags, 0o4755) == refused(errno.EPERM)
    assert decide(machine, number(machine, "openat2")) == refused(errno.ENOSYS)


HEADERS = {
    "x86_64": [f"/usr/include/{place}asm/unistd_64.h" for place in ("x86_64-linux-gnu/", "", "linux/")],
    "aarch64": ["/usr/include/asm-generic/unistd.h", "/usr/include/linux/asm-generic/unistd.h"],
}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    found = [Path(path).read_text() for path in HEADERS[machine] if Path(path).is_file()]
    if not found:
        pytest.skip("no headers of the kernel (Debian: linux-libc-dev)")
    told = {name: int(value) for name, value in re.findall(r"#define __NR3?2?6?4?_?(\w+) (\d+)", found[0])}
    column = MACHINES.index(machine)
    tried = {name: numbers for name, (numbers, _) in checks_program._CALLS.items() if " " not in name}
    for name, numbers in [*seccomp._NUMBERS.items(), *seccomp._CONDITIONAL.items(), *tried.items()]:
        if numbers[column] is not None:
            assert told.get(name, numbers[column]) == numbers[column], name
    assert {"bpf", "clone3", "openat", "ptrace", "unshare"} <= set(told)


def test_other_processors_have_no_program() -> None:
    assert seccomp.program("riscv64") is None
