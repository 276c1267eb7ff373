"""Tiny models of every family, as config.json has them; a step takes about a millisecond.

They hold what real ones hold: shared KV heads, two KV groups, biases, tied embeddings, windows,
soft caps, several ropes. Their weights are random (``load_format="dummy"``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.backend import Capabilities

__all__ = ["MAX_LEN", "TINY_MODELS", "VOCAB_SIZE", "TinyModel"]

VOCAB_SIZE = 256
MAX_LEN = 128
"""Tokens of context, of most of them."""
_WINDOW = 11
_TRAINED_LEN = 32  # of those whose rope is scaled: the vectors' prompts are longer


@dataclass(frozen=True)
class TinyModel:
    """A model of one family."""

    name: str
    has: str
    """What it exercises that others do not: where to look when it alone is wrong."""
    config: Mapping[str, Any]
    needs: Sequence[str] = ()
    """Flags of the capabilities, without which it does not run right."""

    def unclaimed(self, caps: Capabilities) -> str | None:
        """Why a backend of these capabilities does not run it; None if it does."""
        missing = [flag for flag in self.needs if not getattr(caps, flag)]
        if missing:
            return f"caps.{missing[0]} is False"
        head_dim = _head_dim(self.config)
        if head_dim > caps.max_head_dim:
            return f"caps.max_head_dim={caps.max_head_dim} is less than this model's {head_dim}"
        return None


def _head_dim(config: Mapping[str, Any]) -> int:
    if "n_embd" in config:
        return int(config["n_embd"] // config["n_head"])
    return int(config.get("head_dim", config["hidden_size"] // config["num_attention_heads"]))


def _decoder(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    """config.json of the Llama kind: 2 layers, and 4 query heads of 16 over 2 KV heads."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0}
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_LEN,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
        "rope_parameters": rope,
        **changes,
    }


def _llama(**changes: Any) -> dict[str, Any]:
    return _decoder("LlamaForCausalLM", "llama", **changes)


def _scaled_llama(max_len: int = MAX_LEN, **scaling: Any) -> dict[str, Any]:
    return _llama(max_position_embeddings=max_len, rope_parameters={"rope_theta": 200.0, **scaling})


def _gemma(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return _decoder(
        architecture,
        model_type,
        num_hidden_layers=3,
        head_dim=16,
        hidden_activation="gelu_pytorch_tanh",
        sliding_window=_WINDOW,
        tie_word_embeddings=True,
        **changes,
    )


_GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": VOCAB_SIZE,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": MAX_LEN,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}

_MODELS = (
    TinyModel("llama", "shared KV heads, rope, a gated MLP", _llama()),
    TinyModel(
        "llama-wide-heads",
        "heads of 24, so that q_features (96) is not hidden_size (64); biases on every projection",
        _llama(head_dim=24, attention_bias=True, mlp_bias=True),
    ),
    TinyModel(
        "llama-multi-head",
        "a KV head for each query head; tied embeddings, so that put_linear gets what put made",
        _llama(num_key_value_heads=4, tie_word_embeddings=True),
    ),
    TinyModel(
        "llama-llama3-rope",
        "rope scaled as in Llama 3: frequencies interpolated",
        _scaled_llama(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=_TRAINED_LEN,
        ),
    ),
    TinyModel(
        "llama-yarn-rope",
        "YaRN: cos and sin multiplied by RopeSpec.attention_factor",
        _scaled_llama(rope_type="yarn", factor=4.0, original_max_position_embeddings=_TRAINED_LEN),
    ),
    TinyModel(
        "llama-dynamic-rope",
        "dynamic rope: frequencies that depend on each token's context_lens",
        _scaled_llama(_TRAINED_LEN, rope_type="dynamic", factor=4.0),
    ),
    TinyModel(
        "mistral",
        "a sliding window in every layer, so that blocks are given back behind it",
        _decoder("MistralForCausalLM", "mistral", sliding_window=_WINDOW),
        needs=("sliding_window",),
    ),
    TinyModel(
        "qwen2",
        "biases on query, key and value; tied embeddings, so that put_linear gets what put made",
        _decoder("Qwen2ForCausalLM", "qwen2", tie_word_embeddings=True),
    ),
    TinyModel(
        "qwen3",
        "RMS norms over head_dim (24) on query and key, that is on a 3-D array",
        _decoder("Qwen3ForCausalLM", "qwen3", head_dim=24),
    ),
    TinyModel(
        "gemma2",
        "two KV groups (a window in every other layer), soft caps on scores and logits, norms "
        "before and after each part, an embedding multiplied by a Python float",
        _gemma(
            "Gemma2ForCausalLM",
            "gemma2",
            query_pre_attn_scalar=24,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=5.0,
        ),
        needs=("sliding_window", "soft_cap"),
    ),
    TinyModel(
        "gemma3",
        "two KV groups with a rope each (a step computes two tables from the same positions), "
        "normed query and key",
        _gemma(
            "Gemma3ForCausalLM",
            "gemma3_text",
            query_pre_attn_scalar=256,  # keeps the scores of normed heads near 1
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            },
        ),
        needs=("sliding_window",),
    ),
    TinyModel(
        "phi3",
        "rotation of half of each head, weights that the checkpoint stores fused",
        _decoder(
            "Phi3ForCausalLM",
            "phi3",
            original_max_position_embeddings=MAX_LEN,
            sliding_window=None,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.5,
            },
        ),
    ),
    TinyModel(
        "smollm3",
        "a layer without rope after one with it",
        _decoder("SmolLM3ForCausalLM", "smollm3", no_rope_layers=[1, 0], tie_word_embeddings=True),
    ),
    TinyModel(
        "olmo2",
        "norms after each part only, and over all heads of query and of key",
        _decoder("Olmo2ForCausalLM", "olmo2"),
    ),
    TinyModel(
        "gpt2",
        "layer norms with biases, a table of positions, gelu, weights that arrive as transposed "
        "(strided) views",
        _GPT2,
    ),
)

TINY_MODELS: Mapping[str, TinyModel] = {model.name: model for model in _MODELS}
"""By name: the family's, with what is special about it."""
