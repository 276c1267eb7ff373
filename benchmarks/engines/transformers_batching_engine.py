"""Transformers' continuous batching, its attention and graphs as it chooses them itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
import transformers

from engines import EngineOptions

MEMORY_SHARE = 0.5  # of what is free: others have their caches on the device, too
NO_END = -1
LIMIT_S = 600.0


class TransformersBatchingEngine:
    """One manager a call, with a length of its own for each request."""

    def __init__(self, options: EngineOptions) -> None:
        extra = options.extra
        self._device = torch.device(extra["torch_device"])
        config = transformers.AutoConfig.from_pretrained(options.hf_folder)
        dtype = getattr(torch, options.dtype)
        with self._device:
            model = transformers.AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation="sdpa"
            )
        self._model = model.eval()
        self._generation = transformers.GenerationConfig(
            do_sample=True, temperature=extra["temperature"], eos_token_id=NO_END, pad_token_id=0
        )
        self._batching = transformers.ContinuousBatchingConfig(**self._limits(extra))
        self.description = (
            f"transformers {transformers.__version__}, continuous batching, "
            f"torch {torch.__version__}, {options.dtype}"
        )

    def _limits(self, extra: dict[str, int]) -> dict[str, object]:
        """On the CPU nothing says how much memory is free: a small cache is named."""
        if self._device.type == "cpu":
            names = {field.name for field in fields(transformers.ContinuousBatchingConfig)}
            block_size = "page_size" if "page_size" in names else "block_size"
            return {"num_blocks": 16, "max_batch_tokens": 64, block_size: 16}
        return {
            "max_memory_percent": MEMORY_SHARE,
            "max_requests_per_batch": extra["max_num_seqs"],
            "allow_block_sharing": False,
        }

    def generate(
        self, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]
    ) -> list[list[int]]:
        """What the manager has generated, in the order of the prompts."""
        results: dict[str, list[int]] = {}
        with self._model.continuous_batching_context_manager(
            generation_config=self._generation,
            continuous_batching_config=self._batching,
            block=True,
            timeout=LIMIT_S,
            warmup=False,
            persistent_manager=True,
        ) as manager:
            names = [
                manager.add_request(list(prompt), max_new_tokens=output_len, eos_token_id=NO_END)
                for prompt, output_len in zip(prompts, output_lens, strict=True)
            ]
            while len(results) < len(names):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    results[result.request_id] = list(result.generated_tokens)
                elif result is None and not manager.is_running():
                    raise RuntimeError("transformers' generation thread ended; see above")
        return [results[name] for name in names]


def load(options: EngineOptions) -> TransformersBatchingEngine:
    return TransformersBatchingEngine(options)
