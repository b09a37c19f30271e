"""The fixture `tape` makes tapes when it is told to, and answers tests from them otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

_TEST = """
from lagentlike import Agent, ScriptedLLM
import os, pytest

@pytest.mark.parametrize("name", ["Ann", "B/C"])
def test_greeting(tape, name):
    replies = ["Hello, " + name] if os.environ["LIVE"] == "1" else []
    assert Agent(ScriptedLLM(replies))("I am " + name).content == "Hello, " + name
    tape.assert_exhausted()
"""


_ALIKE = """
from lagentlike import ScriptedLLM
import pytest

def ask(text):
    return ScriptedLLM([text]).chat([{"role": "user", "content": text}])

class TestOne:
    def test_it(self, tape):
        assert ask("one") == "one"

class TestTwo:
    def test_it(self, tape):
        assert ask("two") == "two"

@pytest.mark.parametrize("question", ["one", "two"], ids=["x" * 300, "x" * 300 + "y"])
def test_long(tape, question):
    assert ask(question) == question

@pytest.mark.parametrize("sum", ["1+1", "1*1"])
def test_sum(tape, sum):
    assert ask(sum) == sum
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest("pytest_plugins = ['lagentlike.testing.plugin']")
    pytester.makepyfile(test_greetings=_TEST)
    return pytester


def run(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, live: bool, *options: str) -> pytest.RunResult:
    monkeypatch.setenv("LIVE", "1" if live else "0")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # so that it takes less time
    return project.runpytest_subprocess("-p", "no:cacheprovider", *options)


def test_tapes_are_made_kept_beside_the_tests_and_played(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(project, monkeypatch, True, "--tapes=record", "-k", "Ann").assert_outcomes(passed=1, deselected=1)
    missing = run(project, monkeypatch, False)
    missing.assert_outcomes(passed=1, errors=1)
    missing.stdout.fnmatch_lines(["*there is no tape *B_C.jsonl: make it with pytest --tapes=record*"])
    run(project, monkeypatch, True, "--tapes=add").assert_outcomes(passed=2)
    made = sorted(str(path.relative_to(project.path)) for path in Path(project.path).rglob("*.jsonl"))
    assert made == [f"tapes/test_greetings/test_greeting_{name}.jsonl" for name in ("Ann", "B_C")]
    run(project, monkeypatch, False).assert_outcomes(passed=2)


def test_each_test_has_a_tape_of_its_own_or_is_told_so(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeconftest("pytest_plugins = ['lagentlike.testing.plugin']")
    pytester.makepyfile(test_alike=_ALIKE)
    recorded = run(pytester, monkeypatch, True, "--tapes=record")
    recorded.assert_outcomes(passed=5, errors=1)
    recorded.stdout.fnmatch_lines(["*test_sum?1+1? has the tape *test_sum_1_1.jsonl too: tell their parameters apart*"])
    run(pytester, monkeypatch, False, "-k", "not sum").assert_outcomes(passed=4, deselected=2)
    made = [path.stem[:20] for path in sorted(Path(pytester.path).rglob("*.jsonl"))]
    assert made == ["TestOne_test_it", "TestTwo_test_it", *["test_long_xxxxxxxxxx"] * 2, "test_sum_1_1"]
