"""The trajectory API as an HTTP server, in the place of atroposlib's `run-api`."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import signal
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from ...errors import InvalidArgument
from ...sandbox.http import Listener, only_this_machine
from ..groups import ScoredGroup
from .queue import EnvRegistration, TrainerRegistration, TrajectoryQueue

__all__ = ["TrajectoryServer"]

logger = logging.getLogger(__name__)

LARGEST_BODY: Final = 256 * 1024 * 1024
"""Most bytes of one request, once they are unpacked."""

_REMEMBERED: Final = 10_000  # keys of requests whose answers are kept
_NO_EXAMPLE: Final = (
    "tokens masks scores advantages ref_logprobs generation_params inference_logprobs messages images".split()
)

M = TypeVar("M", bound=BaseModel)


class TrajectoryServer(Listener):
    """A trajectory API: environments send groups, a trainer fetches batches.

    It speaks what atroposlib 0.4 speaks, so that its environments and its trainers work with it. Unlike there, a group
    whose rows differ in length is refused, groups of any sizes that make a batch are put together, steps count batches
    that were fetched, and a group that is sent again with the same `Idempotency-Key` counts once.

    Routes: `POST /register, /register-env, /disconnect-env, /scored_data, /scored_data_list`, `GET /batch, /status,
    /status-env, /info, /wandb_info, /latest_example, /reset_data`, and `GET /health`.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one, which `url` then tells.
        token: clients must send it as `Authorization: Bearer …`; needed wherever others can connect. Those of
            atroposlib send none.
        most_groups: most groups that wait; more are refused with 503.

    Raises:
        InvalidArgument: `host` is open to others and there is no `token`.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 8000, token: str | None = None, most_groups: int = 10_000
    ) -> None:
        if token is None and not only_this_machine(host):
            raise InvalidArgument("host", host, "others can connect there: set a token as well, or listen on 127.0.0.1")
        if token is not None and not token.strip():
            raise InvalidArgument("token", token, "give a text that clients send as 'Authorization: Bearer …'")
        super().__init__(host, port)
        self.queue = TrajectoryQueue(most_groups)
        self._token = token
        self._answered: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def app(self) -> web.Application:
        """The application, to be mounted or served by other means."""
        app = web.Application(client_max_size=LARGEST_BODY, middlewares=[self._guarded])
        for path, get in {
            "/": self._root,
            "/health": self._health,
            "/batch": self._batch,
            "/status": self._status,
            "/status-env": self._status_env,
            "/info": self._info,
            "/wandb_info": self._wandb_info,
            "/latest_example": self._latest_example,
            "/reset_data": self._reset,
        }.items():
            app.router.add_get(path, get)
        for path, post in {
            "/register": self._register,
            "/register-env": self._register_env,
            "/disconnect-env": self._disconnect_env,
            "/scored_data": self._scored_data,
            "/scored_data_list": self._scored_data_list,
        }.items():
            app.router.add_post(path, post)
        return app

    async def serve(self, started: Callable[[], None] = lambda: None) -> None:
        """Listen until SIGINT or SIGTERM.

        Args:
            started: called once it listens.
        """
        told = asyncio.Event()
        async with self:
            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(NotImplementedError):  # where a loop takes no signals, Ctrl-C raises
                    asyncio.get_running_loop().add_signal_handler(number, told.set)
            started()
            await told.wait()

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Check the token, and turn every error into a body that clients can read."""
        try:
            if request.path != "/health":
                self._authorize(request)
            return await handler(request)
        except web.HTTPException as http:
            return _detail(f"{request.method} {request.path}: {http.reason}", http.status)
        except InvalidArgument as error:
            return _detail(str(error), 422)
        except BufferError as error:
            return _detail(str(error), 503)
        except ConnectionError:  # the client is gone, so there is nobody to tell
            raise
        except Exception:
            logger.exception("a request failed")
            return _detail("the server failed", 500)

    def _authorize(self, request: web.Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode("utf-8", "replace"), self._token.encode()
        ):
            raise web.HTTPUnauthorized(reason="send the server's token as 'Authorization: Bearer …'")

    # The trainer

    async def _register(self, request: web.Request) -> web.Response:
        return _json({"uuid": self.queue.register(_read(TrainerRegistration, await _body(request)))})

    async def _batch(self, request: web.Request) -> web.Response:
        if self.queue.trainer is None:
            return _json({"status": "error", "message": "Trainer not registered. Call /register first.", "batch": []})
        batch = self.queue.next_batch()
        return _json({"batch": None if batch is None else [group.to_wire() for group in batch]})

    async def _status(self, request: web.Request) -> web.Response:
        return _json(self.queue.status())

    async def _info(self, request: web.Request) -> web.Response:
        trainer = self.queue.trainer
        sizes = (-1, -1) if trainer is None else (trainer.batch_size, trainer.max_token_len)
        return _json(dict(zip(("batch_size", "max_token_len"), sizes, strict=True)))

    async def _wandb_info(self, request: web.Request) -> web.Response:
        trainer = self.queue.trainer
        names = (None, None) if trainer is None else (trainer.wandb_group, trainer.wandb_project)
        return _json(dict(zip(("group", "project"), names, strict=True)))

    async def _latest_example(self, request: web.Request) -> web.Response:
        latest = self.queue.latest
        return _json({name: [] for name in _NO_EXAMPLE} if latest is None else latest.to_wire())

    async def _reset(self, request: web.Request) -> web.Response:
        self.queue.reset()
        self._answered.clear()
        return web.Response(text="Reset successful")

    # The environments

    async def _register_env(self, request: web.Request) -> web.Response:
        return _json(self.queue.register_env(_read(EnvRegistration, await _body(request))))

    async def _disconnect_env(self, request: web.Request) -> web.Response:
        try:
            self.queue.disconnect_env(_read(_EnvId, await _body(request)).env_id)
        except InvalidArgument as error:
            return _json({"status": "failure", "error": str(error)})
        return _json({"status": "success"})

    async def _status_env(self, request: web.Request) -> web.Response:
        return _json(self.queue.status_env(_read(_EnvId, await _body(request)).env_id))

    async def _scored_data(self, request: web.Request) -> web.Response:
        group = ScoredGroup.read(await _body(request))
        return self._once(request, lambda: self.queue.add(group))

    async def _scored_data_list(self, request: web.Request) -> web.Response:
        given = await _body(request)
        if not isinstance(given, list):
            raise InvalidArgument("body", given, "give a list of groups")
        groups = [ScoredGroup.read(item, f"groups[{index}]") for index, item in enumerate(given)]
        return self._once(request, lambda: {**self.queue.add(*groups), "groups_processed": len(groups)})

    def _once(self, request: web.Request, act: Callable[[], dict[str, Any]]) -> web.Response:
        """Do what a request wants, unless it was done already for a request of the same key."""
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return _json(act())
        if key not in self._answered:
            self._answered[key] = act()
            if len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
        return _json(self._answered[key])

    async def _root(self, request: web.Request) -> web.Response:
        return _json({"message": "AtroposLib API"})

    async def _health(self, request: web.Request) -> web.Response:
        return _json({"status": "ok"})


class _EnvId(BaseModel):
    env_id: int


def _read(kind: type[M], given: Any) -> M:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise InvalidArgument(".".join(map(str, fault["loc"])) or "body", fault["input"], fault["msg"]) from None


async def _body(request: web.Request) -> Any:
    try:
        return json.loads(await request.read(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("body", "", f"it is no JSON: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _json(body: Any) -> web.Response:
    return web.json_response(body)


def _detail(text: str, status: int) -> web.Response:
    return web.json_response({"detail": text}, status=status)
