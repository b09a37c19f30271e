"""What importing costs: CPU time of whole interpreters, measured in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

__all__ = ["PROGRAMS", "import_costs"]

PROGRAMS = {
    "bare Python": "pass",
    "import lagentlike": "import lagentlike",
    "import aiohttp, pydantic": "import aiohttp, pydantic",
    "AsyncAgent and AsyncGPTAPI": "from lagentlike.agents import AsyncAgent; from lagentlike.llms import AsyncGPTAPI",
}
LAGENT_PROGRAM = "from lagent.agents import AsyncAgent; from lagent.llms import AsyncGPTAPI"


def import_costs(rounds: int, environment: dict[str, str], lagent_python: str | None = None) -> dict[str, float]:
    """Median CPU seconds of an interpreter that runs each program, start and end included."""
    commands = {name: [sys.executable, "-c", code] for name, code in PROGRAMS.items()}
    if lagent_python is not None:
        commands["the same of Lagent"] = [lagent_python, "-W", "ignore", "-c", LAGENT_PROGRAM]
    for command in commands.values():
        _cpu_seconds(command, environment)  # writes the byte code
    costs: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            costs[name].append(_cpu_seconds(command, environment))
    return {name: median(seconds) for name, seconds in costs.items()}


def _cpu_seconds(command: list[str], environment: dict[str, str]) -> float:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime
