"""One runner for a run, here and elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lagentlike.rollouts.batch.lock import RunBusy, RunLock

HOLD = """
import sys, time
from pathlib import Path
from lagentlike.rollouts.batch.lock import RunLock
with RunLock(Path(sys.argv[1])):
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    time.sleep(60)
"""


def test_a_second_runner_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunBusy, match=f"process {holder.pid} on .* works on"):
            RunLock(tmp_path / "run")
        holder.kill()
        holder.wait()
    RunLock(tmp_path / "run").release()


def test_two_runners_in_one_process_are_refused_too(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(RunBusy):
        RunLock(tmp_path)


def lease(folder: Path, host: str, seconds: float) -> None:
    told = {"host": host, "pid": 1, "token": "other", "until": time.time() + seconds}
    (folder / "lease.json").write_text(json.dumps(told))


def test_a_runner_on_another_machine_is_believed_until_its_lease_ends(tmp_path: Path) -> None:
    lease(tmp_path, "elsewhere", 30)
    with pytest.raises(RunBusy, match=r"a runner on elsewhere works on .*its lease ends in (29|30) s"):
        RunLock(tmp_path)
    lease(tmp_path, "elsewhere", -1)
    RunLock(tmp_path).release()
    assert not (tmp_path / "lease.json").exists()


def test_a_lease_that_cannot_be_read_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text("{")
    RunLock(tmp_path).release()


def test_a_runner_that_lost_its_lease_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lagentlike.rollouts.batch import lock

    with RunLock(tmp_path) as held:
        lease(tmp_path, "elsewhere", 30)
        monkeypatch.setattr(lock, "RENEW_SECONDS", 0.0)
        with pytest.raises(RunBusy, match="a runner on elsewhere took this run over"):
            held.renew()
