"""Tokenizers in the manner of each family, and conversations to write with them."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, Tokenizer, trainers
from transformers import PreTrainedTokenizerFast

from lagentlike.prompts.chat import ChatTemplate

ALIASES = ("gemma", "internlm2.5", "internlm3", "llama-3.3", "mistral", "qwen2.5-coder")
FAMILIES = [name for name in ChatTemplate.names() if name not in ALIASES]
KINDS = [  # the families with tokenizers as Qwen's, and some with tokenizers as others have
    *((name, "bytes") for name in FAMILIES),
    *(
        (name, kind)
        for kind in ("first", "legacy")
        for name in ("mistral-nemo", "phi-3.5", "gemma-2", "internlm2", "qwen2.5")
    ),
]
TEXT_ARGUMENTS = {"deepseek-r1"}  # whose template joins a call's arguments to other text
NO_SYSTEM = {"gemma-2"}
NO_CALLS = {"aya-expanse", "gemma-2", "gemma-3", "mistral-nemo"}  # or only in an order that answers as text break

_SPECIAL = re.compile(
    r"<[|｜][^<>{}'\"\s]+[|｜]>|<(?:start|end)_of_turn>|\[/?[A-Z_]{4,}\]|\[gMASK\]|<sop>|<s>|</s>|<bos>|<eos>|<BOS_TOKEN>"
)
_NOT_SPECIAL = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
_TEXT = [
    "The result of 1 + 1 is 2.\n\nHello world, how are you?  Fine!",
    '<tool_call>\n{"name": "calculator", "arguments": {"expression": "1 + 1"}}\n</tool_call>',
    "You are a helpful assistant. system user assistant tool model ipython",
    "print('def f(x): return x')\n\tα β 你好 😀 naïve",
]


def special_tokens(name: str) -> list[str]:
    """What a family's template writes that its tokenizers have as special tokens."""
    template = ChatTemplate.named(name)
    assert isinstance(template.source, str)
    return sorted({*_SPECIAL.findall(template.source), *template.variables.values()})


@cache
def tokenizer_of(name: str, kind: str = "bytes") -> Any:
    """A fast tokenizer of transformers with a family's template and special tokens.

    Args:
        name: the family's.
        kind: `bytes` as Qwen and Llama 3 have it, `first` as Mistral (a space before the text), `legacy` as Llama 2 and
            Phi 3 (a space before each stretch of text; special tokens swallow the space after them).
    """
    template = ChatTemplate.named(name)
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet, specials = pre_tokenizers.ByteLevel.alphabet(), []
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        if kind == "first":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet, specials = [], words
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXT * 3, trainer)
    if specials:  # bytes are plain tokens, as in these families
        made = json.loads(tokenizer.to_str())
        made["added_tokens"] = [token for token in made["added_tokens"] if not token["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(made))
    swallow = kind == "legacy"
    tokenizer.add_special_tokens(
        [AddedToken(token, rstrip=swallow, normalized=False) for token in special_tokens(name)]
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in _NOT_SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template.source, **template.variables)


CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": 'Computes <what> it\'s "told" & more, e.g. 你好.',
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "Such as 1 + 1."}},
            "required": ["expression"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Looks things up.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}, "top": {"type": "integer"}}},
    },
}
TOOLS = st.sampled_from([None, [CALCULATOR], [SEARCH, CALCULATOR]])

_BITS = ["Hello", " world", "\n", "\n\n", "  ", "1 + 1", "你好", "😀", "é", "'\"\\", "{", "}", "<", "|>", "im_end", "a"]
_THINKING = ["<think>\nhm\n</think>\n\n", "</think>", "<think>"]
_LOOKALIKES = ["<|im_end|>", "<|im_start|>", "<|eot_id|>", "<｜User｜>", "</s>", "[INST]", "<|user|>", "<end_of_turn>"]


def texts(spell_special: bool = True, bits: list[str] | None = None) -> st.SearchStrategy[str]:
    """Texts of what is likely to be trouble, and of any characters."""
    pieces = bits or [*_BITS, *_THINKING, "<tool_call>", "</tool_response>"]
    any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<[]>|｜"), max_size=6)
    some = st.sampled_from(pieces + (_LOOKALIKES if spell_special else []))
    return st.lists(some | any_text, max_size=5).map("".join)


@st.composite
def conversations(
    draw: st.DrawFn, content: st.SearchStrategy[str], text_arguments: bool, system: bool = True, calling: bool = True
) -> Any:
    """Conversations in chat format: a system's message or none, then questions, calls, results and answers."""
    messages: list[dict[str, Any]] = []
    if system and draw(st.booleans()):
        messages.append({"role": "system", "content": draw(content)})
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(content)})
        for _ in range(draw(st.integers(0, 2)) if calling else 0):
            calls = [_call(draw, content, text_arguments) for _ in range(draw(st.integers(1, 2)))]
            messages.append({"role": "assistant", "content": draw(content), "tool_calls": calls})
            for call in calls:
                name = call["function"]["name"]
                messages.append({"role": "tool", "content": draw(content), "tool_call_id": call["id"], "name": name})
        messages.append({"role": "assistant", "content": draw(content)})
    if draw(st.booleans()):
        messages.append({"role": "user", "content": draw(content)})
    return messages


def _call(draw: st.DrawFn, content: st.SearchStrategy[str], as_text: bool) -> dict[str, Any]:
    name = draw(st.sampled_from(["calculator", "search"]))
    arguments: Any = draw(
        st.dictionaries(st.sampled_from(["expression", "query", "n"]), content | st.integers(), max_size=2)
    )
    if as_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    id_ = draw(st.sampled_from(["abcdefgh1", "abcdefgh2"]))
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
