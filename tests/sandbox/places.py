"""Backends of every kind to test with, the absent ones over faithful fakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from lagentlike.sandbox import create_tool_backend, Slot, ToolBackend

ROOT = Path(__file__).resolve().parents[2]
KINDS = tuple(os.environ.get("LAGENTLIKE_TEST_SANDBOXES", "bwrap,local,docker,nomad,modal").split(","))
"""`podman` and `real-docker` run the real ones, where there is one with an image `lagentlike-sandbox:local`."""

NOMAD_TOKEN = "3f4a0fcd-7c42-773c-25db-2d31ba0c05fe"


class Place:
    """A running backend of one kind, and how to kill what is behind it.

    Args:
        kind: the backend.
        folder: for what a fake keeps.
        settings: in addition to those that all places have.
    """

    def __init__(self, kind: str, folder: Path, **settings: Any) -> None:
        self.kind = kind
        self.settings: dict[str, Any] = {
            "tool_pool_mode": kind.removeprefix("real-"),
            "slots_per_container": 3,
            "modal_slots_per_sandbox": 3,
            "min_containers": 1,
            "max_containers": 1,
            "modal_min_sandboxes": 1,
            "modal_max_sandboxes": 1,
            "sandbox_image": "lagentlike-sandbox:local",
            "nomad_token": NOMAD_TOKEN,
            "modal_workspace_base": str(folder / "data"),
            **settings,
        }
        self.backend: ToolBackend
        self.kill: Callable[[Slot], None]
        self.fake: Any = None
        self._folder = folder
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        getattr(self, f"_{self.kind.replace('-', '_')}", self._machine)()
        if self.kind == "nomad":
            await self.fake.start()
            self._stack.push_async_callback(self.fake.stop)
            self.settings["nomad_address"] = self.fake.url
        self.backend = create_tool_backend(self.settings)
        await self._stack.enter_async_context(self.backend)

    async def stop(self) -> None:
        await self._stack.aclose()

    def _machine(self) -> None:
        def kill(slot: Slot) -> None:
            raise AssertionError("this machine is not to be killed")

        self.kill = kill

    def _docker(self) -> None:
        install_docker(self._folder, self._stack)

        def kill(slot: Slot) -> None:
            state = json.loads((self._folder / "docker" / f"{slot.container}.json").read_text())
            os.killpg(state["pid"], signal.SIGKILL)

        self.kill = kill

    def _podman(self) -> None:
        self.kill = lambda slot: _kill_container("podman", slot)

    def _real_docker(self) -> None:
        self.kill = lambda slot: _kill_container("docker", slot)

    def _nomad(self) -> None:
        from .fake_nomad import FakeNomad

        self.fake = FakeNomad(NOMAD_TOKEN, self._folder)

        def kill(slot: Slot) -> None:
            (name,) = [name for name in self.fake.allocations if slot.container == f"nomad-{name[:8]}"]
            self.fake.kill(name)

        self.kill = kill

    def _modal(self) -> None:
        from .fake_modal import fake_modal

        self.fake = fake_modal(self._folder)
        before = sys.modules.get("modal")
        sys.modules["modal"] = self.fake

        def restore() -> None:
            del sys.modules["modal"]
            if before is not None:
                sys.modules["modal"] = before

        self._stack.callback(restore)

        def kill(slot: Slot) -> None:
            (sandbox,) = [one for one in self.fake.sandboxes if one.object_id == slot.container]
            sandbox.kill()

        self.kill = kill


def _kill_container(program: str, slot: Slot) -> None:
    subprocess.run([program, "kill", "--signal", "KILL", slot.container], check=True, capture_output=True)


def install_docker(folder: Path, stack: AsyncExitStack, *programs: str) -> None:
    """Put the fake in the place of `docker` and other programs, until the stack is closed."""
    state, programs_folder = folder / "docker", folder / "bin"
    state.mkdir(exist_ok=True)
    programs_folder.mkdir(exist_ok=True)
    for name in ("docker", *programs):
        program = programs_folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {Path(__file__).with_name("fake_docker.py")} "$@"\n')
        program.chmod(0o755)
    before = dict(os.environ)
    os.environ["PATH"] = f"{programs_folder}:{os.environ['PATH']}"
    os.environ["FAKE_DOCKER"] = str(state)
    os.environ["PYTHONPATH"] = str(ROOT)

    def restore() -> None:
        os.environ.clear()
        os.environ.update(before)

    stack.callback(restore)


def server_environment(given: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment of a container in which the package is installed, with a `/tmp` that goes with the test."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TMPDIR": str(folder), **given}
