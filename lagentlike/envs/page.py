"""A page on which people read the conversations of groups, with their scores."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .result import NOT_SAMPLED

__all__ = ["write_page"]


def write_page(source: Path, target: Path) -> None:
    """Write a page of the groups in a file of JSON lines.

    Whatever models and tools said is text there, and nothing on the page is fetched from elsewhere.

    Args:
        source: a file as `AgentEnv.process` writes it; lines without `messages` show their number of tokens.
        target: the page.
    """
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as page:
        page.write(_HEAD.replace("{title}", html.escape(source.name)))
        for number, line in enumerate(lines):
            page.writelines(_group(number, json.loads(line)))
        page.write("</body></html>\n")


def _group(number: int, group: Mapping[str, Any]) -> Iterator[str]:
    scores = group["scores"]
    conversations = group.get("messages") or [[] for _ in scores]
    told = "".join(f"<i class={_kind(score)}>{score:.3g}</i>" for score in scores)
    mean, task = sum(scores) / len(scores), _short(_task(group.get("item"), conversations[0]))
    yield f"<details{'' if number else ' open'}><summary><b>{mean:.3g}</b>{told} {task}</summary>\n"
    metadata = group.get("metadata") or [{} for _ in scores]
    for row, (score, messages, more) in enumerate(zip(scores, conversations, metadata, strict=True)):
        sampled = sum(value != NOT_SAMPLED for value in group["masks"][row])
        yield f'<section class="{_kind(score)}"><h2>Score {score:g}</h2>'
        known = "".join(f"<br>{_short(f'{name}: {_text(value)}')}" for name, value in more.items())
        yield f"<p>{len(group['tokens'][row])} tokens, {sampled} sampled{known}</p>\n"
        for message in messages:
            yield _message(html.escape(str(message["role"])), html.escape(_text(message["content"])))
        yield "</section>\n"
    yield "</details>\n"


def _message(role: str, said: str) -> str:
    """One message; what the system says is the same each time, and folded."""
    if role == "system":
        return f"<details><summary><h3>{role}</h3></summary><pre>{said}</pre></details>\n"
    return f'<article class="{role}"><h3>{role}</h3><pre>{said}</pre></article>\n'


def _kind(score: float) -> str:
    return "good" if score > 0 else "bad" if score < 0 else "none"


def _task(item: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """What the model was asked, or else the task as it is."""
    asked = next((message["content"] for message in messages if message["role"] == "user"), item)
    return "" if asked is None else _text(asked)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=1)


def _short(text: str) -> str:
    """A text in few words."""
    return html.escape(text if len(text) <= 200 else text[:197] + "...")


_HEAD = """<!doctype html>
<html><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
html { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem }
summary { cursor: pointer; padding: .3rem 0 } summary b { display: inline-block; min-width: 3.5rem }
summary i { font: .8rem sans-serif; padding: 0 .35rem; margin-right: .2rem; border-bottom: 3px solid #999 }
i.good { border-color: #2a7 } i.bad { border-color: #c43 } summary h3 { display: inline }
section { border-left: 4px solid #999; margin: 1rem 0; padding: 0 1rem }
section.good { border-color: #2a7 } section.bad { border-color: #c43 }
h2 { font-size: 1rem } h3 { font-size: .8rem; margin: .6rem 0 .1rem; color: light-dark(#666, #aaa) }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: light-dark(#f6f6f6, #222); padding: .5rem; margin: 0 }
article.assistant pre { background: light-dark(#eef4ff, #1c2740) }
</style></head><body>
<h1>{title}</h1>
<p>Each group is the tries at one task: their mean score, the score of each, and what was asked.</p>
"""
