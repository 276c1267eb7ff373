"""The real GGUF model against transformers and the gguf package, tensor by tensor."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from octavo.loading import open_checkpoint

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
HEADS = {"attn_q": 9, "attn_k": 3}


@pytest.fixture(scope="module")
def checkpoint(smollm2_path):
    return open_checkpoint(str(smollm2_path))


@pytest.fixture(scope="module")
def reader(smollm2_path):
    return gguf.GGUFReader(smollm2_path)


def same_bits(left, right):
    return left.shape == right.shape and (left.view(np.uint32) == right.view(np.uint32)).all()


def hf_tensor(tensor):
    """(name, values) that Hugging Face has for a tensor of the gguf package's reader."""
    weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    *_, layer, module, kind = ["", *tensor.name.split(".")]
    if module in HEADS:
        halves = [[row[0::2], row[1::2]] for row in np.split(weights, HEADS[module])]
        weights = np.concatenate([half for head in halves for half in head])
    prefix = f"model.layers.{layer}." if module in LAYER_NAMES else ""
    return f"{prefix}{(LAYER_NAMES | OUTER_NAMES)[module]}.{kind}", weights


def test_every_tensor_equals_the_gguf_package_bit_for_bit(checkpoint, reader):
    assert len(checkpoint.tensors.names()) == len(reader.tensors) == 272
    for tensor in reader.tensors:
        name, expected = hf_tensor(tensor)
        assert same_bits(checkpoint.tensors.read(name, "float32"), expected), name


@pytest.mark.slow
def test_every_tensor_and_setting_equals_transformers(checkpoint, smollm2_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2_path.parent,
        gguf_file=smollm2_path.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    del state["lm_head.weight"]  # tied
    assert set(checkpoint.tensors.names()) == set(state)
    for name, expected in state.items():
        assert same_bits(checkpoint.tensors.read(name, "float32"), expected), name
    rope_theta = model.config.rope_parameters["rope_theta"]
    ours = dict(checkpoint.config)
    assert ours.pop("architectures") == [type(model).__name__]
    assert ours.pop("rope_theta") == rope_theta
    assert ours.pop("rope_scaling") is None
    assert ours == {key: getattr(model.config, key) for key in ours}


def test_metadata_equals_the_gguf_package(checkpoint, reader):
    metadata = checkpoint.tokenizer.gguf
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert set(metadata) == set(fields)
    for key, field in fields.items():
        if len(field.data) > 1000 and field.types[-1] == gguf.GGUFValueType.STRING:
            expected = [bytes(field.parts[i]).decode() for i in field.data]
        else:
            expected = field.contents()
        value = metadata[key]
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == expected, key


def test_what_a_user_sees_of_it(checkpoint, smollm2_path):
    assert checkpoint.name == "SmolLM2-135M-Instruct.Q4_1"
    assert checkpoint.path == smollm2_path
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"]
    assert checkpoint.generation_config == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
