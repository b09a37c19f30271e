"""A model of the embedded kind, small and untrained, for tests of how training works rather than of what it teaches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from lagentlike.llms.tiny.engine import WEIGHTS


def write_small_model(folder: Path, key_value_heads: int = 4) -> Path:
    """Write a directory of two layers of width 32, drawn at random, with the embedded tokenizer.

    `TinyLM` runs it, but not with fewer heads of keys and values than 4.
    """
    for path in WEIGHTS.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copy(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "initializer_range": 0.2}
    config |= {"num_attention_heads": 4, "num_key_value_heads": key_value_heads}
    config.pop("head_dim", None)
    (folder / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
