"""Trains the embedded model on a CPU and writes it as a Hugging Face directory.

    python models/tiny/train.py --out lagentlike/llms/tiny/weights --work /tmp/tiny

The run can be stopped and started again: it goes on from the last checkpoint in `--work`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus
import tokenizer as tokenizer_module
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn, Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lagentlike.llms.tiny.chat import segments

__all__ = ["Shape", "TinyModel", "export", "train"]

MAX_LENGTH = 1200


@dataclass(frozen=True)
class Shape:
    """The sizes of the network, named as in a Llama config."""

    vocab_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    rope_theta: float = 1000000.0
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


# --------------------------------------------------------------------------------------------------------------------------------------
# The network: Llama with biases in its attention, as transformers computes it
# --------------------------------------------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        d, ff = shape.hidden_size, shape.intermediate_size
        self.heads, self.eps = shape.num_attention_heads, shape.rms_norm_eps
        self.qkv = nn.Parameter(torch.randn(3, d, d) * d**-0.5)
        self.qkv_bias = nn.Parameter(torch.zeros(3, d))
        self.o = nn.Parameter(torch.randn(d, d) * d**-0.5 / math.sqrt(2 * shape.num_hidden_layers))
        self.gate_up = nn.Parameter(torch.randn(2, ff, d) * d**-0.5)
        self.down = nn.Parameter(torch.randn(d, ff) * ff**-0.5 / math.sqrt(2 * shape.num_hidden_layers))
        self.norm1 = nn.Parameter(torch.ones(d))
        self.norm2 = nn.Parameter(torch.ones(d))
        if index == 0:
            self.look_back(shape)

    def look_back(self, shape: Shape) -> None:
        """Biases with which head h attends to the token h + 1 places before, from the first step on.

        After the rotary embedding the score of two constant vectors depends on their distance alone; turning the query's by -(h + 1) steps puts
        the maximum there. Copying needs such heads, and plain initialisation takes long to find them.
        """
        half = shape.head_dim // 2
        speed = shape.rope_theta ** (-torch.arange(half) / half)
        amplitude = torch.where(speed > 0.02, 5.0, 0.5)
        with torch.no_grad():
            q, k = (self.qkv_bias[i].view(shape.num_attention_heads, 2, half) for i in (0, 1))
            for head in range(shape.num_attention_heads):
                angle = -(head + 1) * speed
                k[head, 0], k[head, 1] = amplitude, 0.0
                q[head, 0], q[head, 1] = amplitude * angle.cos(), amplitude * angle.sin()
            self.qkv[:2] *= 0.3

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, d = x.shape
        h = F.rms_norm(x, (d,), self.norm1, self.eps)
        qkv = F.linear(h, self.qkv.flatten(0, 1), self.qkv_bias.flatten())
        q, k, v = qkv.view(batch, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + F.linear(y.transpose(1, 2).reshape(batch, length, d), self.o)
        h = F.rms_norm(x, (d,), self.norm2, self.eps)
        gate, up = F.linear(h, self.gate_up.flatten(0, 1)).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


def _directions(number: int, size: int) -> Tensor:
    """`number` random orthonormal vectors of length `size`, as rows."""
    return torch.linalg.qr(torch.randn(size, number))[0].T


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, halves convention."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class TinyModel(nn.Module):
    """A Llama decoder with tied embeddings; returns hidden states after the last norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Parameter(torch.randn(shape.vocab_size, shape.hidden_size) * 0.05)
        self.layers = nn.ModuleList(Layer(shape, i) for i in range(shape.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden_size))
        self._prepare_copying()
        half = shape.head_dim // 2
        angle = torch.arange(shape.max_position_embeddings)[:, None] * shape.rope_theta ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    @torch.no_grad()
    def _prepare_copying(self) -> None:
        """Start the second layer as induction heads: look for the place where the last tokens stood before, and read what followed.

        The first half of the residual stream holds the token, the second half what layer 0 brings from one and from two places before.
        Layer 1 compares codes of these in the slow pairs of the rotary embedding, which turn little over a conversation, and copies the
        token found. All of it is only a start: every weight is trained.
        """
        shape, first, second = self.shape, self.layers[0], self.layers[1]
        assert isinstance(first, Layer)
        assert isinstance(second, Layer)
        half, width = shape.hidden_size // 2, shape.head_dim
        self.embed[:, half:] *= 0.1
        code = _directions(width, half)
        for head in range(2):
            rows = slice(head * width, (head + 1) * width)
            first.qkv[2, rows] = 0
            first.qkv[2, rows, :half] = code
            first.o[:, rows] *= 0.3
            first.o[half + head * width : half + (head + 1) * width, rows] += 0.15 * torch.eye(width)
        slow = torch.cat((torch.arange(width // 4, width // 2), torch.arange(3 * width // 4, width)))
        now, before, earlier = slice(0, half), slice(half, half + width), slice(half + width, half + 2 * width)
        second.qkv *= 0.3
        for head in range(shape.num_attention_heads):
            rows = slice(head * width, (head + 1) * width)
            q, k, v = (second.qkv[i, rows] for i in range(3))
            inner = torch.arange(len(slow)) % (len(slow) // 2) < len(slow) // 4
            last, last_but_one = (slow, slow[:0]) if head < 2 else (slow[inner], slow[~inner])
            for places, asked, kept in ((last, now, before), (last_but_one, before, earlier)):
                turned = 1.2 * _directions(len(places), width)
                q[places, asked] += turned @ code if asked is now else turned
                k[places, kept] += turned
            read = slice(head % 2 * width, (head % 2 + 1) * width)
            v[:, read] += torch.eye(width)
            second.o[read, rows] += 0.5 * torch.eye(width)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.embedding(ids, self.embed)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.rms_norm(x, (x.shape[-1],), self.norm, self.shape.rms_norm_eps)


# --------------------------------------------------------------------------------------------------------------------------------------
# Rows: token ids, and which of them are trained
# --------------------------------------------------------------------------------------------------------------------------------------

Row = tuple[list[int], list[bool]]


def encode(dialog: corpus.Dialog, tokenizer: Tokenizer) -> Row:
    """Ids of a dialog and a mask that is true on the assistant's tokens and on the end of its turns.

    A message marked `open` was cut by a stop word: its end is not trained. One marked `skip` is an example, not trained at all.
    """
    texts = list(segments(dialog.messages, dialog.tools))
    start, end = 1, 2
    ids: list[int] = []
    mask: list[bool] = []
    newline = tokenizer.encode("\n").ids
    header = len(tokenizer.encode("assistant\n").ids)
    for (text, index), encoding in zip(texts, tokenizer.encode_batch([text for text, _ in texts]), strict=True):
        message = dialog.messages[index] if index >= 0 else {}
        trained = text.startswith("assistant\n") and not message.get("skip")
        ids += [start, *encoding.ids, end, *newline]
        mask += [False] + [trained and i >= header for i in range(len(encoding.ids))]
        mask += [trained and not message.get("open")] + [False] * len(newline)
    return ids, mask


def batches(stream: Iterator[corpus.Dialog], tokenizer: Tokenizer, tokens: int, pool: int, rng: random.Random) -> Iterator[list[Row]]:
    """Batches of about `tokens` tokens, each of rows of like length, drawn from pools of `pool` dialogs."""
    while True:
        rows = [row for row in (encode(dialog, tokenizer) for dialog in itertools.islice(stream, pool)) if len(row[0]) <= MAX_LENGTH]
        rows.sort(key=lambda row: len(row[0]))
        group: list[Row] = []
        groups = [group]
        for row in rows:
            if (len(group) + 1) * len(row[0]) > tokens and group:
                group = []
                groups.append(group)
            group.append(row)
        rng.shuffle(groups)
        yield from groups


def collate(rows: list[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Padded ids, and the positions and targets of the trained tokens."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (row, trained) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = torch.tensor(trained)
    where = mask[:, 1:].nonzero(as_tuple=True)
    return ids[:, :-1], where[0] * (width - 1) + where[1], ids[:, 1:][where]


# --------------------------------------------------------------------------------------------------------------------------------------
# Optimisers
# --------------------------------------------------------------------------------------------------------------------------------------


class Muon:
    """Momentum whose update is orthogonalised by Newton-Schulz iterations (Jordan et al., 2024), for the matrices."""

    def __init__(self, parameters: list[nn.Parameter], momentum: float = 0.95) -> None:
        self.parameters, self.momentum = parameters, momentum
        self.state = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        groups: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = {}
        for p, m in zip(self.parameters, self.state, strict=True):
            assert p.grad is not None
            m.mul_(self.momentum).add_(p.grad)
            update = p.grad + self.momentum * m
            groups.setdefault(tuple(p.shape[-2:]), []).append((p, update.view(-1, *p.shape[-2:])))
        for shape, pairs in groups.items():
            turned = orthogonal(torch.cat([update for _, update in pairs]))
            scale = lr * max(1.0, shape[0] / shape[1]) ** 0.5
            for (p, _), piece in zip(pairs, turned.split([update.shape[0] for _, update in pairs]), strict=True):
                p.add_(piece.view_as(p), alpha=-scale)


def orthogonal(g: Tensor) -> Tensor:
    """The nearest orthogonal matrices of a batch, roughly."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g
    flip = x.shape[-2] > x.shape[-1]
    if flip:
        x = x.mT
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).contiguous()
    for _ in range(5):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if flip else x


# --------------------------------------------------------------------------------------------------------------------------------------
# The run
# --------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Steps, batch size and learning rates of a run; nothing depends on the clock.

    `drill` steps of short dialogs come first; `decay_from` and `finish_from` are shares of the steps: from there the learning rate falls to
    zero, and the dialogs are of the last, plainer mixture. `again` steps follow in which it falls once more, from `again_lr` of its peak; `last_from` of them
    on, the dialogs are of the last mixture.
    """

    steps: int
    drill: int = 250
    tokens: int = 5000
    decay_from: float = 0.2
    finish_from: float = 0.67
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    warmup: int = 30
    again: int = 0
    again_lr: float = 0.4
    last_from: float = 0.4
    seed: int = 1

    def stage(self, step: int) -> int:
        """Which mixture of dialogs a step is trained on."""
        if step >= self.steps:
            return 3 if step - self.steps >= self.last_from * self.again else 2
        return int(step >= self.finish_from * self.steps)

    def factor(self, step: int) -> float:
        """The learning rate at a step relative to its peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if step >= self.steps:
            into = step - self.steps
            return self.again_lr * (1 - into / self.again) * min(1.0, (into + 1) / self.warmup)
        left = (self.steps - step) / (self.steps * (1 - self.decay_from))
        return max(0.0, min(1.0, left))


def train(plan: Plan, shape: Shape, tokenizer: Tokenizer, work: Path, start: Path | None = None, log_every: int = 50) -> TinyModel:
    """Train, or go on training, and return the model; `start` is a Hugging Face directory whose weights it begins from."""
    torch.manual_seed(plan.seed)
    model = TinyModel(shape)
    if start is not None:
        begin_from(start, model, tokenizer)
    matrices = [p for p in model.layers.parameters() if p.ndim >= 2 and p.shape[-1] * p.shape[-2] > 4096]
    others = [p for p in model.parameters() if all(p is not q for q in matrices)]
    muon, adam = Muon(matrices), torch.optim.AdamW(others, lr=plan.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
    done = resume(work, model, muon, adam)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, from step {done}", flush=True)
    source = stream(plan, tokenizer, done)
    for layer in model.layers:
        layer.compile(dynamic=True)
    started, total, count, seen = time.process_time(), 0.0, 0, 0
    for step in range(done, plan.steps + plan.again):
        ids, where, targets = collate(next(source))
        hidden = model(ids)
        loss = F.cross_entropy(F.linear(hidden.flatten(0, 1)[where], model.embed), targets)
        loss.backward()
        factor = plan.factor(step)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.param_groups[0]["lr"] = plan.adam_lr * factor
        adam.step()
        muon.step(plan.muon_lr * factor)
        model.zero_grad()
        total, count, seen = total + loss.item(), count + 1, seen + ids.numel()
        if (step + 1) % log_every == 0:
            spent = time.process_time() - started
            print(f"step {step + 1} loss {total / count:.4f} lr {factor:.3f} {seen / spent:.0f} tokens/s {spent / 60:.1f} cpu minutes", flush=True)
            total = count = 0
        if (step + 1) % 250 == 0 or step + 1 in (plan.steps, plan.steps + plan.again):
            checkpoint(work, model, muon, adam, step + 1)
    return model


@torch.no_grad()
def begin_from(folder: Path, model: TinyModel, tokenizer: Tokenizer) -> None:
    """Begin with the weights of a smaller model of this kind.

    Layers it lacks stand after its second one, the first of them looking back as layer 0 does, and add nothing yet. Tokens it lacks begin
    near the digits if they are numbers, else near their first character, each in a direction of its own as another token's is.
    """
    saved = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    old = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    model.norm.copy_(saved["model.norm.weight"])
    rows = saved["model.embed_tokens.weight"]
    words = rows[[i for token, i in sorted(old.items()) if token.strip("Ġ").isalpha() and token.isascii()]]
    digits = rows[[old[digit] for digit in "0123456789"]].mean(0)
    for token, i in tokenizer.get_vocab().items():
        if token in old:
            model.embed[i] = rows[old[token]]
        else:
            direction = words[torch.randint(len(words), ())] - words.mean(0)
            model.embed[i] = digits + direction if token.isdigit() else rows[old[token.strip("Ġ")[0]]] + 0.5 * direction
    depth = 1 + max(int(name.split(".")[2]) for name in saved if ".layers." in name)
    order = [0, 1, *[None] * (len(model.layers) - depth), *range(2, depth)]
    for place, (layer, index) in enumerate(zip(model.layers, order, strict=True)):
        assert isinstance(layer, Layer)
        if index is None:
            width = layer.qkv.shape[-1]
            layer.qkv.copy_(torch.randn_like(layer.qkv) * width**-0.5)
            layer.qkv_bias.zero_()
            if place == 2:
                layer.look_back(model.shape)
            layer.o.zero_()
            layer.down.zero_()
            continue
        for tensor, name in named_tensors(layer, index):
            tensor.copy_(saved[name])


def stream(plan: Plan, tokenizer: Tokenizer, done: int) -> Iterator[list[Row]]:
    """The batches from step `done` on; drills first, then dialogs, each stretch of steps from a seed of its own."""
    for chunk in itertools.count(done // 250):
        drilling = chunk * 250 < plan.drill
        seed = plan.seed * 1_000_003 + chunk
        dialogs = corpus.drill(seed) if drilling else corpus.dialogs(seed, plan.stage(chunk * 250))
        source = batches(dialogs, tokenizer, plan.tokens, 1500, random.Random(seed))
        yield from itertools.islice(source, done % 250 if chunk == done // 250 else 0, 250)


def checkpoint(work: Path, model: TinyModel, muon: Muon, adam: torch.optim.Optimizer, step: int) -> None:
    work.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "muon": muon.state, "adam": adam.state_dict(), "step": step}, work / "last.tmp")
    (work / "last.tmp").replace(work / "last.pt")


def resume(work: Path, model: TinyModel, muon: Muon, adam: torch.optim.Optimizer) -> int:
    if not (work / "last.pt").exists():
        return 0
    saved: dict[str, Any] = torch.load(work / "last.pt")
    model.load_state_dict(saved["model"])
    for mine, other in zip(muon.state, saved["muon"], strict=True):
        mine.copy_(other)
    adam.load_state_dict(saved["adam"])
    return int(saved["step"])


# --------------------------------------------------------------------------------------------------------------------------------------
# The Hugging Face directory
# --------------------------------------------------------------------------------------------------------------------------------------


def export(model: TinyModel, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors (fp16)."""
    shape = model.shape
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"model.embed_tokens.weight": model.embed.data, "model.norm.weight": model.norm.data}
    for i, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        tensors |= {name: tensor for tensor, name in named_tensors(layer, i)}
        tensors[f"model.layers.{i}.self_attn.o_proj.bias"] = torch.zeros(shape.hidden_size)  # Llama has all four or none
    save_file({name: t.detach().half().contiguous() for name, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = {
        # Not qwen2, which it could be as well: for that type transformers 5 splits numbers into digits, whatever the tokenizer says.
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_attention_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float16",
        "use_cache": True,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"bos_token_id": None, "eos_token_id": [2, 0], "pad_token_id": 0, "do_sample": False, "max_new_tokens": 512}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def named_tensors(layer: Layer, index: int) -> Iterator[tuple[Tensor, str]]:
    """The tensors of a layer with their names in a Llama checkpoint."""
    prefix = f"model.layers.{index}."
    for j, name in enumerate("qkv"):
        yield layer.qkv.data[j], f"{prefix}self_attn.{name}_proj.weight"
        yield layer.qkv_bias.data[j], f"{prefix}self_attn.{name}_proj.bias"
    yield layer.o.data, f"{prefix}self_attn.o_proj.weight"
    yield layer.gate_up.data[0], f"{prefix}mlp.gate_proj.weight"
    yield layer.gate_up.data[1], f"{prefix}mlp.up_proj.weight"
    yield layer.down.data, f"{prefix}mlp.down_proj.weight"
    yield layer.norm1.data, f"{prefix}input_layernorm.weight"
    yield layer.norm2.data, f"{prefix}post_attention_layernorm.weight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the Hugging Face directory to write")
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--steps", type=int, default=5200)
    parser.add_argument("--again", type=int, default=0, help="steps of a second fall of the learning rate")
    parser.add_argument("--tokens", type=int, default=5000)
    parser.add_argument("--drill", type=int, default=250)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--ff", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peak", type=float, default=0.4, help="learning rate at the start of the second fall, relative to the first")
    parser.add_argument("--start", type=Path, default=None, help="a Hugging Face directory whose weights to begin from")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # gradients far from a trained attention vanish, and such numbers are slow
    if not (options.out / "tokenizer.json").exists():
        tokenizer_module.save(tokenizer_module.build(), options.out)
    tokenizer = Tokenizer.from_file(str(options.out / "tokenizer.json"))
    corpus.Source.pieces = tuple(sorted({piece for token in tokenizer.get_vocab() if (piece := token.strip("Ġ")).isalpha() and piece.isascii()}))
    shape = Shape(vocab_size=tokenizer.get_vocab_size(), hidden_size=options.hidden, intermediate_size=options.ff, num_hidden_layers=options.layers, num_attention_heads=options.heads)
    plan = Plan(steps=options.steps, again=options.again, again_lr=options.peak, tokens=options.tokens, drill=options.drill, seed=options.seed)
    export(train(plan, shape, tokenizer, options.work, options.start), options.out)


if __name__ == "__main__":
    main()
