"""Settings of environments, nested and flat."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.envs.config import AgentEnvConfig
from lagentlike.envs.result import AgentConfig
from lagentlike.sandbox.settings import SandboxSettings

# As environments of Atropos know them; `tool_pool_mode` and `allow_network` are ours.
DEFAULTS: dict[str, Any] = {
    "tool_pool_mode": "bwrap",
    "allow_network": False,
    "require_sandbox": False,
    "require_stateful_sandbox": False,
    "tool_batch_window_ms": 20,
    "tool_max_batch_size": 200,
    "nomad_address": "http://localhost:4646",
    "sandbox_job_id": "atropos-sandbox-agent-env",
    "sandbox_image": "atropos-sandbox:local",
    "slots_per_container": 10,
    "min_containers": 1,
    "max_containers": 10,
    "privileged": False,
    "acquire_timeout_s": 30.0,
    "purge_job_on_start": False,
    "purge_job_on_shutdown": True,
    "driver": "docker",
    "singularity_image": None,
    "modal_app_name": "atropos-sandbox",
    "modal_image": "python:3.11",
    "modal_gpu": None,
    "modal_cpu": 1.0,
    "modal_memory": 2048,
    "modal_slots_per_sandbox": 10,
    "modal_min_sandboxes": 1,
    "modal_max_sandboxes": 5,
    "modal_idle_timeout": 120,
    "modal_max_lifetime": 3600,
    "modal_acquire_timeout": 60.0,
    "modal_execution_timeout": 30.0,
    "modal_secrets": "",
    "modal_env_vars": "",
    "modal_workspace_base": "/data",
    "agent_max_steps": 50,
    "agent_temperature": 0.7,
    "agent_max_tokens": None,
    "agent_tool_delay_s": 0.0,
    "enabled_toolsets": ["default"],
    "disabled_toolsets": [],
    "tool_server_url": None,
    "tool_server_token": None,
}


def test_every_setting_of_an_atropos_environment_has_its_name_and_default() -> None:
    config = AgentEnvConfig()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS
    assert DEFAULTS.items() <= {**config.flat(), "enabled_toolsets": ["default"]}.items()


def test_flat_names_and_nested_objects_say_the_same() -> None:
    flat = AgentEnvConfig(agent_max_steps=3, tool_pool_mode="local", group_size=2)
    sandbox = SandboxSettings(tool_pool_mode="local")
    assert flat == AgentEnvConfig(agent=AgentConfig(max_steps=3), sandbox=sandbox, group_size=2)
    assert flat == AgentEnvConfig(agent={"max_steps": 3}, sandbox={"tool_pool_mode": "local"}, group_size=2)
    assert flat == AgentEnvConfig(**flat.flat())
    assert flat == AgentEnvConfig(**flat.model_dump())
    assert AgentEnvConfig(**flat.model_dump(), agent_max_steps=9).agent.max_steps == 9, "a flat name goes first"


def test_a_flat_name_can_be_set() -> None:
    config = AgentEnvConfig()
    config.agent_max_steps = 7
    config.nomad_address = "http://nomad:1"
    config.group_size = 9
    assert (config.agent.max_steps, config.sandbox.nomad_address, config.group_size) == (7, "http://nomad:1", 9)
    with pytest.raises(ValueError, match="tool_pool_mode"):
        config.tool_pool_mode = "everywhere"
    assert config.sandbox.tool_pool_mode == "bwrap"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tool_pool_mode": "everywhere"}, "give one of bwrap"),
        ({"agent_max_stepz": 1}, "did you mean agent_max_steps"),
        ({"agent": {"max_stepz": 1}}, "max_stepz"),
        ({"agent_max_steps": "many"}, "max_steps"),
        ({"group_size": 0}, "group_size"),
        ({"agent_max_steps": 0}, "max_steps=0"),
        ({"agent_max_tokens": 0}, "max_tokens=0"),
        ({"agent_temperature": -0.1}, "temperature=-0.1"),
        ({"agent_tool_delay_s": float("inf")}, "tool_delay_s=inf"),
        ({"agent_tool_responses": "xml"}, "give json or text"),
        ({"max_num_workers_per_node": 0}, "max_num_workers_per_node=0"),
        ({"max_batches_offpolicy": 0}, "max_batches_offpolicy=0"),
        ({"min_batch_allocation": 2}, "min_batch_allocation=2"),
    ],
)
def test_a_wrong_setting_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        AgentEnvConfig(**given)
    with pytest.raises(AttributeError, match="no setting 'agent_max_stepz'"):
        _ = AgentEnvConfig().agent_max_stepz


def test_a_config_of_ones_own_adds_fields() -> None:
    class Mine(AgentEnvConfig):
        dataset: str = "x"

    mine = Mine(dataset="y", agent_max_steps=2)
    assert (mine.dataset, mine.agent_max_steps, mine.flat()["dataset"]) == ("y", 2, "y")
