"""The model that an environment asks, from what its constructor is given."""

from __future__ import annotations

from typing import Any

from ..errors import MissingExtra
from ..llms.base import AsyncBaseLLM, BaseLLM

__all__ = ["server_of"]


def server_of(given: Any, slurm: bool = False, testing: bool = False) -> Any:
    """What an agent can ask.

    Args:
        given: a model of ours; a `ServerManager` or an API server of atroposlib; its server configs, of which a
            `ServerManager` is made; None for the embedded model.
        slurm, testing: for the `ServerManager`.

    Raises:
        MissingExtra: there are server configs, and atroposlib is not installed.
    """
    if given is None:
        from ..llms import AsyncTinyLM

        return AsyncTinyLM()
    if isinstance(given, AsyncBaseLLM | BaseLLM) or not _is_config(given):
        return given
    try:
        from atroposlib.envs.server_handling.server_manager import ServerManager
    except ImportError:
        raise MissingExtra("atroposlib", "atropos") from None
    return ServerManager(given, slurm=slurm, testing=testing)


def _is_config(given: Any) -> bool:
    """Whether it says how to reach servers, rather than is one."""
    one = given[0] if isinstance(given, list) and given else given
    return not any(
        hasattr(one, name) for name in ("managed_server", "chat_completion", "tokens_and_logprobs_completion")
    )
