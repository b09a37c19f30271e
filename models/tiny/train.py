"""Trains the embedded model and writes it as a Hugging Face directory.

    python models/tiny/train.py --out lagentlike/llms/tiny/weights --work /tmp/tiny

A GPU needs minutes; a CPU needs a day, and `--steps` and `--tokens` to choose less. The run can be stopped and started again: it goes on from
the last checkpoint in `--work`.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import math
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import corpus
import numpy as np
import tokenizer as tokenizer_module
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn, Tensor
from torch.nn.attention.varlen import varlen_attn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lagentlike.llms.tiny.chat import segments

__all__ = ["Plan", "Shape", "TinyModel", "export", "train"]

MAX_LENGTH = 3072
CAUSAL: dict[str, Any] = {"is_causal": True} if "is_causal" in inspect.signature(varlen_attn).parameters else {"window_size": (-1, 0)}


@dataclass(frozen=True)
class Shape:
    """The sizes of the network, named as in a Llama config."""

    vocab_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 8
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

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, ends: Tensor) -> Tensor:
        length, d = x.shape
        h = F.rms_norm(x, (d,), self.norm1, self.eps)
        qkv = F.linear(h, self.qkv.flatten(0, 1), self.qkv_bias.flatten())
        q, k, v = qkv.view(length, 3, self.heads, d // self.heads).unbind(1)
        y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, ends)
        x = x + F.linear(y.reshape(length, d), self.o)
        h = F.rms_norm(x, (d,), self.norm2, self.eps)
        gate, up = F.linear(h, self.gate_up.flatten(0, 1)).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


def attend(q: Tensor, k: Tensor, v: Tensor, ends: Tensor) -> Tensor:
    """Causal attention within each dialog of a packed batch.

    Args:
        q: tokens x heads x width, like `k` and `v`.
        ends: Where each dialog ends, after a leading 0.
    """
    if q.is_cuda:
        half = torch.bfloat16
        return varlen_attn(q.to(half), k.to(half), v.to(half), ends, ends, MAX_LENGTH, MAX_LENGTH, **CAUSAL)
    pieces = [
        F.scaled_dot_product_attention(*(x[a:b].transpose(0, 1) for x in (q, k, v)), is_causal=True).transpose(0, 1)
        for a, b in itertools.pairwise(ends.tolist())
    ]
    return torch.cat(pieces)


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

    def forward(self, ids: Tensor, places: Tensor, ends: Tensor) -> Tensor:
        x = F.embedding(ids, self.embed)
        cos, sin = self.cos[places, None], self.sin[places, None]
        for layer in self.layers:
            x = layer(x, cos, sin, ends)
        return F.rms_norm(x.float(), (x.shape[-1],), self.norm, self.shape.rms_norm_eps)

    def loss(self, ids: Tensor, places: Tensor, ends: Tensor, where: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy at the positions `where`; a target of -100 does not count."""
        hidden = self(ids, places, ends)[where]
        return F.cross_entropy(F.linear(hidden, self.embed).float(), targets)


# --------------------------------------------------------------------------------------------------------------------------------------
# Batches: dialogs one after the other, and which of their tokens are trained
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


class Batch(NamedTuple):
    """Dialogs in one line; all batches of a run are of the same sizes but for the number of `ends`."""

    ids: np.ndarray[Any, np.dtype[np.int64]]
    places: np.ndarray[Any, np.dtype[np.int64]]
    ends: np.ndarray[Any, np.dtype[np.int32]]
    where: np.ndarray[Any, np.dtype[np.int64]]
    targets: np.ndarray[Any, np.dtype[np.int64]]


def pack(dialogs: Iterator[corpus.Dialog], tokenizer: Tokenizer, tokens: int) -> Batch:
    """As many of the dialogs as fit into `tokens` tokens; what is left over is one more, of which nothing is trained."""
    ids, places, trained = np.zeros(tokens, np.int64), np.zeros(tokens, np.int64), np.zeros(tokens + 1, bool)
    ends = [0]
    for dialog in dialogs:
        row, mask = encode(dialog, tokenizer)
        begin, end = ends[-1], ends[-1] + len(row)
        if len(row) > MAX_LENGTH:
            continue
        if end > tokens:
            break
        ids[begin:end], places[begin:end], trained[begin:end] = row, np.arange(len(row)), mask
        ends.append(end)
    if ends[-1] < tokens:
        ends.append(tokens)
    where = np.flatnonzero(trained[1:])[: tokens // 2]
    targets = np.full(tokens // 2, -100)
    targets[: len(where)] = ids[where + 1]
    return Batch(ids, places, np.array(ends, np.int32), np.pad(where, (0, tokens // 2 - len(where))), targets)


def batches(plan: Plan, tokenizer_file: Path, done: int, processes: int) -> Iterator[Batch]:
    """The batches from step `done` on, made by other processes; each depends on its number alone."""
    context = multiprocessing.get_context("fork")
    queues = [context.Queue(8) for _ in range(processes)]
    workers = [
        context.Process(target=_make, args=(plan, tokenizer_file, range(done + i, plan.steps, processes), queue), daemon=True) for i, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    for step in range(done, plan.steps):
        yield Batch(*queues[(step - done) % processes].get())


def _make(plan: Plan, tokenizer_file: Path, steps: range, queue: Any) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    for step in steps:
        queue.put(tuple(pack(plan.dialogs(step), tokenizer, plan.tokens)))


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

    The first `drill` of the steps are of short dialogs. Up to `mixed_from` the dialogs are of the full mixture, after it of all four mixtures in
    the shares of `late`. From `decay_from` on the learning rate falls to zero. All three are shares of the steps.
    """

    steps: int
    tokens: int = 65536
    drill: float = 0.01
    mixed_from: float = 0.25
    late: tuple[float, ...] = (0.15, 0.25, 0.3, 0.3)
    decay_from: float = 0.3
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    warmup: int = 100
    seed: int = 1

    def dialogs(self, step: int) -> Iterator[corpus.Dialog]:
        """What a step is trained on."""
        seed = self.seed * 1_000_003 + step
        if step < self.drill * self.steps:
            yield from corpus.drill(seed)
        elif step < self.mixed_from * self.steps:
            yield from corpus.dialogs(seed)
        rng = random.Random(seed)
        sources = [corpus.dialogs(seed * 8 + stage, stage) for stage in range(len(self.late))]
        while True:
            yield next(rng.choices(sources, self.late)[0])

    def factor(self, step: int) -> float:
        """The learning rate at a step relative to its peak."""
        left = (self.steps - step) / (self.steps * (1 - self.decay_from))
        return min(1.0, left, (step + 1) / self.warmup)


def train(
    plan: Plan,
    shape: Shape,
    tokenizer_file: Path,
    work: Path,
    device: torch.device,
    processes: int,
    log_every: int = 100,
) -> TinyModel:
    """Train, or go on training, and return the model."""
    torch.manual_seed(plan.seed)
    model = TinyModel(shape).to(device)
    matrices = [p for p in model.layers.parameters() if p.ndim >= 2 and p.shape[-1] * p.shape[-2] > 4096]
    others = [p for p in model.parameters() if all(p is not q for q in matrices)]
    muon, adam = Muon(matrices), torch.optim.AdamW(others, lr=plan.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
    done = resume(work, model, muon, adam)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, from step {done}", flush=True)
    loss_of = torch.compile(model.loss) if device.type == "cuda" else model.loss
    began, total, count = time.perf_counter(), torch.zeros((), device=device), 0
    for step, batch in enumerate(batches(plan, tokenizer_file, done, processes), done):
        inputs = [torch.from_numpy(part).to(device) for part in batch]
        torch._dynamo.mark_dynamic(inputs[2], 0)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = loss_of(*inputs)
        loss.backward()
        factor = plan.factor(step)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.param_groups[0]["lr"] = plan.adam_lr * factor
        adam.step()
        muon.step(plan.muon_lr * factor)
        model.zero_grad()
        total, count = total + loss.detach(), count + 1
        if (step + 1) % log_every == 0:
            seconds = time.perf_counter() - began
            print(
                f"step {step + 1} loss {total.item() / count:.4f} lr {factor:.3f} {(step + 1 - done) * plan.tokens / seconds:.0f} tokens/s {seconds:.0f} s",
                flush=True,
            )
            total, count = torch.zeros((), device=device), 0
        if (step + 1) % 1000 == 0 or step + 1 == plan.steps:
            checkpoint(work, model, muon, adam, step + 1)
    return model


def checkpoint(work: Path, model: TinyModel, muon: Muon, adam: torch.optim.Optimizer, step: int) -> None:
    work.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "muon": muon.state, "adam": adam.state_dict(), "step": step}, work / "last.tmp")
    (work / "last.tmp").replace(work / "last.pt")


def resume(work: Path, model: TinyModel, muon: Muon, adam: torch.optim.Optimizer) -> int:
    if not (work / "last.pt").exists():
        return 0
    saved: dict[str, Any] = torch.load(work / "last.pt", map_location=model.embed.device)
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
    save_file(
        {name: t.detach().half().contiguous() for name, t in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
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
    generation = {
        "bos_token_id": None,
        "eos_token_id": [2, 0],
        "pad_token_id": 0,
        "do_sample": False,
        "max_new_tokens": 512,
    }
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
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--tokens", type=int, default=65536, help="tokens a step")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="processes that make dialogs")
    options = parser.parse_args()
    torch.set_flush_denormal(True)  # gradients far from a trained attention vanish, and such numbers are slow
    torch.set_float32_matmul_precision("high")
    if not (options.out / "tokenizer.json").exists():
        tokenizer_module.save(tokenizer_module.build(), options.out)
    file = options.out / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    corpus.Source.pieces = tuple(sorted({piece for token in tokenizer.get_vocab() if (piece := token.strip("Ġ")).isalpha() and piece.isascii()}))
    shape = Shape(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=options.layers)
    plan = Plan(steps=options.steps, tokens=options.tokens, seed=options.seed)
    model = train(plan, shape, file, options.work, torch.device(options.device), options.processes)
    export(model.cpu(), options.out)


if __name__ == "__main__":
    main()
