"""``--quantization`` on every family: the answers stay near those of the weights as they were."""

from __future__ import annotations

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.api import DeviceError
from octavo.testing.tiny_models import MAX_LEN, TINY_MODELS, VOCAB_SIZE
from octavo_cpu.native.library import load_library

try:
    load_library()
except DeviceError as error:
    pytest.skip(str(error), allow_module_level=True)

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

FAMILIES = {model.config["model_type"]: model.config for model in TINY_MODELS.values()}
PROMPT = np.random.default_rng(0).integers(0, VOCAB_SIZE, 24).tolist()
LIMITS = {"int8": 0.03, "int4": 0.3}  # nats, of logits that spread over several


def folder_of(config, path):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), dtype=torch.float32
    )
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(path)
    return path


def log_probs(folder, quantization, *, quiet=True):
    llm = LLM(
        str(folder),
        device="cpu",
        backend="native",
        dtype="float32",
        quantization=quantization,
        max_model_len=MAX_LEN // 2,
        kv_cache_memory_bytes=1 << 22,
        quiet=quiet,
    )
    try:
        params = SamplingParams(prompt_logprobs=0, max_tokens=4, temperature=0)
        (output,) = llm.generate([{"prompt_token_ids": PROMPT}], params, use_tqdm=False)
    finally:
        llm.loaded.close()
    assert len(output.outputs[0].token_ids) == 4
    rows = zip(output.prompt_logprobs[1:], PROMPT[1:], strict=True)
    return np.array([row[token].logprob for row, token in rows])


@pytest.mark.parametrize("family", FAMILIES)
def test_quantised_families(family, tmp_path):
    folder = folder_of(FAMILIES[family], tmp_path / "tiny")
    expected = log_probs(folder, None)
    for quantization, limit in LIMITS.items():
        difference = log_probs(folder, quantization) - expected
        assert 0 < np.sqrt(np.mean(np.square(difference))) < limit, quantization


def test_a_model_that_the_host_cannot_run_is_packed_all_the_same(tmp_path, monkeypatch, capsys):
    folder = folder_of(FAMILIES["llama"], tmp_path / "tiny")
    measured = log_probs(folder, "int4", quiet=False)
    assert "which weights count most" in capsys.readouterr().err

    def refuse(*_):
        raise AttributeError("no op 'mixture'")

    monkeypatch.setattr("octavo.loading.importance.measure_importance", refuse)
    blind = log_probs(folder, "int4", quiet=False)
    assert "no op 'mixture'" in capsys.readouterr().err
    assert 0 < np.abs(blind - measured).max() < LIMITS["int4"] * 4
