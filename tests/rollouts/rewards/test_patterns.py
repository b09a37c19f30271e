"""Regular expressions of users: what they find, and that none holds everything up."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from lagentlike.errors import InvalidArgument
from lagentlike.rollouts.rewards import format_reward
from lagentlike.rollouts.rewards.patterns import Pattern
from lagentlike.rollouts.rewards.scoring import score
from lagentlike.trajectory import as_parts, Trajectory

ENDLESS, TEXT = r"(?:a|aa)+$", "a" * 60 + "b"
FINDS = """
from lagentlike.rollouts.rewards.patterns import Pattern

pattern = Pattern("<b>(.*?)</b>")
assert (pattern.last("<b>1</b> <b>2\\n3</b>"), pattern.last("none")) == ("2\\n3", None)
assert Pattern("a.c").last("abc adc") == "adc"
assert Pattern("a.c").is_whole("a\\nc") and not Pattern("a").is_whole("ab")
"""


@pytest.mark.parametrize("without", ["", "import sys; sys.modules['regex'] = None"])
def test_patterns_find_the_same_with_the_package_regex_and_without_it(without: str) -> None:
    subprocess.run([sys.executable, "-c", without + FINDS], check=True)


async def test_a_pattern_that_takes_too_long_is_an_error_and_others_go_on_meanwhile() -> None:
    said = Trajectory([as_parts({"role": "assistant", "content": TEXT})])
    scoring = asyncio.create_task(score(format_reward(ENDLESS), said))
    beats = 0
    while not scoring.done():
        await asyncio.sleep(0.01)
        beats += 1
    assert beats > 5  # the lock was free, and the loop went on
    with pytest.raises(Exception, match="timed out") as caught:
        await scoring
    assert type(caught.value).__name__ == "RewardError"  # which is never taken for 0


def test_what_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="it is no regular expression"):
        Pattern("(")
