"""The policy: a causal language model that is trained, and that agents sample from."""

from __future__ import annotations

import json
import os
import shutil
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TYPE_CHECKING

from ..errors import InvalidArgument, MissingExtra
from ..llms.local import AsyncLocalLLM
from ..llms.tiny.engine import TinyEngine, WEIGHTS
from ..llms.tiny.network import Network
from ..module import Module
from ..prompts.chat.tokenizer import ChatTokenizer
from ._torch import torch
from .learner import AdamW, Learner, quiet, read_model, Rows
from .losses import token_entropy, token_logprobs
from .sampling import Draws, PolicyLM, PolicyTransformer

if TYPE_CHECKING:
    from ..llms.torch_engine import TorchEngine

__all__ = ["Policy", "check_sampling"]

Tensor = torch.Tensor
LossOf = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""Numbers of the rows `[n]`, their log-probabilities and entropies `[n, length]` -> the part of the loss they make."""


class Policy(Learner):
    """A causal language model that is trained, and that agents sample from.

    Args:
        path: a Hugging Face directory of a causal language model; None for the embedded one.
        lora: options of peft's `LoraConfig`, such as `dict(r=8, lora_alpha=16)`: low-rank matrices are trained in
            place of the weights (Hu et al. 2021). By default they stand beside all linear layers.
        adamw: how it learns.
        micro_batch: most tokens, padding included, that go through the network at once; it bounds the memory.
        seed: of what is random at the start (LoRA's matrices).
        device: where it is trained.
        dtype: what it multiplies matrices in, by `torch.autocast`: "float32" or "bfloat16"; weights stay float32.

    Dropout is off, so that log-probabilities are those of the policy that is sampled from. See also `Learner`.

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
        dtype: str = "float32",
    ) -> None:
        self.folder = Path(path if path is not None else WEIGHTS)
        model = read_model(self.folder)
        self._adapter = None if lora is None else _with_lora(model, lora, seed)
        super().__init__(model, adamw or AdamW(), micro_batch, device, dtype)
        self._draws = Draws()
        self._reference: Any = None
        self._engine: TinyEngine | None = None
        self._transformer: TorchEngine | None = None
        self._llms: weakref.WeakSet[Any] = weakref.WeakSet()

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
        return self._gathered(rows, lambda part: self._logprobs(self.model, part, False)[0])

    def reference_logprobs(self, rows: Rows) -> Tensor:
        """The same under the weights that training began with, without gradients."""
        if self._adapter is not None:
            with self._adapter.disable_adapter():
                return self.current_logprobs(rows)
        if self._reference is None:
            self._reference = self._placed(read_model(self.folder))
        return self._gathered(rows, lambda part: self._logprobs(self._reference, part, False)[0])

    def _logprobs(self, model: Any, rows: Rows, entropy: bool) -> tuple[Tensor, Tensor | None]:
        def read(logits: Tensor, ids: Tensor) -> list[Tensor]:
            return [token_logprobs(logits, ids), *([token_entropy(logits)] if entropy else [])]

        found = self._of_trained(model, rows, read, count=1 + entropy)
        return found[0], found[1] if entropy else None

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
        told = self._descend(rows, lambda picked, part: loss(picked, *self.logprobs(part, entropy)))
        self.publish()
        return told

    # Sampling

    def llm(self, **gen_params: Any) -> Any:
        """An async language model over this policy, for agents; it always answers with the weights of the moment.

        On a CPU, in float32, a model of the embedded kind is sampled by an engine of its own in numpy, which is handed
        the weights after each update; any other by transformers, from the very module that is trained.

        Args:
            **gen_params: generation parameters; `temperature` is 1 unless it is given.
        """
        plain = self.device.type == "cpu" and self.dtype == "float32"
        if self._engine is None and plain and _is_tiny(self.folder):
            self._engine = TinyEngine(self.folder)
            self.publish()
        if self._engine is not None:
            llm: Any = PolicyLM(self._engine, self._draws, **gen_params)
        else:
            llm = PolicyTransformer(self._transformer or self.model, self.folder, self._draws, **gen_params)
            self._transformer = llm.engine
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
            InvalidArgument: there is none; or one samples otherwise than from the model's own distribution (`top_p`,
                `top_k`, `repetition_penalty`), of which the log-probabilities are that are kept. Nothing was changed.
        """
        if not isinstance(agent, Module):
            raise InvalidArgument("agent", agent, "give an async agent that is built on policy.llm()")
        found: list[tuple[str, Any, dict[str, Any] | None]] = []
        for path, unit in agent.named_modules():
            llm = getattr(unit, "llm", None)
            if llm is not None and llm in self._llms:
                found.append((path, unit, None))
                check_sampling(f"{path or 'agent'}.llm", llm.gen_params)
            elif llm is not None and _folder_of(llm) == self.folder.resolve():
                params = {name: value for name, value in llm.gen_params.items() if name not in ("temperature", "seed")}
                found.append((path, unit, params))
                check_sampling(f"{path or 'agent'}.llm", params)
        if not found:
            raise InvalidArgument(
                "agent", agent, f"no unit of it asks the model of {str(self.folder)!r}: build it on policy.llm()"
            )
        for _, unit, kept in found:
            if kept is not None:
                unit.llm = self.llm(**kept)
        return [path for path, _, _ in found]

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
        for engine in (self._engine, self._transformer):
            if engine is not None:
                engine.prefixes.clear()  # read anew, so that it does not matter what was sampled before

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
        plain = read_model(self.folder)
        plain.load_state_dict(self.weights())
        with quiet():
            plain.save_pretrained(folder)
        for path in sorted(self.folder.iterdir()):  # config and tokenizer stay as they were: other versions read them
            if path.is_file() and path.suffix in (".json", ".jinja", ".txt", ".model") and "index" not in path.name:
                shutil.copy(path, folder / path.name)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config.update({name: "float32" for name in ("dtype", "torch_dtype") if name in config})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return folder

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, the engine too.

        Raises:
            ValueError: it is of another model, or of other LoRA options.
        """
        super().load_state_dict(state)
        self.publish()


_PLAIN = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}


def check_sampling(where: str, gen_params: Mapping[str, Any]) -> None:
    """Refuse to learn from tokens that are not sampled from the model's own distribution.

    Args:
        where: what has these parameters.
        gen_params: generation parameters.

    Raises:
        InvalidArgument: one of them changes the distribution.
    """
    for name, plain in _PLAIN.items():
        value = gen_params.get(name)
        if value is not None and value != plain:
            raise InvalidArgument(
                f"{where}: {name}",
                value,
                f"it changes the distribution that tokens are sampled from, and the log-probabilities that training "
                f"needs are those of the model's own: leave it out, or set {name}={plain!r}",
            )


_ADAPTER = "default"  # peft's name of the first adapter


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
