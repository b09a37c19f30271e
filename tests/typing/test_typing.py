"""Calls have the types that people rely on: a message, an awaited one, a stream of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_a_type_checker_sees_what_calls_give() -> None:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "setup.cfg"), "tests/typing/reveal.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    ours = [line for line in done.stdout.splitlines() if line.startswith("tests/typing/") and ": error:" in line]
    assert not ours, "\n".join(ours)
    assert "tests/typing/reveal.py" in done.stdout or "Success" in done.stdout or "Found" in done.stdout, done.stderr
