"""SGLang, LMDeploy and llama.cpp on loopback: what they answer as their releases do, over the embedded model.

Requests are checked and answers shaped as in SGLang 0.5 (`io_struct.py`, `tokenizer_manager.py` and `schedule_batch.py`
in `srt/managers/`, `srt/sampling/sampling_params.py`) and LMDeploy 0.18 (`serve/openai/protocol.py`,
`serve/openai/endpoints/generate.py`, `serve/core/async_engine.py`); llama.cpp's are what its own server (build 11549)
said with the embedded model as GGUF.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, Self

from aiohttp import web

from lagentlike.errors import ContextLengthExceeded
from lagentlike.llms import AsyncTinyLM
from lagentlike.llms.tiny.engine import TinyEngine
from lagentlike.schema import Completion, TokenSpan

NO_MESSAGES = [{"role": "user", "content": ""}]


class Refused(Exception):
    """A request that the server answers with 400."""


class TokenServer:
    """One address over the embedded model.

    Attributes:
        bodies: the requests, as they came in.
        aborted: how many requests were given up because their client went away.
        delay: seconds that an answer takes at least.
    """

    path = "/generate"
    prompt = "input_ids"

    def __init__(self) -> None:
        self.llm = AsyncTinyLM(logprobs=True)
        self.bodies: list[dict[str, Any]] = []
        self.aborted = 0
        self.delay = 0.0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post(self.path, self._generate)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    async def _generate(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.bodies.append(body)
        try:
            sampling = self.sampling(body)
            await asyncio.sleep(self.delay)
            answer = await self.llm.chat(NO_MESSAGES, prompt_ids=body[self.prompt], **sampling)
        except (Refused, ContextLengthExceeded) as error:
            return web.json_response(self.refusal(str(error)), status=400)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        return web.json_response(self.answer(body, answer))

    def routes(self) -> list[web.RouteDef]:
        """The server's other addresses."""
        return []

    def sampling(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request's generation parameters under the embedded model's names, with the server's defaults."""
        raise NotImplementedError

    def answer(self, body: dict[str, Any], answer: Completion) -> dict[str, Any]:
        """The response."""
        raise NotImplementedError

    def refusal(self, message: str) -> dict[str, Any]:
        """The body of a 400."""
        raise NotImplementedError


def span(answer: Completion) -> TokenSpan:
    assert answer.tokens is not None
    return answer.tokens


def pairs(tokens: TokenSpan) -> list[list[Any]]:
    return [[logprob, id_] for id_, logprob in zip(tokens.ids, tokens.logprobs or (), strict=True)]


class SGLangServer(TokenServer):
    """SGLang's: sampling parameters in an object of their own, in which unknown ones are refused."""

    SAMPLING = frozenset(
        "max_new_tokens stop stop_token_ids stop_regex temperature top_p top_k min_p frequency_penalty "
        "presence_penalty repetition_penalty min_new_tokens n json_schema regex ebnf structural_tag ignore_eos "
        "skip_special_tokens spaces_between_special_tokens no_stop_trim custom_params stream_interval logit_bias "
        "sampling_seed".split()
    )

    def sampling(self, body: dict[str, Any]) -> dict[str, Any]:
        given = body.get("sampling_params") or {}
        unknown = sorted(given.keys() - self.SAMPLING)
        if unknown:
            raise Refused(f"Unexpected keyword argument '{unknown[0]}'")
        if given.get("top_k") == 0:
            raise Refused("top_k must be -1 (disable) or at least 1, got 0.")
        return {
            "max_new_tokens": given.get("max_new_tokens", 128),
            "temperature": given.get("temperature", 1.0),
            "top_p": given.get("top_p", 1.0),
            "top_k": max(given.get("top_k", -1), 0),
            "repetition_penalty": given.get("repetition_penalty", 1.0),
            "stop_words": given.get("stop"),
            "seed": given.get("sampling_seed"),
        }

    def answer(self, body: dict[str, Any], answer: Completion) -> dict[str, Any]:
        tokens = span(answer)
        stop = (body.get("sampling_params") or {}).get("stop") or []
        finish: dict[str, Any] = {"type": "length", "length": len(tokens.ids)}
        if answer.finish_reason == "stop":
            ended = tokens.ids[-1] == TinyEngine.load().end_of_turn
            finish = {"type": "stop", "matched": tokens.ids[-1] if ended else stop[0]}
        meta: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "finish_reason": finish,
            "prompt_tokens": len(body["input_ids"]),
            "weight_version": "default",
            "num_retractions": 0,
            "reasoning_tokens": 0,
            "completion_tokens": len(tokens.ids),
            "cached_tokens": 3,
            "e2e_latency": 0.01,
        }
        if body.get("return_logprob"):
            meta["input_token_logprobs"] = []
            meta["output_token_logprobs"] = [[*pair, None] for pair in pairs(tokens)]
            meta["output_token_logprobs_length"] = len(tokens.ids)
        return {"text": answer.text, "output_ids": tokens.ids, "meta_info": meta}

    def refusal(self, message: str) -> dict[str, Any]:
        return {"error": {"message": message}}


class LMDeployServer(TokenServer):
    """LMDeploy's: unknown parameters are ignored, and the end-of-turn token is given on request only."""

    def sampling(self, body: dict[str, Any]) -> dict[str, Any]:
        limit = body.get("max_tokens", 128)
        if type(limit) is not int or limit <= 0:
            raise Refused(f"The max_tokens {limit!r} must be a positive integer.")
        top_k = body.get("top_k", 0)
        if top_k < 0:
            raise Refused(f"The top_k {top_k!r} cannot be a negative integer.")
        return {
            "max_new_tokens": limit,
            "temperature": body.get("temperature", 0.8),
            "top_p": body.get("top_p", 1.0),
            "top_k": top_k,
            "repetition_penalty": body.get("repetition_penalty", 1.0),
        }

    def answer(self, body: dict[str, Any], answer: Completion) -> dict[str, Any]:
        tokens, text = span(answer), answer.text
        ids, steps = list(tokens.ids), pairs(tokens)
        if answer.finish_reason == "stop":
            if body.get("include_stop_str_in_output"):
                text += TinyEngine.load().decode(ids[-1:], skip_special_tokens=False)
            else:
                ids, steps = ids[:-1], steps[:-1]
        meta = {
            "prompt_tokens": len(body["input_ids"]),
            "completion_tokens": len(ids),
            "finish_reason": {"type": answer.finish_reason},
            "output_token_logprobs": steps if body.get("return_logprob") else None,
            "input_token_logprobs": None,
            "output_top_logprobs": None,
            "input_top_logprobs": None,
            "routed_experts": None,
        }
        return {"text": text, "output_ids": ids, "meta_info": meta}

    def refusal(self, message: str) -> dict[str, Any]:
        return {"object": "error", "message": message, "type": "invalid_request_error", "code": 400, "param": None}


class LlamaCppServer(TokenServer):
    """llama.cpp's: it tells a log-probability and the likeliest token of each step, but none for a stop word's tokens.

    Attributes:
        loading: how many more requests find the model not loaded yet.
    """

    path = "/completion"
    prompt = "prompt"

    def __init__(self) -> None:
        super().__init__()
        self.loading = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self._health),
            web.get("/props", self._props),
            web.post("/tokenize", self._tokenize),
            web.post("/detokenize", self._detokenize),
            web.post("/apply-template", self._template),
            web.post("/v1/chat/completions", self._chat),
        ]

    def sampling(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("grammar") == "bad":
            raise Refused("Failed to initialize samplers: failed to parse grammar")
        return {
            "max_new_tokens": body["n_predict"],
            "temperature": body.get("temperature", 0.8),
            "top_p": body.get("top_p", 0.95),
            "top_k": body.get("top_k", 40),
            "repetition_penalty": body.get("repeat_penalty", 1.0),
            "stop_words": body.get("stop"),
            "seed": body.get("seed"),
        }

    def answer(self, body: dict[str, Any], answer: Completion) -> dict[str, Any]:
        tokens = span(answer)
        ended = tokens.ids[-1] == TinyEngine.load().end_of_turn
        steps = [{"id": id_, "token": "x", "bytes": [], "logprob": logprob, "top_logprobs": []}
                 for logprob, id_ in pairs(tokens)]  # fmt: skip
        kind = "limit" if answer.finish_reason == "length" else "eos" if ended else "word"
        return {
            "index": 0,
            "content": answer.text,
            "tokens": tokens.ids if body.get("return_tokens") else [],
            "id_slot": 0,
            "stop": True,
            "model": "tinylm.gguf",
            "tokens_predicted": len(tokens.ids),
            "tokens_evaluated": len(body["prompt"]),
            "prompt": self.llm.detokenize(body["prompt"]),
            "truncated": False,
            "stop_type": kind,
            "stopping_word": "" if kind != "word" else body["stop"][0],
            "tokens_cached": len(body["prompt"]) + len(tokens.ids) - 1,
            "timings": {"cache_n": 2, "prompt_n": len(body["prompt"]) - 2, "predicted_n": len(tokens.ids)},
            **({"completion_probabilities": steps[: -1 if kind == "word" else None]} if body.get("n_probs") else {}),
        }

    def refusal(self, message: str) -> dict[str, Any]:
        return {"error": {"code": 400, "message": message, "type": "invalid_request_error"}}

    async def _health(self, request: web.Request) -> web.Response:
        if self.loading:
            self.loading -= 1
            told = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
            return web.json_response({"error": told}, status=503)
        return web.json_response({"status": "ok"})

    async def _props(self, request: web.Request) -> web.Response:
        return web.json_response({"total_slots": 2, "model_path": "tinylm.gguf", "chat_template": "…"})

    async def _tokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"tokens": self.llm.tokenize((await request.json())["content"])})

    async def _detokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"content": self.llm.detokenize((await request.json())["tokens"])})

    async def _template(self, request: web.Request) -> web.Response:
        body = await request.json()
        ids = TinyEngine.load().render(body["messages"], body.get("tools"))
        return web.json_response({"prompt": TinyEngine.load().decode(ids, skip_special_tokens=False)})

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        answer = await self.llm.chat(body["messages"], max_new_tokens=body["max_tokens"], temperature=0)
        content = [{"id": id_, "token": "x", "bytes": [], "logprob": logprob, "top_logprobs": []}
                   for logprob, id_ in pairs(span(answer))]  # fmt: skip
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text},
            "finish_reason": answer.finish_reason,
            **({"logprobs": {"content": content}} if body.get("logprobs") else {}),
        }
        usage = {"prompt_tokens": 21, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2}}
        timings = {"cache_n": 2, "prompt_n": 19, "predicted_n": 10}
        return web.json_response({"choices": [choice], "model": "tinylm.gguf", "usage": usage, "timings": timings})
