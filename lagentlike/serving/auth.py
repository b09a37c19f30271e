"""Who a request comes from, by its bearer token."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from ..errors import InvalidArgument

__all__ = ["Tokens"]


class Tokens:
    """The tokens that a server takes, and whose they are.

    Args:
        tokens: the only token; or several, by the name of who has them; or None, where everybody is let in.

    Tokens are kept and compared as digests, all of them each time, so how long a look takes tells nothing about them.
    """

    def __init__(self, tokens: str | Mapping[str, str] | None) -> None:
        named = {"": tokens} if isinstance(tokens, str) else dict(tokens or {})
        if tokens is not None and not named:
            raise InvalidArgument("token", tokens, "give a token, or None")
        self._digests: dict[str, bytes] = {}
        for owner, token in named.items():
            if not isinstance(token, str) or not token.strip():
                raise InvalidArgument("token", "***", "give a text that clients send as 'Authorization: Bearer …'")
            if not isinstance(tokens, str) and not _OWNER.fullmatch(owner):
                raise InvalidArgument("token", owner, "names of who has a token are of letters, digits, '_' and '-'")
            self._digests[owner] = _digest(token.strip())
        if len(set(self._digests.values())) != len(self._digests):
            raise InvalidArgument("token", list(self._digests), "two of these have the same token")

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, authorization: str) -> str | None:
        """Whose token an `Authorization` header has: a name, "" where there are none, or None for nobody's."""
        if not self._digests:
            return ""
        scheme, _, given = authorization.partition(" ")
        digest = _digest(given.strip() if scheme.lower() == "bearer" else "")
        found = None
        for owner, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = owner
        return found

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._digests)} tokens)"


_OWNER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
