"""Ready rewards by name, for the command line and configurations."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import InvalidArgument
from ...registry import import_object
from .base import as_reward, FunctionReward, Reward

__all__ = ["READY_REWARDS", "get_reward"]

READY_REWARDS = {
    "code_tests": "code",
    "exact_match": "exact",
    "f1": "overlap",
    "format_reward": "form",
    "llm_judge": "judge",
    "math_equality": "maths",
    "tool_use": "tools",
}
"""The ready rewards, and the module of each."""


def get_reward(name: str, **options: Any) -> Reward:
    """The reward of that name.

    Args:
        name: one of `READY_REWARDS`, or the dotted path of a reward, a function, or a function that makes a reward.
        **options: arguments of the ready ones that are made (`format_reward`, `tool_use`, `llm_judge`, `code_tests`);
            for the others, arguments to fix.

    Raises:
        InvalidArgument: there is no such reward, or it has no such option.

    >>> get_reward("math_equality", tolerance=0.01)
    math_equality
    """
    if not isinstance(name, str):
        raise InvalidArgument("name", name, f"give one of {', '.join(READY_REWARDS)}, or a dotted path")
    if name in READY_REWARDS:
        found = getattr(importlib.import_module(f"{__package__}.{READY_REWARDS[name]}"), name)
    elif "." in name:
        found = import_object(name, "name")
    else:
        raise InvalidArgument("name", name, f"give one of {', '.join(READY_REWARDS)}, or a dotted path")
    if name in READY_REWARDS and not isinstance(found, Reward):
        found = found(**options)
    elif options:
        wanted = as_reward(found, "name")
        if not isinstance(wanted, FunctionReward):
            raise InvalidArgument("options", options, f"{name} takes none")
        found = wanted.bind(**options)
    return as_reward(found, "name")
