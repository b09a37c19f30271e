"""How an environment runs: its groups, its agent and its sandboxes, nested or under the flat names of Atropos."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator, TypeAdapter, ValidationError

from ..errors import InvalidArgument
from ..sandbox.settings import SandboxSettings
from .result import AgentConfig

__all__ = ["AgentEnvConfig"]


class AgentEnvConfig(BaseModel):
    """How an environment runs.

    Settings that travel together are one object: `agent` (an `AgentConfig`) and `sandbox` (a `SandboxSettings`). Each
    of them may also be given, read and set under the flat name that Atropos environments use: `agent_max_steps` is
    `agent.max_steps`, `nomad_address` is `sandbox.nomad_address`. A subclass adds fields of its own.

    Attributes:
        agent: how the agent works; flat names begin with `agent_`.
        sandbox: where its tools run; flat names are those of `SandboxSettings`. Commands reach the network only with
            `allow_network=True`, which Atropos has by default.
        enabled_toolsets, disabled_toolsets: which tools there are, for `build_tools`.
        group_size: tries at each task.
        max_token_length: most tokens of a row, which the trainer is told.
        max_num_workers: most groups under way at once; -1 for `max_num_workers_per_node`.
        max_eval_workers: most tries under way at once in `mean_score`.
        rollout_server_url: the trajectory API.
        total_steps: steps of the trainer after which `serve` ends; -1 for what the trainer says.
        steps_per_eval: steps of the trainer between two evaluations; 0 for none.
        max_batches_offpolicy: most batches that may wait for the trainer.
        ensure_scores_are_not_same: leave out groups whose scores are all the same, which teach nothing.
        include_messages: send the conversations with the tokens.
        worker_timeout: seconds that a group may take; -1 for no limit.
        data_path_to_save_groups: file for the groups, JSON lines.
        data_dir_to_save_evals: directory for what `evaluate` finds.
        tokenizer_name: of the model behind atroposlib's servers; models of ours have their own.

    The other fields are for atroposlib's `BaseEnv` alone; see there.

    Raises:
        InvalidArgument: a name is unknown, or a value none that is allowed.

    >>> config = AgentEnvConfig(group_size=8, agent_max_steps=5, tool_pool_mode="local")
    >>> config.agent.max_steps, config.sandbox.tool_pool_mode, config.nomad_address
    (5, 'local', 'http://localhost:4646')
    """

    model_config = ConfigDict(validate_assignment=True, extra="forbid")

    nested: ClassVar[Mapping[str, str]] = {"agent": "agent_", "sandbox": ""}
    """Which fields are objects, and what their flat names begin with."""

    agent: AgentConfig = Field(default_factory=AgentConfig)
    sandbox: SandboxSettings = Field(default_factory=SandboxSettings)
    enabled_toolsets: list[str] = Field(default_factory=lambda: ["default"])
    disabled_toolsets: list[str] = Field(default_factory=list)

    group_size: int = Field(default=4, ge=1)
    max_token_length: int = Field(default=2048, ge=1)
    max_num_workers: int = Field(default=-1, ge=-1)
    max_num_workers_per_node: int = Field(default=8, ge=1)
    max_eval_workers: int = Field(default=16, ge=1)
    rollout_server_url: str = "http://localhost:8000"
    total_steps: int = 1000
    batch_size: int = -1
    steps_per_eval: int = 100
    eval_handling: Literal["STOP_TRAIN", "LIMIT_TRAIN", "NONE"] = "STOP_TRAIN"
    eval_limit_ratio: float = Field(default=0.5, ge=0, le=1)
    inference_weight: float = Field(default=1.0, ge=0)
    min_batch_allocation: float | None = Field(default=None, ge=0, le=1)
    max_batches_offpolicy: int = Field(default=3, ge=1)
    ensure_scores_are_not_same: bool = True
    include_messages: bool = False
    worker_timeout: float = 600
    data_path_to_save_groups: str | None = None
    data_dir_to_save_evals: str | None = None
    tokenizer_name: str = "NousResearch/DeepHermes-3-Llama-3-3B-Preview"
    use_wandb: bool = False
    wandb_name: str | None = None
    num_rollouts_to_keep: int = 32
    num_rollouts_per_group_for_logging: int = 1
    min_items_sent_before_logging: int = 2
    thinking_mode: bool = False
    reasoning_effort: str | None = None
    max_reasoning_tokens: int | None = None
    custom_thinking_prompt: str | None = None

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise self._told(error) from None

    @classmethod
    def _told(cls, error: ValidationError) -> InvalidArgument:
        """The first fault, in words that name the setting and the cure."""
        fault = error.errors(include_url=False)[0]
        inner = fault.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):  # of a nested object
            return cls._told(inner)
        if isinstance(inner, InvalidArgument):
            return inner
        name, cure = ".".join(map(str, fault["loc"])), fault["msg"]
        if fault["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, [*cls.model_fields, *_flat_names(cls)], n=1)
            cure = "there is no such setting" + (f"; did you mean {close[0]}?" if close else "")
        return InvalidArgument(name, fault["input"], cure)

    @model_validator(mode="before")
    @classmethod
    def _of_flat_names(cls, given: Any) -> Any:
        """Flat names put where they belong; they go before what the nested object says."""
        if not isinstance(given, Mapping):
            return given
        values = {name: value for name, value in given.items() if name not in _flat_names(cls)}
        changes: dict[str, dict[str, Any]] = {name: {} for name in cls.nested}
        for flat, (name, inner) in _flat_names(cls).items():
            if flat in given:
                changes[name][inner] = given[flat]
        for name, change in changes.items():
            whole = values.get(name)
            if isinstance(whole, Mapping):
                change = {**whole, **change}
                whole = None
            if change:
                values[name] = _replaced(name, _default(cls, name) if whole is None else whole, change)
        return values

    def flat(self) -> dict[str, Any]:
        """All settings under their flat names."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in self.nested}
        return values | {flat: getattr(self, flat) for flat in _flat_names(type(self))}

    def __getattr__(self, name: str) -> Any:
        found = _flat_names(type(self)).get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no setting {name!r}")
        return getattr(getattr(self, found[0]), found[1])

    def __setattr__(self, name: str, value: Any) -> None:
        found = _flat_names(type(self)).get(name)
        if found is None:
            super().__setattr__(name, value)
        else:
            super().__setattr__(found[0], _replaced(found[0], getattr(self, found[0]), {found[1]: value}))


def _replaced(name: str, settings: Any, change: Mapping[str, Any]) -> Any:
    """The settings with other values.

    Raises:
        InvalidArgument: they have no such name, or a value is none that is allowed.
    """
    known = [item.name for item in fields(settings)]
    for inner in change:
        if inner not in known:
            raise InvalidArgument(f"{name}[{inner!r}]", change[inner], f"it has {', '.join(known)}")
    return TypeAdapter(type(settings)).validate_python(asdict(settings) | dict(change))


@cache
def _flat_names(config: type[AgentEnvConfig]) -> dict[str, tuple[str, str]]:
    """Flat names -> the nested object that has it, and its name there."""
    return {
        prefix + item.name: (name, item.name)
        for name, prefix in config.nested.items()
        for item in fields(_default(config, name))
    }


def _default(config: type[AgentEnvConfig], name: str) -> Any:
    return config.model_fields[name].get_default(call_default_factory=True)
