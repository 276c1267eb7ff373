"""A step's arrays stay on their device: torch's ``meta`` device, which has shapes and no numbers.

An operation that mixes its tensors with the host's raises there as on a GPU, and there is no
number that the host could wait for.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("octavo_torch", reason="octavo-torch is not installed")
torch = pytest.importorskip("torch")

from octavo import LLM, SamplingParams  # noqa: E402
from octavo.testing.tiny_models import TINY_MODELS  # noqa: E402
from octavo_torch.cpu import TorchCpuBackend  # noqa: E402
from octavo_torch.dtypes import numpy_dtype  # noqa: E402

SAMPLING = (
    {"temperature": 0},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 5, "min_p": 0.02},
    {"temperature": 0.7, "logprobs": 3, "prompt_logprobs": 1},
    {"temperature": 0.7, "presence_penalty": 0.4, "allowed_token_ids": [1, 2, 5]},
)


class MetaBackend(TorchCpuBackend):
    """Whatever is read is 1: a token like others, and a mark that all went well."""

    def __init__(self, index, options):
        super().__init__(index, options)
        self.device = torch.device("meta")

    def get(self, array):
        assert array.device == self.device, "the host computed this"
        return np.ones(array.shape, numpy_dtype(str(array.dtype).removeprefix("torch.")))

    def copy_blocks(self, src, dst, pairs):
        return dst


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "llama-dynamic-rope", "phi3", "qwen3"])
def test_no_step_mixes_devices_or_reads_one(family, tmp_path, monkeypatch):
    monkeypatch.setattr("octavo_torch.cpu.TorchCpuBackend", MetaBackend)
    (tmp_path / "config.json").write_text(json.dumps(TINY_MODELS[family].config), encoding="utf-8")
    llm = LLM(
        str(tmp_path), "cpu", backend="torch", load_format="dummy", dtype="bfloat16", block_size=16,
        max_model_len=96, max_num_seqs=6, max_num_batched_tokens=48, swap_space=0, quiet=True,
    )  # fmt: skip
    prompts = [{"prompt_token_ids": [*range(1, length)]} for length in (3, 20, 60)]
    for sampling in SAMPLING:
        params = SamplingParams(max_tokens=3, ignore_eos=True, seed=1, **sampling)
        outputs = llm.generate(prompts, params, use_tqdm=False)
        assert all(len(output.outputs[0].token_ids) == 3 for output in outputs)
    llm.close()
