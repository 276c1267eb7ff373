"""What it saves to compute the masks of grammars during the forward pass: steps in parts and whole.

    python benchmarks/mask_overlap.py [--rows 1 16 64] [--latency-s 0.01]

A small Llama of random weights with SmolLM2's vocabulary, on the fake device, whose forward pass
takes a set time, and on NumPy. Both ways take turns; a step's time is the median of a run.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from make_hf_model import HF_FOLDER, make_hf_folder
from octavo import LLM, SamplingParams
from structured_output import FORMS

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}


def open_llm(device: str, latency_s: float, *, in_parts: bool) -> LLM:
    from octavo_cpu.backend import NumpyBackend

    NumpyBackend.caps = dataclasses.replace(NumpyBackend.caps, separate_sampling=in_parts)
    with tempfile.TemporaryDirectory() as folder:
        plugins = Path(folder) / "plugins.toml"
        plugins.write_text(f"schema = 1\n[options.fake]\nlatency_s = {latency_s}\n")
        return LLM(
            str(make_hf_folder(hf_folder=HF_FOLDER)),
            device=device,
            load_format="dummy",
            hf_overrides=SMALL,
            plugins_file=str(plugins),
            max_model_len=1024,
            kv_cache_memory_bytes=1 << 26,
            quiet=True,
        )


def step_ms(llm: LLM, num_rows: int, form: dict[str, object], seed: int) -> float:
    """Median time of a decode step of so many rows, all with the form."""
    engine = llm.loaded.engine
    for row in range(num_rows):
        params = SamplingParams(
            max_tokens=40, seed=seed + row, detokenize=False, structured_outputs=form
        )
        engine.add_request(f"{seed}-{row}", [1, 2, 3], params)
    engine.step()
    times = []
    while engine.num_unfinished_requests == num_rows:
        start = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - start)
    engine.abort([f"{seed}-{row}" for row in range(num_rows)])
    return 1e3 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--latency-s", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("| device | rows | whole, ms a step | in parts, ms | whole / in parts |")
    print("|---|---|---|---|---|")
    for device in ("fake", "cpu"):
        whole = open_llm(device, arguments.latency_s, in_parts=False)
        parts = open_llm(device, arguments.latency_s, in_parts=True)
        for num_rows in arguments.rows:
            form = FORMS["schema, 60 properties"]
            pairs = [
                (step_ms(whole, num_rows, form, 1000 * i), step_ms(parts, num_rows, form, 1000 * i))
                for i in range(1, arguments.rounds + 1)
            ]
            first, second = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"| {device} | {num_rows} | {first:.2f} | {second:.2f} | {ratio:.2f} |")
        whole.close()
        parts.close()


if __name__ == "__main__":
    main()
