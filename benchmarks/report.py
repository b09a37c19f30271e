"""Turn the measured rounds into figures, a table of markdown, JSON and a plot."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.workloads import WORKLOADS

__all__ = ["Rounds", "write_report"]

# rounds[workload][client] = one measurement a round, in the order of the rounds
Rounds = dict[str, dict[str, list[dict[str, Any]]]]

TITLES = {"raw": "raw", "lagent": "Lagent", "lagentlike": "lagentlike", "lagentlike_uvloop": "lagentlike on uvloop"}


@dataclass(frozen=True)
class Figure:
    """One row of the table: a number read from each measurement, and what to reach as a ratio to raw."""

    workload: str
    title: str
    read: Callable[[dict[str, Any]], float]
    unit: str
    reach: float
    absolute: bool = False  # `reach` is in `unit`, not a ratio


def _per(key: str, count: int, scale: float) -> Callable[[dict[str, Any]], float]:
    return lambda measurement: measurement[key] / count * scale


FIGURES = (
    Figure("W1", "CPU a turn", _per("cpu_s", WORKLOADS["W1"].count, 1e3), "ms", 0.65),
    Figure("W1", "CPU a turn, turns 251-300", _per("tail_cpu_s", WORKLOADS["W1"].tail_count, 1e3), "ms", 0.55),
    Figure("W2", "CPU a session", _per("cpu_s", WORKLOADS["W2"].count, 1e3), "ms", 1.15),
    Figure("W3", "CPU", _per("cpu_s", 1, 1), "s", 1.2),
    Figure("W3", "wall", _per("wall_s", 1, 1), "s", 1.15),
    Figure("W3", "peak memory", _per("memory_mb", 1, 1), "MB", 60, absolute=True),
    Figure("W4", "CPU a chunk", _per("cpu_s", WORKLOADS["W4"].count, 1e6), "us", 0.85),
    Figure("W5", "CPU", _per("cpu_s", 1, 1), "s", 1.2),
)


def write_report(folder: Path, rounds: Rounds, imports: dict[str, float], setting: str) -> str:
    """Write `RESULTS.md`, `results.json` and `results.png` into `folder`; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = [figure for figure in FIGURES if figure.workload in rounds]
    text = "\n".join([_heading(rounds, setting), _table(figures, rounds), _imports(imports), _legend()])
    (folder / "RESULTS.md").write_text(text, encoding="utf-8")
    measured = {"setting": setting, "versions": _versions(), "rounds": rounds, "import_cpu_s": imports}
    (folder / "results.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    _plot(folder / "results.png", figures, rounds)
    return text


def _heading(rounds: Rounds, setting: str) -> str:
    count = len(next(iter(next(iter(rounds.values())).values())))
    names = ", ".join(f"{name} {number}" for name, number in _versions().items())
    return f"# Side by side\n\n{names}. {count} interleaved rounds. {setting}\n"


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("aiohttp", "pydantic", "orjson")}
    return {"Python": platform.python_version(), **packages}


def _table(figures: list[Figure], rounds: Rounds) -> str:
    clients = [name for name in TITLES if any(name in row for row in rounds.values()) and name != "raw"]
    header = ["workload", "figure", "raw", *(TITLES[name] for name in clients), "to reach"]
    lines = [header, ["---"] * len(header)]
    for figure in figures:
        row = rounds[figure.workload]
        raw = median(map(figure.read, row["raw"]))
        cells = [_cell(figure, row[name], row["raw"]) if name in row else "" for name in clients]
        reach = f"<= {figure.reach:g} {figure.unit}" if figure.absolute else f"<= {figure.reach:g}"
        lines.append([figure.workload, figure.title, f"{raw:.3g} {figure.unit}", *cells, reach])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(figure: Figure, measured: list[dict[str, Any]], raw: list[dict[str, Any]]) -> str:
    if figure.absolute:
        return f"{median(map(figure.read, measured)):.3g} {figure.unit}"
    ratios = _ratios(figure, measured, raw)
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _ratios(figure: Figure, measured: list[dict[str, Any]], raw: list[dict[str, Any]]) -> list[float]:
    return [figure.read(mine) / figure.read(bare) for mine, bare in zip(measured, raw, strict=True)]


def _imports(imports: dict[str, float]) -> str:
    rows = "".join(f"| {name} | {seconds * 1e3:.0f} ms |\n" for name, seconds in imports.items())
    extra = (imports["import lagentlike"] - imports["bare Python"]) * 1e3
    ratio = imports["AsyncAgent and AsyncGPTAPI"] / imports["import aiohttp, pydantic"]
    return (
        f"\n## Imports\n\n| program | CPU time |\n| --- | --- |\n{rows}\n"
        f"`import lagentlike` adds {extra:.0f} ms to bare Python (to reach: 60 ms). Agents and the API model take "
        f"{ratio:.2f} of `import aiohttp, pydantic` (to reach: 1.3).\n"
    )


def _legend() -> str:
    workloads = "".join(f"- {workload.name}: {workload.title}.\n" for workload in WORKLOADS.values())
    return (
        f"\n## What the workloads are\n\n{workloads}\n"
        "CPU is the time of the client process alone, after warming up. A cell is the median ratio to raw over the\n"
        "rounds, with the smallest and the largest in brackets; raw is `aiohttp` with `json` and no framework.\n"
    )


def _plot(path: Path, figures: list[Figure], rounds: Rounds) -> None:
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise ImportError("the plot needs matplotlib: pip install 'lagentlike[plot]'") from error
    shown = [figure for figure in figures if not figure.absolute]
    clients = [name for name in TITLES if any(name in rounds[figure.workload] for figure in shown) and name != "raw"]
    canvas = Canvas(figsize=(8, 0.75 * len(shown) + 1.4), layout="constrained")
    axes = canvas.subplots()
    height = 0.8 / len(clients)
    for place, name in enumerate(clients):
        ratios = [median(_ratios(f, rounds[f.workload][name], rounds[f.workload]["raw"])) for f in shown]
        positions = [row + place * height for row in range(len(shown))]
        bars = axes.barh(positions, ratios, height=height * 0.9, label=TITLES[name])
        axes.bar_label(
            bars, fmt="%.2f", padding=4, fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        )
    for row, figure in enumerate(shown):
        top, bottom = row - height / 2, row + 0.8 - height / 2
        axes.plot(
            [figure.reach] * 2, [top, bottom], color="black", linewidth=1.5, label="to reach" if row == 0 else None
        )
    axes.axvline(1, color="grey", linestyle=":", linewidth=1)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(shown))])
    axes.set_yticklabels([f"{figure.workload} {figure.title}" for figure in shown])
    axes.invert_yaxis()
    axes.set_xlabel("times a bare aiohttp + json loop (less is better)")
    axes.legend(loc="lower right", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, dpi=120)
