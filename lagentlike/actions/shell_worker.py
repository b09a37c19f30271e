"""The program of a worker process that runs code in IPython shells: `python -m lagentlike.actions.shell_worker`."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, BinaryIO

from .result import clean_text, shortened
from .unsafe_ipython import ShellResult, Shells

__all__ = ["main"]


def main() -> None:
    """Answer each line of JSON on stdin (`session`, `code`, `forget`, `max_length`) with one on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = _private_pipes()
    shells = Shells()
    shells.prepare()  # before anybody counts the seconds
    _answer(answers, ShellResult("", failed=False), 0)
    for line in requests:
        request = json.loads(line)
        for session_id in request["forget"]:
            shells.reset(session_id)
        _answer(answers, _run(shells, request), request["max_length"])


def _run(shells: Shells, request: dict[str, Any]) -> ShellResult:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return shells.run(request["session"], request["code"], request["max_length"])
    except KeyboardInterrupt:
        return ShellResult("KeyboardInterrupt", failed=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _answer(answers: BinaryIO, result: ShellResult, max_length: int) -> None:
    text = shortened(clean_text(result.text), max_length)
    answers.write(json.dumps({"text": text, "failed": result.failed}).encode() + b"\n")
    answers.flush()


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """stdin and stdout of this process, out of reach of the code that is run."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return requests, answers


if __name__ == "__main__":
    main()
    sys.exit(0)
