"""The page of an agent in a real browser, over the embedded model."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, expect, Page, sync_playwright

from lagentlike.actions import calculator, tool
from lagentlike.agents import (
    Agent,
    AsyncAgent,
    AsyncSequential,
    AsyncStreamingAIAgent,
    AsyncStreamingReAct,
    ReAct,
    StreamingAgent,
    StreamingAIAgent,
)
from lagentlike.concurrency import LoopThread
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM, ScriptedLLM, TinyLM
from lagentlike.memory import Memory
from lagentlike.schema import ToolCall
from lagentlike.serving.ui import launch, launcher, TraceViewer, UI
from lagentlike.tracing import JSONLTracer

BROWSER = shutil.which("chromium")
HOSTILE = "<img src=x onerror=\"alert(1)\"><script>alert(2)</script><b id='planted'>&lt;&amp;"

AT_THE_END = """() => {
  const { scrollHeight, scrollTop, clientHeight } = document.querySelector(".scroller");
  return scrollHeight - scrollTop - clientHeight < 2;
}"""
# What is wider than its place, and not cut where that ends.
STICKING_OUT = """() => [...document.querySelectorAll("main *")].filter((one) => {
  const place = one.parentElement.closest(".side, .scroller, .card, .say");
  if (!place || !one.offsetParent) return false;
  const cut = one.parentElement.closest(".name, .quiet, .label, select");
  return !cut && one.getBoundingClientRect().right > place.getBoundingClientRect().right + 1;
}).map((one) => one.className || one.tagName)"""

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=BROWSER) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing may go wrong: no error, no dialog, no request to elsewhere."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.on("console", lambda message: wrong.append(message.text) if _is_wrong(message) else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    page.on("request", lambda request: None if _is_near(request.url) else wrong.append(request.url))
    yield page
    context.close()
    assert wrong == []


def _is_wrong(message: ConsoleMessage) -> bool:
    """Whether it is an error, and not only that a server is gone, which the browser says by itself."""
    return message.type in ("error", "warning") and "net::ERR_" not in message.text


def _is_near(url: str) -> bool:
    return url.startswith("http://127.0.0.1:")


@contextmanager
def shown(page: Page, agent: Any, **options: Any) -> Iterator[UI]:
    with launch(agent, open_browser=False, **options) as ui:
        page.goto(ui.url)
        expect(page.locator("#connection")).to_have_text("live")
        yield ui


def say(page: Page, text: str, place: int = 0) -> None:
    box = page.get_by_label("Your message").nth(place)
    box.fill(text)
    box.press("Enter")


def replies(page: Page, place: int = 1) -> Any:
    """What the agent answered, where the turn is over."""
    return page.locator(f".conversation:nth-child({place}) .answer:has(.fork) > .text")


def an_assistant() -> AsyncStreamingReAct:
    return AsyncStreamingReAct(AsyncTinyLM(), [calculator], name="assistant")


def test_a_question_is_answered_with_its_tool_call_tokens_and_timeline(page: Page) -> None:
    with shown(page, an_assistant()) as ui:
        assert "token" not in page.url
        assert "token" in ui.url
        say(page, "What is 12 * 7?")
        expect(replies(page)).to_have_text("The result of 12 * 7 is 84.")
        card = page.locator(".card")
        expect(card.locator("b")).to_have_text("calculator")
        expect(card.locator(".arguments")).to_have_text("expression = 12 * 7")
        expect(card.locator(".result")).to_have_text("84")
        expect(card.locator(".state")).to_have_text(re.compile(r"^done · [\d.]+ (ms|s)$"))
        expect(page.locator(".said")).to_have_text("What is 12 * 7?")
        expect(page.locator(".answer .actions")).to_contain_text("tokens in")
        names = ["assistant", "agent", "tinylm", "actions", "calculator", "agent", "tinylm"]
        expect(page.locator(".waterfall .name")).to_have_text(names)
        page.locator(".row[data-kind=request]").last.click()
        expect(page.locator(".detail")).to_contain_text("The result of 12 * 7 is 84.")
        expect(page.locator(".detail .piece")).to_have_count(4)  # what the model was sent, and its answer
        page.locator(".unit", has_text="agent").last.click()
        expect(page.locator("#panel-unit .piece")).to_have_count(4)


class Halting(ScriptedLLM):
    """A model that waits to be told before it goes on with an answer."""

    go_on: Semaphore

    def _stream(self, messages: Any, params: Any) -> Iterator[Any]:
        for part in super()._stream(messages, params):
            yield part
            self.go_on.acquire()


def test_answers_are_seen_as_they_come(page: Page) -> None:
    llm = Halting(["Beginning, middle and end."], chunk_size=12)
    llm.go_on = Semaphore(0)
    with shown(page, StreamingAgent(llm)):
        say(page, "Tell me")
        for text in ("Beginning, m", "Beginning, middle and en", "Beginning, middle and end."):
            expect(page.locator(".answer > .text")).to_have_text(text)
            expect(page.locator(".waiting")).to_have_count(1)
            llm.go_on.release()
        expect(replies(page)).to_have_text("Beginning, middle and end.")
        expect(page.locator(".waiting")).to_have_count(0)


def test_a_lost_connection_loses_and_doubles_nothing(page: Page) -> None:
    llm = Halting(["Beginning, middle and end."], chunk_size=5)
    llm.go_on = Semaphore(0)
    heard: list[str] = []
    page.on("request", lambda request: heard.append(request.url) if request.url.endswith("/ui/events") else None)
    with shown(page, StreamingAgent(llm)) as ui:
        say(page, "Tell me")
        for end in (5, 10, 15, 20, 25, 26):
            expect(page.locator(".answer > .text")).to_have_text("Beginning, middle and end."[:end].rstrip())
            cut_connections(ui)
            llm.go_on.release()
        expect(replies(page)).to_have_text("Beginning, middle and end.")
        expect(page.locator("#connection")).to_have_text("live")
        expect(page.locator(".answer")).to_have_count(1)
        expect(page.locator(".waterfall .row")).to_have_count(2)
    assert len(heard) >= 7


def cut_connections(ui: UI) -> None:
    """Break all connections of a server off."""

    async def cut() -> None:
        assert ui._server._runner is not None
        for connection in ui._server._runner.server.connections:
            connection.transport.abort()

    launcher._loop.submit(cut()).result()


def test_a_fork_stands_beside_its_origin_with_what_they_share_marked(page: Page) -> None:
    with shown(page, an_assistant()):
        say(page, "What is 12 * 7?")
        expect(replies(page)).to_have_count(1)
        say(page, "My name is Ann.")
        expect(replies(page)).to_have_text(["The result of 12 * 7 is 84.", "Nice to meet you, Ann."])
        page.get_by_role("button", name="Fork from here").first.click()
        expect(page.locator(".conversation")).to_have_count(2)
        say(page, "What is 5 * 5?", 1)
        expect(replies(page, 2)).to_have_text(["The result of 12 * 7 is 84.", "The result of 5 * 5 is 25."])
        expect(replies(page, 1)).to_have_count(2)
        expect(page.locator(".common")).to_have_count(6)  # question, call and answer, twice
        expect(page.locator(".parting")).to_have_text(["3 in common, then they part"] * 2)
        page.reload()
        expect(page.locator(".parting")).to_have_text(["3 in common, then they part"] * 2)
        expect(replies(page, 2)).to_have_count(2)
        page.get_by_role("button", name="Close this one").last.click()
        expect(page.locator(".conversation")).to_have_count(1)
        expect(page.locator(".common, .parting")).to_have_count(0)


def test_a_reload_keeps_the_sessions(page: Page) -> None:
    with shown(page, an_assistant()):
        say(page, "What is 12 * 7?")
        expect(replies(page)).to_have_count(1)
        page.get_by_role("button", name="New").click()
        say(page, "My name is Ann.")
        expect(replies(page)).to_have_text("Nice to meet you, Ann.")
        page.reload()
        expect(replies(page)).to_have_text("Nice to meet you, Ann.")
        expect(page.locator(".session .name")).to_have_text(["My name is Ann.", "What is 12 * 7?"])
        page.locator(".session", has_text="12 * 7").click()
        expect(page.locator(".card .state")).to_have_text(re.compile(r"^done · "))
        expect(replies(page)).to_have_text("The result of 12 * 7 is 84.")


def test_what_agents_say_is_text_and_nothing_else(page: Page) -> None:
    @tool(description=HOSTILE)
    def look(text: str) -> str:
        return text + HOSTILE

    calls = [
        ToolCall("look", {HOSTILE: HOSTILE}, id=HOSTILE),
        ToolCall("look", {"text": HOSTILE}, id="b"),
        ToolCall(HOSTILE, HOSTILE, id="c"),
    ]
    agent = ReAct(ScriptedLLM([calls, HOSTILE, RuntimeError(HOSTILE)], model=HOSTILE), [look], name=HOSTILE)
    agent.add_module(HOSTILE.replace(".", ""), Agent(ScriptedLLM([]), name=HOSTILE))
    with shown(page, agent):
        say(page, HOSTILE)
        expect(replies(page)).to_have_text(HOSTILE)
        expect(page.locator(".said")).to_have_text(HOSTILE)
        expect(page.locator(".card .result").nth(1)).to_have_text(HOSTILE * 2)
        expect(page.locator("#agent-name")).to_have_text(HOSTILE)
        for row in page.locator(".row").all():
            row.click()
            expect(page.locator(".detail h3")).not_to_be_empty()
        for unit in page.locator(".unit, button.chip").all():
            unit.click()
        say(page, "Again")
        expect(page.locator(".log .failure")).to_contain_text(HOSTILE)
        page.reload()
        expect(replies(page)).to_have_text(HOSTILE)
        assert page.locator("#planted, img, main script").count() == 0


class Endless(AsyncScriptedLLM):
    """A model whose first answer has no end."""

    async def _stream(self, messages: Any, params: Any) -> AsyncIterator[Any]:
        async for part in super()._stream(messages, params):
            yield part
            if len(self.requests) == 1:
                await asyncio.Event().wait()


def test_a_turn_is_stopped_and_an_error_is_shown(page: Page) -> None:
    agent = AsyncStreamingReAct(Endless(["never to be read", RuntimeError("the model is ill"), "Well."]), [calculator])
    with shown(page, agent):
        say(page, "Tell me all")
        expect(page.locator(".answer > .text")).to_contain_text("never")
        page.get_by_role("button", name="Stop the answer").click()
        expect(page.locator(".notice")).to_contain_text(["Stopped."])
        say(page, "Once more")
        expect(page.locator(".log .failure")).to_contain_text("the model is ill")
        say(page, "And now?")
        expect(replies(page)).to_have_text("Well.")
        expect(page.locator(".row[data-status=error]")).to_have_count(0)  # it shows the last turn
        page.get_by_role("combobox").select_option(index=1)
        expect(page.locator(".row[data-status=error]")).to_have_count(3)
        page.reload()
        expect(page.locator(".said")).to_have_text("And now?")


@tool(needs_approval=True)
def erase(path: str) -> str:
    """Erase a file."""
    return f"{path} is gone"


def test_a_call_waits_for_an_approval(page: Page) -> None:
    calls = [[ToolCall("erase", {"path": path}, id=path)] for path in ("mine", "yours")]
    llm = AsyncScriptedLLM([calls[0], calls[1], "All is as you wish."])
    with shown(page, AsyncStreamingAIAgent(llm, enabled_toolsets=[], tools=[erase], name="careful")):
        say(page, "Erase both")
        page.get_by_role("button", name="Approve").click()
        expect(page.locator(".decision")).to_have_text("Approved.")
        expect(page.locator(".card .result").first).to_have_text("mine is gone")
        expect(page.get_by_role("button", name="Approve")).to_have_count(1)
        page.reload()
        page.get_by_label("Why erase is").fill("it is not mine")
        page.get_by_role("button", name="Refuse").click()
        expect(page.locator(".decision").last).to_have_text("Refused: it is not mine")
        expect(page.locator(".answer > .text:visible")).to_have_text("All is as you wish.")
        expect(page.locator(".card .result").last).to_contain_text("it is not mine")
        page.reload()
        expect(page.locator(".decision")).to_have_count(2)
        expect(page.locator(".card .state").nth(0)).to_contain_text("done")
        expect(page.locator(".verdict")).to_have_count(0)


def test_a_run_is_told_something_while_it_works(page: Page) -> None:
    llm = Halting([ToolCall("calculator", {"expression": "6 * 7"}, id="a"), "As you say."])
    llm.go_on = Semaphore(0)
    with shown(page, StreamingAIAgent(llm, enabled_toolsets=[], tools=[calculator], name="helper")):
        say(page, "What is 6 * 7?")
        expect(page.get_by_placeholder("Say something while it works")).to_be_visible()
        say(page, "In words, please.")
        expect(page.get_by_label("Your message")).to_have_value("")
        llm.go_on.release(10)
        expect(replies(page)).to_have_text("As you say.")
        expect(page.locator(".said")).to_have_text(["What is 6 * 7?", "In words, please."])
        llm.assert_asked("In words, please.")
        page.reload()
        expect(page.locator(".said")).to_have_text(["What is 6 * 7?", "In words, please."])
        expect(page.locator(".card .result")).to_have_text("42")


def test_a_team_shows_its_steps_and_its_reply(page: Page) -> None:
    team = AsyncSequential(
        *(AsyncAgent(AsyncScriptedLLM([text]), name=name) for name, text in (("writer", "Draft"), ("critic", "Fine")))
    )
    with shown(page, team):
        say(page, "Write")
        expect(replies(page)).to_have_text("Fine")
        steps = page.locator("details.steps")
        expect(steps.locator("summary")).to_have_text("2 steps on the way")
        steps.locator("summary").click()
        expect(steps.locator(".text:visible")).to_have_text(["Draft", "Fine"])


def test_what_the_program_does_itself_is_seen(page: Page) -> None:
    agent = Agent(ScriptedLLM(["One.", "Two.", "Three."]), name="helper")
    with shown(page, agent):
        agent("First", session_id=7)
        expect(page.locator(".answer > .text")).to_have_text("One.")
        expect(page.get_by_label("Your message")).to_be_hidden()
        page.get_by_role("button", name="Fork this session").click()
        say(page, "Second", 1)
        expect(page.locator(".conversation:nth-child(2) .answer > .text")).to_have_text(["One.", "Two."])
        assert agent.session_ids()[0] == 7


def test_the_page_goes_on_with_the_next_server(page: Page, tmp_path: Path) -> None:
    store = tmp_path / "sessions.db"
    with shown(page, an_assistant(), store=store, token="t") as ui:
        say(page, "My name is Ann.")
        expect(replies(page)).to_have_count(1)
    expect(page.locator("#connection")).to_have_text("reconnecting…")
    port = int(ui.url.partition("/#")[0].rpartition(":")[2])
    with launch(an_assistant(), store=store, token="t", port=port, open_browser=False):
        expect(page.locator("#connection")).to_have_text("live")
        say(page, "What is my name?")
        expect(replies(page)).to_have_text(["Nice to meet you, Ann.", "Your name is Ann."])


def test_a_trace_is_shown_as_it_was(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with JSONLTracer(path, content=True):
        agent = ReAct(TinyLM(), [calculator], name="counter")
        agent("What is 12 * 7?", session_id="ann")
        agent("My name is Bob.", session_id="bob")
    viewer, loop = TraceViewer(path), LoopThread("viewer")
    loop.submit(viewer.start()).result()
    try:
        page.goto(viewer.page_url)
        expect(page.locator("#connection")).to_have_text("recorded")
        expect(page.locator(".answer > .text")).to_have_text("Nice to meet you, Bob.")
        page.locator(".session", has_text="12 * 7").click()
        expect(page.locator(".card .result")).to_have_text("84")
        expect(page.locator(".answer > .text")).to_have_text("The result of 12 * 7 is 84.")
        expect(page.locator(".waterfall .row")).to_have_count(7)
        expect(page.get_by_label("Your message")).to_be_hidden()
    finally:
        loop.submit(viewer.stop()).result()


def test_the_end_of_a_long_trace_says_so_and_its_turns_are_counted(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    agent = Agent(ScriptedLLM(lambda messages, params: "Yes."), memory=Memory(recent_n=1))
    with JSONLTracer(path, content=True):
        for number in range(1510):  # two spans a turn
            agent(f"Question {number}", session_id="ann")
    for options, turns in (({}, 1510), ({"max_spans": 100}, 50)):
        viewer, loop = TraceViewer(path, **options), LoopThread("viewer")
        loop.submit(viewer.start()).result()
        try:
            page.goto(viewer.page_url)
            expect(page.locator(".said").last).to_have_text("Question 1509")
            expect(page.locator(".said")).to_have_count(turns)
            expect(page.get_by_label("Turn", exact=True).locator("option").last).to_contain_text(f"Turn {turns}:")
            note = page.get_by_text("2,920 earlier spans are not shown")
            expect(note).to_be_visible(visible=bool(options))
        finally:
            loop.submit(viewer.stop()).result()


def test_the_end_is_followed_until_somebody_scrolls_up(page: Page) -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "A line.\n" * 60), name="helper")
    with shown(page, agent):
        scroller = page.locator(".scroller")
        for count in (1, 2, 3):
            agent("Go on", session_id=7)
            expect(page.locator(".answer")).to_have_count(count)
            page.wait_for_function(AT_THE_END)
        scroller.evaluate("(one) => { one.scrollTop = 300; }")
        page.wait_for_function("() => document.querySelector('.scroller').scrollTop === 300")
        agent("Go on", session_id=7)
        expect(page.locator(".answer")).to_have_count(4)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert scroller.evaluate("(one) => one.scrollTop") == 300


def test_names_and_words_of_any_length_and_script_fit(page: Page) -> None:
    arabic = "مرحبا، كيف حالك؟ English 42."
    script = [ToolCall("x" * 90, {"y" * 200: "z" * 5000}, id="one"), arabic]
    with shown(page, AsyncStreamingReAct(AsyncScriptedLLM(script), [calculator], name="n" * 120)):
        say(page, "w" * 3000)
        expect(replies(page)).to_have_text(arabic)
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 640})
            for view in ("left", "talk", "right"):
                page.evaluate("(view) => { document.body.dataset.view = view; }", view)
                assert page.evaluate(STICKING_OUT) == []
        page.set_viewport_size({"width": 1280, "height": 640})
        sides = replies(page).evaluate(
            """(block) => {
              const range = document.createRange();
              range.selectNodeContents(block);
              const [words, all] = [range.getBoundingClientRect(), block.getBoundingClientRect()];
              return [words.left - all.left, all.right - words.right];
            }"""
        )
        assert sides[1] < 2 < sides[0]  # it begins on the right


def test_a_page_without_the_token_says_what_to_do(page: Page) -> None:
    with launch(an_assistant(), open_browser=False) as ui:
        page.goto(ui.url.partition("#")[0])
        expect(page.get_by_role("alert")).to_contain_text("Open the address that the program printed")


def test_everything_is_reached_by_keyboard_and_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    with shown(page, an_assistant()):
        say(page, "My name is Ann.")
        expect(replies(page)).to_have_count(1)
        for view, place in (("Agent", "#left"), ("Timeline", "#right"), ("Conversation", ".conversation")):
            page.locator(".views").get_by_role("button", name=view).press("Enter")
            expect(page.locator(place)).to_be_visible()
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
        unnamed = [
            one
            for one in page.get_by_role("button").all()
            if not (one.get_attribute("aria-label") or one.inner_text().strip())
        ]
        assert unnamed == []
        heard = page.locator("body").aria_snapshot()
        assert "You: My name is Ann." in heard
        assert "- img" not in heard  # icons are for those who see
