"""For tests of agents: what models and tools answered, recorded in a file and played again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .tape import record, replay, Tape

__all__ = ["Tape", "record", "replay"]

__getattr__, __dir__ = attach(__name__, {"tape": ["Tape", "record", "replay"]})
