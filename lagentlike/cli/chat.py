"""`lagentlike chat`: a conversation at the terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TYPE_CHECKING

from ..concurrency import run_in_background
from .common import add_model_options, check_sandbox, find, Looks, make_model, UsageError
from .run import session_id

if TYPE_CHECKING:
    from ..agents import StreamingAgent
    from ..memory import Keeper, SessionId
    from ..schema import AgentMessage, ToolCall

__all__ = ["add_agent_options", "add_options", "main", "make_agent"]

NAME = "chat"
HELP = """talk to a model, with tools and sessions

The answer streams as it comes; tool calls and their results are shown. Lines that begin with / are commands: /help
lists them. Standard input may be a pipe: then only the answers are printed."""

EXAMPLES = """examples:
  lagentlike chat
  lagentlike chat --tool calculator --tool python         python runs code, in a sandbox
  lagentlike chat --tool my_tools.py:get_weather
  lagentlike chat --store talks.db --session travel       go on with it another day; /search finds what was said
  lagentlike chat --store redis://127.0.0.1:6379/0
  lagentlike chat --model qwen3 --api-base http://127.0.0.1:11434/v1 --system "Answer in one sentence."
  echo "What is the result of 21 * 2?" | lagentlike chat
"""

_COMMANDS = {
    "/help": "this list",
    "/tools": "the tools there are",
    "/session NAME": "go to a session, a new one or one from before; without NAME, list them",
    "/fork NAME": "go on in a new session that begins where this one is",
    "/reset": "forget this session",
    "/state": "what this session remembers, as state_dict() has it",
    "/search WORDS": "find messages in all sessions of the store",
    "/save FILE": "write all sessions to a file",
    "/load FILE": "read them again",
    "/quit": "leave; Ctrl-D does it too, Ctrl-C stops an answer",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--session", default="0", metavar="NAME", help="session to begin in (0)")
    parser.add_argument("--store", metavar="STORE", help="keep sessions, and go on there: SQLite file or address")
    parser.add_argument("--load", type=Path, metavar="FILE", help="read what /save wrote first")
    add_agent_options(parser)


def add_agent_options(parser: argparse.ArgumentParser) -> None:
    """The options that `make_agent` reads."""
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    tools = parser.add_argument_group("tools")
    tools.add_argument(
        "--tool",
        action="append",
        metavar="TOOL",
        help="calculator, python, or module:function; may be repeated (calculator)",
    )
    tools.add_argument("--no-tools", action="store_true", help="offer no tool")
    add_model_options(parser)


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    agent = make_agent(options)
    if options.load is not None:
        agent.load(options.load)
    keeper = None if options.store is None else agent.keep(options.store)
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # line editing, where Python has it
            import readline  # noqa: F401
    chat = _Chat(agent, keeper)
    try:
        chat.go_to(session_id(options.session))
        return chat.run()
    finally:
        if keeper is not None:
            keeper.store.blocking.close()


def make_agent(options: argparse.Namespace) -> StreamingAgent:
    """The assistant that the options describe."""
    from ..agents import StreamingAgent, StreamingReAct

    if options.no_tools and options.tool:
        raise UsageError("--tool and --no-tools contradict each other")
    llm = make_model(options)
    if options.no_tools:
        return StreamingAgent(llm, options.system, name="assistant")
    tools = [_tool(name) for name in options.tool or ["calculator"]]
    return StreamingReAct(llm, tools, options.system, name="assistant")


def _tool(name: str) -> Any:
    """The tool of that name."""
    from .. import actions

    known: dict[str, Callable[[], Any]] = {
        "calculator": lambda: actions.calculator,
        "python": _python,
    }
    if name in known:
        return known[name]()
    if ":" not in name:
        raise UsageError(
            f"--tool {name}: there are {', '.join(known)}; your own is module:function or file.py:function"
        )
    return find(name)


def _python() -> Any:
    from ..actions import IPythonInterpreter

    check_sandbox()
    return IPythonInterpreter()


class _Chat:
    """The loop of reading lines and showing answers."""

    def __init__(self, agent: StreamingAgent, keeper: Keeper | None) -> None:
        self.agent = agent
        self.keeper = keeper
        self.session: int | str = 0
        self.looks = Looks(sys.stdout)
        self.at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.failed = False

    def go_to(self, session: int | str) -> None:
        """Have a session in memory, and talk in it from now on."""
        if self.keeper is not None:
            run_in_background(self.keeper.fetch(session))
        self.session = session

    def run(self) -> int:
        """Read lines until there are no more."""
        if self.at_terminal:
            self._greet()
        for line in self._lines():
            if line.startswith("/"):
                if line.split()[0] in ("/quit", "/exit"):
                    break
                self._guarded(self._command, line)
            elif line:
                self._guarded(self._turn, line)
        return 1 if self.failed and not self.at_terminal else 0

    def _greet(self) -> None:
        tools = ", ".join(_tool_names(self.agent)) or "none"
        print(
            f"{self.looks.bold(repr(_model_of(self.agent)))}  tools: {tools}  {self.looks.dim('/help lists commands')}"
        )

    def _lines(self) -> Iterator[str]:
        while True:
            try:
                yield input(self._prompt() if self.at_terminal else "").strip()
            except EOFError:
                if self.at_terminal:
                    print()
                return
            except KeyboardInterrupt:  # at the prompt it clears the line
                print()

    def _prompt(self) -> str:
        where = "" if self.session == 0 else f"[{self.session}] "
        if not self.looks.fancy:
            return f"{where}you> "
        return f"\001\x1b[1;32m\002{where}you>\001\x1b[0m\002 "  # readline must not count what has no width

    def _guarded(self, action: Callable[[str], None], line: str) -> None:
        """Do it; what fails is said in a line, and the conversation goes on."""
        try:
            action(line)
        except KeyboardInterrupt:
            print(self.looks.yellow("\nstopped; this turn is forgotten"))
        except Exception as error:  # noqa: BLE001  # a person reads what went wrong and goes on
            self.failed = True
            sys.stdout.flush()
            print(self.looks.red(f"error: {' '.join(str(error).split()) or type(error).__name__}"), file=sys.stderr)

    def _turn(self, line: str) -> None:
        shown = _Shown(self.looks, verbose=self.at_terminal)
        with contextlib.closing(self.agent(line, session_id=self.session)) as stream:  # type: ignore[type-var]
            for message in stream:
                shown.show(message)
        shown.end()

    def _command(self, line: str) -> None:
        command, _, argument = line.partition(" ")
        handler = getattr(self, f"_do_{command[1:]}", None) if command[1:].isalpha() else None
        if handler is None:
            raise UsageError(f"there is no command {command}; /help lists them")
        handler(argument.strip())

    def _do_help(self, _: str) -> None:
        for command, text in _COMMANDS.items():
            print(f"  {self.looks.cyan(command.ljust(14))} {text}")

    def _do_tools(self, _: str) -> None:
        executor = getattr(self.agent, "actions", None)
        if executor is None:
            print("  none; start with --tool NAME")
            return
        for tool in executor.tools():
            function = tool["function"]
            parameters = ", ".join(function["parameters"].get("properties", {}))
            print(
                f"  {self.looks.cyan(function['name'])}({parameters})  {function['description'].partition(chr(10))[0]}"
            )

    def _do_session(self, name: str) -> None:
        if not name:
            kept = [] if self.keeper is None else self.keeper.store.blocking.session_ids()
            here = self.agent.session_ids()
            for one in dict.fromkeys([*kept, *here, self.session]):
                mark = "*" if one == self.session else " "
                where = "kept" if one in kept and one not in here else f"{_length(self.agent, one)} messages"
                print(f" {mark} {one}  {self.looks.dim(where)}")
            return
        self.go_to(session_id(name))
        print(self.looks.dim(f"session {name}, {_length(self.agent, self.session)} messages"))

    def _do_fork(self, name: str) -> None:
        if not name:
            raise UsageError("/fork needs the name of the new session")
        self.agent.fork(self.session, session_id(name))
        if self.keeper is not None:
            run_in_background(self.keeper.write(session_id(name)))
        self._do_session(name)

    def _do_reset(self, _: str) -> None:
        if self.keeper is None:
            self.agent.reset(self.session, recursive=True)
        else:
            run_in_background(self.keeper.delete(self.session))
        print(self.looks.dim(f"session {self.session} is empty"))

    def _do_state(self, _: str) -> None:
        print(json.dumps(self.agent.state_dict(self.session), indent=2, ensure_ascii=False))

    def _do_search(self, words: str) -> None:
        if self.keeper is None or not words:
            raise UsageError("/search needs words" if self.keeper else "/search needs a store: start with --store FILE")
        for one in self.keeper.store.blocking.search(words):
            print(f"  {self.looks.cyan(str(one.session_id))}  {one.sender}: {_one_line(one.snippet)}")

    def _do_save(self, path: str) -> None:
        if not path:
            raise UsageError("/save needs a file")
        self.agent.save(path)
        print(self.looks.dim(f"{len(self.agent.session_ids())} sessions are in {path}"))

    def _do_load(self, path: str) -> None:
        if not path:
            raise UsageError("/load needs a file")
        self.agent.load(path)
        print(self.looks.dim(f"{len(self.agent.session_ids())} sessions were read from {path}"))


class _Shown:
    """Prints the messages of one turn as they come."""

    def __init__(self, looks: Looks, verbose: bool) -> None:
        self._looks = looks
        self._verbose = verbose
        self._text = ""
        self._calls: list[ToolCall] | None = None
        self._results: Any = None

    def show(self, message: AgentMessage) -> None:
        if message.tool_results is not None:
            if message.tool_results != self._results:
                self._results = message.tool_results
                for result in message.tool_results:
                    mark = "←" if result.success else "✗"
                    self._note(f"{mark} {_one_line(result.text)}")
            return
        text = message.text
        if not text.startswith(self._text):
            self._break()
        print(text[len(self._text) :], end="", flush=True)
        self._text = text
        if message.tool_calls and message.tool_calls != self._calls:
            self._calls = message.tool_calls
            self._break()
            for call in message.tool_calls:
                self._note(f"→ {_call_text(call)}")

    def end(self) -> None:
        self._break()

    def _break(self) -> None:
        if self._text:
            print()
        self._text = ""

    def _note(self, text: str) -> None:
        self._break()
        if self._verbose:
            print(self._looks.dim(f"  {text}"))


def _call_text(call: ToolCall) -> str:
    if isinstance(call.arguments, str):
        return f"{call.name}({_one_line(call.arguments)})"
    arguments = ", ".join(f"{name}={_one_line(repr(value))}" for name, value in call.arguments.items())
    return f"{call.name}({arguments})"


def _one_line(text: str, longest: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _tool_names(agent: Any) -> list[str]:
    executor = getattr(agent, "actions", None)
    return [] if executor is None else [str(name) for name in executor.keys()]  # noqa: SIM118  # an executor's keys


def _model_of(agent: Any) -> Any:
    return agent.llm if agent.llm is not None else agent.agent.llm


def _length(agent: Any, session: SessionId) -> int:
    """Messages that the conversation with the person has in a session."""
    return len(agent.memory.get(session))
