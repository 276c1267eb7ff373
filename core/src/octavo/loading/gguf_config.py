"""A GGUF file's key-values as the config.json that the model was converted from."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octavo.errors import ModelLoadError
from octavo.loading.gguf_fields import GGUFFields
from octavo.loading.gguf_generation import special_token_ids
from octavo.loading.gguf_names import NAME_MAPS
from octavo.loading.gguf_rope import rope_settings

__all__ = ["check_architecture", "model_config"]

Config = dict[str, Any]

_GEMMA3_LOCAL_ROPE_BASE = 10000.0
_GEMMA3_LAYERS_PER_GLOBAL_ONE = 6
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}


def check_architecture(path: Path, metadata: Mapping[str, Any]) -> str:
    """The file's architecture if it is a language model of a known one; ModelLoadError if not."""
    file_type = metadata.get("general.type", "model")
    if not isinstance(file_type, str) or file_type != "model":
        raise ModelLoadError(f"{path}: general.type is {reprlib.repr(file_type)}; expected 'model'")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in NAME_MAPS:
        shown = reprlib.repr(architecture)
        close = difflib.get_close_matches(shown, NAME_MAPS, n=1)
        hint = f" (the nearest is {close[0]})" if close else ""
        raise ModelLoadError(
            f"{path}: the GGUF architecture {shown} is not supported{hint}. "
            f"Known: {', '.join(NAME_MAPS)}. Use the model's safetensors files where they exist"
        )
    num_experts = GGUFFields(path, metadata, architecture).optional_count("expert_count")
    if num_experts is not None:
        raise ModelLoadError(
            f"{path}: a mixture of experts ({architecture}.expert_count is {num_experts}), which "
            "cannot be read from GGUF yet. Use the model's safetensors files"
        )
    return architecture


def model_config(
    path: Path,
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    rope_factors: Mapping[str, Sequence[float]],
) -> Config:
    """config.json of the model; ``shapes`` are those of all tensors by their GGUF names."""
    architecture = check_architecture(path, metadata)
    fields = GGUFFields(path, metadata, architecture)
    if "token_embd.weight" not in shapes:
        raise ModelLoadError(
            f"{path}: the tensor token_embd.weight is missing: the file holds a vocabulary or a "
            "part of a model only"
        )
    config: Config = {
        "vocab_size": shapes["token_embd.weight"][0],
        "tie_word_embeddings": "output.weight" not in shapes,
    }
    if architecture == "gpt2":
        config |= _gpt2(fields)
    else:
        config |= _common(fields)
        config |= rope_settings(fields, rope_factors, config["head_dim"])
        config |= _FAMILIES[architecture](fields, shapes, config)
    return config | special_token_ids(path, metadata, config["vocab_size"])


def _common(fields: GGUFFields) -> Config:
    hidden_size = fields.count("embedding_length")
    num_heads = fields.count("attention.head_count")
    head_dim = fields.count("attention.key_length", max(1, hidden_size // num_heads))
    if fields.count("attention.value_length", head_dim) != head_dim:
        raise fields.error("attention.value_length", f"{head_dim}, the length of the keys")
    return {
        "hidden_size": hidden_size,
        "intermediate_size": fields.count("feed_forward_length"),
        "num_hidden_layers": fields.count("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": fields.count("attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_position_embeddings": fields.count("context_length"),
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon"),
        "hidden_act": "silu",
    }


Shapes = Mapping[str, tuple[int, ...]]


def _llama(fields: GGUFFields, shapes: Shapes, _config: Config) -> Config:
    settings: Config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    window = fields.optional_count("attention.sliding_window")
    if window is not None:  # Llama has none; Mistral shares llama.cpp's architecture
        settings = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
        settings["sliding_window"] = window
    return settings | {
        "attention_bias": "blk.0.attn_q.bias" in shapes,
        "mlp_bias": "blk.0.ffn_gate.bias" in shapes,
    }


def _qwen2(_fields: GGUFFields, _shapes: Shapes, _config: Config) -> Config:
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}


def _qwen3(_fields: GGUFFields, shapes: Shapes, _config: Config) -> Config:
    has_bias = "blk.0.attn_q.bias" in shapes
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": has_bias,
    }


def _phi3(fields: GGUFFields, _shapes: Shapes, _config: Config) -> Config:
    window = fields.optional_count("attention.sliding_window")
    return {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "sliding_window": window,
    }


def _gemma2(fields: GGUFFields, shapes: Shapes, config: Config) -> Config:
    return _gemma("gemma2", fields, shapes, config) | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "layer_types": _layer_types(fields, config, layers_per_global_one=2),
        # The values of every released Gemma 2; early conversions leave them out.
        "attn_logit_softcapping": fields.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": fields.number("final_logit_softcapping", 30.0),
    }


def _gemma3(fields: GGUFFields, shapes: Shapes, config: Config) -> Config:
    return _gemma("gemma3", fields, shapes, config) | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "layer_types": _layer_types(fields, config, _GEMMA3_LAYERS_PER_GLOBAL_ONE),
        "rope_local_base_freq": fields.number("rope.freq_base_swa", _GEMMA3_LOCAL_ROPE_BASE),
        "attn_logit_softcapping": fields.optional_number("attn_logit_softcapping"),
        "final_logit_softcapping": fields.optional_number("final_logit_softcapping"),
    }


def _gemma(architecture: str, fields: GGUFFields, shapes: Shapes, config: Config) -> Config:
    """What Gemma 2 and 3 share. GGUF leaves the query scale out: it follows from the size."""
    query_scale = config["head_dim"]
    if fields.has("attention.scale"):
        query_scale = fields.number("attention.scale") ** -2
    elif config["num_hidden_layers"] == _GEMMA_27B_LAYERS[architecture]:
        query_scale = config["hidden_size"] // config["num_attention_heads"]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_act": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": query_scale,
        "sliding_window": fields.count("attention.sliding_window"),
        "attention_bias": "blk.0.attn_q.bias" in shapes,
    }


def _layer_types(fields: GGUFFields, config: Config, layers_per_global_one: int) -> list[str]:
    """Which layers see a window and which everything: the last of each group is global."""
    num_layers = config["num_hidden_layers"]
    pattern = fields.get("attention.sliding_window_pattern")
    if isinstance(pattern, np.ndarray):
        if pattern.shape != (num_layers,):
            raise fields.error("attention.sliding_window_pattern", f"{num_layers} entries")
        is_windowed = [bool(entry) for entry in pattern]
    else:
        period = fields.count("attention.sliding_window_pattern", layers_per_global_one)
        is_windowed = [(layer + 1) % period != 0 for layer in range(num_layers)]
    return ["sliding_attention" if windowed else "full_attention" for windowed in is_windowed]


def _gpt2(fields: GGUFFields) -> Config:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": fields.count("embedding_length"),
        "n_layer": fields.count("block_count"),
        "n_head": fields.count("attention.head_count"),
        "n_inner": fields.count("feed_forward_length"),
        "n_positions": fields.count("context_length"),
        "n_ctx": fields.count("context_length"),
        "layer_norm_epsilon": fields.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
    }


_FAMILIES: Mapping[str, Callable[[GGUFFields, Shapes, Config], Config]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
}
