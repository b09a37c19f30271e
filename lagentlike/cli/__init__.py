"""The `lagentlike` command."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import io
import os
import re
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NoReturn

from ..errors import LagentlikeError
from ..sandbox import set_default_isolation
from . import batch, chat, demo, env, rollout, run, sandbox, serve, serve_model, summary, trace, train, ui
from .common import trace_to, UsageError

__all__ = ["main"]

_DESCRIPTION = """Agents are to conversations what nn.Module is to tensors.

Everything below works without a key, an account or a network: the package carries a small language model."""

_EXAMPLES = """examples:
  lagentlike demo                                  what it can do, in about a minute
  lagentlike chat                                  talk to the embedded model, with a calculator
  lagentlike chat --model qwen3 --api-base http://127.0.0.1:11434/v1
  lagentlike ui                                    the same on a page, with a timeline of every turn
  lagentlike run my_agents.py:coder "What is 12 * 34?"
  lagentlike summary my_agents.py:coder --mermaid
  lagentlike trace trace.jsonl                     what happened in a run with --trace trace.jsonl
  lagentlike rollout --data questions.jsonl --chains 8 --temperature 1 --reward math_equality --out trajectories.jsonl
  lagentlike batch --dataset_file prompts.jsonl --num_workers 4 --run_name my_run
  lagentlike train grpo --data questions.jsonl --reward math_equality --out runs/grpo
  lagentlike serve my_agents.py:coder              your agent behind a server, with sessions
  lagentlike env process my_envs.py:Coding --groups 10
  lagentlike sandbox                               what holds back the code that models write
  lagentlike serve-model --port 8000               the embedded model behind an OpenAI-compatible server

`lagentlike COMMAND --help` tells more about each."""


_TRACED = (chat, ui, run, rollout, batch, train, env, serve, serve_model)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit code: 0 when all went well, 1 when something failed, 2 when the command was not understood.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot show is no reason to fail
    try:
        options = _parse(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        with ExitStack() as stack:
            if options.unsafe_local:
                set_default_isolation("unsafe_local")
                stack.callback(set_default_isolation, None)
            if getattr(options, "trace_to", None) is not None:
                stack.enter_context(trace_to(options.trace_to, options.trace_content))
            return command(options)
    except SystemExit as stop:  # argparse ends this way, after --help too
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001  # a person reads one line; --debug shows the rest
        return _report(error, debug="--debug" in arguments)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (rest[0].startswith("-") or not hasattr(options, "message")):
        _refuse(rest, options.parser)
    if rest:  # words of a message that stand after an option
        options.message += rest
    return options


def _refuse(unknown: list[str], command: argparse.ArgumentParser) -> NoReturn:
    """Say which arguments a command does not have, and what may have been meant."""
    known = command.format_usage().translate(str.maketrans("[]", "  ")).split()
    close = difflib.get_close_matches(unknown[0], [word for word in known if word.startswith("--")], n=1)
    meant = f", did you mean {close[0]}?" if close else ""
    command.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")


def _report(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    text = (
        str(error) if isinstance(error, LagentlikeError | UsageError | OSError) else f"{type(error).__name__}: {error}"
    )
    hint = "" if debug or isinstance(error, UsageError) else " (--debug shows where)"
    sys.stderr.write(f"lagentlike: error: {' '.join(text.split())}{hint}\n")
    return 2 if isinstance(error, UsageError) else 1


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"lagentlike: error: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """Prints the version that is installed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"lagentlike {importlib.metadata.version('lagentlike')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    shared = _Parser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    shared.add_argument(
        "--unsafe-local", action="store_true", help="run code that a model writes as yourself, without a sandbox"
    )
    traced = _Parser(add_help=False)
    traced.add_argument("--trace", metavar="FILE", dest="trace_to", help="write what happens for `lagentlike trace`")
    traced.add_argument("--trace-content", action="store_true", help="write what is said there, too")
    parser = _Parser(
        prog="lagentlike",
        description=_wrapped(_DESCRIPTION),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for module in (demo, chat, ui, run, summary, trace, rollout, batch, train, env, serve, serve_model, sandbox):
        text = module.HELP
        command = commands.add_parser(
            module.NAME,
            help=text.partition("\n")[0],
            description=_wrapped(text),
            epilog=module.EXAMPLES,
            parents=[shared, traced] if module in _TRACED else [shared],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_options(command)
        command.set_defaults(command=module.main, parser=command)
    return parser


def _wrapped(text: str) -> str:
    """A text as wide as the terminal, but for its indented lines, which are tables."""
    width = max(shutil.get_terminal_size().columns - 2, 11)  # as argparse has it
    paragraphs = re.sub(r"(?<=\S)\n(?=\S)", " ", text).splitlines()
    return "\n".join(line if line.startswith(" ") else textwrap.fill(line, width) for line in paragraphs)
