"""The formats in which engines' servers take prompts of token ids and give answers in token ids, without any I/O.

vLLM's is its completions API (`vllm/entrypoints/openai/completion/protocol.py`), SGLang's and LMDeploy's are their
`/generate` (`sglang/srt/managers/io_struct.py`, `lmdeploy/serve/openai/endpoints/generate.py`): of one name, and not
the same. llama.cpp's is its `/completion` (`tools/server/README.md`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument, MissingTokens, ServerError
from ..schema import Completion, TokenSpan, Usage
from .base import Params
from .codec import decode
from .openai_wire import schema_of_answer
from .told import are_token_ids, count, text_or_none, unreadable

__all__ = ["SERVERS", "TokenServer", "answer_of", "sampling_fields"]

Body = dict[str, Any]


@dataclass(frozen=True)
class TokenServer:
    """How one engine's server is asked.

    Attributes:
        path: where requests are posted, behind the server's address.
        request: the body of a request, of the model's name, the prompt's ids and the generation parameters. Whatever
            the parameters say, it asks for token ids and log-probabilities.
        parse: the answer in the body of a response. Its `tokens.prompt_ids` are None where the server does not repeat
            them; its text is empty where only `drops_last` says how to decode it.
        drops_last: the last id of an answer that ended by itself is no part of its text, which is to be decoded here.
    """

    path: str
    request: Callable[[str, list[int], Params], Body]
    parse: Callable[[bytes], Completion]
    drops_last: bool = False


def _vllm_request(model: str, prompt: list[int], params: Params) -> Body:
    asked = {"model": model, "prompt": prompt, "return_token_ids": True, "logprobs": 0}  # 0: of the sampled token alone
    limit = {"max_tokens": params.get("max_new_tokens")}  # null: as many as fit; without the field it is 16
    stop = {"stop": list(params["stop_words"])} if params.get("stop_words") else {}
    return {**asked, **limit, **stop, **sampling_fields(params, all_tokens=-1)}


def _vllm_answer(body: bytes) -> Completion:
    response = _object(body)
    choices = response.get("choices")
    choice = choices[0] if type(choices) is list and choices else None
    if type(choice) is not dict or type(choice.get("text")) is not str:
        raise unreadable("has no choice with a text", body)
    ids = choice.get("token_ids")
    if ids is None:
        raise MissingTokens(
            "the server gave no token ids: vLLM does from 0.10.2 on, and so does lagentlike serve-model; for another "
            "engine say so with server=, and where there are no ids at all use the backend 'client' without server="
        )
    given = choice.get("logprobs")
    logprobs = given.get("token_logprobs") if type(given) is dict else None
    span = _span(_ids(ids, body), logprobs, body)
    if choice.get("prompt_token_ids") is not None:
        span.prompt_ids = _ids(choice["prompt_token_ids"], body)
    return answer_of(choice["text"], span, choice.get("finish_reason"), response.get("usage"), response.get("model"))


def _sglang_request(model: str, prompt: list[int], params: Params) -> Body:
    sampling = sampling_fields(params, all_tokens=-1)
    if "seed" in sampling:
        sampling["sampling_seed"] = sampling.pop("seed")
    sampling["max_new_tokens"] = params.get("max_new_tokens")  # null: as many as fit; without the field it is 128
    if params.get("stop_words"):
        sampling["stop"] = list(params["stop_words"])
    return {"input_ids": prompt, "sampling_params": sampling, "return_logprob": True}


def _sglang_answer(body: bytes) -> Completion:
    response, meta = _generated(body)
    if "id" not in meta:  # LMDeploy's has none, and has taken no notice of sampling_params
        raise InvalidArgument("server", "sglang", "the server answers as LMDeploy does: give server='lmdeploy'")
    steps = meta.get("output_token_logprobs")
    ids = response.get("output_ids")
    if type(steps) is list and all(type(step) is list and len(step) >= 2 for step in steps):
        sampled = _ids([step[1] for step in steps], body)
        if type(ids) is list and ids != sampled:
            raise unreadable("names other ids in output_ids than in output_token_logprobs", body)
        span = _span(sampled, [step[0] for step in steps], body)
    elif ids is not None:
        span = _span(_ids(ids, body), None, body)
    else:
        raise MissingTokens("the server gave no token ids: SGLang does where return_logprob is true")
    return answer_of(response["text"], span, meta.get("finish_reason"), meta)


def _lmdeploy_request(model: str, prompt: list[int], params: Params) -> Body:
    limit = params.get("max_new_tokens")
    if limit is None:
        raise InvalidArgument("max_new_tokens", None, "LMDeploy's /generate makes 128 tokens unless told: say how many")
    sampling = sampling_fields(params, all_tokens=0)
    if "seed" in sampling:
        raise InvalidArgument("seed", sampling["seed"], "LMDeploy's /generate takes none: leave it out")
    # Without include_stop_str_in_output the token that ended the answer is not among its ids.
    asked = {"input_ids": prompt, "return_logprob": True, "include_stop_str_in_output": True, "max_tokens": limit}
    stop = {"stop": list(params["stop_words"])} if params.get("stop_words") else {}
    return {**asked, **stop, **sampling}


def _lmdeploy_answer(body: bytes) -> Completion:
    response, meta = _generated(body)
    if "id" in meta:  # SGLang's; it has taken no notice of max_tokens and temperature
        raise InvalidArgument("server", "lmdeploy", "the server answers as SGLang does: give server='sglang'")
    ids = response.get("output_ids")
    if ids is None:
        raise MissingTokens("the server gave no token ids: LMDeploy's /generate gives them as output_ids")
    steps = meta.get("output_token_logprobs")
    logprobs = [step[0] for step in steps if type(step) is list and step] if type(steps) is list else None
    return answer_of("", _span(_ids(ids, body), logprobs, body), meta.get("finish_reason"), meta)


def _llamacpp_request(model: str, prompt: list[int], params: Params) -> Body:
    limit = params.get("max_new_tokens")
    if limit is None:
        raise InvalidArgument("max_new_tokens", None, "llama.cpp goes on for ever where a model does: say how many")
    sampling = sampling_fields(params, all_tokens=0)
    if "repetition_penalty" in sampling:
        sampling["repeat_penalty"] = sampling.pop("repetition_penalty")
    schema = schema_of_answer(params)
    if sampling.pop("response_format", None) is not None and schema is not None:
        sampling["json_schema"] = schema
    stop = {"stop": list(params["stop_words"])} if params.get("stop_words") else {}
    asked = {"prompt": prompt, "n_predict": limit, "return_tokens": True, "n_probs": 1, "cache_prompt": True}
    return {"model": model, **asked, **stop, **sampling}


def _llamacpp_answer(body: bytes) -> Completion:
    response = _object(body)
    if type(response.get("content")) is not str or type(response.get("stop_type")) is not str:
        raise unreadable("has no content with a stop_type", body)
    steps = response.get("completion_probabilities")
    if response.get("truncated"):
        raise unreadable("was made after the beginning of the prompt was dropped", body)
    told = [step.get("logprob") for step in steps if type(step) is dict] if type(steps) is list else None
    ids = _ids(response.get("tokens") or [], body)
    if not ids and response.get("tokens_predicted"):
        raise MissingTokens("the server gave no token ids: llama.cpp does where return_tokens is true")
    if told is not None and response["stop_type"] == "word":  # it tells no log-probabilities of the stop word's tokens
        ids = ids[: len(told)]
    timings = response.get("timings")
    usage = {
        "prompt_tokens": response.get("tokens_evaluated"),
        "completion_tokens": response.get("tokens_predicted"),
        "cached_tokens": timings.get("cache_n") if type(timings) is dict else 0,
    }
    finish = "length" if response["stop_type"] == "limit" else "stop"
    return answer_of(response["content"], _span(ids, told, body), finish, usage, response.get("model"))


SERVERS: dict[str, TokenServer] = {
    "vllm": TokenServer("/v1/completions", _vllm_request, _vllm_answer),
    "sglang": TokenServer("/generate", _sglang_request, _sglang_answer),
    "lmdeploy": TokenServer("/generate", _lmdeploy_request, _lmdeploy_answer, drops_last=True),
    "llamacpp": TokenServer("/completion", _llamacpp_request, _llamacpp_answer),
    "lagentlike": TokenServer("/v1/completions", _vllm_request, _vllm_answer),
}
"""The servers that take token ids, by the name of their engine; `lagentlike` is `lagentlike serve-model`."""


def sampling_fields(params: Params, all_tokens: int) -> Body:
    """The parameters that have the same name everywhere, and those that only the server knows."""
    fields: Body = {}
    for name, value in params.items():
        if value is None or name in _OURS:
            continue
        if type(value) is float and not math.isfinite(value):
            raise InvalidArgument(name, value, "give a finite number, or None to leave it to the server")
        fields[name] = value
    if fields.get("top_k") in (0, -1):
        fields["top_k"] = all_tokens
    return fields


_OURS = frozenset(
    "max_new_tokens stop_words tools tool_choice tool_format parallel_tool_calls prompt_ids logprobs top_logprobs "
    "return_token_ids n extra_body".split()
)


def _generated(body: bytes) -> tuple[Body, Body]:
    """The response of a `/generate`, and what it tells of itself."""
    response = _object(body)
    meta = response.get("meta_info")
    if type(meta) is not dict or type(response.get("text")) is not str:
        raise unreadable("has no text with meta_info", body)
    return response, meta


def answer_of(text: str, span: TokenSpan, finish: Any, usage: Any, model: Any = None) -> Completion:
    """An engine's answer; `finish` is the reason why it ended, and `usage` its counts of tokens, as engines tell them.

    Raises:
        ServerError: the engine gave it up.
    """
    reason = finish.get("type") if type(finish) is dict else finish
    if reason in ("abort", "error"):
        told = finish.get("message") if type(finish) is dict else None
        raise ServerError(f"the engine gave the answer up (finish_reason {reason!r}): {told or 'it does not say why'}")
    return Completion(
        text,
        usage=_usage(usage),
        model=text_or_none(model),
        finish_reason=reason if type(reason) is str else "stop",
        tokens=span,
    )


def _usage(told: Any) -> Usage | None:
    if type(told) is not dict:
        return None
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if type(details) is dict else told.get("cached_tokens")
    return Usage(1, count(told.get("prompt_tokens")), count(told.get("completion_tokens")), count(cached))


def _span(ids: list[int], logprobs: Any, body: bytes) -> TokenSpan:
    if logprobs is None:
        return TokenSpan(ids)
    if type(logprobs) is not list or not all(type(one) in (float, int) for one in logprobs):
        raise unreadable("has log-probabilities that are no numbers", body)
    if len(logprobs) != len(ids):
        raise unreadable(f"has {len(ids)} token ids and {len(logprobs)} log-probabilities", body)
    return TokenSpan(ids, [float(one) for one in logprobs])


def _ids(values: Any, body: bytes) -> list[int]:
    if not are_token_ids(values):
        raise unreadable("has token ids that are no whole numbers from 0 up to 2^31", body)
    ids: list[int] = values
    return ids


def _object(body: bytes) -> Body:
    response = decode(body)
    if type(response) is not dict:
        raise unreadable("is no JSON object", body)
    return response
