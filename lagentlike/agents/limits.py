"""How much one run of an agent may use."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ..errors import InvalidArgument
from ..schema import Usage

if TYPE_CHECKING:
    from .run import Run

__all__ = ["RunLimits"]


@dataclass(frozen=True)
class RunLimits:
    """How much one run of an agent may use, by default more than a sane one needs; None for no limit.

    A run that has used one up makes no further call, and ends with what it has; `finish_reason` is `budget_exceeded`. A
    `Budget` around several runs bounds them together.

    Args:
        tool_calls: tool calls.
        tokens: prompt and completion tokens together, sub-agents' included.
        seconds: time that the run is under way; waiting for an approval does not count.
        cost: in the currency of the prices.
        prompt_price, completion_price: of a million tokens.

    >>> RunLimits(cost=0.5, prompt_price=3, completion_price=15).price(Usage(prompt_tokens=100_000))
    0.3
    """

    tool_calls: int | None = 1_000
    tokens: int | None = 10_000_000
    seconds: float | None = 86_400.0
    cost: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
                raise InvalidArgument(item.name, value, "give a number of at least 0, or None for no limit")
        if self.cost is not None and not (self.prompt_price or self.completion_price):
            raise InvalidArgument("cost", self.cost, "give prompt_price and completion_price too, for a million tokens")

    def price(self, usage: Usage) -> float:
        """What tokens cost."""
        return (usage.prompt_tokens * self.prompt_price + usage.completion_tokens * self.completion_price) / 1_000_000

    def used_up(self, run: Run) -> str:
        """Which limit a run has used up, in words; empty if none."""
        if self.tool_calls is None and self.tokens is None and self.seconds is None and self.cost is None:
            return ""
        for what, limit, used in (
            ("tool calls", self.tool_calls, run.tool_calls),
            ("tokens", self.tokens, run.usage.total_tokens),
            ("seconds", self.seconds, 0.0 if self.seconds is None else run.seconds),
            ("cost", self.cost, 0.0 if self.cost is None else self.price(run.usage)),
        ):
            if limit is not None and used >= limit:
                return f"the limit of {limit:g} {what} is used up ({used:g})"
        return ""
