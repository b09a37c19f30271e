"""The trainer of the examples: batches from the trajectory API become updates of the policy that is sampled."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "envs"


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module, with scores that always differ in a group."""
    pytest.importorskip("torch", reason="the extra lagentlike[train] is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import trainer  # type: ignore[import-not-found]  # it is an example

    numbers = count()

    class Alternating(trainer.Arithmetic):  # type: ignore[misc]  # it has no types here
        async def score_trajectory(self, item: Any, final_response: str) -> float:
            return float(next(numbers) % 2)

    monkeypatch.setattr(trainer, "Arithmetic", Alternating)
    for name in ("trainer", "arithmetic"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found: ModuleType = trainer
    return found


async def test_an_update_moves_the_policy_and_first_meets_what_it_sampled_itself(trainer: ModuleType) -> None:
    policy = trainer.Policy(adamw=trainer.AdamW(lr=1e-4))
    before = {name: value.clone() for name, value in policy.weights().items()}
    history = await trainer.train(policy, steps=1, batch_size=4, url=None)
    [told] = history
    assert (told["rows"], told["skipped"]) == (4, 0.0)
    assert 0 < told["score"] < 1  # groups are scored side by side, so which tries get a 1 depends on who is first
    assert told["off"] < 1e-3, "the log-probabilities that came over the wire are the policy's own"
    assert told["grad_norm"] > 0
    assert any(not value.equal(before[name]) for name, value in policy.weights().items())
