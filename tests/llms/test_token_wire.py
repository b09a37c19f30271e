"""The formats of servers that take token ids: bodies as each engine has them, answers as each engine gives them."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import pytest

from lagentlike.errors import BadResponse, InvalidArgument, MissingTokens, ServerError
from lagentlike.llms.token_wire import SERVERS
from lagentlike.schema import Completion, Usage

from .lies import answers_or_typed_errors

PARAMS: dict[str, Any] = {
    "max_new_tokens": 64,
    "temperature": 1.0,
    "top_p": None,
    "top_k": 0,
    "repetition_penalty": 1.1,
    "stop_words": ["END"],
    "min_p": 0.1,
    "tools": [{"type": "function"}],
    "prompt_ids": [1, 2, 3],
    "logprobs": True,
}
SHARED = {"temperature": 1.0, "repetition_penalty": 1.1, "min_p": 0.1}

# What vLLM 0.33's `CompletionResponse` is, with the fields that it leaves null.
VLLM = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "text": "It is 2.",
            "logprobs": {
                "text_offset": [0, 2, 5],
                "token_logprobs": [-0.1, -0.2, -0.3],
                "tokens": ["It", " is", "<|im_end|>"],
                "top_logprobs": [{"It": -0.1}, {" is": -0.2}, {"<|im_end|>": -0.3}],
            },
            "finish_reason": "stop",
            "stop_reason": None,
            "token_ids": [7, 8, 9],
            "prompt_logprobs": None,
            "prompt_token_ids": [1, 2, 3],
            "routed_experts": None,
        }
    ],
    "service_tier": None,
    "system_fingerprint": None,
    "usage": {
        "prompt_tokens": 3,
        "total_tokens": 6,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 2},
    },
    "kv_transfer_params": None,
}
# What SGLang 0.5's `/generate` answers: triples of log-probability, id and the text, which is null unless asked for.
SGLANG = {
    "text": "It is 2.",
    "output_ids": [7, 8, 9],
    "meta_info": {
        "id": "5f",
        "finish_reason": {"type": "stop", "matched": 9},
        "prompt_tokens": 3,
        "weight_version": "default",
        "num_retractions": 0,
        "input_token_logprobs": [],
        "output_token_logprobs": [[-0.1, 7, None], [-0.2, 8, None], [-0.3, 9, None]],
        "output_token_logprobs_length": 3,
        "reasoning_tokens": 0,
        "completion_tokens": 3,
        "cached_tokens": 2,
        "e2e_latency": 0.2,
    },
}
# What LMDeploy 0.18's `/generate` answers: pairs, and the text of the token that ended it behind the text.
LMDEPLOY = {
    "text": "It is 2.<|im_end|>",
    "output_ids": [7, 8, 9],
    "meta_info": {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "finish_reason": {"type": "stop"},
        "output_token_logprobs": [[-0.1, 7], [-0.2, 8], [-0.3, 9]],
        "input_token_logprobs": None,
        "output_top_logprobs": None,
        "input_top_logprobs": None,
        "routed_experts": None,
    },
}
# What llama.cpp's `/completion` answers (build 11549), without the settings that it repeats.
LLAMACPP = {
    "index": 0,
    "content": "It is 2.",
    "tokens": [7, 8, 9],
    "id_slot": 1,
    "stop": True,
    "model": "m",
    "tokens_predicted": 3,
    "tokens_evaluated": 3,
    "prompt": "abc",
    "has_new_line": False,
    "truncated": False,
    "stop_type": "eos",
    "stopping_word": "",
    "tokens_cached": 5,
    "timings": {"cache_n": 2, "prompt_n": 1, "prompt_ms": 1.5, "predicted_n": 3, "predicted_ms": 29.6},
    "completion_probabilities": [
        {"id": id_, "token": "x", "bytes": [120], "logprob": logprob, "top_logprobs": []}
        for id_, logprob in ((7, -0.1), (8, -0.2), (9, -0.3))
    ],
}
RESPONSES = {"vllm": VLLM, "lagentlike": VLLM, "sglang": SGLANG, "lmdeploy": LMDEPLOY, "llamacpp": LLAMACPP}
all_servers = pytest.mark.parametrize("server", sorted(SERVERS))


def parsed(server: str, response: Any) -> Completion:
    return SERVERS[server].parse(json.dumps(response).encode())


def changed(server: str, path: str, value: Any) -> Any:
    """The server's response with another value at a place; `...` leaves it out."""
    response = copy.deepcopy(RESPONSES[server])
    *way, last = path.split(".")
    at: Any = response
    for name in way:
        at = at[int(name)] if name.isdigit() else at[name]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return response


def test_vllm_is_asked_for_a_completion_of_ids() -> None:
    assert SERVERS["vllm"].request("m", [1, 2, 3], PARAMS) == {
        "model": "m",
        "prompt": [1, 2, 3],
        "return_token_ids": True,
        "logprobs": 0,
        "max_tokens": 64,
        "stop": ["END"],
        "top_k": -1,
        **SHARED,
    }
    # Without the field vLLM makes 16 tokens; null is as many as fit.
    assert SERVERS["vllm"].request("m", [1], {"max_new_tokens": None})["max_tokens"] is None


def test_sglang_is_asked_with_sampling_params_and_its_name_of_the_seed() -> None:
    assert SERVERS["sglang"].request("m", [1, 2, 3], {**PARAMS, "seed": 5}) == {
        "input_ids": [1, 2, 3],
        "return_logprob": True,
        "sampling_params": {"max_new_tokens": 64, "stop": ["END"], "top_k": -1, "sampling_seed": 5, **SHARED},
    }


def test_lmdeploy_is_asked_to_include_the_token_that_ends_the_answer() -> None:
    assert SERVERS["lmdeploy"].request("m", [1, 2, 3], PARAMS) == {
        "input_ids": [1, 2, 3],
        "return_logprob": True,
        "include_stop_str_in_output": True,
        "max_tokens": 64,
        "stop": ["END"],
        "top_k": 0,
        **SHARED,
    }


def test_llamacpp_is_asked_under_its_own_names() -> None:
    wanted = {**PARAMS, "response_format": {"type": "object"}, "grammar": None}
    assert SERVERS["llamacpp"].request("m", [1, 2, 3], wanted) == {
        "model": "m",
        "prompt": [1, 2, 3],
        "n_predict": 64,
        "return_tokens": True,
        "n_probs": 1,
        "cache_prompt": True,
        "stop": ["END"],
        "temperature": 1.0,
        "repeat_penalty": 1.1,
        "min_p": 0.1,
        "top_k": 0,
        "json_schema": {"type": "object"},
    }
    with pytest.raises(InvalidArgument, match="goes on for ever"):
        SERVERS["llamacpp"].request("m", [1], {"max_new_tokens": None})


def test_llamacpp_tells_nothing_of_the_tokens_of_a_stop_word() -> None:
    response = changed("llamacpp", "stop_type", "word")
    response["completion_probabilities"].pop()
    answer = parsed("llamacpp", response)
    assert answer.tokens is not None
    assert (answer.tokens.ids, answer.finish_reason) == ([7, 8], "stop")
    assert parsed("llamacpp", changed("llamacpp", "stop_type", "limit")).finish_reason == "length"


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"max_new_tokens": 8, "seed": 1}, "seed=1: LMDeploy's /generate takes none"),
        ({"max_new_tokens": None}, "128 tokens unless told"),
        ({"max_new_tokens": 8, "temperature": float("nan")}, "finite number"),
    ],
)
def test_what_lmdeploy_would_ignore_is_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        SERVERS["lmdeploy"].request("m", [1], params)


@all_servers
def test_an_answer_is_its_ids_and_log_probabilities(server: str) -> None:
    answer = parsed(server, RESPONSES[server])
    assert answer.tokens is not None
    assert answer.tokens.ids == [7, 8, 9]
    assert answer.tokens.logprobs == [-0.1, -0.2, -0.3]
    assert answer.tokens.prompt_ids == ([1, 2, 3] if SERVERS[server].path == "/v1/completions" else None)
    assert answer.finish_reason == "stop"
    cached = 0 if server == "lmdeploy" else 2
    assert answer.usage == Usage(1, 3, 3, cached)
    assert answer.text == ("" if SERVERS[server].drops_last else "It is 2.")


@pytest.mark.parametrize(
    ("server", "path", "says"),
    [
        ("vllm", "choices.0.token_ids", "vLLM does from 0.10.2 on"),
        ("lmdeploy", "output_ids", "LMDeploy's /generate gives them as output_ids"),
        ("llamacpp", "tokens", "llama.cpp does where return_tokens is true"),
    ],
)
def test_a_server_that_gives_no_ids_is_told_from_one_that_does(server: str, path: str, says: str) -> None:
    with pytest.raises(MissingTokens, match=says):
        parsed(server, changed(server, path, ...))


def test_sglang_without_log_probabilities_still_gives_ids_and_without_both_it_is_said() -> None:
    only_ids = changed("sglang", "meta_info.output_token_logprobs", ...)
    answer = parsed("sglang", only_ids)
    assert answer.tokens is not None
    assert (answer.tokens.ids, answer.tokens.logprobs) == ([7, 8, 9], None)
    del only_ids["output_ids"]
    with pytest.raises(MissingTokens, match="return_logprob"):
        parsed("sglang", only_ids)


@pytest.mark.parametrize(
    ("server", "other"), [("sglang", "lmdeploy"), ("lmdeploy", "sglang")], ids=["as sglang", "as lmdeploy"]
)
def test_the_two_generates_are_told_apart(server: str, other: str) -> None:
    with pytest.raises(InvalidArgument, match=f"give server='{other}'"):
        parsed(server, RESPONSES[other])


@pytest.mark.parametrize(
    ("server", "path", "value", "says"),
    [
        ("vllm", "choices", [], "no choice with a text"),
        ("vllm", "choices.0.token_ids", [7, 8], "2 token ids and 3 log-probabilities"),
        ("vllm", "choices.0.token_ids", [7, 8, "9"], "no whole numbers"),
        ("lmdeploy", "output_ids", [7, -1, 9], "no whole numbers"),
        ("vllm", "choices.0.token_ids", [7, 2**40, 9], "no whole numbers"),
        ("vllm", "choices.0.logprobs.token_logprobs", [-0.1, None, -0.3], "no numbers"),
        ("sglang", "output_ids", [7, 8, 10], "other ids in output_ids"),
        ("sglang", "meta_info", None, "no text with meta_info"),
        ("lmdeploy", "meta_info.output_token_logprobs", [[-0.1, 7]], "3 token ids and 1 log-probabilities"),
        ("lmdeploy", "text", None, "no text with meta_info"),
        ("llamacpp", "stop_type", None, "no content with a stop_type"),
        ("llamacpp", "truncated", True, "beginning of the prompt was dropped"),
        ("llamacpp", "tokens", [7, 8], "2 token ids and 3 log-probabilities"),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_refused(server: str, path: str, value: Any, says: str) -> None:
    with pytest.raises(BadResponse, match=says):
        parsed(server, changed(server, path, value))


@pytest.mark.parametrize(
    ("server", "path", "value"),
    [
        ("vllm", "choices.0.finish_reason", "abort"),
        ("sglang", "meta_info.finish_reason", {"type": "abort", "message": "out of memory", "status_code": None}),
        ("lmdeploy", "meta_info.finish_reason", {"type": "error"}),
    ],
)
def test_an_answer_that_the_engine_gave_up_is_an_error(server: str, path: str, value: Any) -> None:
    with pytest.raises(ServerError, match="gave the answer up"):
        parsed(server, changed(server, path, value))


@pytest.mark.parametrize("server", list(RESPONSES))
def test_a_server_that_sends_anything_gets_an_answer_or_a_typed_error_made_of_it(server: str) -> None:
    def parse(body: bytes) -> Completion:
        with suppress(MissingTokens, InvalidArgument):  # which say how the server is to be asked
            return SERVERS[server].parse(body)
        raise BadResponse("it names its cure")

    assert answers_or_typed_errors(parse, RESPONSES[server]) > 200
