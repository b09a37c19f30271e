"""Slots that are users: each is kept from the others, and leaves nothing; for containers without bubblewrap."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lagentlike.errors import SandboxUnavailable
from lagentlike.sandbox import slot_user as module
from lagentlike.sandbox import SlotUser
from lagentlike.sandbox.machine import MachineHost
from lagentlike.sandbox.slot_user import _can_run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to become other users")
PATIENCE = 30.0


PYTHONS = [one for one in (sys.executable, "/usr/bin/python3") if os.geteuid() == 0 and _can_run(one)]


@asynccontextmanager
async def serving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MachineHost]:
    if not PYTHONS:
        pytest.skip("there is no Python here that all users can run")
    monkeypatch.setattr(sys, "executable", PYTHONS[0])
    monkeypatch.setattr(module, "_uids", itertools.count(20_000 + os.getpid() % 30_000))  # tests run side by side
    host = MachineHost(SlotUser(), 2)
    try:
        yield host
    finally:
        await host.close()


async def bash(host: MachineHost, slot: str, command: str) -> str:
    return (await host.run(slot, "bash", {"command": command}, PATIENCE)).output


def running(user: int) -> list[str]:
    """The programs of a user that have not ended."""
    listed = subprocess.run(["ps", "-u", str(user), "-o", "stat=,args="], capture_output=True, text=True, check=False)
    return [line for line in listed.stdout.splitlines() if line[0] not in "ZX"]


async def test_a_slot_cannot_touch_what_another_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch) as host:
        one, two = host.slots()
        mark = uuid.uuid4().hex
        secret = f"/tmp/lagentlike-{mark}"  # which all slots share
        await bash(host, one, f"umask 0; echo secret > s; chmod 777 . s; umask 077; echo secret > {secret}")
        await host.run(one, "terminal_stateful", {"command": f"sleep 100 {mark[:3]} &"}, PATIENCE)
        looked = await bash(host, two, f"cat {host.slots()[one]}/s {secret}; rm -f {secret}; kill -9 -1; id -u")
        assert "secret\n" not in looked
        assert await bash(host, one, f"cat s {secret}") == "secret\nsecret\n"
        assert await bash(host, one, "id -u") != await bash(host, two, "id -u")


async def test_a_slot_that_was_reset_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch) as host:
        slot, _ = host.slots()
        file = Path("/tmp") / f"lagentlike-{uuid.uuid4().hex}"
        workspace = Path(host.slots()[slot])
        user = int(
            await bash(host, slot, f"setsid sleep 300 >/dev/null 2>&1 & touch {file}; mkdir d; chmod 0 d; id -u")
        )
        assert file.exists()
        assert any("sleep 300" in line for line in running(user))
        again = await host.reset(slot)
        assert not file.exists()
        assert not workspace.exists()
        assert running(user) == []
        assert await bash(host, again, "ls -A") == ""
        assert int(await bash(host, again, "id -u")) != user


def test_python_that_only_root_can_run_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "python3").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(hidden / "python3"))
    with pytest.raises(SandboxUnavailable, match="put Python where all users can read it"):
        SlotUser().check()


def test_a_folder_beside_one_of_a_user_of_this_machine_is_not_given_to_that_user(tmp_path: Path) -> None:
    for name in ("others", "one", "two"):
        (tmp_path / name).mkdir()
    os.chown(tmp_path / "others", 65534, 65534)
    for name in ("one", "two"):
        SlotUser().hand_over(tmp_path / name)
    first, second = ((tmp_path / name).stat().st_uid for name in ("one", "two"))
    assert first == second
    assert first not in (0, 65534)
