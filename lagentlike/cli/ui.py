"""`lagentlike ui`: a page on which to watch an agent and to talk to it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .chat import add_agent_options, make_agent
from .common import load_unit, Looks, UsageError

if TYPE_CHECKING:
    from ..serving.ui import TraceViewer, UIServer

__all__ = ["add_options", "main"]

NAME = "ui"
HELP = """watch an agent on a page of this machine, and talk to it

Messages as they stream, tool calls, what each unit remembers, a timeline of every turn, and forks side by side. Without
an agent it is an assistant with a calculator on the embedded model, or on the model that the options choose."""

EXAMPLES = """examples:
  lagentlike ui
  lagentlike ui my_agents.py:coder --store sessions.db
  lagentlike ui --model qwen3 --api-base http://127.0.0.1:11434/v1 --tool my_tools.py:get_weather
  lagentlike ui --show trace.jsonl                 what a run with --trace trace.jsonl wrote
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("agent", nargs="?", help="module:name or file.py:name of an agent, or of what makes one")
    parser.add_argument("--show", type=Path, metavar="FILE", help="show what --trace wrote, and no agent")
    parser.add_argument("--port", type=int, default=0, help="port to listen on, 0 for any free one (0)")
    parser.add_argument("--store", metavar="STORE", help="keep sessions: SQLite file or address")
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    add_agent_options(parser)


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    asyncio.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    from ..serving.ui.launcher import open_in_browser

    server, looks = _server(options), Looks(sys.stdout)

    def started() -> None:
        print(f"{looks.bold(server.name)} is at {looks.cyan(server.page_url)}, Ctrl-C stops it", flush=True)
        if not options.no_browser:
            open_in_browser(server.page_url)

    await server.serve(started)
    print("stopped")


def _server(options: argparse.Namespace) -> UIServer | TraceViewer:
    from ..serving.ui import TraceViewer, UIServer

    if options.show is not None:
        if options.agent is not None or options.store is not None:
            raise UsageError("--show shows what was: give it without an agent and without --store")
        return TraceViewer(options.show, port=options.port)
    for name in _OF_ASSISTANT if options.agent is not None else ():
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} is for the assistant: {options.agent} has its own")
    agent = make_agent(options) if options.agent is None else load_unit(options.agent)
    return UIServer(agent, port=options.port, store=options.store)


_OF_ASSISTANT = ("system", "tool", "no_tools", "model", "api_base", "key", "temperature")
