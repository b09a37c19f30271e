"""Keep keys and passwords out of what is written down."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["mask", "secrets_of_environment"]


def mask(value: Any, secrets: Iterable[str] = ()) -> Any:
    """A copy of plain data in which `***` stands for what is secret.

    That is: the given texts wherever they occur, what looks like a key or a token, the password and the secret
    parameters of a URL, and whatever a dict holds under a name such as `api_key`, `access_token` or `password`.
    """
    return _Mask(tuple(secret for secret in secrets if secret)).of(value)


def secrets_of_environment() -> list[str]:
    """The values of variables whose names say that they are secret; short ones would mask plain words."""
    return [value for name, value in os.environ.items() if _NAME.search(name) and len(value) >= 8]


class _Mask:
    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = sorted(secrets, key=len, reverse=True)  # one may be part of another

    def of(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {
                self._text(name) if isinstance(name, str) else name: (
                    "***" if item and isinstance(item, str) and _is_secret_name(name) else self.of(item)
                )
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.of(item) for item in value]
        return value

    def _text(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return _LOOKS_SECRET.sub(r"\g<before>***", text) if len(text) >= _SHORTEST else text


def _is_secret_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.search(name) is not None


_SHORTEST = 8
_WORD = r"(?:key|token|secret|password|passwd|authorization|credentials?)"
_NAME = re.compile(rf"(?i)(?:^|[_-]|api|access|auth){_WORD}$")
_LOOKS_SECRET = re.compile(
    r"(?P<before>"
    r"(?i:\b(?:Bearer|Basic)\s+)(?=[\w.~+/=-]{8})"  # a header's credentials
    r"|\w://[^\s/:@\"']*:(?=[^\s/@\"']+@)"  # a URL's password
    rf"|(?i:(?<![a-z0-9])(?:[\w-]*[_-]|api|access|auth)?{_WORD}[\"']?\s?[=:]\s?[\"']?)(?=[\w.~+/%=-]{{8}})"
    r"|\b(?="  # what it looks like by itself
    r"(?:sk|pk|rk)-[\w-]{16}|gh[pousr]_\w{20}|github_pat_\w{20}|hf_\w{20}|AKIA[0-9A-Z]{16}\b|xox[abprs]-[\w-]{10}"
    r"|AIza[\w-]{30}|glpat-[\w-]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8}"
    r"))[\w.~+/%=-]+"
)
