"""`lagentlike run`: one turn of anybody's agent."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, TYPE_CHECKING

from .common import load_unit, UsageError

if TYPE_CHECKING:
    from ..schema import AgentMessage

__all__ = ["add_options", "main"]

NAME = "run"
HELP = """run any agent for one turn

The agent may be blocking, async, streaming or async streaming. Without a message, standard input is the message.
With --state, what the agent remembers is read from a file before and written to it after the turn."""

EXAMPLES = """examples:
  lagentlike run my_agents:coder "What is 12 * 34?"
  lagentlike run my_agents.py:Coder --stream "What is 12 * 34?"
  cat question.txt | lagentlike run my_agents.py:coder --json
  lagentlike run my_agents.py:coder --state memory.json --session ann "My name is Ann."
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "agent", help="module:name or file.py:name of an agent, or of a class or function that makes one"
    )
    parser.add_argument("message", nargs="*", default=None, help="the message; its words may stand without quotes")
    parser.add_argument("--session", default="0", metavar="NAME", help="the session that the turn belongs to (0)")
    parser.add_argument("--stream", action="store_true", help="print the reply as it comes; needs a streaming agent")
    parser.add_argument("--json", action="store_true", help="print whole messages as JSON, one a line")
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep the agent's memory in a JSON file")


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    agent = load_unit(options.agent)
    if options.stream and not agent.colour.is_streaming:
        name = type(agent).__name__
        raise UsageError(f"--stream: {name} does not stream; derive it from StreamingAgent, or leave --stream out")
    message = _message(options.message)
    if options.state is not None and options.state.exists():
        agent.load(options.state)
    session = session_id(options.session)
    printer = _Printer(as_json=options.json, stream=options.stream)
    if agent.colour.is_async:
        asyncio.run(_show_async(_turn_async(agent, message, session), printer))
    else:
        with closing(_turn(agent, message, session)) as turn:  # type: ignore[type-var]  # a generator
            for reply in turn:
                printer.show(reply)
    printer.end()
    if options.state is not None:
        agent.save(options.state)
    return 0


def session_id(text: str) -> int | str:
    """The session that a word names: a number is an int, as the library's own default is."""
    return int(text) if text.isascii() and text.isdigit() else text


def _message(words: list[str]) -> str:
    message = " ".join(words)
    if not message:
        if sys.stdin.isatty():
            raise UsageError("there is no message: write it after the agent, or send it to standard input")
        message = sys.stdin.read().strip()
    if not message:
        raise UsageError("the message is empty")
    return message


def _turn(agent: Any, message: str, session: int | str) -> Iterator[AgentMessage]:
    reply = agent(message, session_id=session)
    if agent.colour.is_streaming:
        yield from reply
    else:
        yield reply


async def _turn_async(agent: Any, message: str, session: int | str) -> AsyncIterator[AgentMessage]:
    if not agent.colour.is_streaming:
        yield await agent(message, session_id=session)
        return
    async with aclosing(agent(message, session_id=session)) as stream:
        async for reply in stream:
            yield reply


async def _show_async(turn: AsyncIterator[AgentMessage], printer: _Printer) -> None:
    async with aclosing(turn):  # type: ignore[type-var]  # an async generator
        async for reply in turn:
            printer.show(reply)


class _Printer:
    """Prints the messages of one turn: the last alone, or each as it comes."""

    def __init__(self, as_json: bool, stream: bool) -> None:
        self._as_json = as_json
        self._stream = stream
        self._last: AgentMessage | None = None
        self._sender = ""
        self._shown = ""

    def show(self, message: AgentMessage) -> None:
        self._last = message
        if not self._stream:
            return
        if self._as_json:
            _print_json(message)
        else:
            self._print_new(message.text, message.sender)

    def end(self) -> None:
        if self._last is None:
            raise UsageError("the agent gave no reply")
        if self._stream:
            if not self._as_json:
                sys.stdout.write("\n")
        elif self._as_json:
            _print_json(self._last)
        else:
            sys.stdout.write(self._last.text + "\n")
        sys.stdout.flush()

    def _print_new(self, text: str, sender: str) -> None:
        """What a message adds to the one before it; another sender's, or another answer, begins on a new line."""
        if sender == self._sender and text.startswith(self._shown):
            sys.stdout.write(text[len(self._shown) :])
        else:
            sys.stdout.write(("\n" if self._shown else "") + text)
        self._sender, self._shown = sender, text
        sys.stdout.flush()


def _print_json(message: AgentMessage) -> None:
    sys.stdout.write(json.dumps(message.plain(), ensure_ascii=False) + "\n")
    sys.stdout.flush()
