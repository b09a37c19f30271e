"""`lagentlike demo`: what the package can do, shown in about a minute."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import re
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING

from .common import check_sandbox, Looks

if TYPE_CHECKING:
    from ..module import Module

__all__ = ["add_options", "main"]

NAME = "demo"
HELP = """show what it can do, in about a minute

A coder solves problems with code in a live Jupyter kernel, five writers and their critics work side by side, and what
they remember is shown: everything for real, on the embedded model, without a network. Answers are checked; the exit
code is 0 when all of them are right."""

EXAMPLES = """examples:
  lagentlike demo
  lagentlike demo --out /tmp/plots
"""

TOPICS = ("AI", "Biotechnology", "New Energy", "Video Games", "Pop Music")


@dataclass(frozen=True)
class Problem:
    """A question, and what a right answer says."""

    question: str
    says: tuple[str, ...]

    def is_answered_by(self, text: str) -> bool:
        """Whether each of the numbers stands in the text, whole."""
        return all(re.search(rf"(?<![\w./-]){re.escape(number)}(?![\w/]|\.\d)", text) for number in self.says)


PROBLEMS = (
    Problem("What is 123 * 456?", ("56088",)),
    Problem("What is the sum of the numbers from 1 to 50?", ("1275",)),
    Problem(
        "Find the projection of $\\mathbf{a}$ onto $\\mathbf{b} = \\begin{pmatrix} 1 \\\\ -3 \\end{pmatrix}$ "
        "if $\\mathbf{a} \\cdot \\mathbf{b} = 2.$",
        ("1/5", "-3/5"),
    ),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "--out", type=Path, default=Path("lagentlike-demo"), metavar="DIR", help="where the plot goes (lagentlike-demo)"
    )


def main(options: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    check_sandbox()
    return _Demo(options.out).run()


class _Demo:
    """The five parts, and what was right in them."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.looks = Looks(sys.stdout)
        self.checks: list[bool] = []

    def run(self) -> int:
        began = time.monotonic()
        coder, blogger = self._build()
        try:
            self._trees(coder, blogger)
            self._solve(coder)
            self._plot(coder)
        finally:
            coder.executor["IPythonInterpreter"].close()
            for folder in self.out.iterdir():
                with contextlib.suppress(OSError):  # one that holds a picture stays
                    folder.rmdir()
        self._blog(blogger)
        self._state(blogger)
        return self._verdict(time.monotonic() - began)

    def _build(self) -> tuple[Any, Any]:
        from ..llms import AsyncTinyLM, TinyLM
        from ._demo_agents import AsyncBlogger, Coder

        self.out.mkdir(parents=True, exist_ok=True)
        return Coder(TinyLM(stop_words=["\n```\n"]), work_dir=str(self.out)), AsyncBlogger(AsyncTinyLM())

    def _trees(self, coder: Module, blogger: Module) -> None:
        self._heading("Agents are trees of units, as models are in torch")
        print(self._indented(f"{coder!r}\n{blogger!r}"))

    def _solve(self, coder: Any) -> None:
        self._heading("A coder solves problems in a live Jupyter kernel")
        handles = [
            coder.agent.register_forward_hook(self._show_reply),
            coder.executor.register_forward_hook(self._show_output, prepend=True),
        ]
        try:
            for session, problem in enumerate(PROBLEMS):
                self._say("user", problem.question)
                reply = coder(problem.question, session_id=session)
                self._check(problem.is_answered_by(reply.content), f"the answer is {' and '.join(problem.says)}")
        finally:
            for handle in handles:
                handle.remove()

    def _plot(self, coder: Any) -> None:
        self._heading("The kernel draws, and the picture is kept as a file")
        if importlib.util.find_spec("matplotlib") is None:
            print("  skipped: there is no matplotlib here, pip install 'lagentlike[plot]' brings it\n")
            return
        pictures: list[Path] = []

        def collect(unit: Any, messages: Any, reply: Any) -> None:
            self._show_output(unit, messages, reply)
            items = getattr(reply.content, "result", None) or []
            pictures.extend(self._path(item["content"]) for item in items if item["type"].startswith("image"))

        question = "Plot y = x ** 2 from -10 to 10."
        with (
            coder.agent.register_forward_hook(self._show_reply),
            coder.executor.register_forward_hook(collect, prepend=True),
        ):
            self._say("user", question)
            coder(question, session_id="plot")
        drawn = [path for path in pictures if path.is_file() and path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"]
        where = f": {drawn[-1]}" if drawn else ""
        self._check(bool(drawn), f"the plot is saved{where}")

    def _path(self, content: str) -> Path:
        path = Path(content)
        return path if path.is_file() else self.out / path

    def _blog(self, blogger: Any) -> None:
        self._heading("Five writers, each with a critic, side by side in sessions of one agent")
        from ._demo_agents import REQUEST

        questions = [REQUEST.format(topic=topic) for topic in TOPICS]
        began = time.monotonic()
        replies = asyncio.run(blogger.map(questions, progress="  blogging" if sys.stderr.isatty() else False))
        seconds = time.monotonic() - began
        for session, (topic, reply) in enumerate(zip(TOPICS, replies, strict=True)):
            if isinstance(reply, Exception):
                self._check(False, f"session {session}, {topic}: {reply}")
                continue
            (first,) = self._cut(" ".join(reply.content.split()), most=1) or [""]
            print(f"  {self.looks.cyan(topic)}: {first[: self.looks.width - 16 - len(topic)]}…")
            others = [other for other in TOPICS if other != topic and other in json.dumps(blogger.state_dict(session))]
            self._check(topic in reply.content and not others, "is about its own topic, and of no other session's")
        usage = blogger.summary().usage
        print(
            self.looks.dim(
                f"  {usage.requests} model calls, {usage.completion_tokens} tokens written, {seconds:.1f} s\n"
            )
        )

    def _state(self, blogger: Any) -> None:
        self._heading("What a session remembers is plain data: state_dict(session_id=0)")
        state = blogger.state_dict(session_id=0)
        print("  {")
        for key, messages in state.items():
            print(f"    {self.looks.cyan(json.dumps(key))}: [  {self.looks.dim(f'# {len(messages)} messages')}")
            for message in messages[:2]:
                content = " ".join(str(message["content"]).split())
                shown = {"sender": message["sender"], "content": content[: self.looks.width - 50] + "…"}
                print(f"      {json.dumps(shown, ensure_ascii=False)},")
            if len(messages) > 2:
                print("      …")
            print("    ],")
        print("  }")
        twin = type(blogger)(blogger.writer.llm)
        twin.load_state_dict(json.loads(json.dumps(state)))
        self._check(twin.state_dict() == state, "through JSON into a fresh agent and out again, it is the same")

    def _verdict(self, seconds: float) -> int:
        right, of = sum(self.checks), len(self.checks)
        colour = self.looks.green if right == of else self.looks.red
        print(colour(f"{right} of {of} checks passed") + f" in {seconds:.0f} seconds, with no network and no key.")
        print("Next: lagentlike chat, or the examples/ of the repository.")
        return 0 if right == of else 1

    # How it looks

    def _show_reply(self, unit: Any, messages: Any, reply: Any) -> None:
        thought, fence, code = reply.content.partition("```python\n")
        if thought.strip():
            self._say("coder", thought.strip())
        if fence:
            for line in self._cut(code.rstrip().removesuffix("```").rstrip()):
                print(f"         {self.looks.dim('│')} {self.looks.cyan(line)}")

    def _show_output(self, unit: Any, messages: Any, reply: Any) -> None:
        text = getattr(reply.content, "text", None) or str(reply.content)
        first, *rest = self._cut(text.strip()) or [""]
        print(f"  {self.looks.bold('kernel')} {self.looks.yellow(first)}")
        for line in rest:
            print(f"         {self.looks.yellow(line)}")

    def _say(self, who: str, text: str) -> None:
        first, *rest = self._cut("\n".join(textwrap.wrap(text, self.looks.width - 12)))
        print(f"  {self.looks.bold(who.ljust(6))} {first}")
        for line in rest:
            print(f"         {line}")

    def _cut(self, text: str, most: int = 12) -> list[str]:
        """The lines of a text, as many and as much of each as there is room for."""
        room = self.looks.width - 12
        lines = [line if len(line) <= room else f"{line[: room - 1]}…" for line in text.splitlines()]
        return lines if len(lines) <= most else [*lines[:most], f"… {len(lines) - most} more lines"]

    def _check(self, right: bool, what: str) -> None:
        self.checks.append(right)
        mark = self.looks.green("✓") if right else self.looks.red("✗ not so:")
        print(f"  {mark} {what}\n")

    def _heading(self, text: str) -> None:
        print(f"{self.looks.bold(text)}\n")

    def _indented(self, text: str) -> str:
        return textwrap.indent(text, "  ") + "\n"
