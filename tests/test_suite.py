"""What the suite promises of itself: loopback only, and leaks are seen."""

from __future__ import annotations

import asyncio
import os
import socket
import threading

import pytest


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_connecting_off_this_machine_raises(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock, pytest.raises(RuntimeError, match="loopback addresses only"):
        sock.connect((host, 80))


def test_looking_up_a_name_raises() -> None:
    with pytest.raises(RuntimeError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 80)


async def test_coroutine_tests_run_in_a_loop() -> None:
    assert asyncio.get_running_loop().is_running()
    assert not asyncio.get_running_loop().get_debug()


async def test_loopback_is_open(no_leaks: None) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("def test_it(no_leaks):\n    keep.append(open(os.devnull))", "/dev/null"),
        ("def test_it(no_leaks):\n    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", "Thread"),
        ("async def test_it(no_leaks):\n    keep.append(asyncio.create_task(asyncio.sleep(9)))", "1 tasks left"),
    ],
)
def test_a_leak_fails_the_test(pytester: pytest.Pytester, pytestconfig: pytest.Config, body: str, what: str) -> None:
    lines = (pytestconfig.rootpath / "tests" / "conftest.py").read_text(encoding="utf-8").splitlines()
    alone = "\n".join(line for line in lines if not line.startswith("from ."))  # no fixtures of files beside it
    pytester.makeconftest(alone.replace("SETTLE_SECONDS = 5.0", "SETTLE_SECONDS = 0.2"))
    pytester.makepyfile(f"import asyncio, os, threading, time\nkeep = []\n\n{body}\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n0")
    assert result.ret == 1
    assert what in result.stdout.str()


def test_keys_of_the_user_are_out_of_sight() -> None:
    assert not [name for name in os.environ if name.endswith("_API_KEY")]
    assert threading.current_thread() is threading.main_thread()
