"""A page on which people read the conversations of groups, with their scores."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
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
    mean = sum(scores) / len(scores)
    opened = "" if number else " open"
    yield f"<details{opened}><summary><b>{mean:.3g}</b> {_told(group.get('item'))}</summary>\n"
    conversations = group.get("messages") or [[] for _ in scores]
    for row, (score, messages) in enumerate(zip(scores, conversations, strict=True)):
        sampled = sum(value != NOT_SAMPLED for value in group["masks"][row])
        kind = "good" if score > 0 else "bad" if score < 0 else "none"
        yield f'<section class="{kind}"><h2>Score {score:g}</h2>'
        yield f"<p>{len(group['tokens'][row])} tokens, {sampled} sampled</p>\n"
        for message in messages:
            role, said = html.escape(str(message["role"])), html.escape(_text(message["content"]))
            yield f'<article class="{role}"><h3>{role}</h3><pre>{said}</pre></article>\n'
        yield "</section>\n"
    yield "</details>\n"


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=1)


def _told(item: Any) -> str:
    """A task in few words."""
    text = "" if item is None else item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    return html.escape(text if len(text) <= 100 else text[:97] + "...")


_HEAD = """<!doctype html>
<html><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
html { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem }
summary { cursor: pointer; padding: .3rem 0 } summary b { display: inline-block; min-width: 3.5rem }
section { border-left: 4px solid #999; margin: 1rem 0; padding: 0 1rem }
section.good { border-color: #2a7 } section.bad { border-color: #c43 }
h2 { font-size: 1rem } h3 { font-size: .8rem; margin: .6rem 0 .1rem; color: light-dark(#666, #aaa) }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: light-dark(#f6f6f6, #222); padding: .5rem; margin: 0 }
article.assistant pre { background: light-dark(#eef4ff, #1c2740) }
</style></head><body>
<h1>{title}</h1>
<p>Each group is the tries at one task, with their mean score.</p>
"""
