"""Decks of slides, as python-pptx reads them back."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, AsyncPPT, PPT, SerperSearch
from lagentlike.actions.ppt import MAX_PAGES
from lagentlike.actions.work_folder import WorkFolder
from lagentlike.errors import InvalidArgument, ToolError
from lagentlike.schema import ActionStatusCode

from .calls import call, value
from .web_site import Answer, recorded, redirect, Site

pptx = pytest.importorskip("pptx")


def image(kind: str = "PNG", size: tuple[int, int] = (40, 20), mode: str = "RGB") -> bytes:
    from PIL import Image

    target = io.BytesIO()
    Image.new(mode, size, "red" if mode == "RGB" else 0).save(target, kind)
    return target.getvalue()


@pytest.fixture(params=[PPT, AsyncPPT])
def ppt(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PPT]:
    tool = request.param(tmp_path, allow_private=["127.0.0.1"])
    yield tool
    tool.close()


def slides(path: Path) -> list[list[str]]:
    """The texts of each slide, and the kinds of its pictures."""
    return [
        [shape.text_frame.text if shape.has_text_frame else shape.image.ext for shape in slide.shapes]
        for slide in pptx.Presentation(path).slides
    ]


def test_a_deck_is_made_page_by_page(ppt: PPT, tmp_path: Path) -> None:
    (tmp_path / "red teapot.png").write_bytes(image())
    assert (
        "written by submit_file" in value(ppt, "create_file", theme="Default", abs_location="out/deck.pptx")["status"]
    )
    value(ppt, "add_first_page", title="Teapots", subtitle="A survey")
    value(ppt, "add_text_page", title="Why", bullet_items="They drip [SPAN] they\x0bpour[SPAN]\ud83e\uded6 \x00")
    found = value(ppt, "get_image", keywords="teapot, Red")["image"]
    assert found == "red teapot.png"
    value(ppt, "add_text_image_page", title="Look", bullet_items="A pot", image=found)
    assert not (tmp_path / "out").exists()
    assert value(ppt, "submit_file") == {"status": "submitted. view ppt at out/deck.pptx"}
    assert slides(tmp_path / "out/deck.pptx") == [
        ["Teapots", "A survey"],
        ["Why", "They drip\nthey pour\n\U0001fad6"],
        ["Look", "A pot", "png"],
    ]
    picture = pptx.Presentation(tmp_path / "out/deck.pptx").slides[2].shapes[2]
    assert abs(picture.width / picture.height - 2) < 0.01
    value(ppt, "add_text_page", title="More", bullet_items="of it")
    value(ppt, "submit_file")
    assert len(slides(tmp_path / "out/deck.pptx")) == 4
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["deck.pptx"]


def test_each_session_has_a_deck_of_its_own_which_is_part_of_its_state(ppt: PPT, tmp_path: Path) -> None:
    for session in ("a", "b"):
        value(ppt, "create_file", session, theme="Default", abs_location=f"{session}.pptx")
    value(ppt, "add_first_page", "a", title="of a", subtitle="")
    assert "the deck has no page yet" in call(ppt, "submit_file", "b").text
    assert "there is no deck yet: use create_file first" in call(ppt, "submit_file", "c").text
    executor = ActionExecutor([PPT(tmp_path)])
    executor.load_state_dict({"PPT.decks": ppt.state_dict("a")["decks"]}, "d")
    value(executor["PPT"], "submit_file", "d")
    assert slides(tmp_path / "a.pptx") == [["of a", ""]]
    ppt.reset("a")
    assert "there is no deck yet" in call(ppt, "submit_file", "a").text


def test_images_come_through_the_guard(ppt: PPT, tmp_path: Path) -> None:
    value(ppt, "create_file", theme="Default", abs_location=str(tmp_path / "deck.pptx"))
    pages = {"/a.png": Answer(image(), "image/png"), "/in": redirect("http://127.0.0.2:80/"), "/bomb": Answer(b"x")}
    pages |= {"/large": Answer(bytes(11_000_000), "image/png"), "/gone": Answer(b"", status=404)}
    with Site(pages) as site:
        value(ppt, "add_text_image_page", title="T", bullet_items="b", image=f"{site.url}/a.png")
        kept = value(ppt, "get_image", keywords=f"{site.url}/a.png")["image"]
        assert (tmp_path / kept).read_bytes() == image()
        for path, said in [
            ("/in", "is an address of a private network"),
            ("/bomb", "is no image of PNG, JPEG, GIF or BMP"),
            ("/large", "more than 10,485,760 bytes"),
            ("/gone", "answered 404"),
        ]:
            added = call(ppt, "add_text_image_page", title="T", bullet_items="b", image=f"{site.url}{path}")
            assert said in added.text
    returned = call(ppt, "get_image", keywords="file:///etc/passwd")
    assert (returned.state, "no web address" in returned.text) == (ActionStatusCode.HTTP_ERROR, True)
    value(ppt, "submit_file")
    assert len(slides(tmp_path / "deck.pptx")) == 1


@pytest.mark.parametrize(
    "path", ["../out.pptx", "/tmp/out.pptx", "link/out.pptx", "a/../../out.pptx", "x\0.pptx", ".pptx/.."]
)  # fmt: skip
def test_no_path_leaves_the_directory(ppt: PPT, tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    confined = type(ppt)(root)
    returned = call(confined, "create_file", theme="Default", abs_location=path)
    assert returned.errmsg is not None
    assert not list(tmp_path.glob("*.pptx"))


def test_images_of_other_directories_are_not_read(ppt: PPT, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(image())
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(root / "pipe.png")
    confined = type(ppt)(root)
    value(confined, "create_file", theme="Default", abs_location="deck.pptx")
    for path, said in [
        ("../secret.png", "leads out of"),
        ("link.png", "leads out of"),
        (str(tmp_path / "secret.png"), "leads out of"),
        ("pipe.png", "'pipe.png' is no file"),
        ("none.png", "there is no file 'none.png'"),
    ]:
        assert said in call(confined, "add_text_image_page", title="T", bullet_items="b", image=path).text


def test_what_cannot_be_done_is_explained(ppt: PPT, tmp_path: Path) -> None:
    assert "the themes are Default" in call(ppt, "create_file", theme="Baroque", abs_location="a.pptx").text
    assert "end it with .pptx" in call(ppt, "create_file", theme="Default", abs_location="a.txt").text
    assert "no image of 'teapot' is in the workspace" in call(ppt, "get_image", keywords="teapot").text
    value(ppt, "create_file", theme="Default", abs_location="a.pptx")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "vast.png").write_bytes(image(size=(9000, 6000), mode="1"))
    assert "is no image of" in call(ppt, "add_text_image_page", title="", bullet_items="", image="text.png").text
    assert "9000 x 6000 pixels" in call(ppt, "add_text_image_page", title="", bullet_items="", image="vast.png").text
    assert call(ppt, "add_text_page", title="x" * 10_001, bullet_items="").state == ActionStatusCode.ARGS_ERROR
    ppt.decks[0]["pages"] = [{}] * MAX_PAGES
    assert "takes no more" in call(ppt, "add_text_page", title="", bullet_items="").text
    (tmp_path / "b.pptx").mkdir()
    value(ppt, "create_file", theme="Default", abs_location="b.pptx")
    value(ppt, "add_first_page", title="a", subtitle="b")
    assert "'b.pptx' cannot be written" in call(ppt, "submit_file").text
    assert not list(tmp_path.glob(".*"))


def test_an_image_search_finds_what_the_directory_has_not(tmp_path: Path) -> None:
    with Site({"/images": recorded("serper_images.json")}) as site:
        search = SerperSearch("hush", "images", endpoint=site.url)
        ppt = PPT(tmp_path, image_search=search, allow_private=["127.0.0.1"])
        text = site.routes["/images"].body.decode().replace("https://img.example.org/red.png", f"{site.url}/red.jpg")  # type: ignore[union-attr]
        site.routes |= {"/images": Answer(text.encode()), "/red.jpg": Answer(image("JPEG"), "image/jpeg")}
        path = value(ppt, "get_image", keywords="red, teapot")["image"]
        assert path.endswith(".jpg")
        assert site.asked[0].json()["q"] == "red teapot"
        assert (tmp_path / path).read_bytes() == image("JPEG")
        ppt.close()


def test_a_theme_of_ones_own(tmp_path: Path) -> None:
    template = tmp_path / "template.pptx"
    pptx.Presentation().save(template)
    layouts = {"title": "Section Header", "single": "Title and Content", "two": "Blank"}
    ppt = PPT(tmp_path, {"Mine": {"template": str(template), **layouts}})
    value(ppt, "create_file", theme="Mine", abs_location="deck.pptx")
    value(ppt, "add_first_page", title="T", subtitle="S")
    value(ppt, "submit_file")
    assert slides(tmp_path / "deck.pptx") == [["T", "S"]]
    (tmp_path / "a.gif").write_bytes(image("GIF"))
    value(ppt, "add_text_image_page", title="T", bullet_items="b", image="a.gif")
    assert "the layout 'Blank' has no boxes" in call(ppt, "submit_file").text
    ppt.themes["Mine"]["two"] = "Rococo"
    assert "has no layout 'Rococo': it has Title Slide" in call(ppt, "submit_file").text
    ppt.close()
    with pytest.raises(InvalidArgument, match="name its layouts two too"):
        PPT(tmp_path, {"Mine": {"title": "a", "single": "b"}})
    with pytest.raises(InvalidArgument, match="give a directory that exists"):
        PPT(tmp_path / "none")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pptx", None)
    ppt = PPT(tmp_path)
    assert "pip install 'lagentlike[ppt]'" in call(ppt, "create_file", theme="Default", abs_location="a.pptx").text


def test_a_file_is_never_seen_half_written(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path)
    folder.write("a/deck", b"a" * 300_000)
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(folder.read("a/deck", 300_000))

    watching = threading.Thread(target=watch)
    watching.start()
    for number in range(20):
        folder.write("a/deck", bytes([number]) * 300_000)
    done.set()
    watching.join()
    assert {len(set(content)) for content in seen} == {1}
    assert {len(content) for content in seen} == {300_000}
    assert folder.names() == ["a/deck"]


def test_a_link_that_is_put_in_the_way_meanwhile_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "images").mkdir(parents=True)
    outside.mkdir()
    folder = WorkFolder(root)
    find = folder.find

    def find_and_swap(path: str) -> str:
        found = find(path)
        (root / "images").rmdir()
        (root / "images").symlink_to(outside)
        return found

    monkeypatch.setattr(folder, "find", find_and_swap)
    with pytest.raises(ToolError, match="cannot be written"):
        folder.write("images/a", b"x")
    assert not list(outside.iterdir())


def test_blocking_and_awaited_are_described_alike(tmp_path: Path) -> None:
    described: list[Any] = [tool(tmp_path).description["api_list"] for tool in (PPT, AsyncPPT)]
    assert described[0] == described[1]
    assert [api["name"] for api in described[0]] == [
        "create_file", "get_image", "add_first_page", "add_text_page", "add_text_image_page", "submit_file",
    ]  # fmt: skip
