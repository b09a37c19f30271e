"""What a tool is: a class with `run`, or with several methods marked by `tool_api`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, overload, TypeVar

from ..errors import InvalidArgument, ToolArgumentsError
from ..memory import SessionId
from ..memory.state import check_session_id
from ..module import Module
from ..prompts.parsers.tool_call import loads_strictly
from ..schema import ActionReturn, ActionStatusCode, copied
from .result import failed, MAX_LENGTH
from .running import PreparedCall, run_call, run_call_async
from .schema import docstring_of, ToolSchema

__all__ = ["Approval", "BaseAction", "tool_api", "ToolAPI"]

F = TypeVar("F", bound=Callable[..., Any])

Approval = bool | Callable[[dict[str, Any]], bool | str]
"""Whether a person should agree to a call before it is made: always, never, or as a function of its arguments tells."""


class BaseAction(Module):
    """A tool, or a toolkit of several.

    A class with a method `run` is a tool, called by its name. A class with several methods marked by `tool_api` is a
    toolkit, and its tools are called `Toolkit.method`. What a model is told comes from type hints and docstrings; a
    method may be `async`, and may ask for `session_id`. Attributes that are `SessionValue`s are saved, forked and reset
    with the sessions of the agent that has the tool.

    Args:
        description: what the tool does, in place of the docstring; or a whole description in the shape of the property
            `description`, which is then shown as it is.
        name: its name; the class's name by default.

    Attributes:
        timeout: seconds a call may take; None for what its executor says.
        max_length: most characters of a result.
        status: "terminal" if a rollout ends once it was called, else "continue".
        stateful: whether it works on the environment of the chain that calls it, so that a rollout must have one.
        aliases: other names of arguments that are understood too, such as `{"code": "command"}`.
        read_only: whether it changes nothing, so that its calls may run side by side.
        needs_approval: whether a person should agree to a call before it is made; or a function of the call's
            arguments that tells whether, or why.
        stops_itself: whether its calls end by themselves, with what they have, where the run around them is to stop;
            any other call is given up then.
        interruptible: whether a blocking call ends soon after it was given up; see `when_given_up`.

    >>> class Add(BaseAction):
    ...     def run(self, a: int, b: int) -> int:
    ...         '''Add two numbers.'''
    ...         return a + b
    >>> Add()({"a": 1, "b": 2}).format_result()
    '3'
    """

    timeout: float | None = None
    max_length: int = MAX_LENGTH
    status: Literal["continue", "terminal"] = "continue"
    stateful: bool = False
    aliases: ClassVar[Mapping[str, str]] = {}
    read_only: bool = False
    needs_approval: Approval = False
    stops_itself: bool = False
    interruptible: bool = False

    _marked: ClassVar[dict[str, _Options]] = {}
    _described: Mapping[str, Any] | str | None = None
    _known_apis: dict[str, ToolAPI] | None = None

    def __init__(self, description: Mapping[str, Any] | str | None = None, name: str | None = None) -> None:
        if description is not None and not isinstance(description, str | Mapping):
            raise InvalidArgument("description", description, "give a text, or a dict with 'name' and 'description'")
        if name is None and isinstance(description, Mapping):
            name = description.get("name")
        if name is not None:
            self.name = checked_name(name)
        self._described = description

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in base.__dict__)  # as they are written
        marked = {name: options for name in names if (options := _options_of(cls, name)) is not None}
        if "run" not in marked and callable(getattr(cls, "run", None)):
            marked["run"] = _Options()
        if "run" in marked and len(marked) > 1:
            others = sorted(set(marked) - {"run"})
            raise InvalidArgument(cls.__name__, others, "a tool has `run`, a toolkit marked methods: not both")
        cls._marked = marked

    def __call__(  # type: ignore[override]  # a tool takes arguments, not messages
        self, inputs: Mapping[str, Any] | str | None = None, name: str = "run", session_id: SessionId = 0
    ) -> Any:
        """Call the tool.

        Args:
            inputs: arguments by name, or their JSON text; a tool that needs just one text also takes that itself.
            name: which of a toolkit's tools.
            session_id: whose call it is.

        Returns:
            An `ActionReturn`, whatever the tool does (`state` and `errmsg` tell what went wrong); of an async tool, an
            awaitable one.

        Raises:
            InvalidArgument: there is no tool of that name.
        """
        apis = self.apis()
        if name not in apis:
            raise InvalidArgument("name", name, f"{self.name} has {', '.join(apis) or 'no tool'}")
        api = apis[name]
        if isinstance(inputs, str):
            inputs = _named_inputs(api, inputs)
        try:
            call = api.prepare(inputs, session_id)
        except ToolArgumentsError as error:
            refused = failed(str(error), api.name, inputs, ActionStatusCode.ARGS_ERROR)
            return _ready(refused) if api.is_async else refused
        return run_call_async(call) if api.is_async else run_call(call)

    @property
    def is_toolkit(self) -> bool:
        """Whether it has several tools."""
        return "run" not in self.apis()

    @property
    def description(self) -> dict[str, Any]:
        """What it does, in Lagent's shape.

        `name`, `description`, `parameters` (a list of `name`, `description`, `type` and what else JSON Schema says),
        `required`; or, for a toolkit, `name`, `description` and these of its tools in `api_list`.
        """
        if isinstance(self._described, Mapping):
            return dict(self._described)
        apis = self.apis()
        if "run" in apis:
            return dict(apis["run"].schema.description_dict)
        api_list = [{**api.schema.description_dict, "name": name} for name, api in apis.items()]
        return {"name": self.name, "description": self._text() or self._summary(), "api_list": api_list}

    def apis(self) -> dict[str, ToolAPI]:
        """Its tools: `{"run": …}`, or those of the toolkit by their short names."""
        if self._known_apis is None:
            self._known_apis = {name: ToolAPI(self, name, *found) for name, found in self._functions().items()}
        return self._known_apis

    def extra_repr(self) -> str:
        return f"name={self.name!r}" if self.name != type(self).__name__ else ""

    def _functions(self) -> dict[str, tuple[Callable[..., Any], _Options]]:
        """The functions that a model may call."""
        return {name: (getattr(self, name), options) for name, options in self._marked.items()}

    def _summary(self) -> str:
        """What the class says of its objects: the first paragraph of its own docstring."""
        return " ".join((inspect.cleandoc(type(self).__doc__ or "")).partition("\n\n")[0].split())

    def _text(self, api: str = "") -> str | None:
        """The description that was given to the constructor, of all or of one of the tools."""
        described = self._described
        if isinstance(described, Mapping) and api:
            described = next((item for item in described.get("api_list", ()) if item.get("name") == api), None)
        return described.get("description") if isinstance(described, Mapping) else None if api else described


_MARK = "__tool_api__"


@dataclass(frozen=True)
class _Options:
    """How a method is shown to models."""

    explode_return: bool = False
    returns_named_value: bool = False
    include_arguments: tuple[str, ...] | None = None
    exclude_arguments: tuple[str, ...] = ()
    read_only: bool | None = None
    needs_approval: Approval | None = None


@overload
def tool_api(function: F) -> F: ...
@overload
def tool_api(
    *,
    explode_return: bool = False,
    returns_named_value: bool = False,
    include_arguments: Iterable[str] | None = None,
    exclude_arguments: Iterable[str] | None = None,
    read_only: bool | None = None,
    needs_approval: Approval | None = None,
) -> Callable[[F], F]: ...
def tool_api(
    function: Callable[..., Any] | None = None,
    *,
    explode_return: bool = False,
    returns_named_value: bool = False,
    include_arguments: Iterable[str] | None = None,
    exclude_arguments: Iterable[str] | None = None,
    read_only: bool | None = None,
    needs_approval: Approval | None = None,
) -> Any:
    """Mark a method of a `BaseAction` as one that models may call; used with or without parentheses.

    Args:
        function: the method.
        explode_return: describe the items of a returned dict one by one, as the docstring lists them.
        returns_named_value: whether `x: text` under Returns names the value (and not its type).
        include_arguments: the only parameters that models see.
        exclude_arguments: parameters that models do not see; they need a default.
        read_only: whether it changes nothing; what the toolkit says by default.
        needs_approval: whether a person should agree to a call, as for `BaseAction`; what the toolkit says by default.
    """
    options = _Options(
        explode_return,
        returns_named_value,
        None if include_arguments is None else tuple(include_arguments),
        tuple(exclude_arguments or ()),
        read_only,
        needs_approval,
    )

    def mark(method: F) -> F:
        if not inspect.isroutine(method):
            raise InvalidArgument("function", method, "mark a method of a BaseAction with tool_api")
        setattr(method, _MARK, options)
        return method

    return mark if function is None else mark(function)


class ToolAPI:
    """One function that models may call.

    Attributes:
        name: `Tool`, or `Toolkit.api`.
        schema: what models are told, and the check of arguments.
        function: what is called.
        is_async: whether it must be awaited.
    """

    __slots__ = ("_options", "action", "function", "is_async", "name", "schema")

    def __init__(
        self,
        action: BaseAction,
        api: str,
        function: Callable[..., Any],
        options: _Options,
        schema: ToolSchema | None = None,
    ) -> None:
        self.action = action
        self.function = function
        self._options = options
        self.is_async = _is_async(function)
        self.name = action.name if api == "run" else f"{action.name}.{api}"
        if schema is not None:  # somebody else's, and not of the function
            self.schema = schema
            return
        text = action._text("" if api == "run" else api)
        if text is None and api == "run" and not docstring_of(function):
            text = action._summary()
        self.schema = ToolSchema(
            function,
            self.name,
            description=text,
            include=options.include_arguments,
            exclude=options.exclude_arguments,
            explode_return=options.explode_return,
            returns_named_value=options.returns_named_value,
        )

    @property
    def max_length(self) -> int:
        return self.action.max_length

    @property
    def read_only(self) -> bool:
        """Whether it changes nothing, so that its calls may run side by side."""
        marked = self._options.read_only
        return self.action.read_only if marked is None else marked

    def approval(self, arguments: Mapping[str, Any] | str | None) -> str | None:
        """Why a person should agree to a call before it is made; None if it may go ahead.

        Arguments that are no object need nobody's agreement: such a call is refused. A check that fails asks.
        """
        marked = self._options.needs_approval
        check = self.action.needs_approval if marked is None else marked
        if isinstance(check, bool):
            return f"{self.name} asks before each call" if check else None
        try:
            shown = self.schema.as_object(arguments)
        except ToolArgumentsError:
            return None
        try:
            verdict = check(copied(self._renamed(shown)))
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody has looked at this call
            return f"the check of {self.name} failed: {type(error).__name__}: {error}"
        return f"{self.name} asks before this call" if verdict is True else verdict or None

    def prepare(
        self, arguments: Mapping[str, Any] | str | None, session_id: SessionId, timeout: float | None = None
    ) -> PreparedCall:
        """A call that can be run.

        Args:
            arguments: by name, or as JSON text.
            session_id: given to functions that ask for it.
            timeout: seconds it may take, where the tool does not say.

        Raises:
            ToolArgumentsError: the arguments do not fit.
        """
        shown = self._renamed(self.schema.as_object(arguments))
        kwargs = self.schema.validate(shown)
        if self.schema.takes_session:
            kwargs["session_id"] = check_session_id(session_id)
        limit = self.action.timeout
        return PreparedCall(self, shown, kwargs, timeout if limit is None else limit)

    def _renamed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments by their own names."""
        aliases = self.action.aliases
        return {aliases.get(name, name): value for name, value in arguments.items()} if aliases else arguments


def checked_name(name: Any) -> str:
    """A tool's name, if models can call it by that.

    Raises:
        InvalidArgument: it is no text of 1 to 64 letters, digits, `_`, `-` and `.`.
    """
    plain = isinstance(name, str) and 0 < len(name) <= 64
    if not plain or not all(letter.isalnum() or letter in "_-." for letter in name):
        raise InvalidArgument("name", name, "a tool's name has 1 to 64 letters, digits, '_', '-' and '.'")
    return name  # type: ignore[no-any-return]


def _options_of(cls: type, name: str) -> _Options | None:
    """The mark of a method, also where a subclass overrides it without marking it again."""
    for base in cls.__mro__:
        member = base.__dict__.get(name)
        options = getattr(member, _MARK, None)
        if options is None:  # `staticmethod` and `classmethod` hide what they are put around
            options = getattr(getattr(member, "__func__", None), _MARK, None)
        if options is not None:
            return options  # type: ignore[no-any-return]
    return None


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _named_inputs(api: ToolAPI, inputs: str) -> Mapping[str, Any] | str:
    """Arguments given as a text: JSON, or the one text that the tool needs."""
    parameters = api.schema.parameters
    required = parameters.get("required", ())
    if len(required) != 1 or parameters["properties"][required[0]].get("type") != "string":
        return inputs
    try:
        value = loads_strictly(inputs)
    except ValueError:
        value = None
    if isinstance(value, dict) and set(required) <= set(value) <= set(parameters["properties"]):
        return value
    return {required[0]: inputs}


async def _ready(result: ActionReturn) -> ActionReturn:
    return result
