"""Docker's command line over plain processes: what `docker` does and says for the commands that are used, and no more.

State is below `FAKE_DOCKER`. A container is the process of its command; what is mounted has its own path there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

STATE = Path(os.environ["FAKE_DOCKER"])
IMAGES = ("lagentlike-sandbox:local", "broken:local")
VALUED = ("--name", "--label", "--network", "--memory", "--pids-limit", "--volume", "--cap-drop", "--cap-add")
VALUED += ("--security-opt",)


def write(text: object, file: TextIO = sys.stdout) -> None:
    file.write(f"{text}\n")


def main(arguments: list[str]) -> int:
    command, rest = arguments[0], arguments[1:]
    if command == "version":
        write("Client: Docker Engine - Community\n Version: 27.0.0")
        return 0
    return {"run": run, "wait": wait, "logs": logs, "ps": ps, "rm": rm}[command](rest)


def run(arguments: list[str]) -> int:
    options: dict[str, list[str]] = {}
    while arguments and arguments[0].startswith("--"):
        name = arguments.pop(0)
        if name in ("--detach", "--privileged"):
            options[name] = []
        elif name in VALUED:
            options.setdefault(name, []).append(arguments.pop(0))
        else:
            write(f"unknown flag: {name}\nSee 'docker run --help'.", file=sys.stderr)
            return 125
    image, *inner = arguments
    if image not in IMAGES:
        write(f"Unable to find image '{image}' locally\ndocker: Error response from daemon: pull access denied for "
              f"{image}, repository does not exist or may require 'docker login'.", file=sys.stderr)  # fmt: skip
        return 125
    (name,) = options["--name"]
    if _file(name).exists():
        write(f'docker: Error response from daemon: Conflict. The container name "/{name}" is already in use.')
        return 125
    outside, inside = options["--volume"][0].split(":")
    inner = [sys.executable if word == "python3" else word.replace(inside, outside) for word in inner]
    if image == "broken:local":
        inner = [sys.executable, "-c", "raise SystemExit('ModuleNotFoundError: no lagentlike in this image')"]
    with (STATE / f"{name}.log").open("wb") as log:
        keeper = subprocess.Popen(  # which tells the exit code
            ["sh", "-c", '"$@"; echo $? > "$0"', str(STATE / f"{name}.code"), *inner],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(STATE)},
            start_new_session=True,
        )
    _file(name).write_text(json.dumps({"pid": keeper.pid, "labels": options.get("--label", []), "options": options}))
    write(name)
    return 0


def wait(names: list[str]) -> int:
    (name,) = names
    if not _file(name).exists():
        write(f"Error response from daemon: No such container: {name}", file=sys.stderr)
        return 1
    pid = json.loads(_file(name).read_text())["pid"]
    while _runs(pid):
        time.sleep(0.02)
    code = STATE / f"{name}.code"
    write(code.read_text().strip() if code.exists() else 137)
    return 0


def logs(arguments: list[str]) -> int:
    flag, count, name = arguments
    assert flag == "--tail"
    if os.environ.get("FAKE_DOCKER_LOGS") == "syslog":
        write("Error response from daemon: configured logging driver does not support reading", file=sys.stderr)
        return 1
    write("\n".join((STATE / f"{name}.log").read_text().splitlines()[-int(count) :]), file=sys.stderr)
    return 0


def ps(arguments: list[str]) -> int:
    assert arguments[:3] == ["--all", "--quiet", "--filter"]
    label = arguments[3].removeprefix("label=")
    for file in sorted(STATE.glob("*.json")):
        if label in json.loads(file.read_text())["labels"]:
            write(file.stem)
    return 0


def rm(arguments: list[str]) -> int:
    assert arguments[0] == "--force"
    for name in arguments[1:]:
        if _file(name).exists():
            pid = json.loads(_file(name).read_text())["pid"]
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _file(name).unlink()
            write(name)
    return 0


def _file(name: str) -> Path:
    return STATE / f"{name}.json"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
