"""Rope parameters resolved: transformers' numbers, two generations of config.json, errors."""

from __future__ import annotations

import numpy as np
import pytest
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from octavo.errors import ModelLoadError
from octavo.models.llama import Llama
from octavo.models.phi3 import Phi3
from octavo.models.rope import context_len, prefix_salt, resolve_rope

ONE_OR_TWO_ULPS = 2.4e-7
LLAMA_31 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
QWEN_25 = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
PHI_35 = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.05 * index for index in range(48)],
    "long_factor": [1.08 + 1.33 * index for index in range(48)],
    "original_max_position_embeddings": 4096,
}
REAL_SIZES = {
    "llama 2": (128, 4096, 10_000.0, {"rope_type": "default"}),
    "vicuna 16k": (128, 4096, 10_000.0, {"rope_type": "linear", "factor": 4.0}),
    "dynamic": (128, 4096, 10_000.0, {"rope_type": "dynamic", "factor": 3.0}),
    "llama 3.1": (128, 131_072, 500_000.0, LLAMA_31),
    "llama 3.2": (64, 131_072, 500_000.0, {**LLAMA_31, "factor": 32.0}),
    "qwen 2.5": (128, 32_768, 1_000_000.0, QWEN_25),
    "phi 3.5": (96, 131_072, 10_000.0, PHI_35),
}


def config_dict(head_dim=16, max_len=128, **fields):
    return {
        "vocab_size": 256,
        "hidden_size": 4 * head_dim,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": max_len,
        **fields,
    }


def rope_of(**fields):
    (spec,) = Llama(config_dict(**fields)).ropes
    return spec


@pytest.mark.parametrize("name", REAL_SIZES)
def test_frequencies_are_those_of_transformers(name):
    head_dim, max_len, theta, parameters = REAL_SIZES[name]
    parameters = {**parameters, "rope_theta": theta}
    config = transformers.LlamaConfig(
        **config_dict(head_dim, max_len), rope_parameters=dict(parameters)
    )
    spec = resolve_rope(parameters, head_dim=head_dim, max_len=max_len)
    embedding = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    np.testing.assert_allclose(
        spec.inv_freq, embedding.inv_freq.double().numpy(), rtol=ONE_OR_TWO_ULPS
    )
    assert spec.attention_factor == pytest.approx(embedding.attention_scaling, rel=1e-12)
    assert spec.rotary_dim == head_dim
    if spec.kind == "longrope":
        long, _ = ROPE_INIT_FUNCTIONS["longrope"](config, seq_len=max_len)
        np.testing.assert_allclose(spec.long_inv_freq, long.double().numpy(), rtol=ONE_OR_TWO_ULPS)


@pytest.mark.parametrize("name", REAL_SIZES)
def test_every_number_fits_float32(name):
    head_dim, max_len, theta, parameters = REAL_SIZES[name]
    spec = resolve_rope({**parameters, "rope_theta": theta}, head_dim=head_dim, max_len=max_len)
    for frequencies in (spec.inv_freq, spec.long_inv_freq or ()):
        assert all(float(np.float32(frequency)) == frequency for frequency in frequencies)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"rope_theta": 500.0, "rope_scaling": None},
            {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        ),
        (
            {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
        ),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "type": "yarn", "factor": 2.0}},
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0}},
        ),
        (
            {
                "rope_scaling": {"rope_type": "yarn", "factor": 2.0},
                "original_max_position_embeddings": 64,
            },
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 2.0,
                    "rope_theta": 10000.0,
                    "original_max_position_embeddings": 64,
                }
            },
        ),
    ],
)
def test_both_generations_of_config_mean_the_same(old, new):
    assert rope_of(**old) == rope_of(**new)


def test_early_phi3_checkpoints_call_longrope_su():
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    early = Phi3(config_dict(rope_scaling={"type": "su", **factors}))
    late = Phi3(config_dict(rope_parameters={"rope_type": "longrope", **factors}))
    assert early.ropes == late.ropes
    assert early.ropes[0].kind == "longrope"


LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("fields", "salts"),
    [
        ({}, {10: 0, 1000: 0}),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, {10: 0, 1000: 0}),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, {128: 0, 129: 129, 200: 200}),
        (
            {"rope_scaling": {**LONGROPE, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}},
            {64: 0, 65: 1, 200: 1},
        ),
        (
            {"rope_scaling": {**LONGROPE, "short_factor": [2.0] * 8, "long_factor": [2.0] * 8}},
            {64: 0, 65: 0},
        ),
    ],
    ids=["none", "yarn", "dynamic", "longrope", "longrope, both alike"],
)
def test_prefix_salt(fields, salts):
    model = Llama(config_dict(**fields))
    assert {prompt_len: model.prefix_salt(prompt_len) for prompt_len in salts} == salts
    assert prefix_salt((), 1000) == 0


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"rope_type": "default"}, 128),
        ({"rope_type": "linear", "factor": 4.0}, 512),
        ({"rope_type": "dynamic", "factor": 2.0}, 256),
        ({"rope_type": "yarn", "factor": 4.0}, 512),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),
        ({**LLAMA_31, "original_max_position_embeddings": 32}, 128),
    ],
)
def test_scaling_widens_the_context(scaling, expected):
    assert Llama(config_dict(rope_parameters=scaling)).max_position_embeddings == expected
    assert context_len(rope_of(rope_parameters=scaling), 128) == expected


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "mrope"}, "'mrope' is unknown; known: default, dynamic, linear, llama3"),
        ({"rope_type": ["linear"]}, "is unknown; known"),
        ({"rope_type": "linear"}, "'linear' needs 'factor'"),
        ({"rope_type": "linear", "factor": "4"}, "factor is '4'; expected a number above 0"),
        ({"rope_type": "linear", "factor": 0}, "factor is 0; expected a number above 0"),
        ({"rope_type": "linear", "factor": float("nan")}, "factor is nan"),
        ({"rope_type": "dynamic", "factor": True}, "factor is True"),
        ({"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0}, "no usable frequencies"),
        ({"rope_type": "llama3", "factor": 8.0}, "'llama3' needs 'low_freq_factor'"),
        ({**LLAMA_31, "low_freq_factor": 4.0}, "low_freq_factor is 4.0; expected less than"),
        ({**LONGROPE, "short_factor": [1.0] * 8}, "long_factor is None; expected a list of 8"),
        (
            {**LONGROPE, "short_factor": [1.0] * 7, "long_factor": [1.0] * 8},
            "expected a list of 8 numbers",
        ),
        (
            {**LONGROPE, "short_factor": [1.0] * 8, "long_factor": [1.0] * 7 + [-1.0]},
            "long_factor holds a factor not above 0",
        ),
        ({"rope_theta": -1.0}, "rope_theta is -1.0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"full_attention": {"rope_type": "default"}}, "one set of parameters for all layers"),
        ("linear", "rope_parameters is 'linear'; expected an object"),
    ],
)
def test_nonsense_is_refused(scaling, message):
    with pytest.raises(ModelLoadError, match="config") as error:
        Llama(config_dict(rope_parameters=scaling))
    assert message in str(error.value)


@pytest.mark.parametrize("factor", [0.3, 1.5, 0.01])
def test_phi3_refuses_a_rotation_that_does_not_fit_the_head(factor):
    with pytest.raises(ModelLoadError, match="head_dim=10 features"):
        Phi3(config_dict(head_dim=10, partial_rotary_factor=factor))


def test_phi3_knows_longrope_only():
    with pytest.raises(ModelLoadError, match="'linear' is unknown in Phi-3"):
        Phi3(config_dict(rope_scaling={"type": "linear", "factor": 2.0}))
