"""The program that starts others in a sandbox that stays open: one frame of JSON for each, and the descriptors it gets.

It needs nothing but Python: `python -I -S room_program.py`, with a socket as stdin. A frame is four bytes, the length
as a big-endian number, and a JSON object of that length. In come `id`, `argv`, `cwd` and `env` of a program, with its
stdin, stdout and maybe one more descriptor (whose number here is added to `argv`) beside the frame; or `id` and
`signal` for the process group of one. Out go `id` with `pid`, or with `error` and `errno`; and, when it has ended, with
`code`.
"""

import json
import os
import select
import signal
import socket
import subprocess

__all__ = ["main"]


def main() -> None:
    """Start programs until the other end is closed."""
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    woken, waker = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # programs get what this one has
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a shell that writes to a full disk is told, and lives
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    room = _Room(channel)
    room.send({"ready": True})
    pending, descriptors = bytearray(), []
    while True:
        readable, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            room.reap()
        if channel.fileno() in readable:
            piece, received, _, _ = socket.recv_fds(channel, 65536, 16)
            if not piece:
                return
            pending += piece
            descriptors += received
            while len(pending) >= 4 and len(pending) >= (end := 4 + int.from_bytes(pending[:4], "big")):
                request = json.loads(bytes(pending[4:end]))
                del pending[:end]
                count = request.get("descriptors", 0)
                room.do(request, descriptors[:count])
                del descriptors[:count]


class _Room:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._programs: dict[int, subprocess.Popen[bytes]] = {}

    def do(self, request: dict, descriptors: list[int]) -> None:  # type: ignore[type-arg]  # typing takes long to import
        number = request["id"]
        if "signal" in request:
            program = self._programs.get(number)
            if program is not None:
                _signal(program.pid, request["signal"])
            return
        try:
            self._programs[number] = program = _start(request, descriptors)
        except (OSError, ValueError) as error:
            self.send({"id": number, "error": str(error), "errno": getattr(error, "errno", None)})
        else:
            self.send({"id": number, "pid": program.pid})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def reap(self) -> None:
        """Tell which programs have ended."""
        for number, program in list(self._programs.items()):
            if program.poll() is not None:
                del self._programs[number]
                self.send({"id": number, "code": program.returncode})

    def send(self, answer: dict) -> None:  # type: ignore[type-arg]
        body = json.dumps(answer).encode()
        self._channel.sendall(len(body).to_bytes(4, "big") + body)


def _start(request: dict, descriptors: list[int]) -> subprocess.Popen[bytes]:  # type: ignore[type-arg]
    stdin, stdout, *more = descriptors
    return subprocess.Popen(
        [*request["argv"], *map(str, more)],
        cwd=request["cwd"],
        env={**request["env"], **{name: value for name, value in os.environ.items() if name == "LAGENTLIKE_RUN"}},
        stdin=stdin,
        stdout=stdout,
        stderr=stdout,
        pass_fds=more,
        start_new_session=True,
        restore_signals=False,
    )


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main()
