"""Every exception of the package.

LagentlikeError
├── InvalidArgument (ValueError)        an argument is wrong: names it, its value and the cure
├── ColourError (TypeError)             blocking and async code were mixed
├── SessionBusy                         a turn of this session is under way: it cannot be waited for, read or loaded
├── StateError (ValueError)             a state cannot be written, or what should be loaded is no state
│   └── SessionConflict                 a kept session went on elsewhere: nothing of this turn is kept
├── BudgetExceeded                      a `Budget` is used up
├── NotRecorded                         a call is not in the file that is replayed; says what differs
├── MissingExtra (ImportError)          an optional dependency is not installed
├── ClusterLost                         a cluster that work was given to is gone, or was never there
├── ActorLost                           the actor that ran a turn ended before it did
├── MissingTokens (ValueError)          a model server gave no token ids where training needs them
├── LLMError                            a model call failed; `partial` keeps what was already received
│   ├── ConnectFailed                   no connection: refused, unknown host, TLS
│   ├── RequestTimeout                  first-byte, idle or total deadline passed
│   ├── RateLimited                     429; `retry_after` in seconds
│   │   ├── QuotaExhausted              429 that no waiting cures
│   │   └── LimiterTimeout (TimeoutError) a `RateLimiter` had no room in time
│   ├── RequestRefused                  400, 404, 413, 422 …: the same request will fail again
│   │   ├── AuthenticationFailed        401, 403
│   │   └── ContextLengthExceeded       `used` and `limit` in tokens where the server tells
│   ├── ServerError                     5xx; `status`
│   ├── BadResponse                     an answer that cannot be read; `raw` keeps its first KB
│   ├── StreamTruncated                 the stream ended before the answer did
│   ├── ResponseTooLarge                the answer passes the cap
│   ├── RealRequestsForbidden           `forbid_real_requests()` is on
│   └── ScriptExhausted                 a `ScriptedLLM` has no reply left
├── RewardError                         a reward failed: it raised, took too long, or gave no finite number; `reward`
├── EnvironmentFailed                   an environment of a rollout failed, or none could be had
│   ├── LeaseExpired (TimeoutError)     it was held longer than its lease
│   ├── PoolTimeout (TimeoutError)      none came free in time
│   └── PoolClosed                      its pool was closed
├── SandboxError                        isolated execution failed
│   ├── SandboxUnavailable              this machine has no sandbox that holds
│   ├── SlotTimeout (TimeoutError)      no slot came free in time
│   ├── SlotLost                        the process or the container of a slot ended
│   └── ArtifactError                   a file of a workspace cannot be given out
├── RemoteError                         an agent elsewhere failed with an error of its own; `kind` is its class
├── TrajectoryAPIError                  a trajectory API refuses a request, or cannot be reached; `status`
└── ToolError                           a tool failed
    ├── ToolArgumentsError (ValueError) arguments do not fit the tool's schema
    ├── ToolTimeout (TimeoutError)      the tool took too long
    ├── FetchError                      something of the web cannot be had; `status` is what its server answered
    │   ├── AddressRefused              an address that is not fetched: of a private network, or none of the web
    │   ├── ServiceKeyRefused           a service does not take the key it was given
    │   ├── ServiceLimited              it was asked too often; `retry_after` in seconds
    │   │   └── ServiceQuotaUsed        no waiting for seconds cures it
    │   └── BadAnswer                   an answer that cannot be read
    └── KernelDied                      the kernel's process ended; `returncode`
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ActorLost",
    "AddressRefused",
    "ArtifactError",
    "AuthenticationFailed",
    "BadAnswer",
    "BadResponse",
    "BudgetExceeded",
    "ClusterLost",
    "ColourError",
    "ConnectFailed",
    "ContextLengthExceeded",
    "EnvironmentFailed",
    "FetchError",
    "InvalidArgument",
    "KernelDied",
    "LLMError",
    "LagentlikeError",
    "LeaseExpired",
    "LimiterTimeout",
    "MissingExtra",
    "MissingTokens",
    "NotRecorded",
    "PoolClosed",
    "PoolTimeout",
    "QuotaExhausted",
    "RateLimited",
    "RealRequestsForbidden",
    "RemoteError",
    "RequestRefused",
    "RequestTimeout",
    "ResponseTooLarge",
    "RewardError",
    "SandboxError",
    "SandboxUnavailable",
    "ScriptExhausted",
    "ServerError",
    "ServiceKeyRefused",
    "ServiceLimited",
    "ServiceQuotaUsed",
    "SessionBusy",
    "SessionConflict",
    "SlotLost",
    "SlotTimeout",
    "StateError",
    "StreamTruncated",
    "ToolArgumentsError",
    "ToolError",
    "ToolTimeout",
    "TrajectoryAPIError",
    "shown",
]


class LagentlikeError(Exception):
    """Base of all errors of this package."""


class InvalidArgument(LagentlikeError, ValueError):
    """An argument is wrong; the message names it, its value and what to pass instead."""

    def __init__(self, argument: str, value: Any, cure: str) -> None:
        super().__init__(f"{argument}={shown(value, 200)}: {cure}")
        self.argument = argument
        self.value = value
        self.cure = cure

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.argument, self.value, self.cure)


def shown(value: Any, limit: int) -> str:
    """`repr(value)` for an error message, cut to `limit` characters; a value that cannot be shown is named."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # an error message must not fail over what it is about
        return f"<{type(value).__name__} that has no repr>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


class ColourError(LagentlikeError, TypeError):
    """Blocking and async code were mixed."""


class SessionBusy(LagentlikeError):
    """A turn of this session is under way: in this very call, which would wait for itself, or while its state is read
    or loaded, which the turn may be changing."""


class StateError(LagentlikeError, ValueError):
    """A state cannot be written, or what should be loaded is no state."""


class SessionConflict(StateError):
    """Another process went on in a session that is kept in a store; the turn is taken back, and may be made again."""


class BudgetExceeded(LagentlikeError):
    """A budget of requests, tokens, tool calls or time is used up."""

    def __init__(self, what: str, used: float, limit: float) -> None:
        super().__init__(f"the budget of {limit:g} {what} is used up ({used:g}): raise it, or catch BudgetExceeded")
        self.what = what
        self.used = used
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.used, self.limit)


class NotRecorded(LagentlikeError):
    """A model request or a tool call is not in the file that is replayed; the message says what differs."""


class MissingExtra(LagentlikeError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'lagentlike[{extra}]'")


class ClusterLost(LagentlikeError):
    """A cluster that work was given to is gone, or was never there."""


class ActorLost(LagentlikeError):
    """The actor that ran a turn ended before the turn did; the session is as it was before the turn."""


class MissingTokens(LagentlikeError, ValueError):
    """A model server gave no token ids where training needs them."""


class LLMError(LagentlikeError):
    """A model call failed.

    Attributes:
        partial: text that was received before it failed, if any.
        status: the HTTP status, if the server answered.
        raw: up to 1 KB of the server's body, as text, if there was one.
    """

    def __init__(self, message: str, *, partial: str = "", status: int | None = None, raw: str = "") -> None:
        super().__init__(message)
        self.partial = partial
        self.status = status
        self.raw = raw[:1024]


class ConnectFailed(LLMError):
    """No connection: refused, unknown host, TLS."""


class RequestTimeout(LLMError, TimeoutError):
    """A deadline passed: to the first byte, between two bytes, or for the whole answer."""


class RateLimited(LLMError):
    """The server answers 429; `retry_after` is in seconds, None where the server does not tell."""

    def __init__(self, message: str, *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after = retry_after


class QuotaExhausted(RateLimited):
    """The key's quota is used up: waiting does not help, another key may."""


class LimiterTimeout(RateLimited, TimeoutError):
    """A `RateLimiter` had no room for the call in time; `retry_after` is when it has, as far as that is known."""


class RequestRefused(LLMError):
    """The server refuses the request (400, 404, 413, 422 …); the same request will fail again."""


class AuthenticationFailed(RequestRefused):
    """The server does not accept the key (401, 403)."""


class ContextLengthExceeded(RequestRefused):
    """The prompt is longer than the model's window; `used` and `limit` in tokens where the server tells."""

    def __init__(self, message: str, *, used: int | None = None, limit: int | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.used = used
        self.limit = limit


class ServerError(LLMError):
    """The server failed (5xx)."""


class BadResponse(LLMError):
    """The server's answer cannot be read."""


class StreamTruncated(LLMError):
    """The stream ended before the answer did; `partial` is what came."""


class ResponseTooLarge(LLMError):
    """The answer passes the cap on response bytes."""


class RealRequestsForbidden(LLMError):
    """A request to a real server was about to be made while `forbid_real_requests()` is on."""


class ScriptExhausted(LLMError):
    """A `ScriptedLLM` was asked more often than it has replies."""


class RewardError(LagentlikeError):
    """A reward failed: it raised, took too long, wants what nobody has, or gave no finite number.

    Attributes:
        reward: its name.
    """

    def __init__(self, reward: str, message: str) -> None:
        super().__init__(f"reward {reward}: {message}")
        self.reward = reward
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reward, self.message)


class EnvironmentFailed(LagentlikeError):
    """An environment of a rollout failed, or none could be had."""


class LeaseExpired(EnvironmentFailed, TimeoutError):
    """An environment was held longer than its lease; it is closed."""


class PoolTimeout(EnvironmentFailed, TimeoutError):
    """No environment came free in time."""


class PoolClosed(EnvironmentFailed):
    """The pool of an environment was closed."""


class SandboxError(LagentlikeError):
    """Isolated execution failed."""


class SandboxUnavailable(SandboxError):
    """This machine has no sandbox that holds; the message says what is missing."""


class SlotTimeout(SandboxError, TimeoutError):
    """No slot came free in time."""


class SlotLost(SandboxError):
    """The process or the container of a slot ended, and what was in it is gone."""


class ArtifactError(SandboxError):
    """A file of a workspace cannot be given out: it is not there, too large, or outside the workspace."""


class RemoteError(LagentlikeError):
    """An agent elsewhere failed with an error that is none of this package; `kind` is the name of its class."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"the agent failed with {kind}: its server's log says more")
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind,)


class TrajectoryAPIError(LagentlikeError):
    """A trajectory API refuses a request (`status` is its HTTP status), or cannot be reached (`status` is None)."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ToolError(LagentlikeError):
    """A tool failed."""


class ToolArgumentsError(ToolError, ValueError):
    """Arguments do not fit the tool's schema."""


class ToolTimeout(ToolError, TimeoutError):
    """A tool took longer than its time limit."""


class FetchError(ToolError):
    """Something of the web cannot be had; `status` is the HTTP status of the answer, None without one."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AddressRefused(FetchError):
    """An address that is not fetched: it leads into a private network or the like, or is none of the web."""


class ServiceKeyRefused(FetchError):
    """A service of the web does not take the key that it was given."""


class ServiceLimited(FetchError):
    """A service of the web was asked too often; `retry_after` is in seconds, None if it did not say."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class ServiceQuotaUsed(ServiceLimited):
    """What was paid for, or is free, is used up: waiting for a moment does not help."""


class BadAnswer(FetchError):
    """A server answered something that cannot be read."""


class KernelDied(ToolError):
    """The process of a kernel ended; its variables are gone."""

    def __init__(self, message: str, *, returncode: int | None = None) -> None:
        super().__init__(message)
        self.returncode = returncode
