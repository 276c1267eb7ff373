"""Tiny random models of architectures that Octavo has not written, saved as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

COMMON: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_WINDOWS = {"sliding_window": 6, "num_hidden_layers": 4}
_EXPERTS = {"num_experts_per_tok": 2}

# model_type → what its config has beside COMMON.
FALLBACK_MODELS: dict[str, dict[str, Any]] = {
    "granite": {
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
    },
    "stablelm": {"partial_rotary_factor": 0.5, "use_qkv_bias": True},
    "cohere2": {**_WINDOWS, "sliding_window_pattern": 2, "logit_scale": 0.5},
    "starcoder2": {"sliding_window": 6},
    "qwen3_moe": {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 24, "head_dim": 16},
    "mixtral": {**_EXPERTS, "num_local_experts": 4},
    "gpt_neox": {"rotary_pct": 0.5},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt_oss": {
        **_WINDOWS,
        **_EXPERTS,
        "num_local_experts": 4,
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "deepseek_v3": {
        **_EXPERTS,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "moe_intermediate_size": 24,
        "first_k_dense_replace": 1,
    },
}


def tiny_model(model_type: str, **changes: Any) -> Any:
    """The model with random weights, in float32."""
    settings = {**COMMON, **FALLBACK_MODELS.get(model_type, {}), **changes}
    config = transformers.AutoConfig.for_model(model_type, **settings)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("sinks") or (parameter.ndim == 1 and "bias" in name):
                parameter.normal_(std=0.5)
    return model


def save(model: Any, folder: Path) -> Path:
    """The model as a checkpoint folder."""
    model.save_pretrained(folder)
    return folder
