"""Limits on what a piece of work may use: requests, tokens, tool calls, time."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar, Token
from types import TracebackType

from .errors import BudgetExceeded, InvalidArgument
from .schema import Usage

__all__ = ["Budget", "charge_request", "charge_tool_call", "charge_usage"]


class Budget:
    """Limits for everything called inside a `with` block; budgets nest, and the tightest holds.

    Args:
        requests: model requests.
        tokens: prompt and completion tokens together.
        tool_calls: tool calls.
        seconds: wall time since the block was entered.

    A model request or a tool call that finds the budget used up raises `BudgetExceeded` instead of being made; what
    was done so far is kept in `used`, `tool_calls` and the agents' memories.

    >>> with Budget(requests=20, tokens=50_000) as budget:
    ...     pass  # reply = agent("…")
    >>> budget.used.requests
    0
    """

    def __init__(
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        tool_calls: int | None = None,
        seconds: float | None = None,
    ) -> None:
        limits = {"requests": requests, "tokens": tokens, "tool calls": tool_calls, "seconds": seconds}
        for name, limit in limits.items():
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0):
                raise InvalidArgument(
                    name.replace(" ", "_"), limit, "give a number of at least 0, or None for no limit"
                )
        self.limits = limits
        self.used = Usage()
        self.tool_calls = 0
        self._parent: Budget | None = None
        self._token: Token[Budget | None] | None = None
        self._started = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the block was entered."""
        return time.monotonic() - self._started if self._started else 0.0

    def __enter__(self) -> Budget:
        if self._token is not None:
            raise InvalidArgument("budget", self, "it is in use already: make one for each block, or use nested ones")
        self._parent = _current.get()
        self._token = _current.set(self)
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None

    def _check(self, what: str, used: float) -> None:
        limit = self.limits[what]
        if limit is not None and used >= limit:
            raise BudgetExceeded(what, used, limit)

    def _check_time(self) -> None:
        if self.limits["seconds"] is not None:
            self._check("seconds", self.seconds)


_guard = threading.Lock()  # threads that share a budget count one at a time

_current: ContextVar[Budget | None] = ContextVar("lagentlike_budget", default=None)


def charge_request() -> None:
    """Count one model request about to be made against every budget around it.

    Raises:
        BudgetExceeded: a budget has no request, token or second left; nothing is counted then.
    """
    if _current.get() is None:
        return
    budgets = _around()
    with _guard:
        for budget in budgets:
            budget._check("requests", budget.used.requests)
            budget._check("tokens", budget.used.total_tokens)
            budget._check_time()
        for budget in budgets:
            budget.used.requests += 1


def charge_usage(usage: Usage, total: Usage | None = None) -> None:
    """Count the tokens of a finished request (its request was counted before it was made), and add it to a `total`."""
    with _guard:
        if total is not None:
            total += usage
        for budget in _around():
            requests = budget.used.requests
            budget.used += usage
            budget.used.requests = requests


def charge_tool_call() -> None:
    """Count one tool call about to be made.

    Raises:
        BudgetExceeded: a budget has no tool call or second left.
    """
    if _current.get() is None:
        return
    budgets = _around()
    with _guard:
        for budget in budgets:
            budget._check("tool calls", budget.tool_calls)
            budget._check_time()
        for budget in budgets:
            budget.tool_calls += 1


def _around() -> list[Budget]:
    budget = _current.get()
    if budget is None:
        return []
    budgets = []
    while budget is not None:
        budgets.append(budget)
        budget = budget._parent
    return budgets
