"""GGUF tensor names to Hugging Face names, and what the converter did to the tensor on its way.

llama.cpp's converter renames every tensor and changes some: it permutes the query and key rows of
the ``llama`` architecture (whose rotary embedding pairs neighbours there), adds one to Gemma's norm
weights, and transposes GPT-2's Conv1D weights. Here is how to find the Hugging Face form again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["NAME_MAPS", "ROPE_FACTOR_TENSORS", "HFTensor", "NameMap"]

Heads = Literal["query", "key"]

ROPE_FACTOR_TENSORS = frozenset(
    {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
)
"""Tensors that are settings rather than weights: they become the config's rope_scaling."""

_NAME_PATTERN = re.compile(r"(?:blk\.(0|[1-9][0-9]{0,5})\.)?([a-z0-9_]+)\.(weight|bias)")


@dataclass(frozen=True)
class HFTensor:
    """The Hugging Face name of a GGUF tensor and the steps that restore its values."""

    name: str
    layer: int | None = None
    permuted_heads: Heads | None = None  # rows are permuted within each head of this kind
    transposed: bool = False  # Hugging Face stores [in_features, out_features]
    offset: float = 0.0  # to be added to each value


@dataclass(frozen=True)
class NameMap:
    """The names of one architecture; keys are GGUF module names, values Hugging Face's."""

    outer: Mapping[str, str]
    layer: Mapping[str, str]
    layer_prefix: str = "model.layers."
    permuted: Mapping[str, Heads] = field(default_factory=dict)
    transposed: frozenset[str] = frozenset()
    norm_offset: float = 0.0

    def find(self, gguf_name: str) -> HFTensor | None:
        """What this GGUF tensor is to Hugging Face; None if the architecture has no such tensor."""
        match = _NAME_PATTERN.fullmatch(gguf_name)
        if match is None:
            return None
        layer, module, kind = match.groups()
        hf_module = (self.outer if layer is None else self.layer).get(module)
        if hf_module is None:
            return None
        prefix = "" if layer is None else f"{self.layer_prefix}{layer}."
        return HFTensor(
            name=f"{prefix}{hf_module}.{kind}",
            layer=None if layer is None else int(layer),
            permuted_heads=self.permuted.get(module),
            transposed=kind == "weight" and module in self.transposed,
            offset=self.norm_offset if kind == "weight" and module.endswith("norm") else 0.0,
        )


_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}

_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}

_QUERY_KEY_NORM = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}

_GATED_MLP = {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

_LLAMA_LAYER = {**_ATTENTION, **_GATED_MLP, "ffn_norm": "post_attention_layernorm"}

_GEMMA_LAYER = {
    **_ATTENTION,
    **_GATED_MLP,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

_PHI3_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}

_GPT2_OUTER = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}

_GPT2_LAYER = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}

NAME_MAPS = {
    "llama": NameMap(_OUTER, _LLAMA_LAYER, permuted={"attn_q": "query", "attn_k": "key"}),
    "qwen2": NameMap(_OUTER, _LLAMA_LAYER),
    "qwen3": NameMap(_OUTER, {**_LLAMA_LAYER, **_QUERY_KEY_NORM}),
    "gemma2": NameMap(_OUTER, _GEMMA_LAYER, norm_offset=-1.0),
    "gemma3": NameMap(_OUTER, {**_GEMMA_LAYER, **_QUERY_KEY_NORM}, norm_offset=-1.0),
    "phi3": NameMap(_OUTER, _PHI3_LAYER),
    "gpt2": NameMap(
        _GPT2_OUTER,
        _GPT2_LAYER,
        layer_prefix="transformer.h.",
        transposed=frozenset({"attn_qkv", "attn_output", "ffn_up", "ffn_down"}),
    ),
}
"""By general.architecture."""
