"""What training needs is loaded when it is used, and missing extras are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lagentlike.training import draw_curve


def run(program: str) -> str:
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    return finished.stdout + finished.stderr


def test_importing_the_package_and_the_command_loads_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'matplotlib'}"
    assert run(f"import sys, lagentlike.training, lagentlike.cli\nprint({heavy} & set(sys.modules))") == "set()\n"


def test_without_torch_the_error_names_the_extra() -> None:
    printed = run("import sys\nsys.modules['torch'] = None\nfrom lagentlike.training import Policy")
    assert "MissingExtra: torch is not installed: pip install 'lagentlike[train]'" in printed


def test_a_curve_shows_the_metrics_that_there_are(tmp_path: Path) -> None:
    history = [
        {"step": 0, "eval/reward": 0.1},
        {"step": 1, "reward": 0.2},
        {"step": 2, "reward": 0.4, "eval/reward": 0.3},
    ]
    drawn = draw_curve(history, tmp_path / "curve.svg", ["reward", "eval/reward", "absent"], "grpo")
    assert drawn == tmp_path / "curve.svg"
    assert drawn.read_text().startswith("<?xml")
    assert draw_curve(history, tmp_path / "none.svg", ["absent"]) is None
    assert not (tmp_path / "none.svg").exists()
