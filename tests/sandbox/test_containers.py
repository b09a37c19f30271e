"""What is particular to containers: how they are asked for, what goes wrong, and that none is left behind."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from lagentlike.errors import InvalidArgument, MissingExtra, SandboxError, SandboxUnavailable
from lagentlike.sandbox import create_tool_backend, SandboxSettings
from lagentlike.sandbox.nomad import job_specification
from lagentlike.sandbox.pooled import PooledBackend

from .places import install_docker, NOMAD_TOKEN, Place

PATIENCE = 60.0


def containers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (folder / "docker").glob("*.json")]


async def test_a_container_of_docker_has_no_network_and_no_rights_unless_it_is_said(tmp_path: Path) -> None:
    place = Place("docker", tmp_path, memory_mb=100, max_processes=10)
    await place.start()
    try:
        ((options,),) = [[one["options"] for one in containers(tmp_path)]]
        assert options["--network"] == ["none"]
        assert options["--cap-drop"] == ["ALL"]
        assert options["--security-opt"] == ["no-new-privileges"]
        assert options["--memory"] == ["300m"]
        assert "--privileged" not in options
        folder = Path(options["--volume"][0].split(":")[0])
        assert sorted(path.name for path in folder.iterdir()) == ["server"]  # its token was read and removed
    finally:
        await place.stop()
    assert containers(tmp_path) == []
    assert not folder.exists()


async def test_docker_that_does_not_work_is_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as stack:
        install_docker(tmp_path, stack)
        missing = create_tool_backend({"tool_pool_mode": "docker", "sandbox_image": "no-such:image"})
        with pytest.raises(SandboxError, match="Unable to find image 'no-such:image'"):
            await missing.start()
        broken = create_tool_backend({"tool_pool_mode": "docker", "sandbox_image": "broken:local"})
        with pytest.raises(
            SandboxError,
            match=r"broken:local: the container .* ended \(exit code 1\): ModuleNotFoundError: no lagentlike",
        ):
            await broken.start()
        assert containers(tmp_path) == []
        monkeypatch.setenv("FAKE_DOCKER_LOGS", "syslog")
        with pytest.raises(SandboxError, match=r"broken:local: the container .* ended \(exit code 1\)"):
            await create_tool_backend({"tool_pool_mode": "docker", "sandbox_image": "broken:local"}).start()
        assert containers(tmp_path) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="docker is not installed"):
        await create_tool_backend({"tool_pool_mode": "docker"}).start()
    (tmp_path / "podman").write_text("#!/bin/sh\necho 'Cannot connect to the daemon' >&2; exit 1\n")
    (tmp_path / "podman").chmod(0o755)
    with pytest.raises(SandboxUnavailable, match=r"podman does not work here.*Cannot connect to the daemon"):
        await create_tool_backend({"tool_pool_mode": "podman"}).start()


async def test_containers_come_as_they_are_wanted_and_go_when_nobody_uses_them(tmp_path: Path) -> None:
    place = Place("docker", tmp_path, slots_per_container=1, max_containers=2)
    await place.start()
    try:
        backend = place.backend
        first = await backend.acquire("a")
        late = asyncio.ensure_future(backend.acquire("b", PATIENCE))
        later = asyncio.ensure_future(backend.acquire("c", PATIENCE))  # for whom there may be no third container
        second = await late
        assert first.container != second.container
        assert len(containers(tmp_path)) == 2
        await backend.release(first, reset_workspace=True)
        third = await later
        assert third.container == first.container
        for slot in (second, third):
            await backend.release(slot, reset_workspace=True)
        backend._idle_s = 0.2  # type: ignore[attr-defined]
        shrinking = asyncio.ensure_future(backend._shrink())  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            while backend.get_stats()["containers"] > 1 or len(containers(tmp_path)) > 1:
                await asyncio.sleep(0.05)
        shrinking.cancel()
        assert (await backend.execute_batch([(await backend.acquire("d"), "bash", {"command": "true"})], 30))[0].success
    finally:
        await place.stop()
    assert containers(tmp_path) == []


async def test_containers_of_an_earlier_run_can_be_removed(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        install_docker(tmp_path, stack)
        old = {"pid": 2**22, "labels": ["lagentlike.job=mine"], "options": {}}
        (tmp_path / "docker" / "old.json").write_text(json.dumps(old))
        (tmp_path / "docker" / "other.json").write_text(json.dumps({**old, "labels": ["lagentlike.job=theirs"]}))
        settings = {"tool_pool_mode": "docker", "sandbox_job_id": "mine", "sandbox_image": "broken:local"}
        with pytest.raises(SandboxError):
            await create_tool_backend({**settings, "purge_job_on_start": True}).start()
        assert [file.stem for file in (tmp_path / "docker").glob("*.json")] == ["other"]


async def test_a_job_of_nomad_is_scaled_as_slots_are_wanted_and_purged(tmp_path: Path) -> None:
    place = Place("nomad", tmp_path, slots_per_container=1, max_containers=2)
    await place.start()
    fake, backend = place.fake, place.backend
    try:
        first = await backend.acquire("a")
        second = await backend.acquire("b", PATIENCE)
        assert first.container != second.container
        assert ("POST", "/v1/job/atropos-sandbox-agent-env/scale") in fake.requests
        (job,) = fake.jobs.values()
        assert job["TaskGroups"][0]["Count"] == 2
        for slot in (first, second):
            await backend.release(slot, reset_workspace=True)
    finally:
        await backend.stop(purge=True)
        assert fake.jobs == {}
        await place.stop()


async def test_a_job_of_nomad_is_not_made_smaller_than_what_is_used(tmp_path: Path) -> None:
    """Nomad stops those of the highest numbers, whatever they do."""
    place = Place("nomad", tmp_path, slots_per_container=1, max_containers=2)
    await place.start()
    fake, backend = place.fake, place.backend
    shrinking = None
    try:
        first = await backend.acquire("a")
        second = await backend.acquire("b", PATIENCE)
        await backend.release(first, reset_workspace=True)
        assert isinstance(backend, PooledBackend)
        backend._idle_s = 0.2
        shrinking = asyncio.ensure_future(backend._shrink())
        await asyncio.sleep(1)
        call = (second, "bash", {"command": "echo on"})
        assert [one.output for one in await backend.execute_batch([call], PATIENCE)] == ["on\n"]
        await backend.release(second, reset_workspace=True)
        async with asyncio.timeout(PATIENCE):
            while backend.get_stats()["containers"] > 1:
                await asyncio.sleep(0.05)
        (job,) = fake.jobs.values()
        assert job["TaskGroups"][0]["Count"] == 1
        call = (await backend.acquire("c", PATIENCE), "bash", {"command": "echo still"})
        assert [one.output for one in await backend.execute_batch([call], PATIENCE)] == ["still\n"]
        fake.kill(next(one["ID"] for one in fake.allocations.values() if one["ClientStatus"] == "running"))
        call = (await backend.acquire("d", PATIENCE), "bash", {"command": "echo again"})
        assert [one.output for one in await backend.execute_batch([call], PATIENCE)] == ["again\n"]
    finally:
        if shrinking is not None:
            shrinking.cancel()
        await place.stop()


async def test_an_allocation_that_cannot_be_looked_at_is_given_back(tmp_path: Path) -> None:
    place = Place("nomad", tmp_path, slots_per_container=1, max_containers=2)
    await place.start()
    try:
        first = await place.backend.acquire("a")
        place.fake.refusals = 1
        second = await place.backend.acquire("b", PATIENCE)
        assert second.container != first.container
        assert place.fake.refusals == 0
        stopped = [one for one in place.fake.allocations.values() if one["DesiredStatus"] == "stop"]
        assert len(stopped) == 1
    finally:
        await place.stop()


async def test_a_sandbox_of_modal_that_has_lived_long_enough_fails_its_trajectories_at_once(tmp_path: Path) -> None:
    place = Place("modal", tmp_path)
    await place.start()
    try:
        slot = await place.backend.acquire("a")
        (sandbox,) = place.fake.sandboxes
        sandbox.expire()
        async with asyncio.timeout(PATIENCE):
            while not slot.lost:
                await asyncio.sleep(0.02)
        assert "has lived for 3600 seconds" in slot.lost
        assert not (await place.backend.acquire("b", PATIENCE)).lost
    finally:
        await place.stop()


async def test_nomad_that_refuses_is_no_sandbox(tmp_path: Path) -> None:
    place = Place("nomad", tmp_path, nomad_token="another")
    with pytest.raises(SandboxUnavailable, match="answered GET /v1/agent/health with 403: Permission denied"):
        await place.start()
    await place.fake.stop()
    away = create_tool_backend({"tool_pool_mode": "nomad", "nomad_address": "http://127.0.0.1:1"})
    with pytest.raises(SandboxUnavailable, match="Nomad does not answer"):
        await away.start()


def test_the_job_says_all_that_nomad_needs() -> None:
    settings = SandboxSettings(tool_pool_mode="nomad", min_containers=2, slots_per_container=4, privileged=True)
    job = job_specification(settings, "t0ken")
    (group,) = job["TaskGroups"]
    (task,) = group["Tasks"]
    assert (job["ID"], job["Type"], group["Count"]) == ("atropos-sandbox-agent-env", "service", 2)
    assert group["Networks"] == [{"DynamicPorts": [{"Label": "http", "To": 8080}]}]
    assert task["Driver"] == "docker"
    assert task["Config"]["image"] == "atropos-sandbox:local"
    assert task["Config"]["privileged"] is True
    assert task["Config"]["args"][:4] == ["-m", "lagentlike.sandbox.server", "--slots", "4"]
    assert "t0ken" not in json.dumps(task["Config"])
    assert task["Resources"]["MemoryMB"] == 4096
    other = SandboxSettings(tool_pool_mode="nomad", driver="singularity", singularity_image="/images/s.sif")
    (task,) = job_specification(other, "t")["TaskGroups"][0]["Tasks"]
    assert (task["Driver"], task["Config"]["command"]) == ("raw_exec", "singularity")
    assert task["Config"]["args"][:3] == ["exec", "--writable-tmpfs", "/images/s.sif"]
    assert task["Config"]["args"][-1] == "${NOMAD_PORT_http}"


async def test_a_sandbox_of_modal_is_made_as_the_settings_say(tmp_path: Path) -> None:
    place = Place("modal", tmp_path, modal_env_vars="A=1, B=x=y", modal_secrets="vault", modal_gpu="T4", modal_cpu=2.0)
    await place.start()
    try:
        (sandbox,) = place.fake.sandboxes
        options = sandbox.options
        assert (options["gpu"], options["cpu"], options["memory"], options["timeout"]) == ("T4", 2.0, 2048, 3600)
        assert (options["encrypted_ports"], options["outbound_cidr_allowlist"]) == ([8080], [])
        assert options["image"].steps[0] == "python:3.11"
        assert "add_local_python_source lagentlike" in options["image"].steps
        slot = await place.backend.acquire("a")
        assert slot.workspace.startswith(str(tmp_path / "data"))
        echo = {"command": "echo $A $B $SECRET_VAULT [$LAGENTLIKE_SANDBOX_TOKEN]"}
        (result,) = await place.backend.execute_batch([(slot, "bash", echo)], PATIENCE)
        assert result.output == "1 x=y of vault []\n"
    finally:
        await place.stop()
    assert sandbox.returncode is not None


def test_modal_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(MissingExtra, match=r"lagentlike\[modal\]"):
        create_tool_backend({"tool_pool_mode": "modal"})
    monkeypatch.setitem(sys.modules, "modal", object())
    with pytest.raises(InvalidArgument, match="NAME=value"):
        create_tool_backend({"tool_pool_mode": "modal", "modal_env_vars": "A"})


def test_no_token_of_a_server_shows_in_settings() -> None:
    settings = SandboxSettings(nomad_token=NOMAD_TOKEN, modal_env_vars="KEY=hush")
    assert NOMAD_TOKEN not in repr(settings)
    assert "hush" not in repr(settings)
