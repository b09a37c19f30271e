"""The trajectory API that Atropos trainers and environments speak: a server and a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import attach

if TYPE_CHECKING:
    from .client import TrajectoryClient
    from .queue import TrajectoryQueue
    from .server import TrajectoryServer

__all__ = ["TrajectoryClient", "TrajectoryQueue", "TrajectoryServer"]

__getattr__, __dir__ = attach(
    __name__, {"client": ["TrajectoryClient"], "queue": ["TrajectoryQueue"], "server": ["TrajectoryServer"]}
)
