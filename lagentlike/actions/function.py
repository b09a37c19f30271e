"""A function as a tool."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, Generic, Literal, overload, ParamSpec, TypeVar

from ..errors import InvalidArgument
from .base import _Options, Approval, BaseAction, checked_name
from .result import MAX_LENGTH
from .schema import bare

__all__ = ["FunctionTool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")


class FunctionTool(BaseAction, Generic[P, R]):
    """A function that models may call; made by `tool`. Called from Python, it is the function itself.

    Args:
        function: plain or async; it may ask for `session_id`, which models do not see.
        name: its name; the function's name by default.
        description: what it does; the docstring's text by default.
        timeout: seconds a call may take; None for what the executor says.
        max_length: most characters of a result.
        status: "terminal" if a rollout ends once it was called.
        stateful: whether it works on the environment of the chain that calls it.
        read_only: whether it changes nothing.
        needs_approval: whether a person should agree to a call, as for `BaseAction`.
        isolated: whether executors run each call in a process of its own, as for `tool`.
    """

    def __init__(
        self,
        function: Callable[P, R],
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        max_length: int = MAX_LENGTH,
        status: Literal["continue", "terminal"] = "continue",
        stateful: bool = False,
        read_only: bool = False,
        needs_approval: Approval = False,
        isolated: bool = False,
    ) -> None:
        if not callable(function) or isinstance(function, type | BaseAction):
            raise InvalidArgument("function", function, "give a function")
        functools.update_wrapper(self, function, updated=())
        named = bare(function)
        given = getattr(named, "__name__", type(named).__name__) if name is None else name
        if name is None and given == "<lambda>":
            raise InvalidArgument("name", given, "a lambda has no name to be called by: give one")
        super().__init__(description, checked_name(given))
        self.function = function
        self.timeout = checked_timeout(timeout)
        self.max_length = checked_max_length(max_length)
        if status not in ("continue", "terminal"):
            raise InvalidArgument("status", status, "give 'continue' or 'terminal'")
        self.status = status
        self.stateful = stateful
        self.read_only = read_only
        if not isinstance(needs_approval, bool) and not callable(needs_approval):
            raise InvalidArgument("needs_approval", needs_approval, "give True, False, or a function of the arguments")
        self.needs_approval = needs_approval
        if not isinstance(isolated, bool) or (isolated and stateful):
            raise InvalidArgument(
                "isolated", isolated, "give True or False; what a stateful tool works on is in this process"
            )
        self.isolated = self.interruptible = isolated
        self.apis()  # a signature that no model can call is an error now

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]  # it is the function
        """Call the function, as if it were no tool."""
        return self.function(*args, **kwargs)

    def _functions(self) -> dict[str, tuple[Callable[..., Any], _Options]]:
        first = next(iter(inspect.signature(self.function).parameters), "")
        if first == "self":
            raise InvalidArgument(
                "function", self.function, "use tool_api in a BaseAction for methods, or wrap a bound one"
            )
        if not self.isolated:
            return {"run": (self.function, _Options())}
        from .isolated import in_own_process  # and with it multiprocessing

        return {"run": (in_own_process(self.function), _Options())}

    def _summary(self) -> str:
        return ""  # the class's docstring is about tools, and not about this one

    def extra_repr(self) -> str:
        return repr(self.name)


@overload
def tool(function: Callable[P, R]) -> FunctionTool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    max_length: int = MAX_LENGTH,
    status: Literal["continue", "terminal"] = "continue",
    stateful: bool = False,
    read_only: bool = False,
    needs_approval: Approval = False,
    isolated: bool = False,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def tool(
    function: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    max_length: int = MAX_LENGTH,
    status: Literal["continue", "terminal"] = "continue",
    stateful: bool = False,
    read_only: bool = False,
    needs_approval: Approval = False,
    isolated: bool = False,
) -> Any:
    """Make a function a tool; used with or without parentheses, on plain and async functions.

    The tool is called from Python like the function; an executor calls it with arguments that were checked.

    Args:
        function: the function. Types come from its signature, prose from its docstring.
        name: its name; the function's name by default.
        description: what it does; the docstring's text by default.
        timeout: seconds a call may take; None for what the executor says. A blocking function that takes longer is
            left running in its thread, unless it is `isolated`.
        max_length: most characters of a result; longer ones keep their head and tail.
        status: "terminal" if a rollout ends once it was called, such as a tool that takes the answer.
        stateful: whether it works on the environment of the chain that calls it, which it gets from
            `lagentlike.rollouts.environments.current_environment()`; a rollout without environments is refused then.
        read_only: whether it changes nothing, so that its calls may run side by side.
        needs_approval: whether a person should agree to a call before it is made; or a function of the call's
            arguments (a dict) that gives True, or the reason as a text, for those that a person should see.
        isolated: whether an executor runs each call in a new process, which is killed where it takes too long, whatever
            it does; it costs half a second or so. The function must be found by its name in its module. It keeps the
            rights of this process: code that nobody read belongs into a sandbox.

    >>> @tool
    ... def add(a: int, b: int) -> int:
    ...     "Add two numbers."
    ...     return a + b
    >>> add(1, 2), add.description["required"]
    (3, ['a', 'b'])
    """

    def make(given: Callable[..., Any]) -> FunctionTool[..., Any]:
        return FunctionTool(
            given, name, description, timeout, max_length, status, stateful, read_only, needs_approval, isolated
        )

    return make if function is None else make(function)


def checked_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InvalidArgument("timeout", timeout, "give seconds, or None for no limit")
    return min(float(timeout), threading.TIMEOUT_MAX)  # longer than that, infinity above all, no thread can wait


def checked_max_length(max_length: Any) -> int:
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
        raise InvalidArgument("max_length", max_length, "give a number of characters of at least 1")
    return max_length
