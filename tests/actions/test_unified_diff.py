"""Unified diffs: what `difflib` writes is applied exactly, and what does not fit is refused."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lagentlike.actions.unified_diff import apply_hunks, parse_diff
from lagentlike.errors import ToolError

LINES = st.lists(st.sampled_from(["a", "b", "", "c d", " x", "-y", "+z", "@@", "--- q", "\x0c", "\u2028"]), max_size=12)


@given(LINES, LINES, st.integers(0, 4))
def test_applies_what_difflib_writes(old: list[str], new: list[str], context: int) -> None:
    before, after = (["".join((line, "\n")) for line in lines] for lines in (old, new))
    diff = "".join(difflib.unified_diff(before, after, "a/f", "b/f", n=context))
    if diff:
        assert apply_hunks("".join(before), parse_diff(diff)[0].hunks) == "".join(after)


def test_applies_where_the_line_numbers_are_off_if_the_lines_are_there_once() -> None:
    hunks = parse_diff("--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n c\n-d\n+D\n")[0].hunks
    assert apply_hunks("a\nb\nc\nd\n", hunks) == "a\nb\nc\nD\n"
    with pytest.raises(ToolError, match="fits at lines 2, 4 and not at 1"):
        apply_hunks("x\nc\nd\nc\nd\n", hunks)
    with pytest.raises(ToolError, match="hunk 1 does not fit"):
        apply_hunks("x\n", hunks)


def test_names_are_read_as_git_writes_them() -> None:
    [patch] = parse_diff('--- "a/n\\303\\251 \\"q\\".txt"\n+++ b/plain "x" y\n@@ -1 +1 @@\n-a\n+b\n')
    assert (patch.old_path, patch.new_path) == ('né "q".txt', 'plain "x" y')


def test_keeps_windows_line_ends_and_a_missing_last_one() -> None:
    hunks = parse_diff("--- f\n+++ f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n")[0].hunks
    assert apply_hunks("a\r\nb\r\n", hunks) == "a\r\nc\r\n"
    diff = "--- f\n+++ f\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"
    assert apply_hunks("a", parse_diff(diff)[0].hunks) == "b"


@pytest.mark.parametrize(
    ("diff", "text"),
    [
        ("hello", "no unified diff"),
        ("@@ -1 +1 @@\n-a\n+b\n", "without --- and"),
        ("--- a\n+++ b\n@@ x @@\n", "no hunk header"),
        ("--- a\n+++ b\n@@ -1,3 +1,3 @@\n a\n", "has 1 old and 1 new"),
    ],
)
def test_refuses_what_is_no_diff(diff: str, text: str) -> None:
    with pytest.raises(ToolError, match=text):
        parse_diff(diff)
