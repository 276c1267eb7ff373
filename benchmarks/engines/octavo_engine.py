"""Octavo on the backend it chooses for the CPU, or on what ``extra`` names."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from device_busy import recorded
from engines import EngineOptions
from octavo import LLM, SamplingParams

PROFILED_REQUESTS, PROFILED_PROMPT, PROFILED_STEPS = 256, 512, 48
REHEARSED = (2, 16, 4)


class OctavoEngine:
    """All prompts at once: the engine batches continuously."""

    def __init__(self, options: EngineOptions) -> None:
        settings = {"dtype": options.dtype, "device": "cpu", **options.extra}
        model = settings.pop("model", options.hf_folder)
        self._temperature = settings.pop("temperature", 0.0)
        self._llm = LLM(model, **settings)
        backend = self._llm.loaded.resolution.spec.name
        self.description = f"octavo {version('octavo')}, backend {backend}, {settings}"

    def generate(
        self, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]
    ) -> list[list[int]]:
        params = [self._params(output_len) for output_len in output_lens]
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        results = self._llm.generate(requests, params, use_tqdm=False)
        return [list(result.outputs[0].token_ids) for result in results]

    def decode_profile(self) -> dict[str, Any]:
        """Decode steps of many requests: wall, the device's busy share, the process's own time.

        Twice the same steps: with a profiler, which slows the host, for the time that the device
        computes in a step; and without, for the time that a step takes.
        """
        is_small = self._llm.config.device.startswith("cpu")
        count, prompt_len, steps = (
            REHEARSED if is_small else (PROFILED_REQUESTS, PROFILED_PROMPT, PROFILED_STEPS)
        )
        engine = self._llm.loaded.engine
        for index in range(count):
            prompt = {"prompt_token_ids": [(31 * index + 7 * i) % 9973 for i in range(prompt_len)]}
            engine.add_request(f"profiled-{index}", prompt, self._params(3 * steps + 64))
        before = engine.stats.num_prompt_tokens
        while engine.stats.num_prompt_tokens - before < count * prompt_len:
            engine.step()
        self._steps(steps)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        self._steps(steps)
        wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        busy_s = recorded(lambda: self._steps(steps))
        engine.abort(engine.unfinished_request_ids)
        row = {"requests": count, "step, ms": 1e3 * wall_s / steps}
        row["processor time, ms"] = 1e3 * cpu_s / steps
        if busy_s is not None:
            row["device computes, ms"] = 1e3 * busy_s / steps
            row["device busy"] = f"{100 * busy_s / wall_s:.0f} %"
            row["aim"] = f"95 %: {'met' if busy_s >= 0.95 * wall_s else 'missed'}"
        return row

    def _steps(self, steps: int) -> None:
        for _ in range(steps):
            self._llm.loaded.engine.step()

    def _params(self, output_len: int) -> SamplingParams:
        return SamplingParams(temperature=self._temperature, max_tokens=output_len, ignore_eos=True)


def load(options: EngineOptions) -> OctavoEngine:
    return OctavoEngine(options)
