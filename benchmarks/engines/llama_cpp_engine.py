"""llama.cpp through llama-cpp-python, on the quantised weights; one request after the other."""

from __future__ import annotations

from collections.abc import Sequence

import llama_cpp

from engines import EngineOptions


class LlamaCppEngine:
    """Reads the GGUF as it is (Q4_1), so its text differs from the dequantised model's in time."""

    def __init__(self, options: EngineOptions) -> None:
        settings = {"n_ctx": 2048, "n_batch": 512, **options.extra}
        self._llama = llama_cpp.Llama(
            model_path=options.gguf_path,
            n_threads=options.num_threads,
            n_threads_batch=options.num_threads,
            verbose=False,
            **settings,
        )
        self.description = (
            f"llama-cpp-python {llama_cpp.__version__}, Q4_1, {settings}; "
            f"{llama_cpp.llama_print_system_info().decode()}"
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]
    ) -> list[list[int]]:
        return [
            self._generate_one(prompt, output_len)
            for prompt, output_len in zip(prompts, output_lens, strict=True)
        ]

    def _generate_one(self, prompt: Sequence[int], output_len: int) -> list[int]:
        self._llama.reset()
        token_ids: list[int] = []
        for token_id in self._llama.generate(list(prompt), temp=0.0):
            token_ids.append(int(token_id))
            if len(token_ids) == output_len:
                break
        return token_ids


def load(options: EngineOptions) -> LlamaCppEngine:
    return LlamaCppEngine(options)
