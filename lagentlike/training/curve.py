"""A picture of a run: its metrics over its steps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["draw_curve"]


def draw_curve(
    history: Sequence[Mapping[str, float]], path: str | os.PathLike[str], names: Sequence[str], title: str = ""
) -> Path | None:
    """Draw metrics over steps into a picture.

    Args:
        history: the metrics of each step, as trainers give and `read_metrics` reads them.
        path: the picture; its suffix says of which kind.
        names: which metrics; those that no step has are left out.
        title: what stands above.

    Returns:
        The path; None where matplotlib is not installed, or there is nothing to draw.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    lines = {name: [(row["step"], row[name]) for row in history if name in row] for name in names}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    figure = Figure(figsize=(7.0, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(lines.items()):
        steps, values = zip(*points, strict=True)
        held_out = name.startswith("eval/")
        axes.plot(
            steps,
            values,
            label=f"{name.removeprefix('eval/')}, held out" if held_out else name,
            color=f"C{number}",
            marker="o" if held_out else None,
            markersize=4,
            linewidth=2.0 if held_out else 1.2,
        )
    axes.set_xlabel("step")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.margins(x=0.02)
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(Path(path))
    return Path(path)
