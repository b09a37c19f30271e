"""`lagentlike serve`: anybody's agent behind a server."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from .common import announced, load_unit, UsageError

__all__ = ["add_options", "main"]

NAME = "serve"
HELP = """serve any agent over HTTP

Native routes for turns, streams, sessions and state, and OpenAI's POST /v1/chat/completions; /docs shows them all.
Each conversation is a session. It listens on this machine only, unless --host says otherwise and there is a token. With
--store, a turn is kept before it is answered, and sessions go on after a restart: in an SQLite file, in PostgreSQL
(postgresql://user@host/database) or in Redis (redis://host:6379/0), which several servers may share."""

EXAMPLES = """examples:
  lagentlike serve my_agents.py:coder
  lagentlike serve my_agents:coder --store sessions.db --port 9000
  PGPASSWORD=secret lagentlike serve my_agents:coder --store postgresql://ann@db.example/talks
  curl http://127.0.0.1:8090/forward -d '{"message": "What is 12 * 34?", "session_id": "ann"}'
  LAGENTLIKE_TOKEN=secret lagentlike serve my_agents.py:coder --host 0.0.0.0
  lagentlike serve my_agents.py:coder --host 0.0.0.0 --tokens tokens.json      a JSON object: {"ann": "her token", ...}
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "agent", help="module:name or file.py:name of an agent, or of a class or function that makes one"
    )
    parser.add_argument("--name", help="name that clients of /v1 ask for; the agent's own by default")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8090, help="port to listen on, 0 for any free one (8090)")
    parser.add_argument("--token", help="what clients must send as bearer token; LAGENTLIKE_TOKEN by default")
    parser.add_argument("--tokens", type=Path, metavar="FILE", help="tokens of several clients, by name, as JSON")
    parser.add_argument("--store", metavar="STORE", help="keep sessions: SQLite file or address")
    parser.add_argument("--max-concurrency", type=int, default=256, metavar="N", help="most turns at once (256)")
    parser.add_argument("--max-sessions", type=int, default=10_000, metavar="N", help="most in memory (10000)")
    parser.add_argument("--ttl", type=float, metavar="SECONDS", help="when an unused session leaves the memory")
    parser.add_argument(
        "--grace", type=float, default=30.0, metavar="SECONDS", help="for turns under way at the end (30)"
    )


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    asyncio.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    from ..serving import AgentServer, Limits

    server = AgentServer(
        load_unit(options.agent),
        options.name,
        host=options.host,
        port=options.port,
        token=_token(options),
        store=options.store,
        max_concurrency=options.max_concurrency,
        max_sessions=options.max_sessions,
        ttl=options.ttl,
        limits=Limits(grace=options.grace),
    )
    await announced(server, server.name)


def _token(options: argparse.Namespace) -> str | Mapping[str, str] | None:
    if options.tokens is None:
        token: str | None = options.token or os.environ.get("LAGENTLIKE_TOKEN")
        return token
    if options.token is not None:
        raise UsageError("give --token or --tokens, not both")
    try:
        tokens = json.loads(options.tokens.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--tokens: {str(options.tokens)!r} cannot be read: {error}") from error
    if not isinstance(tokens, dict):
        raise UsageError(f"--tokens: {str(options.tokens)!r} holds no JSON object of names and tokens")
    return tokens
