"""Attempts to get out of a sandbox, made in one before it is trusted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import SandboxUnavailable
from .isolation import Launch, SCRATCH
from .process import Process, run_to_end

__all__ = ["attempts"]

SECONDS = 30.0
"""How long all attempts together may take."""


def attempts(start: Callable[[Launch], Process], launch: Launch, cure: str) -> dict[str, str]:
    """What code in a sandbox tries, and what was wrong each time; empty where it was refused.

    Args:
        start: starts a program in a sandbox.
        launch: the kind of sandbox; what is run in it does not matter.
        cure: what to do if the attempts cannot be made.

    Raises:
        SandboxUnavailable: they could not be made.
    """
    with _bait() as bait:
        limits = replace(launch.limits, seconds=SECONDS)
        in_memory = {"/tmp": limits.tmp, "/dev/shm": limits.tmp}  # noqa: S108  # the sandbox's own
        if launch.workspace is None:
            in_memory[SCRATCH] = limits.disk
        passwd = Path(__file__).with_name("etc") / "passwd"
        given = {
            **bait,
            "passwd": passwd.read_text(),
            "sizes": in_memory,
            "network": limits.network,
            "file_size": limits.disk,
        }
        program = str(Path(__file__).with_name("checks_program.py"))
        argv = (sys.executable, "-I", "-S", "-B", program, json.dumps(given))
        streams = (subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE)
        process = start(replace(launch, argv=argv, env={}, cwd=None, limits=limits, streams=streams))
        done = run_to_end(process, b"", limits)
    try:
        found = json.loads(done.stdout.text())
        if not done.ok or not isinstance(found, dict):
            raise ValueError(done.problem(limits))
    except ValueError as error:
        said = done.stderr.text().strip()[-500:]
        raise SandboxUnavailable(f"its self-checks could not be run: {said or error}. {cure}") from error
    return {str(name): str(problem) for name, problem in found.items()}


@contextmanager
def _bait() -> Iterator[Mapping[str, Any]]:
    """What must not be reached: files, a variable, and servers of this process."""
    word = f"LAGENTLIKE_BAIT_{uuid.uuid4().hex}"
    os.environ[word] = word
    try:
        with (
            tempfile.TemporaryDirectory(prefix="lagentlike-bait-") as folder,
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.socket(socket.AF_UNIX) as listener,
        ):
            Path(folder).chmod(0o755)
            file = Path(folder, "workspace-of-another", "file")
            file.parent.mkdir()
            file.write_text(word)
            listener.bind(f"\0{word}")
            listener.listen()
            files = {"another workspace": str(file), "the host's /proc": f"/proc/{os.getpid()}/root{file}"}
            yield {"files": files, "variable": word, "port": server.getsockname()[1], "socket": word}
    finally:
        del os.environ[word]
