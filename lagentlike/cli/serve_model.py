"""`lagentlike serve-model`: a model behind an OpenAI-compatible server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os

from .common import announced

__all__ = ["add_options", "main"]

NAME = "serve-model"
HELP = """serve the embedded model over HTTP, as OpenAI does

POST /v1/chat/completions (streaming, tools, logprobs), POST /v1/completions (prompts of token ids, streaming,
as vLLM has it), GET /v1/models, GET /health. Any client of OpenAI's chat completions works with it. It listens on this
machine only, unless --host says otherwise and there is a token."""

EXAMPLES = """examples:
  lagentlike serve-model
  lagentlike chat --model tinylm --api-base http://127.0.0.1:8000/v1
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
       -d '{"model": "tinylm", "messages": [{"role": "user", "content": "Hello"}]}'
  LAGENTLIKE_TOKEN=secret lagentlike serve-model --host 0.0.0.0 --port 9000
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--path", metavar="DIR", help="weights of the embedded kind; those of the package by default")
    parser.add_argument(
        "--name", action="append", metavar="NAME", help="name that clients ask for, may be repeated (tinylm)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for any free one (8000)")
    parser.add_argument("--token", help="what clients must send as bearer token; LAGENTLIKE_TOKEN by default")


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    asyncio.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    from ..llms import AsyncTinyLM
    from ..serving import ModelServer

    llm = AsyncTinyLM(options.path)
    token = options.token or os.environ.get("LAGENTLIKE_TOKEN")
    server = ModelServer(llm, options.name, host=options.host, port=options.port, token=token)
    await announced(server, ", ".join(server.names))
