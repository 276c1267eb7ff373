"""Octavo on the backend it chooses for the CPU, or on the one that ``extra`` names."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from engines import EngineOptions
from octavo import LLM, SamplingParams


class OctavoEngine:
    """All prompts at once: the engine batches continuously."""

    def __init__(self, options: EngineOptions) -> None:
        settings = {"dtype": options.dtype, **options.extra}
        model = settings.pop("model", options.hf_folder)
        self._llm = LLM(model, device="cpu", **settings)
        backend = self._llm.loaded.resolution.spec.name
        self.description = f"octavo {version('octavo')}, backend {backend}, {settings}"

    def generate(
        self, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]
    ) -> list[list[int]]:
        params = [
            SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True)
            for output_len in output_lens
        ]
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        results = self._llm.generate(requests, params, use_tqdm=False)
        return [list(result.outputs[0].token_ids) for result in results]


def load(options: EngineOptions) -> OctavoEngine:
    return OctavoEngine(options)
