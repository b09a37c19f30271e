"""The policy: a causal language model that is trained, and that agents sample from."""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import shutil
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, MissingExtra
from ..llms.local import AsyncLocalLLM
from ..llms.tiny.engine import TinyEngine, WEIGHTS
from ..llms.tiny.network import Network
from ..module import Module
from ..prompts.chat.tokenizer import ChatTokenizer
from ._torch import torch
from .losses import token_entropy, token_logprobs
from .sampling import Draws, PolicyLM, PolicyTransformer

__all__ = ["AdamW", "Policy", "Rows"]

Tensor = torch.Tensor
Rows = Mapping[str, Tensor]
"""What `tokenize_trajectories(…, tensors="pt")` gives."""

LossOf = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""Numbers of the rows `[n]`, their log-probabilities and entropies `[n, length]` -> the part of the loss they make."""


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


class Policy:
    """A causal language model that is trained, and that agents sample from.

    Args:
        path: a Hugging Face directory of a causal language model; None for the embedded one.
        lora: options of peft's `LoraConfig`, such as `dict(r=8, lora_alpha=16)`: low-rank matrices are trained in
            place of the weights (Hu et al. 2021). By default they stand beside all linear layers.
        adamw: how it learns.
        micro_batch: most tokens, padding included, that go through the network at once; it bounds the memory.
        seed: of what is random at the start (LoRA's matrices).
        device: where it is trained.

    Dropout is off, so that log-probabilities are those of the policy that is sampled from. Updates set the flag that
    takes denormal numbers as 0 in the thread they run in: on trained attention they make the backward pass several
    times slower.

    Attributes:
        model: the torch module.
        folder: where it was read from.
        steps: updates so far.

    >>> policy = Policy()
    >>> policy.llm().chat                                                                     # doctest: +ELLIPSIS
    <bound method AsyncBaseLLM.chat of PolicyLM('weights')>
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        lora: Mapping[str, Any] | None = None,
        adamw: AdamW | None = None,
        micro_batch: int = 8192,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if isinstance(micro_batch, bool) or not isinstance(micro_batch, int) or micro_batch < 1:
            raise InvalidArgument("micro_batch", micro_batch, "give a number of tokens, at least 1")
        self.folder = Path(path if path is not None else WEIGHTS)
        self.adamw = adamw or AdamW()
        self.micro_batch = micro_batch
        self.steps = 0
        self._draws = Draws()
        self._device = torch.device(device)
        self.model = _read_model(self.folder).to(self._device)
        self._adapter = None if lora is None else _with_lora(self.model, lora, seed)
        self.model.eval()
        self._trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self._reference: Any = None
        self._engine: TinyEngine | None = None
        self._llms: weakref.WeakSet[Any] = weakref.WeakSet()
        self._forward = set(inspect.signature(self.model.forward).parameters)
        self.optimizer = torch.optim.AdamW(
            self._trained.values(), lr=self.adamw.lr, betas=self.adamw.betas, weight_decay=self.adamw.weight_decay
        )

    def __repr__(self) -> str:
        trained = sum(value.numel() for value in self._trained.values())
        return f"Policy({str(self.folder)!r}, {trained:,} trained parameters, {self.steps} updates)"

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer of its directory, with its chat template."""
        return ChatTokenizer.load(self.folder)

    # Log-probabilities

    def logprobs(self, rows: Rows, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        """The log-probability of each trained token given all before it, with gradients.

        What all rows begin with is read once.

        Args:
            rows: `input_ids`, `attention_mask` and `action_mask`, `[rows, length]`, right-padded.
            entropy: give the entropies of the distributions as well, in nats.

        Returns:
            Log-probabilities and entropies, float32 `[rows, length]`, 0.0 on tokens that are not trained.
        """
        return self._logprobs(self.model, rows, entropy)

    def current_logprobs(self, rows: Rows) -> Tensor:
        """The same without gradients, for any number of rows."""
        with torch.no_grad():
            return self._gathered(self.model, rows)

    def reference_logprobs(self, rows: Rows) -> Tensor:
        """The same under the weights that training began with, without gradients."""
        with torch.no_grad():
            if self._adapter is not None:
                with self._adapter.disable_adapter():
                    return self._gathered(self.model, rows)
            if self._reference is None:
                self._reference = _read_model(self.folder).to(self._device).eval()
            return self._gathered(self._reference, rows)

    def _gathered(self, model: Any, rows: Rows) -> Tensor:
        """Log-probabilities without gradients, micro-batch by micro-batch."""
        result = torch.zeros(rows["input_ids"].shape)
        for picked, part in self._micro_batches(rows):
            logprobs, _ = self._logprobs(model, part, False)
            result[picked, : logprobs.shape[1]] = logprobs.cpu()
        return result

    def _logprobs(self, model: Any, rows: Rows, entropy: bool) -> tuple[Tensor, Tensor | None]:
        ids, mask = rows["input_ids"].to(self._device), rows["action_mask"].to(self._device)
        attention = rows["attention_mask"].to(self._device)
        shared = self._shared_length(rows)
        if not mask.any():
            return torch.zeros(ids.shape), torch.zeros(ids.shape) if entropy else None
        last = int(mask.any(0).nonzero().max())  # nothing behind it is looked at
        logits = self._logits(model, ids, attention, shared, last)  # of the tokens shared .. last
        targets, trained = ids[:, shared : last + 1], mask[:, shared : last + 1].bool()

        def placed(values: Tensor) -> Tensor:
            padded: Tensor = torch.nn.functional.pad(
                torch.where(trained, values, 0.0), (shared, ids.shape[1] - last - 1)
            )
            return padded

        return placed(token_logprobs(logits, targets)), placed(token_entropy(logits)) if entropy else None

    def _logits(self, model: Any, ids: Tensor, attention: Tensor, shared: int, last: int) -> Tensor:
        """The logits of tokens `shared` to `last`, `[rows, last + 1 - shared, vocab]`; the first `shared` are alike."""
        positions = torch.arange(last, device=self._device).unsqueeze(0)
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

    # Learning

    def update(self, rows: Rows, loss: LossOf, entropy: bool = False) -> dict[str, float]:
        """Take one step down the gradient of a loss, and hand the new weights to the engine.

        Args:
            rows: what `tokenize_trajectories` gives, as torch tensors.
            loss: called with each micro-batch (numbers of its rows, log-probabilities, entropies); the loss is the sum
                of what it returns.
            entropy: whether to give it entropies.

        Returns:
            `loss`; `grad_norm`, before it is clipped; `lr`; `skipped`, 1.0 where the gradient was not finite and the
            weights were left as they are.
        """
        torch.set_flush_denormal(True)
        self.optimizer.zero_grad()
        total = 0.0
        for picked, part in self._micro_batches(rows):
            value: Any = loss(picked, *self.logprobs(part, entropy))
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
        self.publish()
        return {"loss": total, "grad_norm": norm, "lr": lr, "skipped": float(skipped)}

    # Sampling

    def llm(self, **gen_params: Any) -> Any:
        """An async language model over this policy, for agents; it always answers with the weights of the moment.

        A model of the embedded kind is sampled by an engine of its own in numpy, which is handed the weights after
        each update; any other by transformers, from the very module that is trained.

        Args:
            **gen_params: generation parameters; `temperature` is 1 unless it is given.
        """
        if self._engine is None and _is_tiny(self.folder):
            self._engine = TinyEngine(self.folder)
            self.publish()
        if self._engine is not None:
            llm: Any = PolicyLM(self._engine, self._draws, **gen_params)
        else:
            llm = PolicyTransformer(self.model, self.folder, self._draws, **gen_params)
        self._llms.add(llm)
        return llm

    def attach(self, agent: Module) -> list[str]:
        """Have the units of an agent that ask this policy's model sample from this policy.

        Args:
            agent: an async agent; every unit in it whose `llm` runs from the same directory gets `llm()` instead, with
                its generation parameters but at temperature 1.

        Returns:
            The paths of the units that sample from this policy now.

        Raises:
            InvalidArgument: there is none.
        """
        paths = []
        for path, unit in agent.named_modules():
            llm = getattr(unit, "llm", None)
            if llm is not None and llm in self._llms:
                paths.append(path)
            elif llm is not None and _folder_of(llm) == self.folder.resolve():
                kept = {name: value for name, value in llm.gen_params.items() if name not in ("temperature", "seed")}
                unit.llm = self.llm(**kept)
                paths.append(path)
        if not paths:
            raise InvalidArgument(
                "agent", agent, f"no unit of it asks the model of {str(self.folder)!r}: build it on policy.llm()"
            )
        return paths

    @contextmanager
    def decoding(self, **gen_params: Any) -> Iterator[None]:
        """Have its language models use other generation parameters in a block, such as `temperature=0.0`."""
        before = [(llm, dict(llm.gen_params)) for llm in self._llms]
        for llm in self._llms:
            llm.update_gen_params(**gen_params)
        try:
            yield
        finally:
            for llm, params in before:
                llm.gen_params = params

    def begin(self, *round_: int) -> None:
        """Begin a round of sampling; the same numbers, such as a seed and a step, give the same samples again."""
        self._draws.begin(*round_)
        if self._engine is not None:
            self._engine.prefixes.clear()  # read anew, so that it does not matter what was sampled before

    def publish(self) -> None:
        """Hand the weights to the engine, if there is one; `update` and `load_state_dict` do it."""
        if self._engine is not None:
            self._engine.load_weights({name: value.cpu().numpy() for name, value in self.weights().items()})

    def weights(self) -> dict[str, Tensor]:
        """All weights by their names in a Hugging Face directory, LoRA merged; where they can be, not copied."""
        deltas = {}
        for path, layer in self.model.named_modules():
            if hasattr(layer, "get_delta_weight") and hasattr(layer, "base_layer"):
                deltas[f"{path}.weight"] = layer.get_delta_weight(_ADAPTER).detach()
        weights = {}
        for name, value in self.model.state_dict().items():
            if "lora_" not in name:
                plain = name.replace(".base_layer.", ".")
                weights[plain] = value + deltas[plain] if plain in deltas else value
        return weights

    # Keeping

    def save(self, folder: str | os.PathLike[str], merge: bool = True) -> Path:
        """Write a Hugging Face directory, which transformers and `TinyLM` load.

        Args:
            folder: where; files of earlier weights in it are replaced.
            merge: merge LoRA's matrices into the weights; otherwise only the adapter is written, for peft.
        """
        folder = Path(folder)
        if folder.resolve() == self.folder.resolve():
            raise InvalidArgument("folder", str(folder), "give another directory than the one it was read from")
        folder.mkdir(parents=True, exist_ok=True)
        if self._adapter is not None and not merge:
            self._adapter.save_pretrained(folder)
            return folder
        plain = _read_model(self.folder)
        plain.load_state_dict(self.weights())
        with _quiet():
            plain.save_pretrained(folder)
        for path in sorted(self.folder.iterdir()):  # config and tokenizer stay as they were: other versions read them
            if path.is_file() and path.suffix in (".json", ".jinja", ".txt", ".model") and "index" not in path.name:
                shutil.copy(path, folder / path.name)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config.update({name: "float32" for name in ("dtype", "torch_dtype") if name in config})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return folder

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
            raise ValueError("the checkpoint is of another model or of other LoRA options than this policy")
        with torch.no_grad():
            for name, value in self._trained.items():
                value.copy_(trained[name])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.steps = int(state["steps"])
        self.publish()


_ADAPTER = "default"  # peft's name of the first adapter
_FORWARDED = ("input_ids", "attention_mask", "action_mask")


def _read_model(folder: Path) -> Any:
    """The module of a directory, in float32."""
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise MissingExtra("transformers", "train") from error
    if not (folder / "config.json").is_file():
        raise InvalidArgument("path", str(folder), "give a Hugging Face directory, or None for the embedded model")
    with _quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return model.float()


@contextmanager
def _quiet() -> Iterator[None]:
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


def _with_lora(model: Any, options: Mapping[str, Any], seed: int) -> Any:
    """Put LoRA's matrices into a module; peft's wrapper of it."""
    try:
        from peft import get_peft_model, LoraConfig
    except ImportError as error:
        raise MissingExtra("peft", "train") from error
    try:
        config = LoraConfig(**{"task_type": "CAUSAL_LM", "target_modules": "all-linear", **options})
    except TypeError as error:
        raise InvalidArgument("lora", dict(options), f"give options of peft's LoraConfig ({error})") from error
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers to peft: nobody here can act on it
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def _is_tiny(folder: Path) -> bool:
    """Whether the embedded engine runs a directory."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return Network.runs(config) and (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file()


def _folder_of(llm: Any) -> Path | None:
    """The directory that a language model of this process runs from."""
    if not isinstance(llm, AsyncLocalLLM):
        return None
    folder = Path(getattr(llm.engine, "path", llm.path))
    return folder.resolve() if folder.is_dir() else None
