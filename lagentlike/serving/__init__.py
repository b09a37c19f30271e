"""Models and agents elsewhere: behind HTTP, and in actors of a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .agent_api_server import AgentAPIServer, AsyncAgentAPIServer
    from .agent_client import (
        AsyncHTTPAgentClient,
        AsyncStreamingHTTPAgentClient,
        HTTPAgentClient,
        StreamingHTTPAgentClient,
    )
    from .agent_process import AsyncHTTPAgentServer, HTTPAgentServer
    from .agent_server import AgentServer
    from .http_face import Limits
    from .model_server import ModelServer
    from .ray_actor import AgentRayActor, AsyncAgentRayActor, AsyncStreamingAgentRayActor, StreamingAgentRayActor

__all__ = [
    "AgentAPIServer",
    "AgentRayActor",
    "AgentServer",
    "AsyncAgentAPIServer",
    "AsyncAgentRayActor",
    "AsyncHTTPAgentClient",
    "AsyncHTTPAgentServer",
    "AsyncStreamingAgentRayActor",
    "AsyncStreamingHTTPAgentClient",
    "HTTPAgentClient",
    "HTTPAgentServer",
    "Limits",
    "ModelServer",
    "StreamingAgentRayActor",
    "StreamingHTTPAgentClient",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "agent_api_server": ["AgentAPIServer", "AsyncAgentAPIServer"],
        "agent_client": [
            "AsyncHTTPAgentClient",
            "AsyncStreamingHTTPAgentClient",
            "HTTPAgentClient",
            "StreamingHTTPAgentClient",
        ],
        "agent_process": ["AsyncHTTPAgentServer", "HTTPAgentServer"],
        "agent_server": ["AgentServer"],
        "http_face": ["Limits"],
        "model_server": ["ModelServer"],
        "ray_actor": [
            "AgentRayActor",
            "AsyncAgentRayActor",
            "AsyncStreamingAgentRayActor",
            "StreamingAgentRayActor",
        ],
    },
)
