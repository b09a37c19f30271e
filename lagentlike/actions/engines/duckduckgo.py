"""DuckDuckGo's page for browsers without scripts."""

from __future__ import annotations

from urllib.parse import parse_qs, urljoin, urlsplit

from ...errors import ServiceLimited
from ..html import pieces
from ..web_fetch import WebClient
from ..workers import submit_from_loop
from .base import Found, SearchEngine

__all__ = ["DuckDuckGoSearch"]


class DuckDuckGoSearch(SearchEngine):
    """DuckDuckGo's page for browsers without scripts; it needs no key.

    Args:
        **options: as for `SearchEngine`.
    """

    default_endpoint = "https://html.duckduckgo.com/html/"

    async def _find(self, client: WebClient, query: str) -> list[Found]:
        answer = await client.request("POST", self.endpoint, form={"q": query})
        answer.check_status()
        found = await submit_from_loop(_results, answer.text, answer.url)
        if not found and "anomaly" in answer.text:
            raise ServiceLimited("DuckDuckGo asks for a proof of being human: try again later", status=answer.status)
        return found


def _results(html: str, address: str) -> list[Found]:
    """The results on a page: links of class `result__a`, each followed by a summary of class `result__snippet`."""
    found: list[Found] = []
    reading = ""
    for kind, value, attributes in pieces(html):
        classes = attributes.get("class", "").split()
        if "result__a" in classes:
            found.append({"url": _target(urljoin(address, attributes.get("href", ""))), "title": "", "summ": ""})
            reading = "title"
        elif "result__snippet" in classes and found:
            reading = "summ"
        elif kind == "end" and value == "a":
            reading = ""
        elif kind == "text" and reading:
            found[-1][reading] += value
    return found


def _target(url: str) -> str:
    """Where a link leads, without the engine's own address around it; advertisements lead nowhere."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    target = parse_qs(parts.query).get("uddg")
    if target:
        return target[0]
    return "" if parts.path.startswith("/y.js") else url
