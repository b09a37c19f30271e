"""The program of a worker: it runs Python code that comes in frames, keeps its variables, and answers in frames.

It needs nothing but Python: `python -I worker_program.py`, with a socket as stdin. A frame is four bytes, the length as
a big-endian number, and a JSON object of that length: `id`, `code` and `show` (`repr` or `str`) come in; `id`, `ok`,
`value` (of the last line, if it is an expression; else null) and `error` (a traceback) go out. What code prints goes to
stdout and stderr, as always.
"""

import ast
import builtins
import codecs
import json
import linecache
import os
import signal
import sys
import traceback
import types
from typing import Any

__all__ = ["main"]

MAX_TEXT = 1 << 20
"""Most characters of a value or an error that are sent."""


def main() -> None:
    """Answer frames until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = os.dup(0)
    os.set_inheritable(channel, False)
    outputs = [os.dup(number) for number in (1, 2)]
    codecs.register_error("lagentlike", _replaced)
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # pathlib takes long to import
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    scope = module.__dict__
    scope["__builtins__"] = builtins
    _restore(outputs)
    _send(channel, {"ready": True})
    worker = os.getpid()
    while (request := _receive(channel)) is not None:
        _restore(outputs)
        answer = _answer(request, scope)
        if os.getpid() != worker:  # a child that code forked and let run on
            os._exit(0)
        _send(channel, answer)


def _answer(request: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
    answer = {"id": request["id"], "ok": False, "value": None, "error": ""}
    name = f"<cell {request['id']}>"
    linecache.cache[name] = (len(request["code"]), None, request["code"].splitlines(True), name)
    shown = str if request["show"] == "str" else repr
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            tree = ast.parse(request["code"], name)
            last = tree.body[-1] if tree.body else None
            if isinstance(last, ast.Expr):  # its value is kept as `_`, as Python's own prompt does
                kept = ast.Name("_", ast.Store(), lineno=last.lineno, col_offset=last.col_offset)
                tree.body[-1] = ast.copy_location(ast.Assign([kept], last.value), last)
            exec(compile(tree, name, "exec"), scope)  # noqa: S102  # running code is what this is for
            if isinstance(last, ast.Expr):
                value = scope["_"]
                answer["value"] = None if value is None and shown is repr else shown(value)[:MAX_TEXT]
            answer["ok"] = True
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
    except BaseException as error:  # noqa: BLE001  # whatever code raises is its result
        answer.update(ok=False, value=None, error=_traceback(error))
    return answer


def _traceback(error: BaseException) -> str:
    """The traceback from the code on, without this program's own frames."""
    frames = error.__traceback__
    while frames is not None and not frames.tb_frame.f_code.co_filename.startswith("<cell "):
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:  # noqa: BLE001  # an error whose own text fails
        text = type(error).__name__
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT // 2] + "\n…\n" + text[-MAX_TEXT // 2 :]


def _restore(outputs: list[int]) -> None:
    """Put back what code may have closed or replaced: no input, and both outputs."""
    null = os.open(os.devnull, os.O_RDONLY)
    if null:
        os.dup2(null, 0)
        os.close(null)
    for number, saved in zip((1, 2), outputs, strict=True):
        os.dup2(saved, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = open(number, "w", 1, encoding="utf-8", errors="lagentlike", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)


def _replaced(error: UnicodeError) -> tuple[bytes, int]:
    """U+FFFD for what UTF-8 cannot hold, as `errors=` wants it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "\ufffd".encode() * (error.end - error.start), error.end


def _receive(channel: int) -> dict[str, Any] | None:
    length = _read(channel, 4)
    body = None if length is None else _read(channel, int.from_bytes(length, "big"))
    return None if body is None else json.loads(body)


def _read(channel: int, size: int) -> bytes | None:
    content = b""
    while len(content) < size:
        piece = os.read(channel, size - len(content))
        if not piece:
            return None
        content += piece
    return content


def _send(channel: int, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    content = len(body).to_bytes(4, "big") + body
    while content:
        content = content[os.write(channel, content) :]


if __name__ == "__main__":
    main()
