"""The loop that trainers share: steps, evaluations, metrics, checkpoints, progress."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..concurrency import run_in_background
from ..errors import InvalidArgument, StateError
from ._torch import torch
from .curve import draw_curve
from .policy import Policy

__all__ = ["Trainer", "read_metrics"]

logger = logging.getLogger(__name__)

Metrics = dict[str, float]


class Trainer:
    """A loop of steps with checkpoints; a subclass says what a step is.

    In `out` it keeps `metrics.jsonl` (one line a step), `checkpoint.pt`, at the end `model/` (a Hugging Face
    directory) and, with matplotlib, `curve.png`; with TensorBoard installed, its event files too.

    Args:
        policy: what is trained.
        out: directory for all that; None keeps nothing.
        steps: how many steps there are in all.
        seed: of the order of the data and of what is sampled.
        checkpoint_every: steps between checkpoints.
        evaluate_every: steps between evaluations; there is one before the first and one after the last as well.
        resume: go on from the checkpoint in `out`, if there is one.
        progress: a progress bar on stderr.
        on_step: called with the metrics of each step, in the trainer's event loop.

    Attributes:
        history: the metrics of all steps so far.
        step: steps done.
    """

    kind = ""
    curves: tuple[str, ...] = ()
    """The metrics that the picture shows."""

    def __init__(
        self,
        policy: Policy,
        *,
        out: str | os.PathLike[str] | None = None,
        steps: int = 100,
        seed: int = 0,
        checkpoint_every: int = 10,
        evaluate_every: int = 10,
        resume: bool = False,
        progress: bool = False,
        on_step: Callable[[Metrics], Any] | None = None,
    ) -> None:
        for name, value in (
            ("steps", steps),
            ("checkpoint_every", checkpoint_every),
            ("evaluate_every", evaluate_every),
        ):
            positive(name, value)
        self.policy = policy
        self.out = None if out is None else Path(out)
        self.steps, self.seed = steps, seed
        self.checkpoint_every, self.evaluate_every = checkpoint_every, evaluate_every
        self.progress, self.on_step = progress, on_step
        self.history: list[Metrics] = []
        self.step = 0
        self._resume = resume
        self._seconds = 0.0  # of the runs that this one goes on from
        self._pool: ThreadPoolExecutor | None = None

    def train(self) -> list[Metrics]:
        """Run all steps; see `run`. It also works inside a running event loop, such as a notebook's."""
        return run_in_background(self.run())

    async def run(self) -> list[Metrics]:
        """Run all steps, from the checkpoint on where there is one to resume from.

        Returns:
            The metrics of all steps.

        Raises:
            StateError: the checkpoint is of another run than this.
        """
        if self._resume and self.out is not None and (self.out / _CHECKPOINT).exists():
            self._go_on(self.out / _CHECKPOINT)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            _rewrite(self.out / _METRICS, self.history)
        began = time.perf_counter() - self._seconds
        with (
            _tensorboard(self.out, self.step + 1 if self.history else 0) as board,
            _bar(self.steps, self.step, self.progress, self.kind) as advance,
            ThreadPoolExecutor(1, "lagentlike-training") as self._pool,
        ):
            if not self.history:
                await self._record(await self._evaluated(), began, board, advance)
            while self.step < self.steps:
                metrics = await self._step(self.step)
                self.step += 1
                if self.step % self.evaluate_every == 0 or self.step == self.steps:
                    metrics |= await self._evaluated()
                await self._record(metrics, began, board, advance)
                if self.out is not None and (self.step % self.checkpoint_every == 0 or self.step == self.steps):
                    self._seconds = time.perf_counter() - began
                    await self._work(self.save_checkpoint, self.out / _CHECKPOINT)
            if self.out is not None:
                await self._work(self.policy.save, self.out / "model")
                await self._work(draw_curve, self.history, self.out / "curve.png", self.curves, self.kind)
        return self.history

    async def _step(self, step: int) -> Metrics:
        """One step."""
        raise NotImplementedError

    async def _evaluate(self) -> Metrics:
        """How good the policy is on what it is not trained on; nothing where there is nothing to see that by."""
        return {}

    def _settings(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that goes on from it, as plain data."""
        return {"kind": self.kind, "seed": self.seed}

    def _state(self) -> dict[str, Any]:
        """What the subclass wants back from a checkpoint, as plain data."""
        return {}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        """Take it back."""

    async def _evaluated(self) -> Metrics:
        return {f"eval/{name}": value for name, value in (await self._evaluate()).items()}

    async def _work(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run what computes for long beside the event loop, always in the same thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    async def _record(self, metrics: Metrics, began: float, board: Any, advance: Callable[[int, Metrics], Any]) -> None:
        metrics = {"step": self.step, "seconds": time.perf_counter() - began, **metrics}
        self.history.append(metrics)
        if self.out is not None:
            with (self.out / _METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        if board is not None:
            for name, value in metrics.items():
                board.add_scalar(name, value, self.step)
        advance(self.step, metrics)
        if self.on_step is not None:
            self.on_step(metrics)

    # Checkpoints

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write model, optimizer, random state and step to a file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "version": 1,
            "settings": self._settings(),
            "step": self.step,
            "seconds": self._seconds,
            "history": self.history,
            "policy": self.policy.state_dict(),
            "random": torch.random.get_rng_state(),
            "state": self._state(),
        }
        beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with beside.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Take over what `save_checkpoint` wrote.

        Raises:
            StateError: the file is no checkpoint, or of another run than this; nothing was changed.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            version, settings = state["version"], state["settings"]
        except Exception as error:
            why = str(error) if isinstance(error, OSError) else f"torch cannot read it ({type(error).__name__})"
            raise StateError(f"{os.fspath(path)!r} is no checkpoint of a trainer: {why}") from error
        mine = {"version": 1, **self._settings()}
        for name, value in {"version": version, **settings}.items():
            if mine.get(name) != value:
                raise StateError(
                    f"{os.fspath(path)!r} is of a run with {name}={value!r} and this one has {mine.get(name)!r}: "
                    "resume with the same, or begin in another directory"
                )
        try:
            self.policy.load_state_dict(state["policy"])
        except ValueError as error:
            raise StateError(f"{os.fspath(path)!r}: {error}") from error
        torch.random.set_rng_state(state["random"])
        self._load_state(state["state"])
        self.step, self._seconds, self.history = int(state["step"]), float(state["seconds"]), list(state["history"])

    def _go_on(self, path: Path) -> None:
        self.load_checkpoint(path)
        logger.info("going on from step %d", self.step)


_METRICS, _CHECKPOINT = "metrics.jsonl", "checkpoint.pt"


def read_metrics(path: str | os.PathLike[str]) -> list[Metrics]:
    """The metrics in a `metrics.jsonl`, one dict a step; a line that a kill cut short is left out."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def positive(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgument(name, value, f"give a whole number of at least {least}")


def _rewrite(path: Path, history: list[Metrics]) -> None:
    """The metrics as of the checkpoint: what came after it comes again."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text("".join(json.dumps(metrics) + "\n" for metrics in history), encoding="utf-8")
    beside.replace(path)


@contextmanager
def _tensorboard(out: Path | None, first: int) -> Iterator[Any]:
    """A TensorBoard writer, if there is a place to write to and TensorBoard is installed.

    What an earlier run wrote of steps from `first` on comes again, and is no longer shown.
    """
    writer: Any = None
    if out is not None:
        with suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter
    if out is None or writer is None:
        yield None
        return
    board = writer(str(out / "tensorboard"), purge_step=first)
    try:
        yield board
    finally:
        board.close()


class _bar:  # noqa: N801  # used as a function
    """A progress bar with the figures of the last step, if one is wanted."""

    def __init__(self, total: int, done: int, shown: bool, label: str) -> None:
        self._bar: Any = None
        if shown:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=label, unit="step", dynamic_ncols=True)

    def __enter__(self) -> Callable[[int, Metrics], None]:
        return self._advance

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _advance(self, step: int, metrics: Metrics) -> None:
        if self._bar is None:
            return
        self._bar.set_postfix({label: f"{metrics[name]:.4g}" for name, label in _SHOWN.items() if name in metrics})
        self._bar.update(step - self._bar.n)


_SHOWN = {
    "reward": "reward",
    "loss": "loss",
    "eval/reward": "held-out",
    "eval/loss": "held-out loss",
    "tokens_per_second": "tokens/s",
    "failures": "failures",
}
