"""A Nomad agent over plain processes: the routes, bodies and states of its HTTP API that are used.

Shapes are those of https://developer.hashicorp.com/nomad/api-docs (jobs, allocations, agent).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
import uuid
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from .places import server_environment


class FakeNomad:
    """One job whose allocations are processes on this machine."""

    def __init__(self, token: str, folder: Path) -> None:
        self.token = token
        self._folder = folder
        self.url = ""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.allocations: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.refusals = 0  # how often it says that it does not know an allocation
        self.requests: list[tuple[str, str]] = []
        self._watching: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/v1/agent/health", self._health)
        app.router.add_post("/v1/jobs", self._register)
        app.router.add_post("/v1/job/{job}/scale", self._scale)
        app.router.add_get("/v1/job/{job}/allocations", self._list)
        app.router.add_delete("/v1/job/{job}", self._deregister)
        app.router.add_get("/v1/allocation/{id}", self._read)
        app.router.add_post("/v1/allocation/{id}/stop", self._stop)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        for job in self.jobs.values():
            job["Stop"] = True
        for process in self.processes.values():
            _kill(process)
        await asyncio.gather(*self._watching)
        assert self._runner is not None
        await self._runner.cleanup()

    def kill(self, allocation: str) -> None:
        """What a node does to a container that it loses."""
        _kill(self.processes[allocation])

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        if request.headers.get("X-Nomad-Token") != self.token:
            return web.Response(status=403, text="Permission denied")
        return await handler(request)  # type: ignore[no-any-return]

    async def _health(self, request: web.Request) -> web.Response:
        return _json({"client": {"message": "ok", "ok": True}, "server": {"message": "ok", "ok": True}})

    async def _register(self, request: web.Request) -> web.Response:
        job = orjson.loads(await request.read())["Job"]
        (group,) = job["TaskGroups"]
        (task,) = group["Tasks"]
        if not job["ID"] or task["Driver"] not in ("docker", "raw_exec") or group["Count"] < 0:
            return web.Response(status=500, text="job validation failed")
        self.jobs[job["ID"]] = {**job, "Stop": False}
        await self._reconcile(job["ID"])
        return _json({"EvalID": str(uuid.uuid4()), "EvalCreateIndex": 7, "JobModifyIndex": 7, "Warnings": ""})

    async def _scale(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["job"])
        if job is None:
            return web.Response(status=404, text="job not found")
        body = orjson.loads(await request.read())
        assert body["Target"] == {"Group": job["TaskGroups"][0]["Name"]}
        job["TaskGroups"][0]["Count"] = body["Count"]
        await self._reconcile(job["ID"])
        return _json({"EvalID": str(uuid.uuid4()), "EvalCreateIndex": 9, "JobModifyIndex": 9})

    async def _list(self, request: web.Request) -> web.Response:
        names = ("ID", "Name", "JobID", "TaskGroup", "ClientStatus", "DesiredStatus")
        job = request.match_info["job"]
        found = [one for one in self.allocations.values() if one["JobID"] == job]
        return _json([{name: one[name] for name in names} for one in found])

    async def _read(self, request: web.Request) -> web.Response:
        one = self.allocations.get(request.match_info["id"])
        if one is None or self.refusals:
            self.refusals -= bool(self.refusals)
            return web.Response(status=404, text="alloc not found")
        return _json(one)

    async def _stop(self, request: web.Request) -> web.Response:
        one = self.allocations.get(request.match_info["id"])
        if one is None:
            return web.Response(status=404, text="alloc not found")
        one["DesiredStatus"] = "stop"
        _kill(self.processes[one["ID"]])
        return _json({"EvalID": str(uuid.uuid4()), "Index": 11})

    async def _deregister(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["job"])
        if job is None:
            return web.Response(status=404, text="job not found")
        job["Stop"] = True
        for one in self.allocations.values():
            if one["JobID"] == job["ID"]:
                one["DesiredStatus"] = "stop"
                _kill(self.processes[one["ID"]])
        if request.query.get("purge") == "true":
            del self.jobs[job["ID"]]
        return _json({"EvalID": str(uuid.uuid4()), "EvalCreateIndex": 13, "JobModifyIndex": 13})

    async def _reconcile(self, name: str) -> None:
        """Have as many allocations as the job wants."""
        job = self.jobs.get(name)
        if job is None or job["Stop"]:
            return
        live = [one for one in self.allocations.values() if _is_live(one, name)]
        live.sort(key=lambda one: _number(one))
        for one in live[job["TaskGroups"][0]["Count"] :]:  # Nomad's scheduler stops those of the highest numbers
            one["DesiredStatus"] = "stop"
            _kill(self.processes[one["ID"]])
        for _ in range(job["TaskGroups"][0]["Count"] - len(live)):
            await self._place(job)

    async def _place(self, job: dict[str, Any]) -> None:
        group = job["TaskGroups"][0]
        task = group["Tasks"][0]
        (port,) = group["Networks"][0]["DynamicPorts"]
        value = _free_port()
        arguments = [str(value) if word == str(port["To"]) else word for word in task["Config"]["args"]]
        arguments = ["127.0.0.1" if word == "0.0.0.0" else word for word in arguments]
        assert task["Config"]["command"] == "python3"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env=server_environment(task["Env"], self._folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        name = str(uuid.uuid4())
        taken = {_number(one) for one in self.allocations.values() if _is_live(one, job["ID"])}
        number = next(number for number in itertools.count() if number not in taken)
        ports = [{"Label": port["Label"], "Value": value, "To": port["To"], "HostIP": "127.0.0.1"}]
        self.allocations[name] = {
            "ID": name,
            "Name": f"{job['ID']}.{group['Name']}[{number}]",
            "JobID": job["ID"],
            "TaskGroup": group["Name"],
            "ClientStatus": "running",
            "DesiredStatus": "run",
            "AllocatedResources": {"Shared": {"DiskMB": 300, "Networks": None, "Ports": ports}},
        }
        self.processes[name] = process
        watching = asyncio.create_task(self._watch(name, process))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _watch(self, name: str, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        one = self.allocations[name]
        one["ClientStatus"] = "complete" if one["DesiredStatus"] == "stop" else "failed"
        await self._reconcile(one["JobID"])


def _is_live(one: dict[str, Any], job: str) -> bool:
    return one["JobID"] == job and one["DesiredStatus"] == "run" and one["ClientStatus"] in ("pending", "running")


def _number(one: dict[str, Any]) -> int:
    return int(one["Name"].rpartition("[")[2].rstrip("]"))


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
