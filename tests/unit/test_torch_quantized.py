"""Packed weights on torch devices: as the gguf package unpacks them, and products with them."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from octavo import LLM, SamplingParams
from octavo.api import BackendError, QuantizedTensor
from octavo.testing.tiny_models import MAX_LEN, TINY_MODELS, VOCAB_SIZE
from octavo.testing.tolerances import TOLERANCES

torch = pytest.importorskip("torch")

from octavo_torch.cpu import TorchCpuBackend  # noqa: E402
from octavo_torch.quantized import QUANTIZATION, unpacked  # noqa: E402

# Bytes of each block that are a float16: any bits would make NaN and infinity.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q6_K": [208]}
OUT_FEATURES, IN_FEATURES = 2100, 512  # more rows than are unpacked at a time


def random_weight(name, rng):
    block_size, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    shape = (OUT_FEATURES * IN_FEATURES // block_size, block_bytes)
    blocks = rng.integers(0, 256, shape, np.uint8)
    for byte in HALVES[name]:
        scales = rng.standard_normal((len(blocks), 1)).astype("<f2") * np.float16(2**-9)
        blocks[:, byte : byte + 2] = scales.view(np.uint8)
    return QuantizedTensor(
        f"gguf:{name}", (OUT_FEATURES, IN_FEATURES), blocks.reshape(OUT_FEATURES, -1)
    )


def test_each_claimed_scheme_is_tested():
    assert {*QUANTIZATION} == {f"gguf:{name}" for name in HALVES}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", HALVES)
def test_packed_weights_are_the_formats_own(name, dtype):
    rng = np.random.default_rng(7)
    packed = random_weight(name, rng)
    weight = dequantize(packed.data, GGMLQuantizationType[name])
    bias = rng.standard_normal(OUT_FEATURES).astype(dtype)
    backend = TorchCpuBackend(0, {})
    prepared = backend.put_linear(packed, bias, dtype)
    parts = (prepared.codes, prepared.scales, prepared.offsets, prepared.factors)
    own = unpacked(*parts, kind=prepared.kind, zero=prepared.zero)
    np.testing.assert_array_equal(own.numpy(), weight)

    unit = np.sqrt(np.square(weight.astype(np.float64)).sum(1).max())
    x = (rng.standard_normal((3, IN_FEATURES)) / unit).astype(dtype)
    product = backend.get(backend.ops.linear(backend.put(x), prepared))
    expected = x.astype(np.float64) @ weight.T.astype(np.float64) + bias.astype(np.float64)
    bound = TOLERANCES[dtype]
    assert product.dtype == dtype
    np.testing.assert_allclose(
        product.astype(np.float64), expected, rtol=bound.relative, atol=bound.absolute
    )


def test_a_scheme_that_is_not_claimed_is_refused_by_name():
    packed = QuantizedTensor("gguf:Q2_K", (1, 256), np.zeros((1, 84), np.uint8))
    with pytest.raises(BackendError, match=r"packed as gguf:Q2_K; it takes gguf:Q4_0, "):
        TorchCpuBackend(0, {}).put_linear(packed, None, "float32")


def log_probs(folder, quantization):
    llm = LLM(
        str(folder),
        device="cpu",
        backend="torch",
        dtype="float32",
        quantization=quantization,
        max_model_len=MAX_LEN // 2,
        kv_cache_memory_bytes=1 << 22,
        quiet=True,
    )
    try:
        params = SamplingParams(prompt_logprobs=0, max_tokens=1, temperature=0)
        prompt = np.random.default_rng(0).integers(0, VOCAB_SIZE, 24).tolist()
        (output,) = llm.generate([{"prompt_token_ids": prompt}], params, use_tqdm=False)
    finally:
        llm.loaded.close()
    rows = zip(output.prompt_logprobs[1:], prompt[1:], strict=True)
    return np.array([row[token].logprob for row, token in rows])


def test_weights_packed_at_load_answer_nearly_as_before(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = next(
        each.config for each in TINY_MODELS.values() if each.config["model_type"] == "llama"
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), dtype=torch.float32
    )
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(tmp_path)
    whole = log_probs(tmp_path, None)
    for quantization, limit in {"int8": 0.03, "int4": 0.3}.items():  # nats
        error = np.abs(log_probs(tmp_path, quantization) - whole).mean()
        assert 0 < error < limit, quantization
