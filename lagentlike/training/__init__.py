"""Training: small models taught by examples or by what their chains were worth, in plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .curve import draw_curve
    from .loop import read_metrics, Trainer
    from .policy import AdamW, Policy
    from .rl import Objective, RLTrainer
    from .sft import conversation, SFTTrainer

__all__ = [
    "AdamW",
    "Objective",
    "Policy",
    "RLTrainer",
    "SFTTrainer",
    "Trainer",
    "conversation",
    "draw_curve",
    "read_metrics",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "curve": ["draw_curve"],
        "loop": ["Trainer", "read_metrics"],
        "policy": ["AdamW", "Policy"],
        "rl": ["Objective", "RLTrainer"],
        "sft": ["SFTTrainer", "conversation"],
    },
)
