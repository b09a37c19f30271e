"""The report: one page, nothing fetched, every figure in it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from lagentlike.rollouts.batch import run_batch
from lagentlike.rollouts.batch.report import histogram
from lagentlike.rollouts.batch.statistics import Values

from .making import make, write_rows


def test_the_page_shows_what_happened_and_fetches_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": f"say {place}", "answer": "echo say 1"} for place in range(5)]
    dataset = write_rows(tmp_path / "rows.jsonl", [*rows, {"prompt": "fail <b>", "answer": ""}])
    run_batch(make, dataset, "run", folder=tmp_path, reward="exact_match", price=(1.0, 2.0))
    page = (tmp_path / "run" / "report.html").read_text()
    for text in (
        "5 of 6",
        "Reward",
        "Seconds",
        "Turns",
        "Finish reasons",
        "Failed attempts",
        "no luck with fail &lt;b&gt;",
    ):
        assert text in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=|url\(", page)
    pictures = re.findall(r"<svg.*?</svg>", page)
    assert len(pictures) >= 6
    for picture in pictures:
        ET.fromstring(picture)


def test_a_histogram_counts_every_value() -> None:
    for values in ([0.0], [1, 2, 2, 3], [0.1, 0.25, 1e6], [float(number) for number in range(1000)]):
        titles = re.findall(r"<title>.*?: ([\d,]+)</title>", histogram(values))
        assert sum(int(count.replace(",", "")) for count in titles) == len(values)


def test_quantiles_of_many_values_come_from_a_sample() -> None:
    values = Values(kept=100)
    for number in range(10_000):
        values.add(number)
    told = values.to_dict()
    assert (told["mean"], told["min"], told["max"], len(values.sample)) == (4999.5, 0, 9999, 100)
    assert 3000 < told["p50"] < 7000
