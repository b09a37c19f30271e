"""The benchmark of sessions and stores does what it says, in small numbers."""

from __future__ import annotations

import json

import pytest

from benchmarks.memory_rows import main


def test_sessions_and_stores_hold_out_what_the_benchmark_does(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--short", "--only", "turns", "taken_back", "half_loaded"])
    figures: dict[str, dict[str, object]] = {}
    for line in capsys.readouterr().out.splitlines():
        figures |= json.loads(line)
    assert list(figures) == ["turns", "taken_back", "half_loaded"]
    assert figures["turns"]["threads"] == "alternate, none lost"
    assert figures["half_loaded"]["old_state_intact"] == 10
    assert all(figures["taken_back"][outcome] for outcome in ("stood", "failed", "cancelled"))
