"""Spans as lines of JSON in a file."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from .secrets import mask, secrets_of_environment
from .sent import restore, Sent
from .spans import Span, Tracer

__all__ = ["JSONLTracer", "read_trace"]

logger = logging.getLogger(__name__)


class JSONLTracer(Tracer):
    """Writes each span that ends as one line of JSON, at the end of a file.

    Several threads and processes may write to the same file: a line is one write, to a file open for appending.

    Of the messages that a model is sent, those are written that the request before did not have, of the same unit,
    session and model; `read_trace` gives each request whole.

    Args:
        path: the file; it is made, readable by its owner only, if it is not there.
        content: also write what was said: messages, answers, arguments, results, and the texts of errors.
        secrets: texts to write as `***` wherever they occur. What looks like a key, and the values of environment
            variables called `…KEY`, `…TOKEN`, `…SECRET` or `…PASSWORD`, are masked without being named.

    Raises:
        InvalidArgument: the file cannot be written.

    >>> import tempfile
    >>> from lagentlike import Agent, ScriptedLLM
    >>> path = Path(tempfile.mkdtemp(), "trace.jsonl")
    >>> with JSONLTracer(path):
    ...     reply = Agent(ScriptedLLM(["Hello!"]), name="greeter")("Hi")
    >>> [(span["kind"], span["name"], span["status"]) for span in read_trace(path)]
    [('request', 'scripted', 'ok'), ('turn', 'greeter', 'ok')]
    """

    def __init__(self, path: str | os.PathLike[str], *, content: bool = False, secrets: Iterable[str] = ()) -> None:
        self.path = Path(path).absolute()
        self.content = content
        self._secrets = (*secrets, *secrets_of_environment())
        self._sent = Sent()
        self._torn = False  # whether the last line may be cut off
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidArgument("path", str(path), f"the trace cannot be written there: {error.strerror}") from error
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":  # a writer was killed within its last line
            os.write(self._file, b"\n")

    def end(self, span: Span) -> None:
        earlier = self._sent.before(span) if self.content else None
        span_id, before = earlier or ("", [])
        told = span.plain(self.content, after=len(before))
        if before:
            told["content"]["after"] = {"span_id": span_id, "messages": len(before)}
        line = json.dumps(mask(told, self._secrets), separators=(",", ":"), default=str).encode() + b"\n"
        with _guard:
            line, self._torn = b"\n" * self._torn + line, True
            while line and self._file >= 0:  # one that is closed takes no more
                line = line[os.write(self._file, line) :]
            self._torn = False
            if earlier is not None:
                self._sent.wrote(span, before + told["content"]["messages"])

    def close(self) -> None:
        """Be told no more, and close the file."""
        self.detach()
        with _guard:
            file, self._file = self._file, -1
            if file >= 0:
                os.close(file)

    def __exit__(self, *exc: Any) -> None:
        self.close()


# No file is closed while a line is written. It is reentrant, for garbage that is collected meanwhile may end a span.
_guard = threading.RLock()
os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_guard.release)


def read_trace(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The spans of a file, in the order in which they ended.

    A line that is cut off, as a process that was killed or a full disk may leave it, is passed over with a warning. A
    request whose first messages are in a line that is not there has `missing` in its content, which says so.

    Raises:
        InvalidArgument: the file cannot be read, or a line of it is no span; the message has its number.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise InvalidArgument("path", str(path), f"the trace cannot be read: {error.strerror}") from error
    spans = []
    sent: dict[str, list[Any]] = {}
    for number, line in enumerate(lines, 1):
        try:
            span = json.loads(line)
        except ValueError:
            span = None
        if isinstance(span, dict) and span.keys() >= _ALWAYS:
            restore(span, sent)
            spans.append(span)
        elif not line:  # two processes began a new line after one that was cut off
            continue
        elif span is None and line[: len(_HEAD)] == _HEAD[: len(line)]:
            logger.warning("line %d of %s is cut off: it is passed over", number, path)
        else:
            raise InvalidArgument("path", str(path), f"line {number} is no span")
    return spans


_HEAD = b'{"kind":'
_ALWAYS = {"kind", "name", "trace_id", "span_id", "parent_id", "start", "seconds", "status"}
