"""RL environments: agents with tools in sandboxes, scored for trainers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .agent import AtroposAgent
    from .config import AgentEnvConfig
    from .environment import AgentEnv, Try
    from .groups import ScoredGroup
    from .result import AgentConfig, AgentResult, AgentStep, SequenceData
    from .runs import RunSummary
    from .sandboxes import ExecTool
    from .trajectory_api import TrajectoryClient, TrajectoryServer

__all__ = [
    "AgentConfig",
    "AgentEnv",
    "AgentEnvConfig",
    "AgentResult",
    "AgentStep",
    "AtroposAgent",
    "ExecTool",
    "RunSummary",
    "ScoredGroup",
    "SequenceData",
    "TrajectoryClient",
    "TrajectoryServer",
    "Try",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "agent": ["AtroposAgent"],
        "config": ["AgentEnvConfig"],
        "environment": ["AgentEnv", "Try"],
        "groups": ["ScoredGroup"],
        "result": ["AgentConfig", "AgentResult", "AgentStep", "SequenceData"],
        "runs": ["RunSummary"],
        "sandboxes": ["ExecTool"],
        "trajectory_api": ["TrajectoryClient", "TrajectoryServer"],
    },
)
