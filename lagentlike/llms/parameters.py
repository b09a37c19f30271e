"""Names of parameters, and what is taken for a slip of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidArgument

__all__ = ["check_parameters"]


def check_parameters(params: Mapping[str, Any], own: frozenset[str]) -> None:
    """Refuse a parameter whose name looks like a slip of one that is known; other unknown ones are the server's.

    Args:
        params: by name.
        own: names that the one class of models knows beside those of all.

    Raises:
        InvalidArgument: the name is close to a known one; the message says which.
    """
    for name in params:
        if name not in own and name not in _KNOWN:
            meant = next((other for other in sorted(own | _KNOWN) if _is_slip(name, other)), None)
            if meant is not None:
                raise InvalidArgument(name, params[name], f"there is no such parameter, did you mean {meant}?")


def _is_slip(name: str, meant: str) -> bool:
    """Whether one character too many, too few or wrong, or two exchanged, is all that differs."""
    start = _alike(name, meant)
    name, meant = name[start:], meant[start:]
    end = _alike(name[::-1], meant[::-1])
    name, meant = name[: len(name) - end], meant[: len(meant) - end]
    return (len(name) <= 1 and len(meant) <= 1) or (len(name) == 2 and name == meant[::-1])


def _alike(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


_KNOWN = frozenset(
    (
        "model_type retry key org meta_template api_base proxies timeout headers transport limiter "
        "max_new_tokens temperature top_p top_k repetition_penalty stop_words tools tool_choice parallel_tool_calls "
        "json_mode response_format extra_body logprobs top_logprobs seed stop max_tokens max_completion_tokens n "
        "frequency_penalty presence_penalty logit_bias user metadata store service_tier reasoning_effort reasoning "
        "verbosity modalities audio prediction web_search_options safety_identifier prompt_cache_key stream_options "
        "functions function_call "
        # what vLLM, SGLang and LMDeploy know besides
        "min_p min_tokens min_new_tokens best_of use_beam_search length_penalty stop_token_ids ignore_eos bad_words "
        "include_stop_str_in_output skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens "
        "prompt_logprobs return_token_ids return_tokens_as_token_ids return_logprob chat_template chat_template_kwargs "
        "add_generation_prompt continue_final_message add_special_tokens guided_json guided_regex guided_choice "
        "guided_grammar structured_outputs regex ebnf priority request_id session_id enable_thinking thinking "
        "do_sample random_seed repeat_penalty keep_alive num_ctx options provider models transforms"
    ).split()
)
