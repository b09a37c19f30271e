"""Run a function in a process of its own, which can be killed whatever it does."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import inspect
import multiprocessing
import operator
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ..errors import InvalidArgument, ToolError
from .result import failed
from .workers import when_given_up

__all__ = ["in_own_process"]


def in_own_process(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, each call of which runs in a new process.

    The process is killed, with all that it started, when nobody waits for the call any more, and when it is over. It
    has the rights of this one: it is no sandbox.

    Raises:
        InvalidArgument: it is async, or not found by its name in its module, where the new process looks for it.
    """
    if inspect.iscoroutinefunction(function):
        raise InvalidArgument("isolated", True, "an async function is stopped by cancelling it: leave this out")
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<none>")
    if "<" in name or module is None:
        raise InvalidArgument("isolated", True, f"define {name} at the top of a module, where a new process finds it")

    @functools.wraps(function)
    def call(**arguments: Any) -> Any:
        spawn = multiprocessing.get_context("spawn")  # threads of this process may hold locks, which a fork would keep
        answers, answering = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_work, args=(answering, module, name, arguments), daemon=True)
        with answers:
            with answering:
                process.start()
            try:
                with when_given_up(functools.partial(_kill, process)):
                    succeeded, value = answers.recv()
            except EOFError:
                succeeded, value = False, ""
            finally:
                _kill(process)
                process.join()
        if succeeded:
            return value
        raise ToolError(value or f"its process ended before the call did (exit code {process.exitcode})")

    return call


def _kill(process: BaseProcess) -> None:
    """End a process, which nobody has waited for yet, and those that it started."""
    assert process.pid is not None, "it was started"
    with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _work(answering: Connection, module: str, name: str, arguments: dict[str, Any]) -> None:
    """What the new process does."""
    os.setsid()
    multiprocessing.current_process().daemon = False  # it may start processes, which end with it
    os.register_at_fork(after_in_child=answering.close)  # they have no answer, nor keep one awaited
    if sys.platform == "linux":  # also where the function lets no other thread run; 1 is PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = operator.attrgetter(name)(importlib.import_module(module))
        value = getattr(found, "function", found)(**arguments)
    except BaseException as error:  # noqa: BLE001  # whatever it raises is the call's result
        answering.send((False, failed(error, name).errmsg))
        return
    try:
        answering.send((True, value))
    except Exception as error:  # noqa: BLE001  # anything may be raised by what a class does to be sent
        answering.send((False, f"its result cannot leave its process: {error}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is a process that was spawned"
    parent.join()
    os.killpg(0, signal.SIGKILL)
