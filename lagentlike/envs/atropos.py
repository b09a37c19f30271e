"""An environment of ours as one of atroposlib's: on its `BaseEnv`, with its servers, logs and command line."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, get_type_hints

from pydantic import create_model

from ..errors import InvalidArgument, MissingExtra
from ..llms.base import AsyncBaseLLM
from ..llms.tiny.engine import TinyEngine
from .config import AgentEnvConfig
from .environment import AgentEnv, Item

try:
    from atroposlib.envs.base import BaseEnv, BaseEnvConfig
    from atroposlib.envs.server_handling.server_baseline import APIServer, APIServerConfig
except ImportError:
    raise MissingExtra("atroposlib", "atropos") from None

__all__ = ["AtroposEnv", "ModelAPIServer", "over_atropos"]


def over_atropos(env_class: type[AgentEnv[Any]], llm: AsyncBaseLLM | None = None) -> type[AtroposEnv]:
    """The class of atroposlib's `BaseEnv` that plays an environment.

    Its config has the settings of both under their flat names, so that atroposlib's command line takes all of them:
    `over_atropos(MyEnv).cli()`. Groups, masks and failures are as they are without it; what runs them, sends them and
    logs them is atroposlib.

    Args:
        env_class: the environment.
        llm: a model of ours that takes `prompt_ids`, in the place of servers that the config would name.

    Raises:
        MissingExtra: atroposlib is not installed.
        InvalidArgument: the model takes no token ids.
    """
    parts: dict[str, Any] = {"env_class": env_class, "name": env_class.name or env_class.__name__}
    if llm is not None:
        if not hasattr(llm, "tokenize"):  # what models have that are prompted with token ids
            cure = "give a model that takes prompt_ids, such as AsyncTinyLM() or AsyncTokenAPI(…)"
            raise InvalidArgument("llm", llm, cure)
        parts |= {"llm": llm, "server_cls": type("ModelAPIServer", (ModelAPIServer,), {"llm": llm})}
    return type(f"{env_class.__name__}OverAtropos", (AtroposEnv,), {"__doc__": env_class.__doc__, **parts})


class AtroposEnv(BaseEnv):
    """An environment of atroposlib that plays one of ours; `over_atropos` makes such classes."""

    env_class: ClassVar[type[AgentEnv[Any]]]
    llm: ClassVar[AsyncBaseLLM | None] = None

    def __init__(self, config: Any, server_configs: Any, slurm: bool = False, testing: bool = False) -> None:
        super().__init__(config, server_configs, slurm, testing)
        default, _ = self.env_class.config_init()
        given = config.model_dump(mode="json")
        own = type(default)(**{name: given[name] for name in default.flat() if name in given})
        self.env = self.env_class(own, self.server, tokenizer=self.tokenizer)

    @classmethod
    def config_init(cls) -> tuple[Any, Any]:
        """The settings of both, and the servers."""
        config, servers = cls.env_class.config_init()
        if cls.llm is not None:
            engine = getattr(cls.llm, "engine", None)
            if isinstance(engine, TinyEngine):
                config.tokenizer_name = str(engine.path)
            servers = [APIServerConfig(model_name=cls.llm.model or "model", health_check=False)]
        return _flat(config), servers

    async def setup(self) -> None:
        """Set the environment up."""
        await self.env.setup()

    async def get_next_item(self) -> Item | None:
        """Its next task."""
        return await self.env.get_next_item()

    async def collect_trajectories(self, item: Item) -> Any:
        """One of its groups, or several."""
        for name in ("group_size", "include_messages"):  # which atroposlib sets as it goes
            setattr(self.env.config, name, getattr(self.config, name))
        return await self.env.collect_trajectories(item)

    async def evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Its evaluation, written where the config says."""
        metrics = await self.env.evaluate(*args, **kwargs)
        if metrics and self.config.data_dir_to_save_evals is not None:
            await self.evaluate_log(metrics)

    async def env_manager(self) -> None:
        """Serve, and close the sandboxes in the end."""
        try:
            await super().env_manager()
        finally:
            await self.env.close()

    async def process_manager(self) -> None:
        """Process, and close the sandboxes in the end."""
        try:
            await super().process_manager()
        finally:
            await self.env.close()

    async def _run_evaluate(self) -> None:
        try:
            await super()._run_evaluate()
        finally:
            await self.env.close()


class ModelAPIServer(APIServer):
    """An API server of atroposlib that is a model of ours, prompted with token ids."""

    llm: ClassVar[Any]

    async def check_server_status_task(self, chat_completion: bool = True) -> None:
        """It is there."""
        self.server_healthy = True

    async def _tokens_and_logprobs_completion_wrapper(self, **asked: Any) -> tuple[Any, Any, Any, Any]:
        ids = asked.get("input_ids") or self.llm.tokenize(asked["prompt"])
        sampling = {_SAMPLING[name]: value for name, value in asked.items() if name in _SAMPLING and value is not None}
        turns = [[{"role": "user", "content": ""}]] * asked.get("n", 1)  # the prompt is given as ids
        answers = await self.llm.chat(turns, prompt_ids=[ids] * len(turns), logprobs=True, **sampling)
        reasons = [answer.finish_reason for answer in answers]
        return ids, [answer.tokens.ids for answer in answers], [answer.tokens.logprobs for answer in answers], reasons

    async def _chat_completion_wrapper(self, **asked: Any) -> Any:
        raise NotImplementedError("ask it for tokens, as managed_server() does")

    async def _completion_wrapper(self, **asked: Any) -> Any:
        raise NotImplementedError("ask it for tokens, as managed_server() does")


_SAMPLING = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "stop": "stop_words"}


def _flat(config: AgentEnvConfig) -> Any:
    """The same settings as a config of atroposlib's, under their flat names."""
    values = config.flat()
    known = BaseEnvConfig.model_fields
    added: dict[str, Any] = {
        name: (kind, values[name]) for name, kind in _kinds(type(config)).items() if name not in known
    }
    made: Any = create_model(type(config).__name__, __base__=BaseEnvConfig, **added)
    return made(**{name: value for name, value in values.items() if name in made.model_fields})


def _kinds(config: type[AgentEnvConfig]) -> dict[str, Any]:
    """The types of all settings, by their flat names."""
    kinds = {name: item.annotation for name, item in config.model_fields.items() if name not in config.nested}
    for name, prefix in config.nested.items():
        settings: Any = config.model_fields[name].annotation
        hints = get_type_hints(settings)
        kinds |= {prefix + item.name: hints[item.name] for item in dataclasses.fields(settings)}
    return kinds
