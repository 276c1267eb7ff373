"""Each GGUF architecture: a random transformers model, converted as llama.cpp does, comes back.

Names come from the gguf package's own tensor map; the changes that the converter makes to values
are written out here by hand. The config must make transformers build the same model again.
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType
from gguf_writing import LLAMA_SETTINGS, llama_tensors, reference_weights, write_gguf

from octavo.errors import ModelLoadError
from octavo.loading import open_checkpoint
from octavo.loading.gguf import GGUFSource

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
TOKENS = torch.tensor([[1, 5, 9, 40, 2, 77, 95, 0, 31, 3, 8, 8]])

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 100.0,  # small enough for wavelengths on both sides of both bounds
}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.5, 1.6, 1.7, 1.8],
    "long_factor": [1.0, 2.1, 3.2, 4.3, 5.5, 6.6, 7.7, 9.0],
    "original_max_position_embeddings": 32,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0}


def rope(parameters):
    return {"rope_parameters": parameters}


GEMMA_SIZES = SIZES | {"head_dim": 32, "sliding_window": 5}

# case: GGUF architecture, config class, its arguments
CASES = {
    "llama": ("llama", transformers.LlamaConfig, SIZES),
    "llama untied": ("llama", transformers.LlamaConfig, SIZES | {"tie_word_embeddings": False}),
    "llama tied": ("llama", transformers.LlamaConfig, SIZES | {"tie_word_embeddings": True}),
    "llama with biases": (
        "llama",
        transformers.LlamaConfig,
        SIZES | {"attention_bias": True, "mlp_bias": True},
    ),
    "llama 3": ("llama", transformers.LlamaConfig, SIZES | rope(LLAMA3_ROPE)),
    "llama with wide heads": ("llama", transformers.LlamaConfig, SIZES | {"head_dim": 32}),
    "llama with linear rope": ("llama", transformers.LlamaConfig, SIZES | rope(LINEAR_ROPE)),
    "qwen2": ("qwen2", transformers.Qwen2Config, SIZES),
    "qwen2 with yarn": ("qwen2", transformers.Qwen2Config, SIZES | rope(YARN_ROPE)),
    "qwen3": ("qwen3", transformers.Qwen3Config, SIZES | {"head_dim": 32}),
    "gemma2": (
        "gemma2",
        transformers.Gemma2Config,
        GEMMA_SIZES
        | {
            "query_pre_attn_scalar": 32,
            "attn_logit_softcapping": 20.0,
            "final_logit_softcapping": 10.0,
        },
    ),
    "gemma3": (
        "gemma3",
        transformers.Gemma3TextConfig,
        GEMMA_SIZES | {"num_hidden_layers": 7, "query_pre_attn_scalar": 32},
    ),
    "phi3": ("phi3", transformers.Phi3Config, SIZES | {"pad_token_id": 0, "sliding_window": 5}),
    "phi3 with partial rope": (
        "phi3",
        transformers.Phi3Config,
        SIZES
        | {
            "pad_token_id": 0,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.75,
            },
        },
    ),
    "phi3 with longrope": (
        "phi3",
        transformers.Phi3Config,
        SIZES
        | {"pad_token_id": 0, "original_max_position_embeddings": 32, "rope_parameters": LONG_ROPE},
    ),
    "gpt2": (
        "gpt2",
        transformers.GPT2Config,
        {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
}


def make_model(config):
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = "norm" in name or "ln_" in name
            parameter.normal_(0.0, 0.1 if is_norm or name.endswith("bias") else 0.05)
            if is_norm and name.endswith("weight") and not config.model_type.startswith("gemma"):
                parameter.add_(1.0)
    return model


def converted_tensors(architecture, model):
    """The state dict under GGUF names, with the changes of llama.cpp's converter."""
    config = model.config
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tensors = {}
    for hf_name, tensor in model.state_dict().items():
        if hf_name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weights = tensor.numpy()
        if architecture == "llama" and "q_proj" in hf_name:
            weights = interleave_heads(weights, config.num_attention_heads)
        if architecture == "llama" and "k_proj" in hf_name:
            weights = interleave_heads(weights, config.num_key_value_heads)
        if architecture.startswith("gemma") and hf_name.endswith("norm.weight"):
            weights = weights + 1
        if architecture == "gpt2" and ".c_" in hf_name and hf_name.endswith("weight"):
            weights = weights.T
        tensors[names.get_name(hf_name, try_suffixes=(".weight", ".bias"))] = weights
    return tensors


def interleave_heads(weights, num_heads):
    """Within each head, rows 0, 1, … and half, half + 1, … take turns."""
    result = np.empty_like(weights)
    head_dim = len(weights) // num_heads
    for head in range(num_heads):
        for i in range(head_dim // 2):
            row = head * head_dim
            result[row + 2 * i] = weights[row + i]
            result[row + 2 * i + 1] = weights[row + head_dim // 2 + i]
    return result


def converted_settings(architecture, config):
    """The key-values that the converter writes for this config."""
    if architecture == "gpt2":
        values = {
            "block_count": config.n_layer,
            "context_length": config.n_ctx if hasattr(config, "n_ctx") else config.n_positions,
            "embedding_length": config.n_embd,
            "feed_forward_length": 4 * config.n_embd,
            "attention.head_count": config.n_head,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }
    else:
        head_dim = getattr(config, "head_dim", None) or 16
        values = {
            "block_count": config.num_hidden_layers,
            "context_length": config.max_position_embeddings,
            "embedding_length": config.hidden_size,
            "feed_forward_length": config.intermediate_size,
            "attention.head_count": config.num_attention_heads,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "attention.key_length": head_dim,
            "attention.value_length": head_dim,
        }
        values |= converted_rope(architecture, config, head_dim)
        if architecture in ("gemma2", "gemma3", "phi3"):
            values["attention.sliding_window"] = config.sliding_window or 0
        if architecture == "gemma2":
            values["attn_logit_softcapping"] = config.attn_logit_softcapping
            values["final_logit_softcapping"] = config.final_logit_softcapping
    settings = [("uint32", "tokenizer.ggml.padding_token_id", config.pad_token_id)]
    settings = settings if config.pad_token_id is not None else []
    kinds = {int: "uint32", float: "float32", str: "string"}
    return settings + [(kinds[type(v)], f"{architecture}.{key}", v) for key, v in values.items()]


def converted_rope(architecture, config, head_dim):
    parameters = config.rope_parameters
    if architecture == "gemma3":
        parameters = parameters["full_attention"]
    values = {"rope.freq_base": float(parameters["rope_theta"])}
    rotary_dim = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
    if architecture in ("llama", "phi3"):
        values["rope.dimension_count"] = rotary_dim
    kind = parameters.get("rope_type")
    if kind in ("linear", "yarn"):
        values["rope.scaling.type"] = kind
        values["rope.scaling.factor"] = parameters["factor"]
    if kind in ("yarn", "longrope"):
        original = parameters["original_max_position_embeddings"]
        values["rope.scaling.original_context_length"] = original
    if kind == "longrope":
        scale = config.max_position_embeddings / original
        values["rope.scaling.attn_factor"] = float(np.sqrt(1 + np.log(scale) / np.log(original)))
    return values


def rope_factor_tensors(config, head_dim=16):
    """What the converter stores of a rope scaling that GGUF has no key-values for."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if parameters.get("rope_type") == "longrope":
        return {
            "rope_factors_long.weight": np.array(parameters["long_factor"], np.float32),
            "rope_factors_short.weight": np.array(parameters["short_factor"], np.float32),
        }
    if parameters.get("rope_type") != "llama3":
        return {}
    original = parameters["original_max_position_embeddings"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * parameters["rope_theta"] ** (i / head_dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(parameters["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / parameters["factor"] + smooth))
    assert len({*factors} - {1.0, parameters["factor"]}) >= 1  # some lie between
    return {"rope_freqs.weight": np.array(factors, np.float32)}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """(the original model, the checkpoint opened from its conversion)."""
    architecture, config_class, arguments = CASES[request.param]
    model = make_model(config_class(**arguments))
    tensors = converted_tensors(architecture, model) | rope_factor_tensors(model.config)
    settings = converted_settings(architecture, model.config)
    path = write_gguf(tmp_path / "model.gguf", architecture, settings, tensors)
    return model, open_checkpoint(str(path))


def test_every_tensor_comes_back(case):
    model, checkpoint = case
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    assert set(checkpoint.tensors.names()) == set(state)
    for name, tensor in state.items():
        expected = tensor.numpy()
        assert checkpoint.tensors.shape(name) == expected.shape
        if model.config.model_type.startswith("gemma") and name.endswith("norm.weight"):
            expected = (expected + np.float32(1)) - np.float32(1)  # as much as GGUF keeps of it
        result = checkpoint.tensors.read(name, "float32")
        np.testing.assert_array_equal(result, expected, err_msg=name)
        out = np.empty_like(expected)
        checkpoint.tensors.read(name, "float32", out)
        np.testing.assert_array_equal(out, expected, err_msg=name)


def test_the_config_builds_the_same_model(case):
    model, checkpoint = case
    arguments = {k: v for k, v in checkpoint.config.items() if k != "architectures"}
    config = transformers.AutoConfig.for_model(**arguments)
    rebuilt = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    assert type(rebuilt).__name__ == checkpoint.config["architectures"][0]
    state = {
        name: torch.from_numpy(np.array(checkpoint.tensors.read(name, "float32")))
        for name in checkpoint.tensors.names()
    }
    missing, unexpected = rebuilt.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if config.tie_word_embeddings else set())
    rebuilt.tie_weights()
    with torch.no_grad():
        expected = model(TOKENS).logits
        torch.testing.assert_close(rebuilt(TOKENS).logits, expected, atol=2e-5, rtol=1e-4)
        long_tokens = TOKENS.repeat(1, 4)  # beyond the original context of the scaled cases
        torch.testing.assert_close(
            rebuilt(long_tokens).logits, model(long_tokens).logits, atol=2e-5, rtol=1e-4
        )


@pytest.mark.parametrize(
    "quant_type", [GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q6_K], ids=lambda q: q.name
)
@pytest.mark.parametrize(("name", "heads"), [("attn_q", 4), ("attn_k", 2)])
def test_packed_query_and_key_rows_are_restored_too(tmp_path, quant_type, name, heads):
    tensors = llama_tensors(quant_type)
    path = write_gguf(tmp_path / "t.gguf", "llama", LLAMA_SETTINGS, tensors)
    source = GGUFSource(path)
    hf_name = f"model.layers.0.self_attn.{name[-1]}_proj.weight"
    rows, _ = tensors[f"blk.0.{name}.weight"]
    weights = source.read(hf_name, "float32")
    np.testing.assert_array_equal(
        interleave_heads(weights, heads), reference_weights(rows, quant_type)
    )
    packed = source.quantized(hf_name)
    assert packed.shape == weights.shape
    np.testing.assert_array_equal(reference_weights(packed.data, quant_type), weights)


def test_gpt2_columns_are_not_offered_as_packed_rows(tmp_path):
    config = transformers.GPT2Config(vocab_size=96, n_embd=64, n_layer=1, n_head=4, n_positions=64)
    tensors = converted_tensors("gpt2", make_model(config))
    packed = gguf.quants.quantize(tensors["blk.0.ffn_up.weight"], GGMLQuantizationType.Q8_0)
    tensors["blk.0.ffn_up.weight"] = (packed, GGMLQuantizationType.Q8_0)
    path = write_gguf(tmp_path / "t.gguf", "gpt2", converted_settings("gpt2", config), tensors)
    source = GGUFSource(path)
    assert source.dtype("transformer.h.0.mlp.c_fc.weight") == "gguf:Q8_0"
    assert source.quantized("transformer.h.0.mlp.c_fc.weight") is None
    np.testing.assert_array_equal(
        source.read("transformer.h.0.mlp.c_fc.weight", "float32"),
        gguf.quants.dequantize(packed, GGMLQuantizationType.Q8_0).T,
    )


class TestSettings:
    """Key-values beyond the tensors' shapes, on a tiny Llama."""

    @staticmethod
    def open(tmp_path, *settings, drop=()):
        kept = [item for item in LLAMA_SETTINGS if item[1] not in drop]
        tensors = llama_tensors(GGMLQuantizationType.F16)
        path = write_gguf(tmp_path / "t.gguf", "llama", [*kept, *settings], tensors)
        return open_checkpoint(str(path))

    def test_token_ids_and_turn_ends(self, tmp_path):
        checkpoint = self.open(
            tmp_path,
            ("uint32", "tokenizer.ggml.bos_token_id", 1),
            ("uint32", "tokenizer.ggml.eos_token_id", 2),
            ("uint32", "tokenizer.ggml.eot_token_id", 7),
        )
        assert checkpoint.config["eos_token_id"] == 2
        assert checkpoint.generation_config == {"bos_token_id": 1, "eos_token_id": [2, 7]}

    def test_a_token_beyond_the_vocabulary_counts_as_none(self, tmp_path, caplog):
        checkpoint = self.open(
            tmp_path,
            ("uint32", "tokenizer.ggml.eos_token_id", 2),
            ("uint32", "tokenizer.ggml.padding_token_id", 2**32 - 1),
        )
        assert checkpoint.generation_config == {"eos_token_id": 2}
        assert "padding_token_id is 4294967295, beyond the vocabulary of 64" in caplog.text

    def test_sampling_defaults(self, tmp_path):
        checkpoint = self.open(
            tmp_path,
            ("float32", "general.sampling.temp", 0.5),
            ("int32", "general.sampling.top_k", 20),
        )
        assert checkpoint.generation_config == {
            "temperature": 0.5,
            "top_k": 20,
            "do_sample": True,
        }

    def test_a_window_makes_it_mistral(self, tmp_path):
        checkpoint = self.open(tmp_path, ("uint32", "llama.attention.sliding_window", 32))
        assert checkpoint.config["architectures"] == ["MistralForCausalLM"]
        assert checkpoint.config["sliding_window"] == 32

    def test_metadata_reaches_the_tokenizer(self, tmp_path):
        checkpoint = self.open(tmp_path, ("array", "tokenizer.ggml.tokens", ["<s>", "é", "😀"]))
        assert checkpoint.tokenizer.directory is None
        assert checkpoint.tokenizer.gguf["tokenizer.ggml.tokens"] == ["<s>", "é", "😀"]

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            (("uint32", "llama.block_count", 0), "block_count is 0"),
            (("uint32", "llama.block_count", 2**32 - 1), "block_count is 4294967295"),
            (("string", "llama.block_count", "two"), "block_count is 'two'"),
            (("float32", "llama.embedding_length", 256.5), "embedding_length is 256.5"),
            (("bool", "llama.attention.head_count", True), "head_count is True"),
            (("array", "llama.attention.head_count_kv", [2, 4]), "same for every layer"),
            (("float32", "llama.rope.freq_base", float("nan")), "freq_base is nan"),
            (("float32", "llama.attention.layer_norm_rms_epsilon", -1.0), "epsilon is -1.0"),
            (("uint32", "llama.attention.value_length", 32), "value_length is 32"),
            (("string", "llama.rope.scaling.type", "mystery"), "none, linear, yarn, longrope"),
            (("string", "llama.rope.scaling.type", "linear"), "scaling.factor is missing"),
            (("uint32", "llama.expert_count", 8), "mixture of experts"),
            (("string", "general.type", "adapter"), "'adapter'"),
            (("uint32", "llama.attention.head_count", 3), "divide into 3 heads"),
            (("string", "tokenizer.ggml.eos_token_id", "2"), "eos_token_id is '2'"),
            (("string", "general.sampling.temp", "hot"), "sampling.temp is 'hot'"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_absurd_values_are_named(self, tmp_path, setting, message):
        with pytest.raises(ModelLoadError, match=message):
            self.open(tmp_path, setting, drop=(setting[1],))

    @pytest.mark.parametrize("value", [[1, 2], ["a"] * 1000, [0.5], "x", -1, True, 1e30])
    @pytest.mark.parametrize(
        "key",
        [
            *[key for _, key, _ in LLAMA_SETTINGS],
            *("general.type", "general.alignment", "split.tensors.count", "llama.expert_count"),
            *("llama.rope.scaling.type", "llama.rope.scale_linear", "llama.attention.key_length"),
            *("llama.attention.sliding_window", "tokenizer.ggml.eos_token_id"),
            *("general.sampling.top_k", "llama.rope.dimension_count"),
        ],
    )
    def test_a_value_of_the_wrong_kind_loads_or_is_refused(self, tmp_path, key, value):
        kind = {list: "array", str: "string", int: "int32", bool: "bool", float: "float32"}
        message = ""
        try:
            checkpoint = self.open(tmp_path, (kind[type(value)], key, value), drop=(key,))
        except ModelLoadError as error:
            message = str(error)
        assert message or checkpoint.config["architectures"]
        assert len(message) < 600 + len(str(tmp_path))  # no vocabulary in a message

    def test_a_missing_key_is_named(self, tmp_path):
        with pytest.raises(ModelLoadError, match=r"llama\.block_count is missing"):
            self.open(tmp_path, drop=("llama.block_count",))

    def test_one_count_for_each_layer_is_accepted_if_they_agree(self, tmp_path):
        key = "llama.attention.head_count_kv"
        checkpoint = self.open(tmp_path, ("array", key, [2]), drop=(key,))
        assert checkpoint.config["num_key_value_heads"] == 2


@pytest.mark.parametrize("architecture", ["mamba", "llama4", "clip"])
def test_unknown_architectures_are_refused_by_name(tmp_path, architecture):
    path = write_gguf(
        tmp_path / "t.gguf", architecture, [], llama_tensors(GGMLQuantizationType.F16)
    )
    with pytest.raises(ModelLoadError, match=f"'{architecture}' is not supported.*llama, qwen2"):
        GGUFSource(path)


@pytest.mark.parametrize(
    "name",
    ["blk.0.mystery.weight", "blk.1.attn_q.weight", "blk.00.attn_q.weight", "mystery", "blk.0.a"],
)
def test_a_tensor_without_a_place_is_refused(tmp_path, name):
    tensors = llama_tensors(GGMLQuantizationType.F16) | {name: np.ones(4)}
    path = write_gguf(tmp_path / "t.gguf", "llama", LLAMA_SETTINGS, tensors)
    with pytest.raises(ModelLoadError, match=f"'{name}' has no place"):
        GGUFSource(path)


def test_a_vocabulary_without_weights_is_refused(tmp_path):
    path = write_gguf(tmp_path / "t.gguf", "llama", LLAMA_SETTINGS, {})
    with pytest.raises(ModelLoadError, match=r"token_embd\.weight is missing"):
        GGUFSource(path)


@pytest.mark.parametrize("name", ["blk.0.ffn_up.weight", "rope_freqs.weight"])
def test_three_dimensions_are_refused(tmp_path, name):
    tensors = llama_tensors(GGMLQuantizationType.F16) | {name: np.ones((2, 2, 4))}
    path = write_gguf(tmp_path / "t.gguf", "llama", LLAMA_SETTINGS, tensors)
    with pytest.raises(ModelLoadError, match=rf"'{name}' has the shape \(2, 2, 4\)"):
        GGUFSource(path)


def test_rope_factors_of_the_wrong_length_are_refused(tmp_path):
    tensors = llama_tensors(GGMLQuantizationType.F16) | {"rope_freqs.weight": np.ones(5)}
    path = write_gguf(tmp_path / "t.gguf", "llama", LLAMA_SETTINGS, tensors)
    with pytest.raises(ModelLoadError, match=r"rope_freqs\.weight to hold half"):
        GGUFSource(path)
