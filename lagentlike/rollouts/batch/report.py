"""A run's statistics as one page with its pictures in it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["histogram", "report_page"]

_WIDTH, _HEIGHT, _BINS = 360, 150, 24
_TITLES = {
    "reward": "Reward",
    "completion_tokens": "Tokens written",
    "turns": "Turns",
    "tool_calls": "Tool calls",
    "seconds": "Seconds",
    "prompt_tokens": "Tokens read",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a2230; background: #fff; max-width: 1160px; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.5em; margin: 0 0 .5em } h2 { font-size: 1.05em; margin: 1.6em 0 .4em }
.tiles { display: flex; flex-wrap: wrap; gap: 14px }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 14px }
.tile, figure { border: 1px solid #d8dee8; border-radius: 8px; padding: 10px 14px; margin: 0; background: #fff }
.tile b { display: block; font-size: 1.45em } .tile span, figcaption, small { color: #5b6678 }
table { border-collapse: collapse } td, th { padding: 3px 12px 3px 0; text-align: left; vertical-align: top }
.number { text-align: right; font-variant-numeric: tabular-nums }
svg { display: block; width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: #5b6678 }
code { white-space: pre-wrap; overflow-wrap: anywhere }
"""


def report_page(statistics: Mapping[str, Any], samples: Mapping[str, Sequence[float]]) -> str:
    """A page of HTML that needs nothing else.

    Args:
        statistics: as in `statistics.json`.
        samples: values of single samples, by the name of the figure.
    """
    name = html.escape(str(statistics["run_name"]))
    plots = [
        _figure(title, histogram(samples[figure]), statistics[figure])
        for figure, title in _TITLES.items()
        if samples.get(figure)
    ]
    plots.append(_figure("Finish reasons", bars(statistics["finish_reasons"]), None))
    errors = statistics["failed_attempts"]["errors"]
    if errors:
        plots.append(_figure("Failed attempts", bars(errors, "#b3423a"), None))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title><style>{_STYLE}</style></head><body>
<h1>{name}</h1>
<div class="tiles">{"".join(_tile(label, value) for label, value in _headline(statistics))}</div>
<h2>Samples</h2>
<div class="plots">{"".join(plots)}</div>
{_failures(statistics["set_aside"])}
{_recovery(statistics["resumed"])}
</body></html>
"""


def _headline(statistics: Mapping[str, Any]) -> list[tuple[str, str]]:
    samples, usage = statistics["samples"], statistics["usage"]
    told = [
        ("done", f"{samples['done']:,} of {statistics['total']:,}"),
        ("set aside", f"{samples['set_aside']:,}"),
        ("left", f"{statistics['left']:,}"),
        ("tokens read / written", f"{usage['prompt_tokens']:,} / {usage['completion_tokens']:,}"),
        ("seconds, this start", f"{statistics['wall_seconds']:,.1f}"),
    ]
    if statistics["cost"] is not None:
        told.append(("cost", f"${statistics['cost']:,.2f}"))
    if statistics["reward"]:
        told.append(("mean reward", f"{statistics['reward']['mean']:.3f}"))
    return told


def histogram(values: Sequence[float], colour: str = "#2f6f9f") -> str:
    """A histogram as SVG; whole numbers in a small range get a bar each."""
    least, most = min(values), max(values)
    whole = all(float(value).is_integer() for value in values) and most - least < _BINS
    bins = int(most - least) + 1 if whole else _BINS if most > least else 1
    start, span = (least - 0.5, float(bins)) if whole else (least, (most - least) or 1.0)
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - start) / span * bins))] += 1
    highest, step = max(counts), _WIDTH / bins
    marks = []
    for place, count in enumerate(counts):
        height = max(1.5, count / highest * (_HEIGHT - 30)) if count else 0
        low, high = start + span * place / bins, start + span * (place + 1) / bins
        label = _number(low + 0.5) if whole else f"{_number(low)} to {_number(high)}"
        marks.append(
            f'<rect x="{place * step + 0.5:.1f}" y="{_HEIGHT - 18 - height:.1f}" width="{max(1.0, step - 1):.1f}" '
            f'height="{height:.1f}" fill="{colour}"><title>{label}: {count:,}</title></rect>'
        )
    ends = (
        f'<text x="0" y="{_HEIGHT - 3}">{_number(least)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 3}" text-anchor="end">{_number(most)}</text>'
        f'<text x="{_WIDTH}" y="9" text-anchor="end">most: {highest:,}</text>'
    )
    base = f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT - 18}" y2="{_HEIGHT - 18}" stroke="#9aa5b5"/>'
    return _svg(_HEIGHT, "".join(marks) + base + ends)


def bars(counts: Mapping[str, int], colour: str = "#4d8a57") -> str:
    """Horizontal bars as SVG, at most eight."""
    shown = list(counts.items())[:8]
    most = max((count for _, count in shown), default=1)
    rows = []
    for place, (label, count) in enumerate(shown):
        top = place * 22
        length = max(2.0, count / most * (_WIDTH - 200))
        rows.append(
            f'<text x="132" y="{top + 14}" text-anchor="end">{html.escape(_cut(label, 22))}</text>'
            f'<rect x="138" y="{top + 3}" width="{length:.1f}" height="15" fill="{colour}"/>'
            f'<text x="{144 + length:.1f}" y="{top + 14}">{count:,}</text>'
        )
    return _svg(max(22, 22 * len(shown)), "".join(rows))


def _svg(height: int, body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">{body}</svg>'


def _figure(title: str, picture: str, values: Mapping[str, float] | None) -> str:
    told = ""
    if values:
        told = f" <small>median {_number(values['p50'])}, mean {_number(values['mean'])}, p99 {_number(values['p99'])}"
        told += "</small>"
    return f"<figure><figcaption>{title}{told}</figcaption>{picture}</figure>"


def _tile(label: str, value: str) -> str:
    return f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'


def _failures(set_aside: Sequence[Mapping[str, Any]]) -> str:
    if not set_aside:
        return ""
    rows = "".join(
        f'<tr><td class="number">{entry["row"]}</td><td class="number">{entry["sample"]}</td>'
        f'<td class="number">{entry["attempts"]}</td><td><code>{html.escape(entry["error"][:400])}</code></td></tr>'
        for entry in set_aside[:100]
    )
    heads = "".join(f'<th class="number">{head}' for head in ("row", "sample", "attempts"))
    return f"<h2>Set aside</h2><table><tr>{heads}<th>last error</tr>{rows}</table>"


def _recovery(resumed: Mapping[str, Any]) -> str:
    told = {name: value for name, value in resumed.items() if value}
    if not told:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td><code>{html.escape(_listed(value)[:2000])}</code></td></tr>"
        for name, value in told.items()
    )
    return f"<h2>Found of earlier starts</h2><table>{rows}</table>"


def _listed(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _number(value: float) -> str:
    if float(value).is_integer():
        return f"{int(value):,}"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(digits, 6)}f}"
