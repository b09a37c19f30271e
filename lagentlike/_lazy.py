"""Public names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(package: str, names: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose public names live in the given submodules.

    A name may live in another package: then its module is written as in a relative import, `..rollouts.agents`.
    """
    home = {name: module for module, group in names.items() for name in group}

    def getattr_(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = home[name]
        value = getattr(importlib.import_module(module if module[0] == "." else f".{module}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    return getattr_, lambda: sorted(home)
