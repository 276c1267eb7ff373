"""Configs as the hub has them, and configs that no family may accept."""

from __future__ import annotations

import pytest
import transformers

from octavo.errors import ModelLoadError
from octavo.models.gemma2 import Gemma2
from octavo.models.gemma3 import Gemma3
from octavo.models.gpt2 import GPT2
from octavo.models.llama import Llama
from octavo.models.mistral import Mistral
from octavo.models.olmo2 import Olmo2
from octavo.models.phi3 import Phi3
from octavo.models.qwen2 import Qwen2
from octavo.models.qwen3 import Qwen3
from octavo.models.registry import KNOWN, build_model
from octavo.models.smollm3 import SmolLM3

GATED_FAMILIES = [Gemma2, Gemma3, Llama, Mistral, Olmo2, Phi3, Qwen2, Qwen3, SmolLM3]
FAMILIES = [*GATED_FAMILIES, GPT2]

SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GPT2_SIZES = {"vocab_size": 256, "n_embd": 64, "n_layer": 2, "n_head": 4}
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "rms_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}


def refused(family, **fields):
    """The message with which a family refuses its tiny config with these fields changed."""
    config = dict(GPT2_SIZES if family is GPT2 else SIZES)
    own_names = {}
    if family is GPT2:
        own_names = GPT2_NAMES
    elif family in (Gemma2, Gemma3):
        own_names = {"hidden_act": "hidden_activation"}
    config |= {own_names.get(name, name): value for name, value in fields.items()}
    with pytest.raises(ModelLoadError) as error:
        family(config)
    return str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("vocab_size", "256"),
        ("hidden_size", -64),
        ("hidden_size", 64.0),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", True),
        ("num_hidden_layers", 10**9),
        ("num_attention_heads", 0),
        ("num_attention_heads", [4]),
        ("max_position_embeddings", 10**30),
        ("rms_norm_eps", 0.0),
        ("rms_norm_eps", float("inf")),
        ("rms_norm_eps", "1e-5"),
        ("tie_word_embeddings", "yes"),
    ],
)
def test_bad_values_are_named(family, field, value):
    message = refused(family, **{field: value})
    name = GPT2_NAMES.get(field, field) if family is GPT2 else field
    assert f"config.json: {name} is {value!r}; expected" in message


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_activations_are_refused_with_the_known_ones(family):
    message = refused(family, hidden_act="relu2")
    assert "'relu2'; expected one of gelu, gelu_new, gelu_pytorch_tanh, silu" in message


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers"])
def test_sizes_without_a_default_must_be_there(family, field):
    config = dict(GPT2_SIZES if family is GPT2 else SIZES)
    name = GPT2_NAMES.get(field, field) if family is GPT2 else field
    del config[name]
    with pytest.raises(ModelLoadError, match=f"config.json has no '{name}'"):
        family(config)


@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_heads_must_divide(family):
    message = refused(family, num_attention_heads=4, num_key_value_heads=3)
    assert "num_attention_heads is 4; expected a multiple of num_key_value_heads" in message


@pytest.mark.parametrize("family", [Llama, Mistral, Olmo2, Phi3, Qwen2, SmolLM3])
def test_hidden_size_must_divide_into_heads_where_head_dim_is_absent(family):
    message = refused(family, hidden_size=66)
    assert "hidden_size is 66; expected a multiple of num_attention_heads, 4" in message


def test_gpt2_hidden_size_must_divide():
    assert "n_embd is 66; expected a multiple of n_head, 4" in refused(GPT2, n_embd=66)


@pytest.mark.parametrize("family", [Mistral, Qwen2, Qwen3, Gemma2, Gemma3, SmolLM3, Phi3])
def test_layer_types_are_checked(family):
    assert "layer_types[1] is 'chunked_attention'" in refused(
        family, layer_types=["full_attention", "chunked_attention"], sliding_window=4
    )
    assert "for each of the 2 layers" in refused(family, layer_types=["full_attention"])
    assert "sliding_window is 0; expected" in refused(
        family, layer_types=["full_attention", "sliding_attention"], sliding_window=0
    )


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        (Gemma2, {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        (Gemma3, {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        (Gemma2, {"query_pre_attn_scalar": -1}, "query_pre_attn_scalar is -1"),
        (Gemma2, {"final_logit_softcapping": 0}, "final_logit_softcapping is 0"),
        (Gemma3, {"rope_parameters": {"rope_theta": 5.0}}, "full_attention and sliding_attention"),
        (Gemma3, {"sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention is True"),
        (GPT2, {"activation_function": "silu"}, "activation_function is 'silu'"),
        (SmolLM3, {"no_rope_layers": [1]}, "no_rope_layers is [1]"),
        (SmolLM3, {"no_rope_layers": [1, 2]}, "expected a list of 0 and 1"),
        (SmolLM3, {"no_rope_layer_interval": 0}, "no_rope_layer_interval is 0"),
        (Qwen2, {"max_window_layers": -1}, "max_window_layers is -1"),
        (Llama, {"attention_bias": 1}, "attention_bias is 1; expected true or false"),
        (Llama, {"head_dim": 0}, "head_dim is 0"),
    ],
)
def test_features_that_are_missing_or_mistaken(family, fields, message):
    assert message in refused(family, **fields)


@pytest.mark.parametrize(
    ("architecture", "config_class"),
    [
        ("Gemma2ForCausalLM", transformers.Gemma2Config),
        ("Gemma3ForCausalLM", transformers.Gemma3TextConfig),
        ("GPT2LMHeadModel", transformers.GPT2Config),
        ("LlamaForCausalLM", transformers.LlamaConfig),
        ("MistralForCausalLM", transformers.MistralConfig),
        ("Olmo2ForCausalLM", transformers.Olmo2Config),
        ("Phi3ForCausalLM", transformers.Phi3Config),
        ("Qwen2ForCausalLM", transformers.Qwen2Config),
        ("Qwen3ForCausalLM", transformers.Qwen3Config),
        ("SmolLM3ForCausalLM", transformers.SmolLM3Config),
    ],
)
def test_what_a_config_leaves_out_is_as_in_transformers(architecture, config_class):
    """A config.json with sizes only means the same as one with every field written out."""
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    sizes += ("num_attention_heads", "n_embd", "n_layer", "n_head")
    full = {**config_class().to_dict(), "architectures": [architecture]}
    short = {name: full[name] for name in sizes if name in full}
    short["architectures"] = [architecture]
    from_full, from_short = build_model(full), build_model(short)
    assert from_short.config == from_full.config
    assert from_short.layers == from_full.layers
    assert from_short.ropes == from_full.ropes
    assert from_full.vocab_size == full["vocab_size"]


@pytest.mark.parametrize(
    ("architecture", "config_class", "fields"),
    [
        ("Gemma2ForCausalLM", transformers.Gemma2Config, {}),
        ("Gemma3ForCausalLM", transformers.Gemma3TextConfig, {}),
        ("Gemma3ForCausalLM", transformers.Gemma3TextConfig, {"sliding_window_pattern": 4}),
        ("Qwen2ForCausalLM", transformers.Qwen2Config, {"use_sliding_window": True}),
        (
            "Qwen3ForCausalLM",
            transformers.Qwen3Config,
            {"use_sliding_window": True, "max_window_layers": 3},
        ),
        (
            "SmolLM3ForCausalLM",
            transformers.SmolLM3Config,
            {"use_sliding_window": True, "sliding_window": 5, "no_rope_layer_interval": 3},
        ),
    ],
)
def test_windowed_layers_of_configs_from_before_layer_types(architecture, config_class, fields):
    fields = {**SIZES, "num_hidden_layers": 30, **fields}
    config = config_class(**fields)
    model = build_model({**fields, "architectures": [architecture]})
    windows = [layer.attention.window for layer in model.layers]
    assert windows == [
        config.sliding_window if layer_type == "sliding_attention" else None
        for layer_type in config.layer_types
    ]
    assert len(set(windows)) == 2


def test_gemma3_4b_as_the_hub_has_it():
    """A multimodal config in the older style, sparse: transformers' defaults fill it up."""
    text_config = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    model = build_model(
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "text_config": text_config,
            "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
        }
    )
    assert (model.config.num_heads, model.config.num_kv_heads, model.config.head_dim) == (8, 4, 256)
    assert (model.vocab_size, model.max_position_embeddings) == (262_208, 131_072)
    assert [spec.window for spec in model.kv_specs("float32")[:6]] == [1024] * 5 + [None]
    kinds = {(rope.kind, rope.base, rope.factor) for rope in model.ropes}
    assert kinds == {("default", 10_000.0, 1.0), ("linear", 1_000_000.0, 8.0)}
    assert 3.8e9 < model.num_parameters < 4.0e9


def test_every_family_is_tested_here():
    assert {class_name for _, class_name in KNOWN.values()} == {
        family.__name__ for family in FAMILIES
    }
