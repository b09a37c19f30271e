"""Record what models and tools answer, and answer from the record: in all colours, threads and sessions."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from .. import tapes
from ..actions.running import PreparedCall
from ..errors import InvalidArgument, LLMError, NotRecorded
from ..llms.base import AsyncBaseLLM, BaseLLM, Conversation, Params, Part
from ..llms.fingerprint import asked, digest, numbered
from ..llms.kept_answer import Parts, plain_answer
from ..records.lines import LineFile, read_lines
from ..schema import ActionReturn, Completion, to_plain
from ..tracing.secrets import mask, mask_keys, secrets_of_environment
from .entry import Entry, plain_error, plain_result
from .mismatch import what_differs
from .taped import AsyncTapedLLM, TapedLLM

__all__ = ["Tape", "record", "replay"]

logger = logging.getLogger(__name__)

OnMissing = Literal["error", "call", "record"]
Mode = Literal["error", "call", "record", "record_anew"]
Tools = bool | str | Iterable[str]


def record(
    path: str | os.PathLike[str],
    *,
    tools: Tools = True,
    secrets: Iterable[str] = (),
    ignore: str | Iterable[str] = (),
    timing: bool = False,
) -> Tape:
    """Write every model request and its answer, and every tool call and its result, into a file while a block lasts.

    The file is made anew. It has one call a line, in JSON, written as soon as the call is answered; a process that is
    killed leaves whole lines. What ran at the same time is put in an order at the end, so that the same calls give the
    same file.

    Args:
        path: the file; its folder is made if need be.
        tools: whether tool calls are recorded too; or the names of those that are.
        secrets: texts to write as `***`. The keys of models, the values of environment variables that are called
            `…KEY`, `…TOKEN`, `…SECRET` or `…PASSWORD`, and what looks like a key are masked without being named.
        ignore: regular expressions of what is another text each time (a date, a path): it is left out of requests,
            for `replay` with the same `ignore` to find them.
        timing: also write when each part of an answer came.

    >>> import tempfile
    >>> from lagentlike import Agent, ScriptedLLM
    >>> path = Path(tempfile.mkdtemp(), "greeting.jsonl")
    >>> with record(path):
    ...     reply = Agent(ScriptedLLM(["Good morning!"]))("Hello")
    >>> with replay(path):
    ...     Agent(ScriptedLLM([]))("Hello").content
    'Good morning!'
    """
    return Tape(path, "record_anew", tools=tools, secrets=secrets, ignore=ignore, timing=timing)


def replay(
    path: str | os.PathLike[str],
    *,
    on_missing: OnMissing = "error",
    tools: Tools = True,
    secrets: Iterable[str] = (),
    ignore: str | Iterable[str] = (),
    timing: bool = False,
) -> Tape:
    """Answer model requests and tool calls from a file while a block lasts, without making them.

    A call is found by what it asks for, in whatever order, session and thread: a request by its model's name, messages
    and parameters, a tool call by its name and arguments. The n-th equal call gets the n-th answer. Answers come as
    they came: streams in their parts, errors as the same errors. Budgets are charged as they were.

    Args:
        path: the file.
        on_missing: what becomes of a call that is not in the file: `"error"`, `"call"` (it is made), or `"record"` (it
            is made and added to the file, which may not be there yet).
        tools: whether tool calls are answered too; or the names of those that are. Others are made.
        secrets, ignore: as for `record`.
        timing: whether parts of answers come when they came, where that was recorded.

    Raises:
        NotRecorded: from a call that is not in the file; the message says what differs from the nearest one.
        InvalidArgument: there is no such file.
        StateError: a line of it is damaged.
    """
    if on_missing not in ("error", "call", "record"):
        raise InvalidArgument("on_missing", on_missing, "give 'error', 'call' or 'record'")
    return Tape(path, on_missing, tools=tools, secrets=secrets, ignore=ignore, timing=timing)


class Tape:
    """A record that is made or played while a `with` block lasts, in all threads of the process; the innermost holds.

    Attributes:
        path: its file.
        played: how many calls were answered from the file.
        made: how many were made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: Mode,
        *,
        tools: Tools,
        secrets: Iterable[str],
        ignore: str | Iterable[str],
        timing: bool,
    ) -> None:
        self.path = Path(path)
        self.played = self.made = 0
        self._mode = mode
        self._tools = tools if isinstance(tools, bool) else frozenset([tools] if isinstance(tools, str) else tools)
        self._secrets = {*secrets, *secrets_of_environment()}
        self._ignore = [_pattern(text) for text in ([ignore] if isinstance(ignore, str) else ignore)]
        self._timing = timing
        self._guard = threading.RLock()  # a stream that the garbage collector closes is noted anywhere
        self._entries: list[Entry] = []
        self._waiting: dict[str, deque[Entry]] = defaultdict(deque)  # not played yet, by hash
        self._file: LineFile | None = None
        self._under_way = 0
        self._overlapped = False
        self._outer: tapes.Tape | None = None
        self._is_running = False

    def __enter__(self) -> Self:
        if self._is_running:
            raise InvalidArgument("tape", self, "it runs already: make one for each block")
        self._entries.clear()
        self._waiting.clear()
        if self._mode == "record_anew":
            self.path.unlink(missing_ok=True)
        elif self._mode != "record" and not self.path.is_file():
            raise InvalidArgument(
                "path", os.fspath(self.path), "there is no such file: make it with record(path), or on_missing='record'"
            )
        for entry in read_lines(self.path, Entry.read) if self.path.is_file() else ():
            self._entries.append(entry)
            entry.line = len(self._entries)
            self._waiting[entry.hash].append(entry)
        if self._mode in ("record", "record_anew"):
            self._file = LineFile(self.path)
        self._outer, tapes.current = tapes.current, self
        self._is_running = True
        return self

    def __exit__(self, *error: object) -> None:
        tapes.current = self._outer
        self._is_running = False
        with self._guard:
            file, self._file = self._file, None  # what ends later is not written
            if file is not None:
                file.close()
                if self._overlapped:
                    self._put_in_order()

    @property
    def unplayed(self) -> list[str]:
        """The calls of the file that were not asked for, each as a short text."""
        return [_shown(entry) for queue in self._waiting.values() for entry in queue]

    def assert_exhausted(self) -> None:
        """Fail unless every call of the file was asked for.

        Raises:
            AssertionError: some were not; the message shows them.
        """
        left = self.unplayed
        if left:
            raise AssertionError("\n".join([f"{os.fspath(self.path)} has calls that were not asked for:", *left]))

    @property
    def makes_calls(self) -> bool:
        return self._mode != "error"

    def model(self, llm: Any) -> Any:
        return TapedLLM(self, llm) if isinstance(llm, BaseLLM) else AsyncTapedLLM(self, llm)

    def request(self, llm: BaseLLM | AsyncBaseLLM, messages: Conversation, params: Params) -> Call:
        """A model request, found on the tape or to be made."""
        access = getattr(llm, "_access", None)
        if access is not None:
            self._secrets.update(access.secrets)
        ids: dict[str, str] = {}
        request = asked(llm.model, messages, params, ids)
        offered = request["params"].get("tools")
        if offered:  # long, and the same each time
            names = [tool.get("function", tool).get("name") for tool in offered]
            request["params"]["tools"] = {"names": names, "hash": digest(offered)[:16]}
        return self._call("model", request, repr(llm), ids)

    def tool(self, call: PreparedCall, run: Callable[[], ActionReturn]) -> ActionReturn:
        if not self._takes(call):
            return run()
        taped = self._tool_call(call)
        if taped.entry is not None:
            return taped.entry.returned(call.arguments)
        with taped:
            result = taped.result = run()
        return result

    async def tool_async(self, call: PreparedCall, run: Callable[[], Awaitable[ActionReturn]]) -> ActionReturn:
        if not self._takes(call):
            return await run()
        taped = self._tool_call(call)
        if taped.entry is not None:
            return taped.entry.returned(call.arguments)
        with taped:
            result = taped.result = await run()
        return result

    def __repr__(self) -> str:
        return f"Tape({os.fspath(self.path)!r})"

    def _takes(self, call: PreparedCall) -> bool:
        tools = self._tools
        return tools if isinstance(tools, bool) else not tools.isdisjoint((call.api.name, call.api.action.name))

    def _tool_call(self, call: PreparedCall) -> Call:
        try:
            arguments = to_plain(call.arguments, "arguments")
        except TypeError as error:
            raise InvalidArgument("arguments", call.arguments, str(error)) from error
        return self._call("tool", {"name": call.api.name, "arguments": arguments}, f"the tool {call.api.name}", {})

    def _call(self, kind: str, request: dict[str, Any], whose: str, ids: dict[str, str]) -> Call:
        request = _each_text(request, self._as_asked)
        hash_ = digest(request)[:16]
        with self._guard:
            waiting = self._waiting.get(hash_)
            entry = waiting.popleft() if waiting else None
            if entry is None and self.makes_calls:
                self.made += 1
                self._overlapped |= self._under_way > 0
                self._under_way += 1
                return Call(self, Entry(kind, hash_, request), ids)
            if entry is not None:
                self.played += 1
                return Call(self, Entry(kind, hash_, request), ids, entry)
        raise NotRecorded(
            f"{os.fspath(self.path)} does not have this call of {whose}: {what_differs(kind, request, self._entries)}\n"
            f"If that is as it should be, record it anew: record({os.fspath(self.path)!r}), or replay(…, "
            "on_missing='record') to add it; what is another text each time can be left out by ignore=…"
        )

    def _as_asked(self, text: str) -> str:
        """A text of a request as it is kept and compared."""
        text = mask(text, self._secrets)
        for pattern in self._ignore:
            text = pattern.sub("…", text)
        return text

    def _as_answered(self, text: str) -> str:
        return mask_keys(text, self._secrets)

    def _note(self, entry: Entry | None) -> None:
        """Write a call that was made, if anything is known of it."""
        with self._guard:
            self._under_way -= 1
            if entry is None or self._file is None:
                return
            self._mask(entry)
            self._entries.append(entry)
            entry.line = len(self._entries)
            self._file.append([entry.written()])

    def _mask(self, entry: Entry) -> None:
        """Take secrets out of what came of a call."""
        answer = _each_text(entry.answer, self._as_answered)
        if answer is not None and entry.answer is not None and _said(answer) != _said(entry.answer):
            entry.parts = entry.seconds = None  # a secret may be cut in two by them
        entry.answer = answer
        entry.error = _each_text(entry.error, self._as_answered)
        entry.result = _each_text(entry.result, self._as_answered)

    def _put_in_order(self) -> None:
        """Write the file anew in an order that does not depend on what was quicker; equal calls stay as they came."""
        lines = [entry.written() + b"\n" for entry in sorted(self._entries, key=_place)]
        beside = self.path.with_name(f".{self.path.name}.new")
        with beside.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)


class Call:
    """A call under a tape: one that is found there (`entry`), or one that is made within a `with` block of it.

    What its maker sets, `answer` or `result`, is written when the block ends; an error of the model instead, if it is
    left by one; of a stream that nobody reads on, what came.
    """

    def __init__(self, tape: Tape, noted: Entry, ids: dict[str, str], entry: Entry | None = None) -> None:
        self.entry = entry
        self.answer: Completion | None = None
        self.result: ActionReturn | None = None
        self._tape = tape
        self._noted = noted
        self._ids = ids
        self._parts: Parts | None = None
        self._times: list[float] = []
        self._began = time.monotonic()

    def add(self, parts: Iterable[Part]) -> None:
        """Note parts of a stream."""
        if self._parts is None:
            self._parts = Parts()
        for chunk, answer in parts:
            self._parts.add(chunk, answer)
            self.answer = answer
            self._times.append(round(time.monotonic() - self._began, 4))

    def delay(self, seconds: Sequence[float] | None) -> float:
        """How long to wait until it is so many seconds since the call began; nothing where times do not matter."""
        if not self._tape._timing or not seconds:
            return 0.0
        return max(0.0, self._began + seconds[-1] - time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tape._note(self._told(error))

    def _told(self, error: BaseException | None) -> Entry | None:
        """What is to be written; None where a call was given up, or failed in a way that no server has a part in."""
        noted, streamed = self._noted, self._parts
        if isinstance(error, LLMError):
            noted.error = plain_error(error)
        elif error is not None:
            if streamed is None or not isinstance(error, GeneratorExit | asyncio.CancelledError):
                return None
            noted.left = True
        if self.result is not None:
            try:
                noted.result = plain_result(self.result)
            except TypeError as fault:
                logger.warning("%r cannot keep the result of %s: %s", self._tape, noted.request["name"], fault)
                return None
        if self.answer is not None:
            noted.answer = numbered(plain_answer(self.answer), self._ids)
        if streamed is not None:
            noted.parts = streamed.noted
        if self._tape._timing:
            noted.seconds = self._times if streamed is not None else [round(time.monotonic() - self._began, 4)]
        return noted


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, TypeError) as error:
        raise InvalidArgument("ignore", text, f"give a regular expression ({error})") from error


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Plain data with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _each_text(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    return value


def _said(answer: dict[str, Any]) -> Any:
    return answer["text"], answer.get("reasoning")


def _place(entry: Entry) -> tuple[Any, ...]:
    """Where an entry stands in a file that is in order: conversations one after another, each as it grows."""
    request = entry.request
    messages = [json.dumps(message, sort_keys=True) for message in request.get("messages", ())]
    return entry.call, messages, json.dumps(request, sort_keys=True)


def _shown(entry: Entry) -> str:
    request = entry.request
    if entry.call == "tool":
        return f"line {entry.line}: tool {request['name']}({json.dumps(request['arguments'], ensure_ascii=False)})"[
            :200
        ]
    return f"line {entry.line}: model {request['model']}: {request['messages'][-1].get('content')!r}"[:200]
