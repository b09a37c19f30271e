"""What a pool of sandboxes is like, under the flat names that environments configure it with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import InvalidArgument

__all__ = ["POOL_MODES", "SandboxSettings"]

POOL_MODES = ("bwrap", "local", "docker", "podman", "nomad", "modal")
"""The kinds of sandboxes there are."""


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """What `create_tool_backend` and `ToolExecutor` go by.

    Attributes:
        tool_pool_mode: the backend: `bwrap`, `local` (no boundary at all), `docker`, `podman`, `nomad` or `modal`.
        allow_network: whether commands reach the network.
        require_sandbox: whether a backend that is no boundary is refused, with tools that run in this process.
        require_stateful_sandbox: whether a backend is refused where `terminal_stateful` cannot work.
        tool_timeout_s: seconds a call may take where the caller does not say.
        tool_batch_window_ms: how long a call waits for others to go to the backend with it.
        tool_max_batch_size: most calls that go together.
        acquire_timeout_s: seconds a trajectory waits for a slot.
        slots_per_container, min_containers, max_containers: how many slots there are; `bwrap` and `local` have one
            container, this machine, with all slots of the most containers.
        memory_mb, max_processes, max_output_bytes: limits of one slot: MiB of memory, processes, and bytes of output of
            a command that are kept (its head and its tail).
        sandbox_image, driver, privileged, singularity_image: how a container is made.
        nomad_address, nomad_token, nomad_namespace, sandbox_job_id: where Nomad is, and the job there; the token is
            taken from `NOMAD_TOKEN` where none is given.
        purge_job_on_start, purge_job_on_shutdown: whether containers of an earlier run are ended first, and ours last.
        tool_server_url, tool_server_token: the ToolServer for tools marked external; `inprocess` runs them here.
        modal_…: the same for Modal; `modal_secrets` are names and `modal_env_vars` are `NAME=value`, each joined by
            commas.
    """

    tool_pool_mode: str = "bwrap"
    allow_network: bool = False
    require_sandbox: bool = False
    require_stateful_sandbox: bool = False
    tool_timeout_s: float = 60.0
    tool_batch_window_ms: float = 20
    tool_max_batch_size: int = 200
    acquire_timeout_s: float = 30.0
    slots_per_container: int = 10
    min_containers: int = 1
    max_containers: int = 10
    memory_mb: int = 1024
    max_processes: int = 64
    max_output_bytes: int = 32_768
    sandbox_image: str = "atropos-sandbox:local"
    driver: str = "docker"
    privileged: bool = False
    singularity_image: str | None = None
    nomad_address: str = "http://localhost:4646"
    nomad_token: str | None = field(default=None, repr=False)
    nomad_namespace: str | None = None
    sandbox_job_id: str = "atropos-sandbox-agent-env"
    purge_job_on_start: bool = False
    purge_job_on_shutdown: bool = True
    modal_app_name: str = "atropos-sandbox"
    modal_image: str = "python:3.11"
    modal_gpu: str | None = None
    modal_cpu: float = 1.0
    modal_memory: int = 2048
    modal_slots_per_sandbox: int = 10
    modal_min_sandboxes: int = 1
    modal_max_sandboxes: int = 5
    modal_idle_timeout: int = 120
    modal_max_lifetime: int = 3600
    modal_acquire_timeout: float = 60.0
    modal_execution_timeout: float = 30.0
    modal_secrets: str = ""
    modal_env_vars: str = field(default="", repr=False)
    modal_workspace_base: str = "/data"
    tool_server_url: str | None = None
    tool_server_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.tool_pool_mode not in POOL_MODES:
            raise InvalidArgument("tool_pool_mode", self.tool_pool_mode, f"give one of {', '.join(POOL_MODES)}")
        if self.driver not in ("docker", "singularity"):
            raise InvalidArgument("driver", self.driver, "give docker or singularity")
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgument(name, value, "give a whole number of at least 1")
        for name in _AMOUNTS:
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf:
                raise InvalidArgument(name, value, "give a number above 0")
        window = self.tool_batch_window_ms
        if not _is_number(window) or not 0 <= window < math.inf:
            raise InvalidArgument("tool_batch_window_ms", window, "give milliseconds, 0 for no wait")
        for item in fields(self):
            if item.type == "bool" and not isinstance(getattr(self, item.name), bool):
                raise InvalidArgument(item.name, getattr(self, item.name), "give True or False")
        for least, most in (("min_containers", "max_containers"), ("modal_min_sandboxes", "modal_max_sandboxes")):
            if getattr(self, least) > getattr(self, most):
                raise InvalidArgument(least, getattr(self, least), f"{most} is {getattr(self, most)}: give no more")

    @property
    def call_seconds(self) -> float:
        """Seconds a call may take where the caller does not say."""
        return self.modal_execution_timeout if self.tool_pool_mode == "modal" else self.tool_timeout_s

    @classmethod
    def of(cls, config: Any = None) -> SandboxSettings:
        """The settings in an object or a dict that has some of these names, such as the config of an environment.

        Names that it lacks keep their defaults; other names are of no interest.

        Raises:
            InvalidArgument: a value is none that is allowed.

        >>> SandboxSettings.of({"tool_pool_mode": "local", "group_size": 8}).tool_pool_mode
        'local'
        """
        if isinstance(config, cls):
            return config
        names = [item.name for item in fields(cls)]
        if config is None:
            return cls()
        if isinstance(config, Mapping):
            return cls(**{name: config[name] for name in names if name in config})
        return cls(**{name: getattr(config, name) for name in names if hasattr(config, name)})


_COUNTS = (
    "tool_max_batch_size",
    "slots_per_container",
    "min_containers",
    "max_containers",
    "memory_mb",
    "max_processes",
    "max_output_bytes",
    "modal_slots_per_sandbox",
    "modal_min_sandboxes",
    "modal_max_sandboxes",
    "modal_memory",
    "modal_idle_timeout",
    "modal_max_lifetime",
)
_AMOUNTS = ("tool_timeout_s", "acquire_timeout_s", "modal_acquire_timeout", "modal_execution_timeout", "modal_cpu")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
