"""Writes tool_calls.jsonl: replies put together from pieces, so that what is a call is known without reading them.

Run by hand: `python -m tests.prompts.make_tool_calls`. It imports nothing of the parsers that the corpus tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).with_name("tool_calls.jsonl")


@dataclass(frozen=True)
class Piece:
    """A part of a reply, and what it means.

    Attributes:
        kind: what it is, for the name of the case.
        text: its text.
        calls: the calls in it.
        error: what is wrong with it, if it begins as a call and is none.
        last: whether all that follows it would be part of it.
    """

    kind: str
    text: str
    calls: tuple[Any, ...] = ()
    error: str = ""
    last: bool = False


@dataclass(frozen=True)
class Format:
    """A format of calls, and how to write one.

    Attributes:
        name: as in the corpus.
        begin, end: the marks; without an `end`, a call ends with its brackets.
        call, other: two calls as they are written between the marks.
        meaning, other_meaning: what is called.
        half: the first of them, broken off.
        fence: a fence that may stand around a call.
        many: whether a reply may hold several calls.
    """

    name: str
    begin: str
    end: str
    call: str
    meaning: Any
    other: str
    other_meaning: Any
    half: str
    fence: str
    many: bool = False

    @property
    def whole(self) -> str:
        return f"{self.begin}{self.call}{self.end}"


ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}
MARKS = "<tool_call> </tool_call> <|action_start|><|plugin|>\n <|action_end|>\n </think> <think>"
SAY = {"name": "say", "arguments": {"text": f'a "quoted" word, 5" wide, `code`, {MARKS} and\n```\na fence\n```'}}
ADD_PLUGIN = {"name": "add", "parameters": {"a": 1, "b": 2}}
SAY_PLUGIN = {"name": "say", "parameters": SAY["arguments"]}

CODE = 'x = "5\\" wide </think> <think>"\nprint(x)'

FORMATS = [
    Format(
        name="tool_call",
        begin="<tool_call>",
        end="</tool_call>",
        call=f"\n{json.dumps(ADD)}\n",
        meaning=ADD,
        other=f"\n{json.dumps(SAY)}\n",
        other_meaning=SAY,
        half='\n{"name": "add", "arguments": {"a": 1',
        fence="```",
        many=True,
    ),
    Format(
        name="plugin",
        begin="<|action_start|><|plugin|>\n",
        end="<|action_end|>\n",
        call=json.dumps(ADD_PLUGIN),
        meaning=ADD_PLUGIN,
        other=json.dumps(SAY_PLUGIN),
        other_meaning=SAY_PLUGIN,
        half='{"name": "add", "parameters": {"a": 1',
        fence="```",
    ),
    Format(
        name="interpreter",
        begin="<|action_start|><|interpreter|>\n",
        end="<|action_end|>\n",
        call="print(1 + 2)",
        meaning="print(1 + 2)",
        other=CODE,
        other_meaning=CODE,
        half="print(1 +",
        fence="```",
    ),
    Format(
        name="python",
        begin="```python\n",
        end="\n```\n",
        call="print(1 + 2)",
        meaning="print(1 + 2)",
        other=CODE,
        other_meaning=CODE,
        half="print(1 +",
        fence="````",
    ),
]


def thoughts(f: Format) -> list[Piece]:
    """Calls in thinking."""
    c = f.whole
    return [
        Piece("thinking", f"<think>{c}</think>\n"),
        Piece("thinking over lines", f"<think>\n{c}\n</think>\n\n"),
        Piece("thinking with words", f"<think>I could call\n{c}\nbut I know it.</think>\n"),
        Piece("two calls in thinking", f"<think>\n{c}\n{c}\n</think>\n"),
        Piece("a mark in thinking", f"<think>I may write {f.begin} for that.</think>\n"),
        Piece("half a call in thinking", f"<think>\n{f.begin}{f.half}\n</think>\n"),
        Piece("a fence in thinking", f"<think>\n{f.fence}\n{c}\n{f.fence}\n</think>\n"),
        Piece("an open fence in thinking", f"<think>\n{f.fence}\n{c}</think>\n"),
        Piece("a quote in thinking", f'<think>The format is "{c}" I think.</think>\n'),
        Piece("an open quote in thinking", f'<think>It is 5" wide: {c}</think>\n'),
        Piece("nested calls in thinking", f"<think>{f.begin}{c}{f.end}</think>\n"),
    ]


def fences(f: Format) -> list[Piece]:
    """Calls in code fences."""
    c, fence = f.whole, f.fence
    wrapped = [
        ("a fence", f"{fence}\n{c}\n{fence}\n"),
        ("a fence with a language", f"{fence}xml\n{c}\n{fence}\n"),
        ("a fence of tildes", f"~~~\n{c}\n~~~\n"),
        ("a fence of tildes with a language", f"~~~json\n{c}\n~~~\n"),
        ("an indented fence", f"   {fence}\n{c}\n   {fence}\n"),
        ("a long fence", f"{fence}``\n{c}\n{fence}``\n"),
        ("a fence with a longer end", f"{fence}\n{c}\n{fence}``\n"),
        ("a fence in a fence", f"{fence}``\n{fence}\n{c}\n{fence}\n{fence}``\n"),
        ("a fence in a fence of tildes", f"~~~~\n{fence}\n{c}\n{fence}\n~~~~\n"),
        ("two calls in a fence", f"{fence}\n{c}\n{c}\n{fence}\n"),
        ("thinking in a fence", f"{fence}\n<think>{c}\n{fence}\n"),
        ("half a call in a fence", f"~~~\n{f.begin}{f.half}\n~~~\n"),
        ("a fence with carriage returns", f"{fence}\r\n{c}\r\n{fence}\r\n"),
    ]
    return [Piece(kind, text) for kind, text in wrapped]


def quotes(f: Format) -> list[Piece]:
    """Calls in strings and quotes."""
    c = f.whole
    flat = " ".join(c.split("\n"))
    pieces = [
        Piece("a JSON string", json.dumps({"answer": f"use {c}"}) + "\n"),
        Piece("a list of JSON strings", json.dumps([c, c, "x"]) + "\n"),
        Piece("a JSON string in JSON", json.dumps({"body": json.dumps({"answer": c})}) + "\n"),
        Piece("JSON over lines", json.dumps({"role": "assistant", "content": c, "calls": [c]}, indent=2) + "\n"),
        Piece("a JSON key", json.dumps({c: 1}) + "\n"),
        Piece("a flat JSON string", json.dumps({"answer": flat}) + "\n"),
        Piece("inline code", f"Write `{flat}` to call.\n"),
        Piece("inline code with two backticks", f"Write ``{flat}`` to call.\n"),
        Piece("double quotes", f'The format is "{flat}", as I said.\n'),
        Piece("curly quotes", f"The format is “{flat}”, as I said.\n"),
        Piece("curly quotes with words", f"He wrote “first {flat}, then go on”.\n"),
        Piece("single quotes", f"The format is '{flat}', as I said.\n"),
        Piece("a flat line quoted as a whole", f"> {flat}\n"),
    ]
    if "```" not in f.whole:  # which would open a fence there
        pieces += [
            Piece("double quotes over lines", f'The format is "{c}", as I said.\n'),
            Piece("curly quotes over lines", f"The format is “{c}”, as I said.\n"),
            Piece("single quotes over lines", f"The format is '{c}', as I said.\n"),
            Piece("a quoted mark", f'I write "{f.begin}" before it.\n'),
            Piece("a line quoted as a whole", f"> {c.replace(chr(10), chr(10) + '> ')}\n"),
        ]
    if f.name == "tool_call":
        pieces.append(Piece("a quoted mark in code", f"The mark `{f.begin}` opens it, `{f.end}` closes it.\n"))
    return pieces


def calls(f: Format) -> list[Piece]:
    """Calls that are made."""
    return [
        Piece("a call", f.whole + "\n", (f.meaning,)),
        Piece("a call with marks in its strings", f"{f.begin}{f.other}{f.end}\n", (f.other_meaning,)),
    ]


def words() -> list[Piece]:
    """Text in which quotes, fences and thinking have ended before a call comes."""
    return [
        Piece("words", "I will add them.\n"),
        Piece("a quote that ended", 'She said "add" and `add`:\n'),
        Piece("an inch", 'It is 5" wide.\n'),
        Piece("a lone backtick", "The ` is a backtick.\n"),
        Piece("a lone curly quote", "He said “well.\n"),
        Piece("an apostrophe", "It's Ann's turn, isn't it.\n"),
        Piece("a fence that ended", "~~~\nprint('<think>')\n~~~\n"),
        Piece("thinking that ended", '<think>It is 5" wide, ``` and `</think>\n'),
        Piece("quoted thinking", "The tag `<think>` opens it.\n"),
        Piece("a fence too far in", "    ~~~\n"),
        Piece("an end without a call", "It ends with </tool_call> or <|action_end|>\n"),
        Piece("other letters", "Ich fühle 你好 🙂 \u200b.\n"),
    ]


def open_pieces(f: Format) -> list[Piece]:
    """Thinking and fences that never end."""
    c = f.whole
    return [
        Piece("open thinking", f"<think>\n{c}\n", last=True),
        Piece("open thinking with a fence", f"<think>\n~~~\n{c}\n~~~\n{c}\n", last=True),
        Piece("an open fence", f"{f.fence}\n{c}\n", last=True),
        Piece("an open fence of tildes", f"~~~\n~~\n{c}\n", last=True),
        Piece("an open fence with a shorter one", f"{f.fence}`\n{f.fence}\n{c}\n", last=True),
    ]


def earlier_thoughts(f: Format) -> list[Piece]:
    """Thinking that began in the prompt: only at the start of a reply."""
    c, ends = f.whole, f.end if f.name == "python" else f.end * 2
    return [
        Piece("thinking from the prompt", f"I could call\n{c}\nbut I know it.\n</think>\n"),
        Piece("two calls in thinking from the prompt", f"{c}\n{c}\n</think>\n\n"),
        Piece("a mark in thinking from the prompt", f"I may write {f.begin} for that.\n</think>\n"),
        Piece("half a call in thinking from the prompt", f"{f.begin}{f.half}\n</think>\n"),
        Piece("a fence in thinking from the prompt", f"Such as\n~~~\n{c}\n~~~\nor so.\n</think>\n"),
        Piece("nested calls in thinking from the prompt", f"{f.begin}{f.begin}{f.call}{ends}\n</think>\n"),
    ]


def nested(f: Format) -> list[Piece]:
    """A mark inside a call."""
    if not f.end:
        return []
    c = f.whole
    bodies = [
        ("a call in a mark", f"{f.begin}{c}"),
        ("a call in half a call", f"{f.begin}{f.half}\n{c}"),
        ("a call behind words in a mark", f"{f.begin}I think {c}"),
    ]
    if f.name != "python":  # its end is a fence, which would open one more
        bodies += [
            ("a call in marks", f"{f.begin}{c}{f.end}"),
            ("a call in two marks", f"{f.begin}{f.begin}{c}{f.end}{f.end}"),
        ]
    return [Piece(kind, body + "\n", error="nested") for kind, body in bodies]


def unclosed(f: Format) -> list[Piece]:
    """Calls without their end."""
    half_end = f.end.rstrip("\n")[:-1]
    bodies = [("a mark alone", f.begin), ("half a call", f.begin + f.half)]
    bodies += (
        []
        if not f.end
        else [
            ("a call without its end", f.begin + f.call),
            ("a call with half its end", f.begin + f.call + half_end),
            ("a call without its end and words", f"{f.begin}{f.call}\nThat is it."),
        ]
    )
    return [Piece(kind, body, error="unclosed", last=True) for kind, body in bodies]


def replies(f: Format) -> Iterator[list[Piece]]:
    """The replies of the corpus, as their pieces."""
    quoted = [*thoughts(f), *fences(f), *quotes(f)]
    prompt, broken = earlier_thoughts(f), [*nested(f), *unclosed(f)]
    call, other = calls(f)
    for piece in [*quoted, *prompt, *open_pieces(f), *broken, call, other]:
        yield [piece]
    for piece in [*words(), *quoted, *prompt]:
        yield [piece, call]
    for piece in [*quoted, *open_pieces(f), *words()]:
        yield [other, piece]
    for piece in quoted[::2]:
        yield [call, piece, other]
    for first, second in zip(quoted, quoted[7:], strict=False):
        yield [first, second, call]
    for first, second in zip(prompt * 3, quoted[::3], strict=False):
        yield [first, second, other]
    for piece in [*open_pieces(f), *unclosed(f)]:
        yield [quoted[0], call, piece]
        yield [quoted[11], quoted[24], piece]
    for piece in nested(f):
        yield [piece, call]
        yield [quoted[1], piece, quoted[12], call]
    yield [call, other]
    yield [other, call]
    yield [call, call, call]
    yield (
        [replace(call, text=call.text.rstrip("\n")), call] if f.name == "tool_call" else [call, words()[0], other, call]
    )
    yield [words()[0], call, words()[1], other, words()[2]]
    yield [quoted[0], quoted[12], quoted[25], call, quoted[26], other, quoted[13], quoted[2]]


def case(f: Format, pieces: list[Piece], cut: bool = False) -> dict[str, Any]:
    """A reply with what is right for it."""
    text = "".join(piece.text for piece in pieces)
    row: dict[str, Any] = {"format": f.name, "about": ", then ".join(piece.kind for piece in pieces), "text": text}
    if f.many:
        row["calls"] = [one for piece in pieces for one in piece.calls]
        row["errors"] = [piece.error for piece in pieces if piece.error]
        row["content"] = "".join(_prose(piece) for piece in pieces).strip()
        return row
    row["cut"] = cut
    thought = ""
    for piece in pieces:
        if piece.calls or piece.error:
            return row | {"thought": thought} | _outcome(f, piece, cut)
        thought += piece.text
    return row | {"thought": text, "status": "NO_TOOL", "action": None}


def _prose(piece: Piece) -> str:
    """What of a piece is no call."""
    return "\n" if piece.calls or piece.error else piece.text


def _outcome(f: Format, piece: Piece, cut: bool) -> dict[str, Any]:
    """What comes of a piece that is, or begins as, a call: an end that a stop word ate is one all the same."""
    if piece.calls:
        return {"status": "VALID_TOOL", "action": piece.calls[0]}
    if piece.error == "nested" or cut:
        return {"status": "PARSING_ERROR"}
    body = piece.text.removeprefix(f.begin).removesuffix(f.end.rstrip("\n")[:-1])
    if f.name == "plugin":
        whole = body == f.call
        return {"status": "VALID_TOOL", "action": f.meaning} if whole else {"status": "PARSING_ERROR"}
    return {"status": "VALID_TOOL", "action": body}


def corpus() -> Iterable[dict[str, Any]]:
    """All cases, each reply once."""
    for f in FORMATS:
        seen = set()
        for pieces in replies(f):
            assert not any(piece.last for piece in pieces[:-1]), pieces
            text = "".join(piece.text for piece in pieces)
            if text not in seen:
                seen.add(text)
                yield case(f, pieces)
                if pieces[-1].error == "unclosed" and not f.many:
                    yield case(f, pieces, cut=True)


def main() -> None:
    """Write the corpus."""
    lines = [json.dumps(row, ensure_ascii=False) for row in corpus()]
    CORPUS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
