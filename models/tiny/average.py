"""Averages the weights of two models of one shape, of which one was trained on from the other.

    python models/tiny/average.py --first /tmp/second/lagentlike/llms/tiny/weights --then /tmp/tiny/weights --share 0.6 --out /tmp/tiny/average

What a run unlearned comes back that way, and what it learned stays (Wortsman et al., 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

__all__ = ["average"]


def average(first: Path, then: Path, share: float, out: Path) -> None:
    """Write the Hugging Face directory of the model between two: `share` of the way from the first to the other one."""
    a, b = (load_file(folder / "model.safetensors") for folder in (first, then))
    if {name: tensor.shape for name, tensor in a.items()} != {name: tensor.shape for name, tensor in b.items()}:
        raise SystemExit(f"{first} and {then} are not of one shape: nothing to average")
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(then / name, out)
    mixed = {name: ((1 - share) * a[name].float() + share * b[name].float()).half() for name in a}
    save_file(mixed, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=Path, required=True, help="the directory of the model that training began from")
    parser.add_argument("--then", type=Path, required=True, help="the directory of the one it made")
    parser.add_argument("--share", type=float, required=True, help="how much of the second one, from 0 to 1")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    options = parser.parse_args()
    average(options.first, options.then, options.share, options.out)


if __name__ == "__main__":
    main()
