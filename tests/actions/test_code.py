"""The code in what a model gives a code tool."""

from __future__ import annotations

import pytest

from lagentlike.actions.code import extract_code

README = 'open("README.md", "w").write("""\n# Title\n```bash\npip install x\n```\n""")'


@pytest.mark.parametrize("code", ["x = 1", "a = '```'", README, f"# ```\n{README}\n", "", "    indented", "%time\n!ls"])
def test_a_program_is_taken_as_it_is(code: str) -> None:
    assert extract_code(code) == code


@pytest.mark.parametrize("code", ["x = 1\nx", README, f"{README}\n{README}"])
@pytest.mark.parametrize("around", ["```python\n{}\n```", "Let me see:\n\n```py\n{}\n```\nDone.", "  ```\n{}\n```  "])
def test_a_fenced_program_is_taken_out_whole(code: str, around: str) -> None:
    assert extract_code(around.format(code)) == code


def test_several_blocks_are_one_program() -> None:
    assert extract_code("First:\n```python\na = 1\n```\nthen\n```python\nb = a\n```") == "a = 1\nb = a"


def test_a_block_that_is_not_closed_goes_to_the_end() -> None:
    assert extract_code("```\nz = 5\nz") == "z = 5\nz"
    assert extract_code("So:\n```python\n!ls\n```") == "!ls"


@pytest.mark.parametrize("piece", ["```", "\n```", "```a\n", "\n```\n", "(", "'''", "\0```\n"])
def test_odd_texts_are_read_in_linear_time(piece: str) -> None:
    extract_code("```\n" + piece * (200_000 // len(piece)))
