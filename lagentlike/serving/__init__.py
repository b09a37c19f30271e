"""Models and agents behind HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .model_server import ModelServer

__all__ = ["ModelServer"]

__getattr__, __dir__ = attach(__name__, {"model_server": ["ModelServer"]})
