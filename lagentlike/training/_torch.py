"""PyTorch, or an error that says how to get it."""

from __future__ import annotations

from ..errors import MissingExtra

try:
    import torch
except ImportError as error:
    raise MissingExtra("torch", "train") from error

__all__ = ["torch"]
