"""Batches: an agent run over a file of prompts, in such a way that no crash loses or repeats a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import attach

if TYPE_CHECKING:
    from .lock import RunBusy
    from .ray_engine import RayEngine
    from .runner import BatchResult, BatchRunner, run_batch
    from .settings import BatchSettings

__all__ = ["BatchResult", "BatchRunner", "BatchSettings", "RayEngine", "RunBusy", "run_batch"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "lock": ["RunBusy"],
        "ray_engine": ["RayEngine"],
        "runner": ["BatchResult", "BatchRunner", "run_batch"],
        "settings": ["BatchSettings"],
    },
)
