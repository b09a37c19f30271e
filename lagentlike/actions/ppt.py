"""Slides: a deck for each session, made page by page."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from ..errors import InvalidArgument, MissingExtra, ToolError
from ..memory import SessionId
from ..memory.state import SessionValue
from .base import tool_api
from .engines import engine_of
from .web_action import awaited, blocking, WebAction
from .work_folder import WorkFolder
from .workers import submit_from_loop

__all__ = ["AsyncPPT", "PPT"]

THEMES: Mapping[str, Mapping[str, str | None]] = {
    "Default": {"template": None, "title": "Title Slide", "single": "Title and Content", "two": "Two Content"}
}
MAX_IMAGE = 10 * 1024 * 1024
"""Bytes of the largest image."""

MAX_PIXELS = 50_000_000
MAX_PAGES = 200
MAX_TRIED = 3
"""Images that an image search finds of which one is taken."""

Words = Annotated[str, Field(max_length=10_000)]


class PPT(WebAction):
    """Create ppt slides with text, paragraph, images in good looking styles.

    Each session has a deck of its own, which is part of its state; the file is written when it is submitted, whole or
    not at all. It needs the extra `ppt`.

    Args:
        root: the directory of decks and images, which no path leaves; the working directory by default.
        theme_mapping: by the name of a theme, its `template` (a file of yours, None for python-pptx's own), and the
            names of its layouts: `title` for a title and a subtitle, `single` for a title and a text, `two` for a
            title, a text and an image.
        image_search: a search engine for images, such as `SerperSearch(search_type="images")`.
        timeout: seconds to fetch an image.
        allow_private: also fetch images from addresses of private networks: True for all, or a list of networks.
        description: what models are told, in place of the docstrings.
        name: its name.

    Raises:
        InvalidArgument: there is no such directory, or a theme lacks a layout.
    """

    read_only = False

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        theme_mapping: Mapping[str, Mapping[str, str | None]] | None = None,
        image_search: Any = None,
        timeout: float = 15,
        allow_private: bool | Sequence[str] = False,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(timeout, description, name, allow_private)
        self.folder = WorkFolder(root)
        self.themes = {theme: dict(layouts) for theme, layouts in (theme_mapping or THEMES).items()}
        for theme, layouts in self.themes.items():
            missing = {"title", "single", "two"} - set(layouts)
            if missing:
                raise InvalidArgument("theme_mapping", theme, f"name its layouts {', '.join(sorted(missing))} too")
        self.image_search = None if image_search is None else engine_of(image_search)
        self.decks: SessionValue[dict[str, Any]] = SessionValue(dict)

    @tool_api(explode_return=True)
    @blocking
    async def create_file(self, theme: str, abs_location: str, session_id: SessionId = 0) -> dict[str, str]:
        """Create a pptx file with specific themes.

        Args:
            theme: The theme used, such as Default.
            abs_location: The ppt file's location, such as slides.pptx.

        Returns:
            operation status
                * status: the result of the execution
        """
        await submit_from_loop(_presentation, None)  # that it can be made, before anything is begun
        if theme not in self.themes:
            raise ToolError(f"there is no theme {theme!r}: the themes are {', '.join(self.themes)}")
        if not abs_location.lower().endswith(".pptx"):
            raise ToolError(f"{abs_location!r} is no place for slides: end it with .pptx")
        location = self.folder.name(abs_location)
        self.decks[session_id] = {"theme": theme, "location": location, "pages": []}
        return {"status": f"created {location}, which is written by submit_file"}

    @tool_api(explode_return=True)
    @blocking
    async def get_image(self, keywords: str) -> dict[str, str]:
        """Get an image given comma separated keywords, return the image path.

        Args:
            keywords: The comma separated keywords to describe the image, or its address.

        Returns:
            operation status
                * status: the result of the execution
                * image: the path of the image, for add_text_image_page
        """
        if _is_address(keywords):
            return {"status": "fetched an image", "image": await self._fetched(keywords)}
        words = [word.lower() for word in re.split(r"[,\s]+", keywords) if word]
        images = [name for name in await submit_from_loop(self.folder.names) if name.lower().endswith(_ENDINGS)]
        fitting = {name: sum(word in name.lower() for word in words) for name in images}
        best = max(fitting, key=lambda name: fitting[name], default=None)
        if best is not None and fitting[best]:
            return {"status": "found an image in the workspace", "image": best}
        if self.image_search is None:
            raise ToolError(
                f"no image of {keywords!r} is in the workspace: name one of those there, or give an address"
            )
        return {"status": "found an image on the web", "image": await self._found(" ".join(words))}

    @tool_api(explode_return=True)
    @blocking
    async def add_first_page(self, title: Words, subtitle: Words, session_id: SessionId = 0) -> dict[str, str]:
        """Add the first page of ppt.

        Args:
            title: The title of ppt.
            subtitle: The subtitle of ppt.

        Returns:
            operation status
                * status: the result of the execution
        """
        return self._added(session_id, layout="title", title=title, texts=[subtitle])

    @tool_api(explode_return=True)
    @blocking
    async def add_text_page(self, title: Words, bullet_items: Words, session_id: SessionId = 0) -> dict[str, str]:
        """Add text page of ppt.

        Args:
            title: The title of the page.
            bullet_items: A string; for multiple bullet items, please use [SPAN] to separate them.

        Returns:
            operation status
                * status: the result of the execution
        """
        return self._added(session_id, layout="single", title=title, texts=_items(bullet_items))

    @tool_api(explode_return=True)
    @blocking
    async def add_text_image_page(
        self, title: Words, bullet_items: Words, image: str, session_id: SessionId = 0
    ) -> dict[str, str]:
        """Add a text page with one image. Image should be a path.

        Args:
            title: The title of the page.
            bullet_items: A string; for multiple bullet items, please use [SPAN] to separate them.
            image: The path of the image, or its address.

        Returns:
            operation status
                * status: the result of the execution
        """
        self._deck(session_id)
        path = await self._fetched(image) if _is_address(image) else self.folder.name(image)
        await submit_from_loop(self._image, path)
        return self._added(session_id, layout="two", title=title, texts=_items(bullet_items), image=path)

    @tool_api(explode_return=True)
    @blocking
    async def submit_file(self, session_id: SessionId = 0) -> dict[str, str]:
        """When all steps done, YOU MUST use submit_file() to submit your work.

        Returns:
            operation status
                * status: the result of the execution
        """
        deck = self._deck(session_id)
        if not deck["pages"]:
            raise ToolError("the deck has no page yet: add one first")
        await submit_from_loop(self._write, dict(deck, pages=list(deck["pages"])))
        return {"status": f"submitted. view ppt at {deck['location']}"}

    def extra_repr(self) -> str:
        return f"root={str(self.folder.root)!r}"

    def _deck(self, session_id: SessionId) -> dict[str, Any]:
        deck = self.decks[session_id]
        if not deck:
            raise ToolError("there is no deck yet: use create_file first")
        return deck

    def _added(self, session_id: SessionId, **page: Any) -> dict[str, str]:
        pages = self._deck(session_id)["pages"]
        if len(pages) >= MAX_PAGES:
            raise ToolError(f"the deck has {MAX_PAGES} pages, and takes no more")
        pages.append(page)
        return {"status": f"added page {len(pages)}"}

    async def _fetched(self, url: str) -> str:
        """Where the image of an address is now, in the workspace."""
        answer = await self._web.request("GET", url, max_bytes=MAX_IMAGE)
        answer.check_status()
        return await submit_from_loop(self._keep, answer.body, url)

    async def _found(self, query: str) -> str:
        """Where the first image that a search finds is now, if it can be used."""
        assert self.image_search is not None
        error: ToolError = ToolError("no image was found: try other words")
        for page in (await self.image_search.search(self._client, query))[:MAX_TRIED]:
            try:
                return await self._fetched(page["url"])
            except ToolError as failed:
                error = failed
        raise error

    def _keep(self, content: bytes, url: str) -> str:
        ending = _image_size(content, url)[0]
        path = f"images/{hashlib.sha256(content).hexdigest()[:16]}.{ending}"
        self.folder.write(path, content)
        return path

    def _image(self, path: str) -> tuple[bytes, tuple[int, int]]:
        """The image and its size in pixels."""
        content = self.folder.read(path, MAX_IMAGE)
        return content, _image_size(content, path)[1]

    def _write(self, deck: Mapping[str, Any]) -> None:
        theme = self.themes.get(deck["theme"])
        if theme is None:
            raise ToolError(f"there is no theme {deck['theme']!r} any more: use create_file again")
        slides = _presentation(theme.get("template"))
        layouts = {layout.name: layout for layout in slides.slide_layouts}
        for page in deck["pages"]:
            name = theme[page["layout"]]
            if name not in layouts:
                raise ToolError(f"the theme {deck['theme']} has no layout {name!r}: it has {', '.join(layouts)}")
            image = self._image(page["image"]) if "image" in page else None
            _fill(slides.slides.add_slide(layouts[name]), page, image)
        written = io.BytesIO()
        slides.save(written)
        self.folder.write(deck["location"], written.getvalue())


class AsyncPPT(PPT):
    """Create ppt slides, awaited; see `PPT`."""

    create_file = awaited(PPT.create_file)  # type: ignore[assignment]  # awaited
    get_image = awaited(PPT.get_image)  # type: ignore[assignment]  # awaited
    add_first_page = awaited(PPT.add_first_page)  # type: ignore[assignment]  # awaited
    add_text_page = awaited(PPT.add_text_page)  # type: ignore[assignment]  # awaited
    add_text_image_page = awaited(PPT.add_text_image_page)  # type: ignore[assignment]  # awaited
    submit_file = awaited(PPT.submit_file)  # type: ignore[assignment]  # awaited


def _presentation(template: str | None) -> Any:
    try:
        from pptx import Presentation
    except ImportError as error:
        raise MissingExtra("python-pptx", "ppt") from error
    return Presentation(template)


def _fill(slide: Any, page: Mapping[str, Any], image: tuple[bytes, tuple[int, int]] | None) -> None:
    """Write a page's words, and its image in the place of the last box, as large as fits there."""
    title = slide.shapes.title
    boxes = [box for box in slide.placeholders if title is None or box.shape_id != title.shape_id]
    if title is None or not boxes or (image is not None and len(boxes) < 2):
        raise ToolError(f"the layout {slide.slide_layout.name!r} has no boxes for all that is on the page")
    title.text = _printable(page["title"])
    frame = boxes[0].text_frame
    for number, text in enumerate(page["texts"]):
        paragraph = frame.add_paragraph() if number else frame.paragraphs[0]
        paragraph.text = _printable(text)
    if image is None:
        return
    content, (width, height) = image
    box = boxes[-1]
    scale = min(box.width / width, box.height / height)
    size = int(width * scale), int(height * scale)
    left, top = box.left + (box.width - size[0]) // 2, box.top + (box.height - size[1]) // 2
    slide.shapes.add_picture(io.BytesIO(content), left, top, *size)
    box._element.getparent().remove(box._element)  # or "click to add text" stands behind it


def _image_size(content: bytes, name: str) -> tuple[str, tuple[int, int]]:
    """The ending and the size in pixels of an image, which is not unpacked for that.

    Raises:
        ToolError: it is none that slides can have.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra("pillow", "ppt") from error
    try:
        with Image.open(io.BytesIO(content), formats=list(_FORMATS)) as image:
            kind, size = str(image.format), image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        raise ToolError(f"{name} is no image of PNG, JPEG, GIF or BMP") from None
    if size[0] * size[1] > MAX_PIXELS:
        raise ToolError(f"{name} has {size[0]} x {size[1]} pixels, more than {MAX_PIXELS:,}")
    return _FORMATS[kind], size


def _is_address(text: str) -> bool:
    return "://" in text


def _items(text: str) -> list[str]:
    return text.split("[SPAN]")


def _printable(text: str) -> str:
    """The text without what XML cannot hold."""
    return _UNPRINTABLE.sub(" ", text).strip()


_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_FORMATS = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "BMP": "bmp"}
_ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp")
