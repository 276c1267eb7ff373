"""Transformers in eager mode: static batches, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers

from engines import EngineOptions

PAD_ID = 0


class TransformersEngine:
    """Prompts in the order given, so many at a time; a batch ends with its longest request."""

    def __init__(self, options: EngineOptions) -> None:
        torch.set_num_threads(options.num_threads)
        self._batch_size = options.static_batch_size
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            options.hf_folder, dtype=getattr(torch, options.dtype), **options.extra
        ).eval()
        # Nothing but the length may end a request.
        self._model.generation_config = transformers.GenerationConfig(
            do_sample=False, eos_token_id=None, pad_token_id=PAD_ID
        )
        self.description = (
            f"transformers {transformers.__version__}, torch {torch.__version__}, eager, "
            f"{options.dtype}, static batches of {self._batch_size}"
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]
    ) -> list[list[int]]:
        outputs: list[list[int]] = []
        for start in range(0, len(prompts), self._batch_size):
            end = start + self._batch_size
            outputs += self._generate_batch(prompts[start:end], output_lens[start:end])
        return outputs

    @torch.inference_mode()
    def _generate_batch(
        self, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]
    ) -> list[list[int]]:
        width = max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        token_ids = torch.tensor(
            [[PAD_ID] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
        )
        mask = torch.arange(width)[None, :] >= torch.tensor(padding)[:, None]
        result = self._model.generate(
            token_ids, attention_mask=mask.long(), max_new_tokens=max(output_lens)
        )
        # What a short request produced after its own end counts for nothing.
        rows = result[:, width:].tolist()
        return [row[:output_len] for row, output_len in zip(rows, output_lens, strict=True)]


def load(options: EngineOptions) -> TransformersEngine:
    return TransformersEngine(options)
