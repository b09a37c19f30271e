"""The program that runs a model server, and ends it when whoever started this is gone.

It needs nothing but Python: `python -I server_watch.py command …` starts the command in a process group of its own, and
kills the group when standard input ends, however its other side ended. It exits as the command did.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

__all__ = ["main"]

GRACE = 5.0
"""Seconds that the server gets to stop by itself."""


def main() -> int:
    """Run the command of the arguments until it ends, or standard input does."""
    try:
        server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"{error}\n")  # into the log of the server
        return 127
    threading.Thread(target=_end_with_input, args=(server.pid,), daemon=True).start()
    returncode = server.wait()
    _signal(server.pid, signal.SIGKILL)  # what it left behind
    return returncode if returncode >= 0 else 128 - returncode


def _end_with_input(group: int) -> None:
    while os.read(0, 1024):
        pass
    _signal(group, signal.SIGTERM)
    threading.Event().wait(GRACE)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
