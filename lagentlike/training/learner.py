"""Networks that learn from rows of token ids: micro-batches, what rows share read once, steps of AdamW."""

from __future__ import annotations

import copy
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, MissingExtra
from ._torch import torch

__all__ = ["AdamW", "Learner", "Rows", "quiet", "read_model"]

Tensor = torch.Tensor
Rows = Mapping[str, Tensor]
"""What `tokenize_trajectories(…, tensors="pt")` gives."""

PartLoss = Callable[[Tensor, Rows], Tensor]
"""Numbers of the rows `[n]`, and these rows -> the part of the loss they make."""


@contextmanager
def _flushing() -> Iterator[None]:
    """Take numbers next to nothing as nothing in this thread: gradients have many, and they are slow."""
    before = sys.float_info.min * 0.5 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@dataclass(frozen=True, slots=True)
class AdamW:
    """How a policy learns: AdamW (Loshchilov and Hutter 2019) with a linear warm-up and clipped gradients.

    Attributes:
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        weight_decay: decoupled weight decay.
        warmup: updates until the learning rate is reached.
        max_norm: gradients whose norm is above are scaled down to it.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 0
    max_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "max_norm"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise InvalidArgument(name, value, "give a number above 0")


class Learner:
    """A transformer that learns from rows of token ids.

    Args:
        model: a causal language model of transformers, or one with another head.
        adamw: how it learns.
        micro_batch: most tokens, padding included, that go through it at once; it bounds the memory.
        device: where it is.
        dtype: what it multiplies matrices in, "float32" or "bfloat16".

    Dropout is off. Updates set the flag that takes denormal numbers as 0 in the thread they run in: on trained
    attention they make the backward pass several times slower.

    Attributes:
        model: the torch module.
        steps: updates so far.
    """

    def __init__(self, model: Any, adamw: AdamW, micro_batch: int, device: Any = "cpu", dtype: str = "float32") -> None:
        if isinstance(micro_batch, bool) or not isinstance(micro_batch, int) or micro_batch < 1:
            raise InvalidArgument("micro_batch", micro_batch, "give a number of tokens, at least 1")
        if dtype not in ("float32", "bfloat16"):
            raise InvalidArgument("dtype", dtype, "give 'float32' or 'bfloat16'")
        self.adamw = adamw
        self.micro_batch = micro_batch
        self.device, self.dtype = _device(device), dtype
        self.model = self._placed(model)
        self.steps = 0
        self._trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self._forward = set(inspect.signature(self.model.forward).parameters)
        self.optimizer = torch.optim.AdamW(
            self._trained.values(), lr=adamw.lr, betas=adamw.betas, weight_decay=adamw.weight_decay
        )

    def _placed(self, model: Any) -> Any:
        """A module on the device, which multiplies in `dtype` whoever calls it."""
        model = model.to(self.device).eval()
        if self.dtype != "float32":
            model.forward = torch.autocast(self.device.type, getattr(torch, self.dtype))(model.forward)
        return model

    def _of_trained(
        self, model: Any, rows: Rows, read: Callable[[Tensor, Tensor], Sequence[Tensor]], count: int = 1
    ) -> list[Tensor]:
        """What `read` makes of the outputs `[n, length, …]` and their tokens `[n, length]`, at trained tokens.

        Returns:
            `count` tensors on the CPU, `[rows, length]`, 0.0 on tokens that are not trained.
        """
        ids, mask = rows["input_ids"].to(self.device), rows["action_mask"].to(self.device)
        attention = rows["attention_mask"].to(self.device)
        shared = self._shared_length(rows)
        if not mask.any():
            return [torch.zeros(ids.shape)] * count
        last = int(mask.any(0).nonzero().max())  # nothing behind it is looked at
        outputs = self._outputs(model, ids, attention, shared, last)
        trained = mask[:, shared : last + 1].bool()
        return [
            torch.nn.functional.pad(torch.where(trained, values, 0.0), (shared, ids.shape[1] - last - 1)).cpu()
            for values in read(outputs.float(), ids[:, shared : last + 1])
        ]

    def _gathered(self, rows: Rows, values: Callable[[Rows], Tensor]) -> Tensor:
        """What `values` gives of all rows, without gradients, micro-batch by micro-batch."""
        result = torch.zeros(rows["input_ids"].shape)
        with torch.no_grad():
            for picked, part in self._micro_batches(rows):
                found = values(part)
                result[picked, : found.shape[1]] = found
        return result

    def _outputs(self, model: Any, ids: Tensor, attention: Tensor, shared: int, last: int) -> Tensor:
        """What the head gives for tokens `shared` to `last`, `[rows, last + 1 - shared, …]`; before, rows are alike."""
        positions = torch.arange(last, device=self.device).unsqueeze(0)
        if shared < 2 or len(ids) == 1:  # `shared` is at least 1: a trained token has one before it
            keep = {"logits_to_keep": last + 1 - shared} if "logits_to_keep" in self._forward else {}
            given = model(
                input_ids=ids[:, :last],
                attention_mask=attention[:, :last],
                position_ids=positions.expand(len(ids), -1),
                use_cache=False,
                **keep,
            ).logits
            kept: Tensor = given[:, -(last + 1 - shared) :]
            return kept
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        name = "cache" if "cache" in self._forward else "past_key_values"
        begin = model(input_ids=ids[:1, :shared], position_ids=positions[:, :shared], use_cache=True, **{name: cache})
        first: Tensor = begin.logits[:, -1:].expand(len(ids), -1, -1)
        if last == shared:
            return first
        cache.batch_repeat_interleave(len(ids))
        rest = model(
            input_ids=ids[:, shared:last],
            attention_mask=attention[:, :last],
            position_ids=positions[:, shared:].expand(len(ids), -1),
            use_cache=True,
            **{name: cache},
        )
        return torch.cat([first, rest.logits], 1)

    def _shared_length(self, rows: Rows) -> int:
        """How many tokens all rows begin with in common, none of them trained (but the first one is never trained)."""
        ids, mask = rows["input_ids"], rows["action_mask"]
        if mask[:, 0].any():
            raise InvalidArgument("action_mask", "a 1 in its first column", "a trained token needs one before it")
        differ = (ids != ids[:1]).any(0) | mask.any(0).to(ids.device) | (rows["attention_mask"] == 0).any(0)
        found = differ.nonzero()
        return max(int(found[0]) if len(found) else ids.shape[1], 1)

    def _micro_batches(self, rows: Rows) -> Iterator[tuple[Tensor, Rows]]:
        """The rows in groups of like length that keep within the bound, with their numbers."""
        lengths = rows["attention_mask"].sum(1)
        order = torch.argsort(lengths, stable=True).tolist()
        group: list[int] = []
        for row in [*order, None]:
            if group and (row is None or (len(group) + 1) * int(lengths[row]) > self.micro_batch):
                picked = torch.tensor(group)
                longest = int(lengths[group[-1]])
                yield picked, {name: rows[name][picked, :longest] for name in _FORWARDED}
                group = []
            if row is not None:
                group.append(row)

    @_flushing()
    def _descend(self, rows: Rows, loss: PartLoss) -> dict[str, float]:
        """Take one step down the gradient of a loss, which is the sum of what `loss` gives for each micro-batch.

        Returns:
            `loss`; `grad_norm`, before it is clipped; `lr`; `skipped`, 1.0 where the gradient was not finite and the
            weights were left as they are.
        """
        self.optimizer.zero_grad()
        total = 0.0
        for picked, part in self._micro_batches(rows):
            value: Any = loss(picked, part)
            if value.requires_grad:
                value.backward()
            total += float(value.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained.values(), self.adamw.max_norm))
        lr = self.adamw.lr * min(1.0, (self.steps + 1) / max(self.adamw.warmup, 1))
        skipped = not math.isfinite(norm) or not math.isfinite(total)
        if not skipped:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.steps += 1
        return {"loss": total, "grad_norm": norm, "lr": lr, "skipped": float(skipped)}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: trained weights, optimizer, updates so far."""
        trained = {name: value.detach() for name, value in self._trained.items()}
        return {"trained": trained, "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it is of another model, or of other LoRA options.
        """
        trained: Mapping[str, Tensor] = state["trained"]
        shapes = {name: tuple(value.shape) for name, value in trained.items()}
        if shapes != {name: tuple(value.shape) for name, value in self._trained.items()}:
            raise ValueError("the checkpoint is of another model or of other LoRA options than this one")
        with torch.no_grad():
            for name, value in self._trained.items():
                value.copy_(trained[name])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.steps = int(state["steps"])


def _device(given: Any) -> torch.device:
    try:
        device = torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise InvalidArgument("device", given, "give 'cpu', or 'cuda' for a GPU") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidArgument("device", given, "torch sees no GPU here: give 'cpu', or install a torch built for CUDA")
    return device


_FORWARDED = ("input_ids", "attention_mask", "action_mask")


def read_model(folder: Path) -> Any:
    """The module of a directory, in float32."""
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise MissingExtra("transformers", "train") from error
    if not (folder / "config.json").is_file():
        raise InvalidArgument("path", str(folder), "give a Hugging Face directory, or None for the embedded model")
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return model.float()


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, which small models need not."""
    from transformers.utils import logging

    switch: Any = logging
    showed = switch.is_progress_bar_enabled()
    switch.disable_progress_bar()
    try:
        yield
    finally:
        if showed:
            switch.enable_progress_bar()
