"""Secrets are masked, and plain words are not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lagentlike.tracing import mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("it was sk-proj-0123456789abcdefgh, he said", "it was ***, he said"),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer ***"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "Authorization: ***"),
        ("{'Authorization': 'Bearer abcdef0123456789'}", "{'Authorization': '***'}"),
        ("sent with bearer abc.def.0123456789", "sent with bearer ***"),
        ("https://me:hunter2@host/x", "https://me:***@host/x"),
        ("https://host/x?key=0123456789&q=tea", "https://host/x?key=***&q=tea"),
        ('{"api_key": "with space", "q": 1}', '{"api_key": "***", "q": 1}'),
        ('{\\"password\\": \\"p\\", \\"q\\": 1}', '{\\"password\\": \\"***\\", \\"q\\": 1}'),
        ("OPENAI_API_KEY=abcdefgh12 python run.py", "OPENAI_API_KEY=*** python run.py"),
        ("ghp_0123456789abcdefghij0123", "***"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeKKF2QT4", "***"),
        ("the topmost secret", "the topmost ***"),
    ],
)
def test_secrets_in_texts_are_masked(text: str, masked: str) -> None:
    assert mask(text, ["secret"] if text.endswith("secret") else []) == masked


@pytest.mark.parametrize(
    "text",
    [
        "The key: a basic knowledge of tokens, monkeys and secret gardens",
        "bearer of good news",
        "see https://host/a:b@c and https://host:8000/path",
        "max_tokens=4096 sort_key: alphabetical",
        "def ghost(): return 'sky-blue'",
    ],
)
def test_plain_words_stay(text: str) -> None:
    assert mask(text) == text


def test_dicts_and_lists_are_masked_by_name_and_text() -> None:
    given: dict[str, Any] = {"api_key": "abc", "clientSecret": "x", "key": "name", "n": 3, "list": ["mine", None]}
    assert mask(given, ["mine"]) == {
        "api_key": "***",
        "clientSecret": "***",
        "key": "name",
        "n": 3,
        "list": ["***", None],
    }


def test_quotes_that_are_never_closed_take_no_longer_the_more_there_are() -> None:
    began = time.process_time()
    mask("".join("secret=" + "\\" * count + '"' for count in range(1500, 0, -1)))
    assert time.process_time() - began < 20  # it was minutes


def test_json_in_json_in_json_is_masked() -> None:
    text = json.dumps({"api_key": "hunter2 and more"})
    for _ in range(4):
        assert "hunter2" not in mask(text)
        text = json.dumps(text)
