"""Ask a model that sees about an image."""

from __future__ import annotations

import inspect
import os
from functools import partial
from typing import Any

from ..errors import ToolError
from ..registry import create_object
from .base import BaseAction, tool_api
from .files import Root
from .workers import submit_from_loop

__all__ = ["Vision", "configured_model", "vision_unavailable"]

_MODEL = "LAGENTLIKE_VISION_MODEL"
_BASE_URL = "LAGENTLIKE_VISION_BASE_URL"


class Vision(BaseAction):
    """Ask a model that sees about an image: a file below a directory, or an address, which the model's server fetches.

    Args:
        llm: the model, or `dict(type=...)` of one: blocking or async, and able to take images as content; None for the
            one that the environment names (`LAGENTLIKE_VISION_MODEL`, its key `OPENAI_API_KEY`, and its server
            `LAGENTLIKE_VISION_BASE_URL` if it is not OpenAI's).
        root: the directory of the files.
        name: its name.
    """

    read_only = True

    def __init__(
        self, llm: Any = None, root: Root | str | os.PathLike[str] | None = None, name: str | None = "vision_analyze"
    ) -> None:
        super().__init__(None, name)
        self._llm = create_object(llm, "llm")
        self.root = root if isinstance(root, Root) else Root(root)

    @tool_api
    async def run(self, image: str, question: str) -> str:
        """Look at an image and answer a question about it.

        Args:
            image: The path of a file, or an address that begins with https://.
            question: What is to be found out.
        """
        if self._llm is None:
            self._llm = configured_model()
        url = image
        if not image.startswith(("http://", "https://")):
            url = await submit_from_loop(partial(self.root.ask, "embed", path=image))
        content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
        messages = [{"role": "user", "content": content}]
        if inspect.iscoroutinefunction(self._llm.chat):
            return str(await self._llm.chat(messages))
        return str(await submit_from_loop(self._llm.chat, messages))


def configured_model() -> Any:
    """The model that the environment names.

    Raises:
        ToolError: it names none.
    """
    reason = vision_unavailable()
    if reason is not None:
        raise ToolError(reason)
    options = {"api_base": os.environ[_BASE_URL]} if os.environ.get(_BASE_URL) else {}
    key = "ENV" if os.environ.get("OPENAI_API_KEY") else None
    return create_object(
        {"type": "lagentlike.llms.GPTAPI", "model_type": os.environ[_MODEL], "key": key, **options}, "llm"
    )


def vision_unavailable() -> str | None:
    """Why the environment names no model that sees; None if it does."""
    if not os.environ.get(_MODEL):
        return f"it needs the name of a model that sees in {_MODEL}"
    if not os.environ.get(_BASE_URL) and not os.environ.get("OPENAI_API_KEY"):
        return f"it needs OPENAI_API_KEY, or a server in {_BASE_URL}"
    return None
