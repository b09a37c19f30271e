"""The backend that a configuration asks for."""

from __future__ import annotations

from typing import Any

from ..errors import SandboxUnavailable
from ..registry import import_object
from .base import ToolBackend
from .settings import SandboxSettings

__all__ = ["create_tool_backend"]

_BACKENDS = {  # imported when they are asked for
    "bwrap": "lagentlike.sandbox.machine.BwrapBackend",
    "local": "lagentlike.sandbox.machine.LocalBackend",
    "docker": "lagentlike.sandbox.docker.DockerBackend",
    "podman": "lagentlike.sandbox.docker.PodmanBackend",
    "nomad": "lagentlike.sandbox.nomad.NomadBackend",
    "modal": "lagentlike.sandbox.modal.ModalBackend",
}


def create_tool_backend(config: Any = None) -> ToolBackend:
    """A pool of sandboxes, which is to be started.

    Args:
        config: `SandboxSettings`, or a dict or object with some of their names, such as the config of an environment.
            `tool_pool_mode` says which backend, bubblewrap on this machine by default.

    Raises:
        InvalidArgument: a setting is none that is allowed.
        SandboxUnavailable: the settings want a sandbox, and the backend is none.
        MissingExtra: the backend needs a package that is not installed.

    >>> create_tool_backend({"tool_pool_mode": "local"}).isolated
    False
    """
    settings = SandboxSettings.of(config)
    backend: ToolBackend = import_object(_BACKENDS[settings.tool_pool_mode])(settings)
    if settings.require_sandbox and not backend.isolated:
        raise SandboxUnavailable(f"require_sandbox is set, and {backend.name!r} is no boundary: choose another backend")
    return backend
