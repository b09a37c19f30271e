"""The models that rollouts run on, by the name of their backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...errors import InvalidArgument
from ...llms.base import AsyncBaseLLM
from ..chat_tokenizer import ChatTokenizer
from ..templates import ChatTemplate

__all__ = ["BACKENDS", "Backend", "open_backend"]


class Backend(NamedTuple):
    """A model, and what makes token ids of conversations for it; None where its server does that."""

    llm: AsyncBaseLLM
    prompts: ChatTokenizer | None


def open_backend(model: Any, template: str | None, config: Mapping[str, Any] | None) -> Backend:
    """The model that `HFAgent`'s arguments describe.

    Args:
        model: `"tiny"`, a directory, a name that the backend knows, or an async model, which is taken as it is.
        template: name of a chat template; None for the model's own.
        config: `{"backend": name, **options}`; by default the embedded model's engine for `"tiny"`, else transformers.

    Raises:
        InvalidArgument: there is no such backend, or it has no such option.
    """
    if isinstance(model, AsyncBaseLLM):
        return _given(model, template, config)
    if not isinstance(model, str | os.PathLike):
        raise InvalidArgument(
            "model_name_or_path", model, "give 'tiny', a directory, a model's name, or an async model"
        )
    model = os.fspath(model)
    if config is not None and not isinstance(config, Mapping):
        raise InvalidArgument("backend_config", config, "give a dict such as {'backend': 'transformers'}")
    options = dict(config or {})
    name = options.pop("backend", "tiny" if model == "tiny" else "transformers")
    if name not in BACKENDS:
        raise InvalidArgument("backend_config['backend']", name, f"the backends are {', '.join(BACKENDS)}")
    if template is not None:
        ChatTemplate.named(template)  # a name that does not exist is an error now
    return BACKENDS[name](model, template, options)


def _given(llm: AsyncBaseLLM, template: str | None, config: Mapping[str, Any] | None) -> Backend:
    from ...llms import AsyncHFTransformer, AsyncTinyLM

    if config:
        raise InvalidArgument("backend_config", config, "the model is made already: set its options there")
    if isinstance(llm, AsyncTinyLM):
        return Backend(llm, ChatTokenizer.load(llm.engine.path, template))
    if isinstance(llm, AsyncHFTransformer):
        return Backend(llm, llm.engine.chat if template is None else ChatTokenizer(llm.tokenizer, template))
    prompts = getattr(llm, "prompts", None)  # what a model has that is sent token ids
    if isinstance(prompts, ChatTokenizer):
        if template is not None:
            raise InvalidArgument("template", template, f"{llm!r} has one already: give None, or another one there")
        return Backend(llm, prompts)
    if template is not None:
        raise InvalidArgument("template", template, f"{llm!r} renders its conversations itself: give None")
    return Backend(llm, None)


def _tiny(model: str, template: str | None, options: dict[str, Any]) -> Backend:
    from ...llms import AsyncTinyLM

    llm = AsyncTinyLM(None if model == "tiny" else model, **_known(options, "tiny", _SAMPLING))
    return Backend(llm, ChatTokenizer.load(llm.engine.path, template))


def _transformers(model: str, template: str | None, options: dict[str, Any]) -> Backend:
    from ...llms import AsyncHFTransformer
    from ...llms.tiny.engine import WEIGHTS

    path = WEIGHTS if model == "tiny" else model
    known = _known(options, "transformers", (*_SAMPLING, "device", "dtype"))
    llm = AsyncHFTransformer(path, template=template, **known)
    return Backend(llm, llm.engine.chat)


def _client(model: str, template: str | None, options: dict[str, Any]) -> Backend:
    if "server" in options:
        return _token_server(model, template, options, "client")
    from ...llms import AsyncGPTAPI

    known = _known(options, "client", (*_SAMPLING, *_CLIENT, "server", "tokenizer", "return_token_ids"))
    _need_url(known, "client")
    for name, value in (("template", template), ("backend_config['tokenizer']", known.pop("tokenizer", None))):
        if value is not None:
            raise InvalidArgument(
                name,
                value,
                "without server= conversations are sent as messages, which the server renders with its model's own "
                f"template: give None, or name the engine that runs there, server={_SERVERS}",
            )
    known.setdefault("return_token_ids", True)
    known.setdefault("key", None)
    return Backend(AsyncGPTAPI(model, **known), None)


def _token_server(model: str, template: str | None, options: dict[str, Any], backend: str) -> Backend:
    """A server that is sent token ids, and gives them."""
    from ...llms import AsyncTokenAPI
    from ...llms.tiny.engine import WEIGHTS

    known = _known(options, backend, (*_SAMPLING, *_CLIENT, "server", "tokenizer"))
    _need_url(known, backend)
    server = known.pop("server", "vllm" if backend == "async_vllm" else backend)
    tokenizer = known.pop("tokenizer", WEIGHTS if server == "lagentlike" else model)
    llm = AsyncTokenAPI(model, tokenizer, server, template=template, **known)
    return Backend(llm, llm.prompts)


def _need_url(options: Mapping[str, Any], backend: str) -> None:
    if "api_base" not in options:
        raise InvalidArgument("backend_config['api_base']", None, f"the {backend} backend needs the server's URL")


def _sglang(model: str, template: str | None, options: dict[str, Any]) -> Backend:
    return _token_server(model, template, options, "sglang")


def _vllm(model: str, template: str | None, options: dict[str, Any]) -> Backend:
    if "api_base" in options:
        return _token_server(model, template, options, "vllm")
    from ...llms import BatchedVllmModel

    return _in_process(BatchedVllmModel, model, template, options, "vllm")


def _async_vllm(model: str, template: str | None, options: dict[str, Any]) -> Backend:
    if "api_base" in options:
        return _token_server(model, template, options, "async_vllm")
    from ...llms import AsyncVllmModel

    return _in_process(AsyncVllmModel, model, template, options, "async_vllm")


def _lmdeploy(model: str, template: str | None, options: dict[str, Any]) -> Backend:
    if "api_base" in options:
        return _token_server(model, template, options, "lmdeploy")
    from ...llms import AsyncLMDeployPipeline

    return _in_process(AsyncLMDeployPipeline, model, template, options, "lmdeploy")


def _in_process(
    engine: Callable[..., Any], model: str, template: str | None, options: dict[str, Any], backend: str
) -> Backend:
    llm = engine(model, template=template, **_known(options, backend, (*_SAMPLING, *_ENGINES[backend])))
    return Backend(llm, llm.prompts)


BACKENDS: dict[str, Callable[[str, str | None, dict[str, Any]], Backend]] = {
    "tiny": _tiny,
    "transformers": _transformers,
    "client": _client,
    "async_vllm": _async_vllm,
    "vllm": _vllm,
    "lmdeploy": _lmdeploy,
    "sglang": _sglang,
}

_SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "stop_words", "seed")
_SERVERS = "'vllm', 'sglang', 'lmdeploy', 'llamacpp' or 'lagentlike'"
_ENGINES = {
    "vllm": ("tp", "dtype", "engine", "tokenizer"),
    "async_vllm": ("tp", "dtype", "engine", "tokenizer"),
    "lmdeploy": ("tp", "engine", "tokenizer"),
}
_CLIENT = ("api_base", "key", "headers", "timeout", "retry", "transport", "extra_body")


def _known(options: dict[str, Any], backend: str, names: tuple[str, ...]) -> dict[str, Any]:
    for name in options:
        if name not in names:
            raise InvalidArgument(
                f"backend_config[{name!r}]", options[name], f"backend {backend!r} knows {', '.join(names)}"
            )
    return options
