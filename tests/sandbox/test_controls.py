"""What the sandbox says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lagentlike.cli import main
from lagentlike.errors import SandboxUnavailable
from lagentlike.sandbox import bubblewrap, Bwrap, Control, Report, report
from lagentlike.sandbox.cgroups import controllers

BY_CONTROL_GROUPS = {
    "memory of several processes together",
    "number of processes",
    "processor time",
    *(f"control group for {name}" for name in ("memory", "pids", "cpu")),
}


def test_everything_that_can_be_tried_is_enforced(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["sandbox", "--json"])
    found = json.loads(capsys.readouterr().out)
    names = [control["name"] for control in found["controls"]]
    assert len(names) == len(set(names))
    assert sum(name.startswith("cannot ") for name in names) >= 80
    assert {"memory", "number of processes", "sandboxes end with this process"} < set(names)
    wrong = {control["name"] for control in found["controls"] if control["status"] == "not enforced"}
    assert wrong <= BY_CONTROL_GROUPS if controllers().missing else not wrong
    assert code == bool(wrong)
    assert [one["name"] for one in found["controls"] if one["status"] == "not checked"] == [
        "hostile tenants on one kernel"
    ]


def test_no_isolation_enforces_nothing() -> None:
    found = report("unsafe_local")
    assert found.counts() == {"enforced": 0, "not enforced": 1, "not checked": 0}
    assert [control.name for control in found.failures] == ["isolation"]


def test_a_report_is_a_table() -> None:
    found = Report("bwrap", (Control("memory", "enforced"), Control("time", "not checked", "why")))
    assert str(found) == (
        "memory  enforced\ntime    not checked   why\nbwrap: 1 enforced, 0 not enforced, 1 not checked"
    )


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"_FIXED": ("--new-session", "--unshare-ipc", "--hostname", "sandbox", "--unshare-uts")}, "processes"),
        ({"program": lambda: None}, "use system calls unfiltered"),
        ({"_FIXED": ("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--hostname", "sandbox")}, "session"),
    ],
    ids=["no process namespace", "no filter", "no session"],
)
def test_one_control_that_fails_is_a_sandbox_that_is_not_used(
    broken: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "_checked", set())
    for name, value in broken.items():
        monkeypatch.setattr(bubblewrap, name, value)
    with pytest.raises(SandboxUnavailable, match="self-checks failed") as raised:
        Bwrap().run(["true"])
    assert said in str(raised.value)
    assert "apt-get install bubblewrap" in str(raised.value)


def test_a_directory_that_is_shown_too_much_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_memory, owner = bubblewrap._in_memory, Path("/tmp").stat().st_uid

    def shared(target: str, *options: Any) -> tuple[str, ...]:
        return ("--bind", "/tmp", "/tmp") if target == "/tmp" else in_memory(target, *options)

    monkeypatch.setattr(bubblewrap, "_checked", set())
    monkeypatch.setattr(bubblewrap, "_in_memory", shared)
    with pytest.raises(SandboxUnavailable, match="another workspace"):
        Bwrap().run(["true"])
    assert Path("/tmp").stat().st_uid == owner, "this machine's own stays as it is"
