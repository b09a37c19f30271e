"""What several commands need: models from options, units from `module:name`, a terminal's looks."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, TYPE_CHECKING

if TYPE_CHECKING:
    from ..envs import TrajectoryServer
    from ..llms import BaseLLM
    from ..module import Module
    from ..serving import AgentServer, ModelServer
    from ..tracing import JSONLTracer

__all__ = [
    "Looks",
    "UsageError",
    "add_model_options",
    "announced",
    "check_sandbox",
    "find",
    "load_unit",
    "make_model",
    "trace_to",
]


class UsageError(Exception):
    """The command line asks for something that is not there."""


class Looks:
    """How text looks on a stream: styled on a terminal, plain elsewhere (and where `NO_COLOR` is set)."""

    def __init__(self, stream: TextIO) -> None:
        self.fancy = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.width = min(shutil.get_terminal_size((100, 24)).columns, 110)

    def bold(self, text: str) -> str:
        return self._styled(text, "1")

    def dim(self, text: str) -> str:
        return self._styled(text, "2")

    def green(self, text: str) -> str:
        return self._styled(text, "32")

    def red(self, text: str) -> str:
        return self._styled(text, "31")

    def cyan(self, text: str) -> str:
        return self._styled(text, "36")

    def yellow(self, text: str) -> str:
        return self._styled(text, "33")

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.fancy and text else text


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose a model."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="a model of a server, or a directory with weights of the embedded kind; the embedded model by default",
    )
    group.add_argument(
        "--api-base",
        metavar="URL",
        help="an OpenAI-compatible server, such as http://127.0.0.1:8000/v1; OpenAI's own by default",
    )
    group.add_argument("--key", metavar="KEY", help="the server's key; OPENAI_API_KEY of the environment by default")
    group.add_argument("--temperature", type=float, metavar="T", help="0 for the likeliest answer, more for variety")
    group.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="longest answer, in tokens (512)")


def make_model(options: argparse.Namespace) -> BaseLLM:
    """The model that the options choose."""
    from ..llms import GPTAPI, TinyLM

    sampling: dict[str, Any] = {"max_new_tokens": options.max_new_tokens}
    if options.temperature is not None:
        sampling["temperature"] = options.temperature
    name = options.model
    if name is None and options.api_base is not None:
        raise UsageError("--api-base needs --model, the name of a model that the server has")
    if name is None or Path(name).is_dir():
        if options.key is not None:
            raise UsageError("--key goes with --model, the name of a model on a server")
        return TinyLM(name, **sampling)
    if options.api_base is not None:
        sampling["api_base"] = options.api_base
    return GPTAPI(name, key=options.key or "ENV", **sampling)


def check_sandbox() -> None:
    """Say at once, and to the person, that code cannot be run here; later only the model would be told.

    Raises:
        SandboxUnavailable: there is no sandbox; the message has the cure.
    """
    from ..sandbox import default_isolation

    default_isolation().check()


def trace_to(path: str | os.PathLike[str], content: bool) -> JSONLTracer:
    """A tracer that writes to a file, attached; the one that does so already, if there is one."""
    from ..tracing import JSONLTracer, spans

    for tracer in spans.tracers:
        if isinstance(tracer, JSONLTracer) and tracer.path == Path(path).absolute():
            return tracer
    return JSONLTracer(path, content=content).attach()


def load_unit(target: str) -> Module:
    """The unit that `module:name` or `file.py:name` names; a class or a function is called to get it."""
    from ..module import Module

    unit = find(target, default="agent")
    if not isinstance(unit, Module) and callable(unit):
        try:
            unit = unit()
        except TypeError as error:
            raise UsageError(
                f"{target!r} cannot be made without arguments ({error}): name an object instead"
            ) from error
    if not isinstance(unit, Module):
        raise UsageError(f"{target!r} is no agent but of type {type(unit).__name__}: name an agent, or what makes one")
    return unit


async def announced(server: ModelServer | AgentServer | TrajectoryServer, what: str) -> None:
    """Serve until told to stop, and say where."""
    looks = Looks(sys.stdout)

    def started() -> None:
        sys.stdout.write(f"serving {looks.bold(what)} at {looks.cyan(server.url)}, Ctrl-C stops it\n")
        sys.stdout.flush()

    await server.serve(started)
    sys.stdout.write("stopped\n")


def find(target: str, default: str | None = None, *, of: type | None = None) -> Any:
    """The object that `module:name` or `file.py:name` names.

    Args:
        target: what names it.
        default: the name where the target has none.
        of: the class that it is to be derived from; an agent, or a class of agents, by default.

    Raises:
        UsageError: there is no such module, file or name.
    """
    place, colon, name = target.rpartition(":")
    if not colon:
        if default is None:
            raise UsageError(f"{target!r} names no object: write module:name or file.py:name")
        place, name = target, default
    module = _from_file(Path(place)) if place.endswith(".py") else _from_name(place)
    found: Any = module
    for piece in name.split("."):
        if not hasattr(found, piece):
            there = sorted(item for item, value in vars(module).items() if _is_own(value, module, of))
            kind = "agents" if of is None else f"classes of {of.__name__}"
            hint = f"; its {kind} are {', '.join(there)}" if there else ""
            raise UsageError(f"{place!r} has no {name!r}{hint}")
        found = getattr(found, piece)
    return found


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _from_name(name: str) -> ModuleType:
    if not name:
        raise UsageError("the module's name is missing: write module:name or file.py:name")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"there is no module {name!r} here or among the installed packages") from error
        raise


def _is_own(value: Any, module: ModuleType, of: type | None) -> bool:
    """Whether it is an agent, or a class of agents (or of what is looked for) that this very module defines."""
    from ..actions import BaseAction
    from ..module import Module

    if isinstance(value, type):
        return issubclass(value, of or Module) and value.__module__ == module.__name__
    return of is None and isinstance(value, Module) and not isinstance(value, BaseAction)
