"""Keep keys and passwords out of what is written down."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

__all__ = ["mask", "mask_keys", "secrets_of_environment"]


def mask(value: Any, secrets: Iterable[str] = ()) -> Any:
    """A copy of plain data in which `***` stands for what is secret.

    That is: the given texts wherever they occur, what looks like a key or a token, the password and the secret
    parameters of a URL, and texts that a dict holds under a name such as `api_key`, `access_token` or `password`.
    """
    return _masked(value, sorted(filter(None, secrets), key=len, reverse=True))  # one may be part of another


def mask_keys(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with `***` for the given texts and for what is a key by its form alone; code that names one stays code."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    signs, pattern = _RULES[-1]
    lower = text.lower()
    return pattern.sub("***", text) if any(sign in lower for sign in signs) else text


def secrets_of_environment() -> list[str]:
    """The values of variables called `…KEY`, `…TOKEN`, `…SECRET` or `…PASSWORD`; short ones would mask plain words."""
    return [value for name, value in os.environ.items() if _VARIABLE.search(name) and len(value) >= 8]


def _masked(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return _masked_text(value, secrets)
    if isinstance(value, dict):
        return {name: _masked_entry(name, item, secrets) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item, secrets) for item in value]
    return value


def _masked_entry(name: Any, item: Any, secrets: list[str]) -> Any:
    return "***" if item and isinstance(item, str) and _is_secret(name) else _masked(item, secrets)


@lru_cache(maxsize=1024)
def _is_secret(name: Any) -> bool:
    return isinstance(name, str) and _NAME.search(name) is not None


def _masked_text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, "***")
    if len(text) < 8:
        return text
    lower = text.lower()
    for signs, pattern in _RULES:
        for sign in signs:
            if sign in lower:
                text = pattern.sub(r"\g<before>***", text)
                break
    return text


_WORDS = (
    r"(?:(?:api|access|secret|private|auth)[_-]?key|(?:access|auth|refresh|id|session|api|bearer)[_-]?token"
    r"|secret|password|passwd|authorization|credentials?)"
)
_NAME = re.compile(rf"(?i){_WORDS}$")
_VARIABLE = re.compile(r"(?i)(?:key|token|secret|password)$")
_RULES: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (  # a pattern is tried where one of its signs is
    (("bearer ",), re.compile(r"(?P<before>(?i:\bbearer )\s*)(?=\S*\d)[\w.~+/=-]{8,}")),
    (("://",), re.compile(r"(?P<before>://[^\s/:@\"']*:)[^\s/@\"']+(?=@)")),
    (
        ("key", "token", "secret", "passw", "authorization", "credential", "sig"),
        re.compile(
            rf"(?P<before>(?:(?i:{_WORDS})|(?<=[?&])(?i:key|token|sig|signature))(?:\\{{0,15}}[\"'])?\s?[=:]\s?"
            # JSON four times over has 15 backslashes; without a bound a text could open a quote with each number of
            # them, and the end of each would be looked for in all of it
            r"(?P<quote>\\{0,15}[\"'])?)(?(quote).*?(?=(?P=quote))|(?:(?i:basic|digest|token) )?[^\s\"'<>&,;]{8,})"
        ),
    ),
    (
        ("sk-", "pk-", "rk-", "gh", "hf_", "akia", "xox", "aiza", "glpat-", "gsk_", "eyj"),
        re.compile(
            r"(?P<before>)\b(?:[spr]k-[\w-]{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|gsk_\w{20,}|hf_\w{20,}|AKIA[0-9A-Z]{16}\b"
            r"|xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}|glpat-[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})"
        ),
    ),
)
