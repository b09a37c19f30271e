"""Words of messages, by which stores find them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .state import SessionId

__all__ = ["Found", "collected", "terms_of", "words_of"]


@dataclass(frozen=True)
class Found:
    """A message that a search found.

    Attributes:
        session_id: the session it is in.
        path: the memory that has it, such as `agent.memory`.
        position: its place in that memory, from 0.
        sender: whose message it is.
        snippet: the text around the first word that was looked for.
    """

    session_id: SessionId
    path: str
    position: int
    sender: str
    snippet: str


def terms_of(text: str) -> list[str]:
    """The words of a text, each once, without regard to case; of scripts without spaces, the pairs of characters.

    >>> terms_of("Tea, please: 我喜欢茶")
    ['tea', 'please', '我喜', '喜欢', '欢茶']
    """
    folded = text.casefold()
    if folded.isascii():
        return list(dict.fromkeys(word[:_LONGEST] for word in _ASCII_WORD.findall(folded)))
    found: dict[str, None] = {}
    for match in _RUN.finditer(folded):
        run = match[0]
        if not _UNSPACED.match(run):
            found[run[:_LONGEST]] = None
        elif len(run) == 1:
            found[run] = None
        else:
            found |= dict.fromkeys(run[index : index + 2] for index in range(len(run) - 1))
    return list(found)


def words_of(message: Any) -> list[str]:
    """What a message is found by: its words, and each character of scripts without spaces."""
    text = _text_of(message)[:_INDEXED]
    terms = terms_of(text)
    return terms if text.isascii() else list(dict.fromkeys([*terms, *_UNSPACED.findall(text)]))


def collected(rows: Iterable[tuple[SessionId, str, int, Any]], terms: Iterable[str], limit: int) -> Iterator[Found]:
    """The messages with all the terms, each once in a session.

    Args:
        rows: session, path, position and message of candidates, the best first.
        terms: what was looked for, as `terms_of` gives it.
        limit: most of them.
    """
    wanted = set(terms)
    seen: set[tuple[SessionId, str]] = set()
    for session_id, path, position, message in rows if wanted else ():
        if len(seen) >= limit:
            return
        text = _text_of(message)
        if (session_id, text) not in seen and wanted <= set(words_of(message)):
            seen.add((session_id, text))
            yield Found(session_id, path, position, str(message.get("sender")), _snippet(text, wanted))


def _text_of(message: Any) -> str:
    if not isinstance(message, Mapping):
        return ""
    content, results = message.get("content"), message.get("tool_results")
    results = results if isinstance(results, list) else ()  # whatever it is, others are found beside it
    outputs = [str(one.get("output", "")) for one in results if isinstance(one, Mapping)]
    return "\n".join(dict.fromkeys([content, *outputs] if isinstance(content, str) else outputs))


def _snippet(text: str, terms: set[str]) -> str:
    folded = text.casefold()
    first = min((place for term in terms if (place := folded.find(term)) >= 0), default=0)
    start, end = max(0, first - _AROUND // 2), first + _AROUND
    cut = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{cut}{'…' if end < len(text) else ''}"


_SCRIPTS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED = re.compile(f"[{_SCRIPTS}]")  # Thai, Lao, Burmese, Khmer, Japanese, Chinese
_RUN = re.compile(rf"[{_SCRIPTS}]+|(?:(?![{_SCRIPTS}])[^\W_])+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_LONGEST = 64  # characters of a word that count
_INDEXED = 100_000  # characters of a message that are looked at
_AROUND = 160
