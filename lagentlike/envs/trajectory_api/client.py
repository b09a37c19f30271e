"""The trajectory API from the other side: what environments and trainers send and fetch."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections.abc import Sequence
from typing import Any

from yarl import URL

from ...errors import BadResponse, InvalidArgument, LLMError, TrajectoryAPIError
from ...llms.transport import Request, Transport, TransportOptions
from ..groups import ScoredGroup

__all__ = ["TrajectoryClient"]

_WORTH_PACKING = 1024  # bytes
_LARGEST_ANSWER = 1024 * 1024 * 1024  # a batch, once it is unpacked


class TrajectoryClient:
    """Speaks with a trajectory API: ours, or atroposlib's `run-api`.

    Connections that break, and answers that say "later", are tried again with growing pauses; a group that is sent
    again has the same `Idempotency-Key`, so that a server that knows it counts the group once (atroposlib's does not).

    Args:
        url: where the API is.
        token: sent as `Authorization: Bearer …`.
        timeout: seconds that one request may take.
        retries: how often a request is tried again.

    Raises:
        InvalidArgument: the URL is none of an HTTP server.

    Its connections are those of the event loop, and close with it.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 60.0, retries: int = 5) -> None:
        if not url.startswith(("http://", "https://")) or not URL(url).host:
            raise InvalidArgument("url", url, "give where the trajectory API is, such as http://127.0.0.1:8000")
        self.url = url.rstrip("/")
        self._secrets = () if token is None else (token,)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._transport = Transport(
            TransportOptions(
                first_byte=timeout, total=(retries + 1) * timeout, max_retries=retries, max_bytes=_LARGEST_ANSWER
            )
        )

    # The trainer

    async def register(
        self,
        *,
        batch_size: int,
        max_token_len: int,
        num_steps: int = -1,
        starting_step: int = 0,
        checkpoint_dir: str = "",
        save_checkpoint_interval: int = 0,
        wandb_group: str = "",
        wandb_project: str = "",
    ) -> int:
        """Say that a trainer is there; see `TrainerRegistration`. Environments are let in once it asks for a batch."""
        registration = {
            "wandb_group": wandb_group,
            "wandb_project": wandb_project,
            "batch_size": batch_size,
            "max_token_len": max_token_len,
            "checkpoint_dir": checkpoint_dir,
            "save_checkpoint_interval": save_checkpoint_interval,
            "starting_step": starting_step,
            "num_steps": num_steps,
        }
        return int((await self._call("POST", "/register", registration))["uuid"])

    async def batch(self) -> list[ScoredGroup] | None:
        """The next batch, or None where not enough groups wait.

        Raises:
            TrajectoryAPIError: no trainer is registered, or the API cannot be reached.
        """
        answer = await self._call("GET", "/batch")
        if answer.get("status") == "error":
            raise TrajectoryAPIError(f"{self.url}/batch: {answer.get('message')}")
        batch = answer["batch"]
        return None if batch is None else [ScoredGroup.read(group, f"batch[{at}]") for at, group in enumerate(batch)]

    async def wait_for_batch(self, timeout: float | None = None, pause: float = 0.2) -> list[ScoredGroup]:
        """The next batch, as soon as there is one.

        Args:
            timeout: seconds to wait; None waits for ever.
            pause: seconds between two looks.

        Raises:
            TimeoutError: there was none in time.
        """
        async with asyncio.timeout(timeout):
            while (batch := await self.batch()) is None:  # noqa: ASYNC110  # it is a server that is waited for
                await asyncio.sleep(pause)
            return batch

    async def status(self) -> dict[str, Any]:
        """`current_step`, and how many groups wait (`queue_size`)."""
        return await self._call("GET", "/status")

    async def latest_example(self) -> dict[str, Any]:
        """The group that came last."""
        return await self._call("GET", "/latest_example")

    async def reset(self) -> None:
        """Have the API forget everything."""
        await self._call("GET", "/reset_data")

    # The environments

    async def register_env(
        self,
        name: str,
        *,
        group_size: int,
        max_token_length: int,
        weight: float = 1.0,
        min_batch_allocation: float | None = None,
    ) -> dict[str, Any] | None:
        """Say that an environment is there; what it is told, or None where it must wait for the trainer."""
        registration = {
            "max_token_length": max_token_length,
            "desired_name": name,
            "weight": weight,
            "group_size": group_size,
            "min_batch_allocation": min_batch_allocation,
        }
        answer = await self._call("POST", "/register-env", registration)
        return answer if answer.get("status") == "success" else None

    async def disconnect_env(self, env_id: int) -> None:
        """Say that an environment is gone."""
        await self._call("POST", "/disconnect-env", {"env_id": env_id})

    async def info(self) -> dict[str, Any]:
        """`batch_size` in rows and `max_token_len`; -1 where no trainer is registered."""
        return await self._call("GET", "/info")

    async def wandb_info(self) -> dict[str, Any]:
        """The trainer's `group` and `project`."""
        return await self._call("GET", "/wandb_info")

    async def status_env(self, env_id: int) -> dict[str, Any]:
        """How far the trainer is, and how much waits; see `TrajectoryQueue.status_env`."""
        return await self._call("GET", "/status-env", {"env_id": env_id})

    async def send(self, groups: ScoredGroup | Sequence[ScoredGroup]) -> dict[str, Any]:
        """Send one group, or several together.

        Raises:
            TrajectoryAPIError: the API refuses them, or cannot be reached.
        """
        if isinstance(groups, ScoredGroup):
            return await self._call("POST", "/scored_data", groups.to_wire())
        return await self._call("POST", "/scored_data_list", [group.to_wire() for group in groups])

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers, packed = dict(self._headers), b""
        if body is not None:
            packed = json.dumps(body, allow_nan=False).encode()
            if method == "POST":
                headers["Idempotency-Key"] = uuid.uuid4().hex
                if len(packed) >= _WORTH_PACKING:
                    packed = await asyncio.to_thread(gzip.compress, packed, 5)
                    headers["Content-Encoding"] = "gzip"
        url = URL(self.url + path)
        try:
            return await self._transport.post(Request(url, headers, packed, None, self._secrets, method), _read)
        except LLMError as error:  # what the transport raises, whoever answers
            told = f" {error.raw[:500]}" if error.raw else ""
            raise TrajectoryAPIError(f"{method} {url}: {error}{told}", status=error.status) from error


def _read(body: bytes) -> dict[str, Any]:
    if not body.startswith(b"{"):  # one route answers with words
        return {"message": body.decode("utf-8", "replace")}
    try:
        return dict(json.loads(body))
    except ValueError as error:
        raise BadResponse(f"the answer is no JSON: {error}") from None
