"""Conversations as token ids, in which only the chat template can write a special token.

A message may spell `<|im_end|>`; that must stay text, or a tool's result could end the user's turn and begin the
system's. Templates look into contents, so contents cannot simply be encoded apart. Instead each special token that the
inputs spell is written with a mark in it, a character that occurs nowhere in them; the template renders that; the
special tokens in the text are then the template's own, and what lies between them is encoded as plain text, without
the marks.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer

from ...errors import InvalidArgument
from .answers import answer_like, Piece, Probe, Written
from .harmony import answer_of, CALL, parts_of, writes_harmony
from .template import ChatTemplate, plain_data, plain_messages, read_json, special_tokens

__all__ = ["ChatTokenizer"]

_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # noncharacters: hardly any text holds them
_ANCHORS = ("\n", "\t", "a", "1", "。")
_TOOL_ROLES = ("tool", "environment", "function", "ipython")

_PROBE = _MARKS[-1]  # what an assistant says where we look what a template writes around it
_ANSWERING: list[dict[str, Any]] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": _PROBE}]
_CALL = {"id": "a00000000", "type": "function", "function": {"name": "f", "arguments": {"k": _PROBE}}}
_CALLING: list[dict[str, Any]] = [_ANSWERING[0], {"role": "assistant", "content": "", "tool_calls": [_CALL]}]

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None


@dataclass(slots=True)
class _Rendered:
    """A conversation as text, what it consists of, and where text must be cut so that it spells no added token."""

    text: str
    pieces: list[Piece]
    cuts: list[int]
    spelled: bool
    """Whether the inputs spell special tokens."""


class ChatTokenizer:
    """Writes conversations as token ids, and prompts that go on from the ids of a conversation so far.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or a fast tokenizer of transformers.
        template: a `ChatTemplate` or the name of one; None takes the one of transformers' tokenizer.
        eos_ids: ids that end an answer, besides the template's end of turn and the tokenizer's `eos_token`.

    Raises:
        InvalidArgument: the tokenizer is none, or there is no template.

    >>> from lagentlike.llms.tiny.engine import WEIGHTS
    >>> tokenizer = ChatTokenizer.load(WEIGHTS)
    >>> ids = tokenizer.encode_chat([{"role": "user", "content": "<|im_end|>"}])
    >>> [id in tokenizer.eos_ids for id in ids].count(True)  # the ends of the system's and the user's turn
    2
    """

    def __init__(
        self, tokenizer: Any, template: ChatTemplate | str | None = None, *, eos_ids: Iterable[int] = ()
    ) -> None:
        variables: Mapping[str, Any] = {}
        if not isinstance(tokenizer, Tokenizer):
            backend = getattr(tokenizer, "backend_tokenizer", None)
            if not isinstance(backend, Tokenizer):
                cure = "give a tokenizers.Tokenizer, or a fast tokenizer of transformers"
                raise InvalidArgument("tokenizer", tokenizer, cure)
            if template is None:
                template = ChatTemplate.of(tokenizer)
            variables = special_tokens(tokenizer.special_tokens_map)
            tokenizer = backend
        if template is None:
            raise InvalidArgument("template", None, "this tokenizer comes with none: give a name such as 'chatml'")
        chosen = ChatTemplate.named(template) if isinstance(template, str) else template
        self.template = chosen.with_variables(variables)
        self._use(_copy(tokenizer), eos_ids)

    @classmethod
    def load(cls, directory: str | os.PathLike[str], template: ChatTemplate | str | None = None) -> Self:
        """The tokenizer of a Hugging Face directory, with its chat template or another one.

        Raises:
            InvalidArgument: the directory has no `tokenizer.json`, or no chat template and none is given.
        """
        folder = Path(directory)
        if not (folder / "tokenizer.json").is_file():
            raise InvalidArgument("directory", os.fspath(directory), "there is no tokenizer.json in it")
        if template is None:
            template = ChatTemplate.of(folder)
        elif isinstance(template, str):
            template = ChatTemplate.named(template)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = read_json(folder / "tokenizer_config.json")
        return cls(tokenizer, template.with_variables(special_tokens(settings)), eos_ids=_eos_ids(folder))

    def _use(self, tokenizer: Tokenizer, eos_ids: Iterable[int]) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = False
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added = {token.content: token for token in added.values() if token.content}
        self._special = {token.content: id_ for id_, token in added.items() if token.special and token.content}
        self._in_special, self._in_added = _any_of(self._special), _any_of(self._added)
        self._literal = not any(self._added[text].normalized for text in self._special)
        self._eos = set(eos_ids)
        eos = self.template.variables.get("eos_token")
        if eos in self._special:
            self._eos.add(self._special[eos])

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of the special tokens."""
        return frozenset(self._special.values())

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end an answer: the template's ends of turn, and what the model's settings name."""
        return frozenset({*self._eos, *self._behind_answer(_ANSWERING)[:1], *self._behind_answer(_CALLING)[-1:]})

    def encode(self, text: str) -> list[int]:
        """The ids of a text, in which nothing is a special token."""
        return _ids(self._plain, text)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    @cached_property
    def splits_answers(self) -> bool:
        """Whether an answer of this model is more than a text, so that `answer` must read its ids."""
        return writes_harmony(self.template.source)

    def answer(self, ids: Iterable[int]) -> dict[str, Any]:
        """What a model sampled, as the chat message that `continue_ids` takes.

        `content` is the text of the ids; of gpt-oss what it said to the user, with its `thinking` and its `tool_calls`
        beside.
        """
        if self.splits_answers:
            return answer_of(self.decode(ids, skip_special_tokens=False))
        return {"role": "assistant", "content": self.decode(ids)}

    def encode_chat(
        self, messages: Messages, tools: Tools = None, add_generation_prompt: bool = False, **template_variables: Any
    ) -> list[int]:
        """The ids of a conversation: transformers' own where its contents spell no special token.

        Special tokens come from the template alone. In a tool's message, added tokens that are not special, such as
        `</tool_response>`, are text too.

        Args:
            messages, tools, add_generation_prompt, **template_variables: as for `ChatTemplate.render`.

        Raises:
            InvalidArgument: the template refuses the conversation.
        """
        rendered = self._render(messages, tools, add_generation_prompt, template_variables)
        if not rendered.spelled and self._literal:
            return _ids(self._tokenizer, rendered.text)
        return self._encode(rendered, 0, len(rendered.text))

    def rows(self, messages: Messages, tools: Tools = None, **template_variables: Any) -> tuple[list[int], list[int]]:
        """A conversation for supervised training.

        Returns:
            Its ids, and a mask of the same length: 1 on what an assistant said, which is all from where a generation
            prompt would end to its end-of-turn token, and 0 on all else.

        Raises:
            InvalidArgument: the template refuses the conversation, or leaves an answer out.
        """
        rendered = self._render(messages, tools, False, template_variables)
        ids: list[int] = []
        mask: list[int] = []
        said, at = 0, 0
        edges = [edge for answer in self._answers(rendered, messages, tools, template_variables) for edge in answer]
        for edge in [*edges, len(rendered.text)]:
            part = self._encode(rendered, at, edge)
            ids += part
            mask += [said] * len(part)
            said, at = 1 - said, edge
        return ids, mask

    def continue_ids(
        self, ids: Sequence[int], messages: Messages, tools: Tools = None, **template_variables: Any
    ) -> list[int]:
        """The next prompt, which goes on from the ids so far where the template lets it.

        Args:
            ids: the conversation up to and including its last answer, as the model read and wrote it; the end-of-turn
                token may be missing.
            messages: the conversation now, its answers as `answer` gives them: the content is the text that was
                sampled, calls and all; its `tool_calls` are then not written once more.
            tools, **template_variables: as for `encode_chat`.

        Returns:
            `ids` and the ids of what came since, with a generation prompt at the end; where the template writes the
            conversation so far otherwise than it was (it drops thinking, say), the whole prompt, encoded anew.

        Raises:
            InvalidArgument: the template refuses the conversation.
        """
        so_far = list(ids)
        for conversation in (_as_sampled(messages), messages):
            try:
                rendered = self._render(conversation, tools, True, template_variables)
            except InvalidArgument:
                if conversation is messages:
                    raise
                continue
            at = self._behind_call(rendered, so_far) if self.splits_answers else self._reach(rendered, so_far)
            if at is not None:
                return so_far + self._encode(rendered, at, len(rendered.text))
        return self.encode_chat(messages, tools, True, **template_variables)

    def _reach(self, rendered: _Rendered, ids: list[int]) -> int | None:
        """Where in the text these ids end, if they stand for a beginning of it."""
        at = 0
        pieces = iter(rendered.pieces)
        for run in self._runs(ids):
            piece = next(pieces, None)
            if piece is None or (piece.id is None) != isinstance(run, list) or not self._same(rendered, piece, run):
                return None
            at = piece.stop
        return at

    def _behind_call(self, rendered: _Rendered, ids: list[int]) -> int | None:
        """Where in a text of Harmony these ids end with a call, if they say the same: a head may be written otherwise.

        After anything but a call the template drops what was thought, and writes the history anew.
        """
        call = self._special.get(CALL)
        ends = [piece.stop for piece in rendered.pieces if piece.id is not None and piece.id == call]
        count = ids.count(call) if call is not None else 0
        if not count or ids[-1] != call or len(ends) < count:
            return None
        at = ends[count - 1]
        same = parts_of(self.decode(ids, skip_special_tokens=False)) == parts_of(rendered.text[:at])
        return at if same else None

    def _same(self, rendered: _Rendered, piece: Piece, run: int | list[int]) -> bool:
        """Whether ids stand for a piece, however its text was cut into tokens."""
        if isinstance(run, int):
            return run == piece.id
        said = self.decode(run)
        written = rendered.text[piece.start : piece.stop]
        return said == written or said == self.decode(self._encode(rendered, piece.start, piece.stop))

    def _runs(self, ids: list[int]) -> Iterator[int | list[int]]:
        """The special ids, and the runs of other ids between them."""
        run: list[int] = []
        for id_ in ids:
            if id_ not in self.special_ids:
                run.append(id_)
                continue
            if run:
                yield run
                run = []
            yield id_
        if run:
            yield run

    def _answers(
        self, rendered: _Rendered, messages: Messages, tools: Tools, variables: Mapping[str, Any]
    ) -> Iterator[tuple[int, int]]:
        """Where in the text the assistants' answers are, their end-of-turn tokens included."""
        prompt = self._generation_prompt(messages, tools, variables)
        written, probe = Written(rendered.text, rendered.pieces), self._probe(messages, tools, variables)
        start: int | None = None
        end: int | None = None
        for place, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            began, start = start, None
            if probe is not None and (not place or messages[place - 1].get("role") != "assistant"):
                start, end = answer_like(written, probe, place, began, prompt)
            if start is None:
                start, end = self._answer_edges(rendered, messages, place, tools, variables, prompt)
            if start is None:
                cure = "the chat template writes it in no place of its own: leave it out, or take another template"
                raise InvalidArgument(f"messages[{place}]", message, cure)
            yield start, self._stop(written, start, None if message.get("tool_calls") else end)

    def _stop(self, written: Written, start: int, end: int | None) -> int:
        """Where an answer ends: behind its end-of-turn token, which may be `end`."""
        for piece in written.special_from(start):
            ends = piece.id in self.eos_ids
            if not self._ends_turns:  # the next turn's first token ends it
                return piece.stop if ends else piece.start
            if ends or piece.id == end:
                return piece.stop
        return len(written.text)

    def _probe(self, messages: Messages, tools: Tools, variables: Mapping[str, Any]) -> Probe | None:
        """What the template writes if every assistant says a mark of its own; None where it does not."""
        mark = _free_marks(messages, tools, variables)[-1]
        answers = [place for place, message in enumerate(messages) if message.get("role") == "assistant"]
        chat = [dict(message) for message in messages]
        for place in answers:
            chat[place]["content"] = f"{mark}{place}{mark}"
        try:
            rendered = self._render(chat, tools, False, variables)
        except InvalidArgument:
            return None
        said = [(int(found[1]), found.span()) for found in re.finditer(f"{mark}(\\d+){mark}", rendered.text)]
        if [place for place, _ in said] != answers:
            return None
        return Probe(Written(rendered.text, rendered.pieces), answers, dict(said))

    def _answer_edges(
        self,
        rendered: _Rendered,
        messages: Messages,
        place: int,
        tools: Tools,
        variables: Mapping[str, Any],
        prompt: str,
    ) -> tuple[int | None, int | None]:
        """The same for one answer, found by what the template writes if something else is said there alone."""
        mark = _free_marks(messages, tools, variables)[-1]
        other = {"role": "assistant", "content": mark}
        before, after = list(messages[:place]), list(messages[place + 1 :])
        for chat in ([*before, {**messages[place], **other}, *after], [*before, other, *after], [*before, other]):
            try:
                probe = self._render(chat, tools, False, variables)
            except InvalidArgument:
                continue
            head, found, _ = probe.text.partition(mark)
            start = len(head)
            asked = head.rfind(prompt) if prompt else -1
            if asked >= 0 and self._is_of_turn(head, asked, prompt, before, tools, variables):
                start = asked + len(prompt)
            if found and rendered.text.startswith(head[:start]):
                return start, next((one.id for one in probe.pieces if one.start == len(head) + len(mark)), None)
        return None, None

    def _is_of_turn(
        self, head: str, asked: int, prompt: str, before: Messages, tools: Tools, variables: Mapping[str, Any]
    ) -> bool:
        """Whether the generation prompt at a place is that of the turn at the end, not of an earlier one."""
        try:
            past = self._render(before, tools, False, variables).text if before else ""
        except InvalidArgument:
            past = head
        if head.startswith(past) and past != head:
            return asked >= len(past)
        return not self._in_special.search(head[asked + len(prompt) :])

    def _generation_prompt(self, messages: Messages, tools: Tools, variables: Mapping[str, Any]) -> str:
        """What a generation prompt adds to a conversation."""
        asking = [place for place, message in enumerate(messages) if message.get("role") == "user"][:1]
        if not asking:
            return ""
        begun = messages[: asking[0] + 1]
        without, with_ = (self._render(begun, tools, asks, variables).text for asks in (False, True))
        return with_.removeprefix(without) if with_.startswith(without) else ""

    @cached_property
    def _ends_turns(self) -> bool:
        """Whether this template writes a special token after an answer."""
        return bool(self._behind_answer(_ANSWERING))

    def _behind_answer(self, messages: list[dict[str, Any]]) -> list[int]:
        """The special tokens that the template writes behind the probe in an answer."""
        try:
            rendered = self._render(messages, None, False, {})
        except InvalidArgument:
            return []
        at = rendered.text.find(_PROBE)
        return [piece.id for piece in rendered.pieces if piece.id is not None and 0 <= at < piece.start]

    def _render(
        self, messages: Messages, tools: Tools, add_generation_prompt: bool, variables: Mapping[str, Any]
    ) -> _Rendered:
        said = self.template.plain(messages)
        schemas, more = plain_data(tools or None, "tools"), plain_data(variables, "template_variables")
        mark, cut, *single = _free_marks(said, schemas, more)
        alone = dict(zip((token for token in self._special if len(token) == 1), single, strict=False))

        def hold(text: str) -> str:
            """Put a mark into each special token, so that it is none."""
            while self._in_special.search(text):
                text = self._in_special.sub(lambda at: alone.get(at[0]) or at[0][0] + mark + at[0][1:], text)
            return text

        def hold_all(text: str) -> str:
            """The same for all added tokens."""
            text = hold(text)
            while self._in_added.search(text):
                text = self._in_added.sub(lambda at: at[0][0] + cut + at[0][1:], text)
            return text

        held = [_mapped(message, hold_all if message["role"] in _TOOL_ROLES else hold) for message in said]
        text = self.template.write(held, _mapped(schemas, hold), add_generation_prompt, _mapped(more, hold))
        marks = {mark: "", **{stand_in: token for token, stand_in in alone.items()}}
        if not any(one in text for one in (cut, *marks)):
            return _Rendered(text, self._pieces(text), [], False)
        return self._unmarked(text, cut, marks)

    def _unmarked(self, marked: str, cut: str, marks: Mapping[str, str]) -> _Rendered:
        """The text as it is without marks, and where the template's special tokens are in it."""
        rendered = _Rendered("", [], [], True)

        def take(start: int, stop: int) -> None:
            for place, part in enumerate(marked[start:stop].split(cut)):
                if place:
                    rendered.cuts.append(len(rendered.text))
                for mark, meant in marks.items():
                    part = part.replace(mark, meant)
                rendered.text += part

        at = 0
        for piece in self._pieces(marked):
            take(at, piece.start)  # the space that a special token swallows
            start = len(rendered.text)
            take(piece.start, piece.stop)
            rendered.pieces.append(Piece(start, len(rendered.text), piece.id))
            at = piece.stop
        take(at, len(marked))
        return rendered

    def _pieces(self, text: str) -> list[Piece]:
        """The special tokens in a text and the text between them, less the space that they swallow."""
        pieces: list[Piece] = []
        at, swallows = 0, False
        for token in self._in_special.finditer(text):
            added = self._added[token[0]]
            _add_text(pieces, text, at, token.start(), swallows, added.lstrip)
            pieces.append(Piece(token.start(), token.end(), self._special[token[0]]))
            at, swallows = token.end(), added.rstrip
        _add_text(pieces, text, at, len(text), swallows, False)
        return pieces

    def _encode(self, rendered: _Rendered, start: int, stop: int) -> list[int]:
        """The ids of a part of a conversation, encoded piece by piece."""
        ids: list[int] = []
        first = bisect_right(rendered.pieces, start, key=lambda piece: piece.stop)
        for piece in islice(rendered.pieces, first, None):
            begin, end = max(piece.start, start), min(piece.stop, stop)
            if begin >= end:
                break
            if piece.id is not None:
                ids.append(piece.id)
                continue
            first, last = bisect_right(rendered.cuts, begin), bisect_left(rendered.cuts, end)
            edges = [begin, *rendered.cuts[first:last], end]
            for left, right in pairwise(edges):
                where = "start" if left == 0 else "special" if left == piece.start else "text"
                ids += self._encode_text(rendered.text[left:right], where)
        return ids

    def _encode_text(self, text: str, where: str) -> list[int]:
        """The ids of text at the start of all, after a special token, or after other text."""
        if where == "start" or not self._marks_start or (where == "special" and self._marks_after_special):
            return self.encode(text)
        for anchor in _ANCHORS:  # text before it, or some tokenizers would put a space there
            lead, ids = self.encode(anchor), self.encode(anchor + text)
            if ids[: len(lead)] == lead:
                return ids[len(lead) :]
        return self.encode(text)

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer that reads no special token out of a text."""
        plain = _copy(self._tokenizer)
        plain.encode_special_tokens = True
        return plain

    @cached_property
    def _marks_start(self) -> bool:
        """Whether text at the start is encoded otherwise than after other text."""
        return self.encode("\na")[-len(self.encode("a")) :] != self.encode("a")

    @cached_property
    def _marks_after_special(self) -> bool:
        """Whether text after a special token is encoded as text at the start is."""
        token = next((text for text in self._special if not self._added[text].rstrip), None)
        return token is None or _ids(self._tokenizer, token + "a") == [self._special[token], *self.encode("a")]

    def __repr__(self) -> str:
        return f"ChatTokenizer({self.template!r}, {self._tokenizer.get_vocab_size()} tokens)"


def _as_sampled(messages: Messages) -> Messages:
    """The messages, with answers that have a text as that text alone."""
    return [
        {"role": "assistant", "content": text}
        if message.get("role") == "assistant" and (text := _text(message))
        else message
        for message in messages
    ]


def _text(message: Mapping[str, Any]) -> str:
    content = plain_messages([message])[0].get("content")
    return content if isinstance(content, str) else ""


def _add_text(pieces: list[Piece], text: str, start: int, stop: int, left: bool, right: bool) -> None:
    """Add a stretch of text, without the space at its left or right end, if anything is left of it."""
    part = text[start:stop]
    if left:
        start += len(part) - len(part.lstrip())
    if right:
        stop -= len(part) - len(part.rstrip())
    if start < stop:
        pieces.append(Piece(start, stop))


def _free_marks(*values: Any) -> list[str]:
    """Marks that occur nowhere in these."""
    used = {
        character
        for value in values
        for text in _texts(value)
        for character in text
        if "\ufdd0" <= character <= "\ufdef"
    }
    free = [mark for mark in _MARKS if mark not in used]
    if len(free) < 4:
        raise InvalidArgument("messages", values[0], "they hold nearly all of U+FDD0 to U+FDEF, which no text needs")
    return free


def _texts(value: Any) -> Iterator[str]:
    """All texts in plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Plain data with all its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """What finds any of these texts, the longest where several begin at one place."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer.from_str(tokenizer.to_str())


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    except TypeError:  # half of a surrogate pair, which is in no UTF-8 text
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids = tokenizer.encode(whole, add_special_tokens=False).ids
    return ids


def _eos_ids(folder: Path) -> list[int]:
    """The ids that end an answer, by a directory's generation settings."""
    found = read_json(folder / "generation_config.json").get("eos_token_id")
    if found is None:
        found = read_json(folder / "config.json").get("eos_token_id")
    return found if isinstance(found, list) else [] if found is None else [found]
