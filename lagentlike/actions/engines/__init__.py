"""Search engines of the web, one a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TYPE_CHECKING

from ..._lazy import attach
from ...errors import InvalidArgument
from ...registry import create_object, import_object

if TYPE_CHECKING:
    from .base import SearchEngine
    from .bing import BingSearch
    from .brave import BraveSearch
    from .duckduckgo import DuckDuckGoSearch
    from .searxng import SearxngSearch
    from .serper import SerperSearch
    from .tencent import TencentSearch

__all__ = [
    "BingSearch",
    "BraveSearch",
    "DuckDuckGoSearch",
    "SearchEngine",
    "SearxngSearch",
    "SerperSearch",
    "TencentSearch",
    "engine_of",
]

_FILES = {
    "base": ["SearchEngine"],
    "bing": ["BingSearch"],
    "brave": ["BraveSearch"],
    "duckduckgo": ["DuckDuckGoSearch"],
    "searxng": ["SearxngSearch"],
    "serper": ["SerperSearch"],
    "tencent": ["TencentSearch"],
}
__getattr__, __dir__ = attach(__name__, _FILES)


def engine_of(searcher: Any, options: Mapping[str, Any] | None = None) -> SearchEngine:
    """The engine of that name with those options, or the engine that is given.

    Args:
        searcher: `"BraveSearch"` or another name, a `SearchEngine`, or `dict(type=…)` of one. `"GoogleSearch"`, as
            Lagent calls it, is `SerperSearch`.
        options: of an engine that is given by its name.

    Raises:
        InvalidArgument: there is none of that name, or options come with an engine that has its own.
    """
    if isinstance(searcher, str) and "." not in searcher:
        names = {name: file for file, (name,) in _FILES.items() if file != "base"}
        name = "SerperSearch" if searcher == "GoogleSearch" else searcher
        if name not in names:
            raise InvalidArgument("searcher_type", searcher, f"give one of {', '.join(names)}, or a SearchEngine")
        engine: SearchEngine = import_object(f"{__name__}.{names[name]}.{name}")(**(options or {}))
        return engine
    from .base import SearchEngine

    made = create_object(searcher, "searcher_type")
    if not isinstance(made, SearchEngine) or options:
        raise InvalidArgument("searcher_type", searcher, "give a name with its options, or a SearchEngine")
    return made
