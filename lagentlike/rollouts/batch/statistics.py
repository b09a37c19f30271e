"""Figures of a run, gathered as its samples come in, in an amount of memory that does not grow."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...records import ConversationRecord
from ...schema import Usage

__all__ = ["FIGURES", "RunStatistics", "Values", "summary_of"]

FIGURES = ("seconds", "turns", "tool_calls", "prompt_tokens", "completion_tokens", "reward")
"""What there is a value of for each sample."""

_KEPT_FAILURES = 1000


def summary_of(record: ConversationRecord, reward: float | None) -> dict[str, Any]:
    """What statistics need of a record."""
    roles = [record.role_of(message) for message in record.messages]
    return {
        "seconds": round(record.ended_at - record.started_at, 6),
        "turns": roles.count("assistant"),
        "tool_calls": sum(len(message.tool_calls or ()) for message in record.messages),
        "requests": record.usage.requests,
        "prompt_tokens": record.usage.prompt_tokens,
        "completion_tokens": record.usage.completion_tokens,
        "reward": reward,
        "finish_reason": record.finish_reason or "unknown",
        "completed": record.completed,
    }


class Values:
    """Numbers of which the mean and the extremes are kept, and quantiles: exact for up to `kept`, else of so many."""

    def __init__(self, kept: int = 10_000) -> None:
        self.count, self.total = 0, 0.0
        self.least, self.most = math.inf, -math.inf
        self.sample: list[float] = []
        self._kept = kept
        self._random = random.Random(0)

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)
        if len(self.sample) < self._kept:
            self.sample.append(value)
        elif (place := self._random.randrange(self.count)) < self._kept:  # Vitter's algorithm R (1985)
            self.sample[place] = value

    def to_dict(self) -> dict[str, float]:
        """Mean, quantiles and extremes."""
        if not self.count:
            return {}
        ordered = sorted(self.sample)

        def quantile(part: float) -> float:
            return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

        return {
            "mean": self.total / self.count,
            "min": self.least,
            "p50": quantile(0.5),
            "p90": quantile(0.9),
            "p99": quantile(0.99),
            "max": self.most,
        }


class RunStatistics:
    """What is known of the samples of a run so far."""

    def __init__(self, price: tuple[float, float] | None = None) -> None:
        self.done = self.completed = self.attempts_failed = self.set_aside = 0
        self.usage = Usage()
        self.values = {name: Values() for name in FIGURES}
        self.finish_reasons: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.failures: list[dict[str, Any]] = []
        self._price = price

    def add(self, summary: Mapping[str, Any]) -> None:
        """Count a sample that is done."""
        self.done += 1
        self.completed += bool(summary["completed"])
        self.finish_reasons[summary["finish_reason"]] += 1
        self.usage += Usage(summary["requests"], summary["prompt_tokens"], summary["completion_tokens"])
        for name, values in self.values.items():
            if summary[name] is not None:
                values.add(summary[name])

    def add_failure(self, error: str) -> None:
        """Count an attempt that failed."""
        self.attempts_failed += 1
        self.errors[error.partition(":")[0]] += 1

    def add_set_aside(self, entry: Mapping[str, Any]) -> None:
        """Count a sample that is not tried any more."""
        self.set_aside += 1
        if len(self.failures) < _KEPT_FAILURES:
            self.failures.append(dict(entry))

    @property
    def cost(self) -> float | None:
        """Dollars."""
        if self._price is None:
            return None
        return (self.usage.prompt_tokens * self._price[0] + self.usage.completion_tokens * self._price[1]) / 1e6

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON data."""
        return {
            "samples": {"done": self.done, "completed": self.completed, "set_aside": self.set_aside},
            "finish_reasons": dict(self.finish_reasons.most_common()),
            "usage": {
                "requests": self.usage.requests,
                "prompt_tokens": self.usage.prompt_tokens,
                "completion_tokens": self.usage.completion_tokens,
            },
            "cost": self.cost,
            **{name: values.to_dict() for name, values in self.values.items()},
            "failed_attempts": {"count": self.attempts_failed, "errors": dict(self.errors.most_common())},
            "set_aside": self.failures,
        }
