"""The environment variables that programs run by a model are given."""

from __future__ import annotations

import os
import re

__all__ = ["is_secret_name", "without_secrets"]


def without_secrets() -> dict[str, str]:
    """This process's environment variables, without those whose names speak of keys, tokens or passwords."""
    return {name: value for name, value in os.environ.items() if not is_secret_name(name)}


def is_secret_name(name: str) -> bool:
    """Whether a variable's name says that its value is nobody's business."""
    return _SECRET.search(name) is not None


_SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL|COOKIE", re.IGNORECASE)
