"""Call a unit for many messages, several at once: `Module.map` in both colours."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, NamedTuple, TYPE_CHECKING

from .errors import InvalidArgument
from .memory import check_session_id, SessionId
from .schema import AgentMessage

if TYPE_CHECKING:
    from .module import Module

__all__ = ["map_async", "map_blocking"]

Outcome = AgentMessage | Exception


class _Job(NamedTuple):
    """One session's calls, which run in order: where each reply goes, and the messages."""

    session_id: SessionId
    calls: list[tuple[int, tuple[Any, ...]]]


def map_blocking(
    unit: Module, messages: Any, session_ids: Any, max_concurrency: int, progress: bool | str, kwargs: dict[str, Any]
) -> list[Outcome]:
    """The outcomes in the order of the messages, by worker threads."""
    jobs, total = _jobs(messages, session_ids, max_concurrency)
    outcomes: dict[int, Outcome] = {}
    with _bar(total, progress, unit.name) as advance:
        interrupted = threading.Event()

        def work(job: _Job) -> None:
            for index, message in job.calls:
                if interrupted.is_set():
                    return
                try:
                    outcomes[index] = _last(unit(*message, session_id=job.session_id, **kwargs))
                except Exception as error:  # noqa: BLE001  # a failure is a result: the other calls go on
                    outcomes[index] = error
                except BaseException:
                    interrupted.set()  # calls under way come to their end, no other begins
                    raise
                advance()

        with concurrent.futures.ThreadPoolExecutor(max_concurrency) as pool:
            futures = [pool.submit(copy_context().run, work, job) for job in jobs]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                interrupted.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [outcomes[index] for index in range(total)]


async def map_async(
    unit: Module, messages: Any, session_ids: Any, max_concurrency: int, progress: bool | str, kwargs: dict[str, Any]
) -> list[Outcome]:
    """The outcomes in the order of the messages, by worker tasks."""
    jobs, total = _jobs(messages, session_ids, max_concurrency)
    outcomes: dict[int, Outcome] = {}
    waiting = iter(jobs)
    with _bar(total, progress, unit.name) as advance:

        async def work() -> None:
            for job in waiting:
                for index, message in job.calls:
                    try:
                        outcomes[index] = await _last_async(unit(*message, session_id=job.session_id, **kwargs))
                    except asyncio.CancelledError as error:
                        if (task := asyncio.current_task()) is None or task.cancelling():
                            raise
                        outcomes[index] = failure = RuntimeError("something that the call awaited was cancelled")
                        failure.__cause__ = error
                    except Exception as error:  # noqa: BLE001  # a failure is a result: the other calls go on
                        outcomes[index] = error
                    advance()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(max_concurrency, len(jobs))):
                group.create_task(work())
    return [outcomes[index] for index in range(total)]


def _jobs(messages: Any, session_ids: Any, max_concurrency: Any) -> tuple[list[_Job], int]:
    """The calls by session, and how many they are."""
    if isinstance(messages, str | AgentMessage | Mapping) or not isinstance(messages, Iterable):
        raise InvalidArgument("messages", messages, "give a list with one message for each call")
    if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
        raise InvalidArgument("max_concurrency", max_concurrency, "give a whole number of at least 1")
    calls = [tuple(item) if isinstance(item, list | tuple) else (item,) for item in messages]
    ids = list(range(len(calls))) if session_ids is None else list(session_ids)
    if len(ids) != len(calls):
        raise InvalidArgument("session_ids", ids, f"give one for each of the {len(calls)} messages")
    jobs: dict[SessionId, _Job] = {}
    for index, (call, session_id) in enumerate(zip(calls, ids, strict=True)):
        jobs.setdefault(check_session_id(session_id), _Job(session_id, [])).calls.append((index, call))
    return list(jobs.values()), len(calls)


def _last(reply: Any) -> Any:
    """The reply of a call: what it returned, or the last message of its stream."""
    if isinstance(reply, Iterator):
        last = None
        for last in reply:  # noqa: B007  # the last one is what is wanted
            continue
        return last
    return reply


async def _last_async(reply: Any) -> Any:
    if inspect.isawaitable(reply):
        return await reply
    last = None
    async for last in reply:  # noqa: B007  # the last one is what is wanted
        continue
    return last


@contextmanager
def _bar(total: int, shown: bool | str, label: str) -> Iterator[Callable[[], Any]]:
    """What to call after each call: it advances a progress bar, if one is wanted."""
    if not shown:
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=shown if isinstance(shown, str) else label, unit="call") as bar:
        yield bar.update
