"""Builds the byte-level tokenizer: words in few pieces, numbers in groups of three digits, the same pieces with and without a space before a word."""

from __future__ import annotations

import collections
import itertools
import json
import sys
from pathlib import Path

import corpus
import words
from tokenizers import AddedToken, decoders, models, pre_tokenizers, Regex, Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lagentlike.llms.tiny.chat import CHAT_TEMPLATE, render, SPECIAL_TOKENS

__all__ = ["build", "save", "with_numbers"]

QWEN2_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The same with digits in groups of three, and an operator or comma between numbers one piece with its spaces: then the two pieces before a
# number nearly always tell which number it is, and a small model copies expressions and lists without losing its place.
PATTERN = r" ?[-+*/%=<>,:;]{1,2} (?=[\p{N}(-])|" + QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
BETWEEN = (" + ", " - ", " * ", " / ", " = ", " ** ", " // ", " % ", " == ", " < ", " > ", ", ", ": ", "; ", "= ")
SPACE = "Ġ"
# Punctuation that always means the same thing; everything else stays one byte a token.
MARKS = (
    '",', '":', ' "', '{"', ' {"', '"}', '}}', '"}}', '"}}\n', '{"}', ' {', ' [', '</', '>\n', '}\n', '\n\n', '.\n', '.\n\n', '```', '```\n', ":\n", ")\n", "]\n", "\n\n",
    "?\n", " #", " <", ' ["', '"]', '("', '")', '"]}}', '"]}}}', '"}}}', '"}}}\n', ' +', ' -', ' *', ' /', ' =', ' (', ' **', ' %', ' ==', "**", "//", " //", "\n    ", "\n  ", "    ", ' ()',
    "...", "<|", "|>", " $\\", "^{", "\\", " \\", "$\\", "{\\", "$.", ".$",
)  # fmt: skip


def build(size: int = 2048, samples: int = 12000, seed: int = 7) -> Tokenizer:
    """Learn the tokenizer from a sample of the corpus.

    Args:
        size: Number of tokens, special ones and the 256 bytes included.
        samples: How many dialogs to count words in.
        seed: Of the corpus sample.
    """
    alphabet = _byte_alphabet()
    counts, spaced = _count_words(samples, seed)
    characters = _common_characters(counts)
    vocabulary = {token: i for i, token in enumerate(sorted(alphabet.values()))}
    merges: list[tuple[str, str]] = []

    def add(pair: tuple[str, str]) -> None:
        if pair not in seen:
            seen.add(pair)
            merges.append(pair)
            vocabulary.setdefault("".join(pair), len(vocabulary))

    seen: set[tuple[str, str]] = set()
    for text in (*characters, *MARKS):
        pieces = [alphabet[byte] for byte in text.encode()]
        while len(pieces) > 1:
            add((pieces[0], pieces[1]))
            pieces[:2] = [pieces[0] + pieces[1]]
    room = size - len(SPECIAL_TOKENS) - len(vocabulary)
    space_words = [word for word, _ in spaced.most_common(2000) if len(word) > 1 and word.isascii()][: room // 3]
    for pair in _letter_merges(counts, room - len(space_words)):
        add(pair)
    for word in space_words:
        if word in vocabulary:
            add((SPACE, word))
    ids = {token: i + len(SPECIAL_TOKENS) for i, token in enumerate(vocabulary)}
    ids = {**{token: i for i, token in enumerate(SPECIAL_TOKENS)}, **ids}
    return with_numbers(ids, merges)


def with_numbers(ids: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """The tokenizer of a vocabulary and its merges, with tokens for numbers of up to three digits and for what stands between numbers."""
    ids, merges = dict(ids), list(merges)
    alphabet = _byte_alphabet()

    def add(left: str, right: str) -> None:
        if (left, right) not in known:
            merges.append((left, right))
            ids.setdefault(left + right, len(ids))

    known = set(merges)
    for text in BETWEEN:
        pieces = [alphabet[byte] for byte in text.encode()]
        whole = pieces[0]
        for piece in pieces[1:]:
            add(whole, piece)
            whole += piece
    for a, b in itertools.product("0123456789", repeat=2):
        add(a, b)
    for a, b, c in itertools.product("0123456789", repeat=3):
        add(a + b, c)
        add(a, b + c)  # whichever pair is joined first
    tokenizer = Tokenizer(models.BPE(ids, merges, ignore_merges=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "isolated", invert=False), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json as transformers 4 and 5 read them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "added_tokens_decoder": {
            str(i): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
            for i, token in enumerate(SPECIAL_TOKENS)
        },
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _byte_alphabet() -> dict[int, str]:
    """The printable stand-in of every byte that byte-level tokenizers use."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = itertools.count(256)
    return {byte: chr(byte) if byte in plain else chr(next(extra)) for byte in range(256)}


def _count_words(samples: int, seed: int) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """How often each run of letters occurs, and how often with a space before it."""
    counts: collections.Counter[str] = collections.Counter()
    spaced: collections.Counter[str] = collections.Counter()
    for dialog in itertools.islice(corpus.dialogs(seed), samples):
        text = render(dialog.messages, dialog.tools, False)
        letters = "".join(c if c.isalpha() else " " if c == " " else "\x00" for c in text)
        for run in letters.split("\x00"):
            parts = run.split(" ")
            for index, part in enumerate(parts):
                if part:
                    counts[part] += 1
                    if index:
                        spaced[part] += 1
    # Each word of the lists once more, so that ordinary English splits well, without drowning what is frequent.
    for word in words.NOUNS:
        counts[word] += 12
        counts[word.capitalize()] += 6
    return counts, spaced


def _common_characters(counts: collections.Counter[str]) -> list[str]:
    """Chinese characters that deserve a token of their own."""
    found: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        for character in word:
            if "一" <= character <= "鿿":
                found[character] += count
    return [character for character, count in found.most_common(110) if count >= 5] + ["，", "。", "？", "“", "”", "【", "】", "°"]


def _letter_merges(counts: collections.Counter[str], number: int) -> list[tuple[str, str]]:
    """Ordinary byte-pair merges inside words of ASCII letters.

    Counts are damped: template words need no more than one token, and rare words should get useful pieces as well.
    """
    table = {word: count**0.7 for word, count in counts.items() if word.isascii() and count > 1}
    pieces = {word: list(word) for word in table}
    merges: list[tuple[str, str]] = []
    while len(merges) < number:
        pairs: dict[tuple[str, str], float] = collections.defaultdict(float)
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += table[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        joined = "".join(best)
        for word, parts in pieces.items():
            if joined in word:
                i = 0
                while i < len(parts) - 1:
                    if parts[i] == best[0] and parts[i + 1] == best[1]:
                        parts[i : i + 2] = [joined]
                    i += 1
    return merges


if __name__ == "__main__":
    save(build(), Path(sys.argv[1]))
