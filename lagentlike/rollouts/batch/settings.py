"""What a batch run is asked for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TYPE_CHECKING

from ...errors import InvalidArgument
from .local_engine import LocalWorkers
from .ray_engine import RayEngine

if TYPE_CHECKING:
    from .engine import Workers

__all__ = ["BatchSettings"]


@dataclass(frozen=True)
class BatchSettings:
    """What a batch run is asked for.

    Attributes:
        dataset_file: JSON lines, each an object with `prompt` (or `messages`); its other keys are carried along.
        run_name: names the folder of the run.
        folder: where folders of runs are.
        batch_size: samples under way at once, for each worker.
        num_workers: processes that run agents; 0 runs them in a thread of this one.
        engine: where workers are: `"local"`, on this machine; `"ray"`, or a `RayEngine`, on a Ray cluster.
        num_samples: samples for each row.
        max_samples: only so many of the first rows; None for all.
        resume: go on with a run that is there; without it, one that is there is refused.
        force: go on even though the configuration or the dataset is another; samples that are no longer asked for are
            dropped.
        retry_failed: try samples that an earlier start set aside once more; goes with `resume`.
        config: what a sample depends on besides its row (model, prompts, sampling …), as plain JSON data; another
            configuration is another run.
        reward: a reward or the name of a ready one; None for none.
        reward_timeout: seconds that a reward may take.
        timeout: seconds that a sample may take; None for no limit.
        max_attempts: how often a sample that fails is tried before it is set aside.
        keep_tokens: have models give token ids and log-probabilities, where they can.
        price: dollars for a million tokens in, and out; None where nobody pays.
        grace: seconds that samples under way may take to end when the run is stopped.
        progress: show a progress bar.
    """

    dataset_file: str | os.PathLike[str]
    run_name: str
    folder: str | os.PathLike[str] = "data"
    batch_size: int = 20
    num_workers: int = 0
    engine: str | RayEngine = "local"
    num_samples: int = 1
    max_samples: int | None = None
    resume: bool = False
    force: bool = False
    retry_failed: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    reward: Any = None
    reward_timeout: float | None = 60.0
    timeout: float | None = None
    max_attempts: int = 3
    keep_tokens: bool = False
    price: tuple[float, float] | None = None
    grace: float = 8.0
    progress: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.run_name, str) or re.fullmatch(r"[\w-][\w.-]*", self.run_name) is None:
            raise InvalidArgument("run_name", self.run_name, "give letters, digits, '_', '-' and '.'")
        least = {"batch_size": 1, "num_samples": 1, "max_attempts": 1, "num_workers": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
                raise InvalidArgument(name, value, f"give a whole number of at least {smallest}")
        if self.engine not in ("local", "ray") and not isinstance(self.engine, RayEngine):
            raise InvalidArgument("engine", self.engine, "give 'local', 'ray', or a RayEngine")
        if self.engine != "local" and not self.num_workers:
            raise InvalidArgument("num_workers", 0, "on a cluster give how many workers there are to be, at least 1")
        if self.retry_failed and not self.resume:
            raise InvalidArgument("retry_failed", True, "it goes with resume=True: a new run has no failures yet")
        limit = self.max_samples
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidArgument("max_samples", limit, "give a number of rows of at least 1, or None for all")
        for name in ("timeout", "reward_timeout", "grace"):
            value = getattr(self, name)
            if value is None and name != "grace":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InvalidArgument(name, value, "give seconds")

        if self.price is not None and not _is_price(self.price):
            raise InvalidArgument(
                "price", self.price, "give dollars for a million tokens in, and out, as in (0.15, 0.6)"
            )

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return Path(self.folder) / self.run_name

    def workers(self, source: Any) -> Workers:
        """What starts workers that run `source`."""
        if self.engine == "local":
            return LocalWorkers(source, own_process=bool(self.num_workers))
        return (self.engine if isinstance(self.engine, RayEngine) else RayEngine()).open(source)


def _is_price(given: Any) -> bool:
    return (
        isinstance(given, list | tuple)
        and len(given) == 2
        and all(isinstance(part, int | float) and not isinstance(part, bool) and part >= 0 for part in given)
    )
