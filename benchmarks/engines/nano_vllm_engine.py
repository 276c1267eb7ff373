"""nano-vLLM from a checkout of its own, unchanged; what it imports and lacks is stood in for.

Without flash-attn, attention goes to torch's own or to Octavo's (flash_attn_stand_in.py says when).
Weights are drawn on the device, and there is no tokenizer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import SimpleNamespace

import torch

from engines import EngineOptions

NO_END = -1
SPREAD = 0.02


class NanoVllmEngine:
    """All prompts at once, drawn at nano-vLLM's own benchmark's temperature."""

    def __init__(self, options: EngineOptions) -> None:
        extra = options.extra
        sys.path.insert(0, extra["path"])
        serving = None
        if find_spec("flash_attn") is None:
            import flash_attn_stand_in

            serving = flash_attn_stand_in.install()
        import nanovllm
        from nanovllm.engine import llm_engine, model_runner
        from nanovllm.layers import attention

        if serving is not None and serving.is_octavo:
            import flash_attn_octavo

            flash_attn_octavo.prepare(attention, model_runner.ModelRunner)
        is_graph_safe = serving is None or serving.is_graph_safe

        model_runner.load_model = _draw_weights
        llm_engine.AutoTokenizer = SimpleNamespace(from_pretrained=_no_tokenizer)
        self._new_params = nanovllm.SamplingParams
        self._llm = nanovllm.LLM(
            options.hf_folder,
            enforce_eager=not is_graph_safe,
            max_model_len=4096,
            max_num_seqs=extra["max_num_seqs"],
            max_num_batched_tokens=extra["max_num_batched_tokens"],
            gpu_memory_utilization=_share_of_all(extra["cache_bytes"]),
        )
        graphs = "graphs" if is_graph_safe else "no graphs"
        served_by = "flash-attn" if serving is None else serving.name
        self.description = f"nano-vLLM, torch {torch.__version__}, {graphs}, attention: {served_by}"

    def generate(
        self, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]
    ) -> list[list[int]]:
        params = [
            self._new_params(temperature=0.6, ignore_eos=True, max_tokens=output_len)
            for output_len in output_lens
        ]
        outputs = self._llm.generate([list(prompt) for prompt in prompts], params, use_tqdm=False)
        return [output["token_ids"] for output in outputs]


def _draw_weights(model: torch.nn.Module, path: str) -> None:
    del path
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=SPREAD)


def _no_tokenizer(*_: object, **__: object) -> SimpleNamespace:
    return SimpleNamespace(eos_token_id=NO_END, decode=lambda _: "")


def _share_of_all(cache_bytes: int) -> float:
    """nano-vLLM takes a share of all memory, what others hold of it included.

    Its weights and what a step needs at most come on top: 24 GiB serve both (an 8B model has 16).
    """
    free, total = torch.cuda.mem_get_info()
    return min(0.95, (total - free + cache_bytes + (24 << 30)) / total)


def load(options: EngineOptions) -> NanoVllmEngine:
    return NanoVllmEngine(options)
