"""Writes the embedded model as a GGUF file, for llama.cpp and what is built on it; needs the package `gguf`.

    python models/tiny/to_gguf.py tinylm.gguf

llama.cpp has no pre-tokenizer with the model's own first rule (an operator joins the spaces around it), and takes the
nearest it has: a text with `1 + 1` in it may become other tokens there. Prompts that are sent as ids are not affected.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

WEIGHTS = Path(__file__).resolve().parents[2] / "lagentlike/llms/tiny/weights"

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NEAREST_PRE_TOKENIZER = "dbrx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    convert(arguments.weights, arguments.out)


def convert(weights: Path, out: Path) -> None:
    """Write the model in the Hugging Face directory `weights` to the file `out`, in fp32."""
    config = json.loads((weights / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "llama")
    add_shape(writer, config)
    add_tokenizer(writer, weights, config)
    for name, tensor in load_file(weights / "model.safetensors").items():
        writer.add_tensor(*renamed(name, tensor.astype(np.float32), config["num_attention_heads"]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("TinyLM")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def add_tokenizer(writer: gguf.GGUFWriter, weights: Path, config: dict[str, Any]) -> None:
    tokenizer = json.loads((weights / "tokenizer.json").read_text())
    ids = dict(tokenizer["model"]["vocab"])
    special = {item["id"] for item in tokenizer["added_tokens"]}
    ids.update((item["content"], item["id"]) for item in tokenizer["added_tokens"])
    tokens = sorted(ids, key=ids.__getitem__)
    kinds = [gguf.TokenType.CONTROL if ids[token] in special else gguf.TokenType.NORMAL for token in tokens]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(NEAREST_PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(json.loads((weights / "tokenizer_config.json").read_text())["chat_template"])


def renamed(name: str, tensor: np.ndarray, heads: int) -> tuple[str, np.ndarray]:
    """A tensor under llama.cpp's name, in its order: rotary pairs are neighbours there, and halves apart here."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight", tensor
    if name == "model.norm.weight":
        return "output_norm.weight", tensor
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    module, _, kind = rest.rpartition(".")
    if module in ("self_attn.q_proj", "self_attn.k_proj"):
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        tensor = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(tensor.shape))
    return f"blk.{layer}.{NAMES[module]}.{kind}", tensor


if __name__ == "__main__":
    main()
