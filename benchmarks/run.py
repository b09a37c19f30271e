"""Measure raw, Lagent and lagentlike side by side on the same work: `python -m benchmarks.run`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.imports import import_costs
from benchmarks.report import Rounds, write_report
from benchmarks.workloads import WORKLOADS

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parent
LAGENT = "lagent==0.5.0rc3"
CLIENTS = ("raw", "lagent", "lagentlike")


def main() -> None:
    """Measure as the command line says, write the report beside this file and print it."""
    arguments = _arguments()
    lagent_python = _lagent_environment() if "lagent" in arguments.clients else None
    pythons = {"lagent": lagent_python or ""}
    with _server(arguments.server_cpu) as address:
        rounds: Rounds = {workload: {client: [] for client in arguments.clients} for workload in arguments.workloads}
        for number in range(arguments.rounds):
            for workload in arguments.workloads:
                for client in _in_turn(arguments.clients, number):
                    python = pythons.get(client, sys.executable)
                    took = _measured(python, client, workload, address, arguments.client_cpu)
                    rounds[workload][client].append(took)
                    _say(f"round {number + 1} {workload} {client:18} {took['cpu_s']:.3f} s CPU {took['wall_s']:.3f} s")
    imports = import_costs(arguments.import_rounds, _environment(), lagent_python)
    setting = (
        f"Server on processor {arguments.server_cpu}, client on processor {arguments.client_cpu}. {arguments.note}"
    )
    print(write_report(arguments.output, rounds, imports, setting.strip()))


def _arguments() -> argparse.Namespace:
    cpus = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of all workloads and clients (default: %(default)s)")
    parser.add_argument("--import-rounds", type=int, default=15, help="of the import programs (default: %(default)s)")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="W1")
    parser.add_argument("--clients", nargs="+", choices=[*CLIENTS, "lagentlike_uvloop"], default=list(CLIENTS))
    parser.add_argument("--server-cpu", type=int, default=cpus[0], help="processor of the server (default: the first)")
    parser.add_argument("--client-cpu", type=int, default=cpus[-1], help="processor of the clients (default: the last)")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the report (default: this one)")
    parser.add_argument("--note", default="", help="a sentence for the report on how the machine was used")
    arguments = parser.parse_args()
    if "raw" not in arguments.clients:
        parser.error("--clients must include raw: every figure is a ratio to it")
    return arguments


def _in_turn(clients: list[str], number: int) -> list[str]:
    """A different client first in every round, so that none always runs on a warmer machine."""
    first = number % len(clients)
    return clients[first:] + clients[:first]


def _measured(python: str, client: str, workload: str, address: str, cpu: int) -> dict[str, Any]:
    name = client.removesuffix("_uvloop")
    command = [python, "-W", "ignore", "-m", "benchmarks.measure", name, workload, address, "--cpu", str(cpu)]
    if name != client:
        command.append("--uvloop")
    finished = subprocess.run(
        command, env=_environment(), cwd=FOLDER.parent, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr}")
    measured: dict[str, Any] = json.loads(finished.stdout)
    return measured


@contextmanager
def _server(cpu: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.server", "--cpu", str(cpu)]
    with subprocess.Popen(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            if not port:
                raise RuntimeError("the local server did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _lagent_environment() -> str:
    """The Python of an environment with Lagent, made on first use, with the same `aiohttp` as ours."""
    python = FOLDER / ".lagent" / "bin" / "python"
    if not python.exists():
        _say(f"making {python.parent.parent} with {LAGENT} ...")
        venv.create(python.parent.parent, with_pip=True)
        wanted = [LAGENT, f"aiohttp=={version('aiohttp')}"]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    return str(python)


def _environment() -> dict[str, str]:
    """That of this process, with byte code cached as everywhere else and nothing that slows or warns."""
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"JUPYTER_PLATFORM_DIRS": "1", "OMP_NUM_THREADS": "1"}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
