"""Training: small models taught by examples or by what their chains were worth, in plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .critic import Critic
    from .curve import draw_curve
    from .learner import AdamW
    from .loop import read_metrics, Trainer
    from .policy import Policy
    from .rl import Objective, RLTrainer
    from .sft import conversation, SFTTrainer

__all__ = [
    "AdamW",
    "Critic",
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
        "critic": ["Critic"],
        "curve": ["draw_curve"],
        "loop": ["Trainer", "read_metrics"],
        "learner": ["AdamW"],
        "policy": ["Policy"],
        "rl": ["Objective", "RLTrainer"],
        "sft": ["SFTTrainer", "conversation"],
    },
)
