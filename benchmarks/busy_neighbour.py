"""What a program on one of the cores costs: rounds on an idle machine and beside it, in turns.

python benchmarks/busy_neighbour.py                     SmolLM2 from the 4-bit file
python benchmarks/busy_neighbour.py --model FOLDER      any other model
python benchmarks/busy_neighbour.py --torch             torch's linear layers of the same shapes too
python benchmarks/busy_neighbour.py --anywhere          a program that may run on every core
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from make_hf_model import GGUF_PATH
from octavo import LLM, SamplingParams
from report import markdown, spread

Work = Callable[[], float]  # runs once and returns tokens a second

NUM_DECODED = 96
LAYER_SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))  # SmolLM2's, out by in features
NUM_LAYERS = 30


@contextmanager
def busy_neighbour(cores: set[int]) -> Iterator[None]:
    """A process that loops, and may run on these cores."""
    loop = f"import os\nos.sched_setaffinity(0, {cores})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", loop])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait()


def octavo_works(model: str, backend: str, num_prefilled: int) -> dict[str, Work]:
    """Decoding and prefilling one request of tokens that no cache knows."""
    llm = LLM(model, device="cpu", backend=backend, quiet=True, max_model_len=2048)
    rng = random.Random(0)

    def run(num_in: int, num_out: int) -> tuple[float, float]:
        """Seconds to the first token, and from there to the last."""
        prompt = {"prompt_token_ids": [rng.randrange(1000, 40_000) for _ in range(num_in)]}
        params = SamplingParams(max_tokens=num_out, temperature=0, ignore_eos=True)
        started = time.perf_counter()
        times = [time.perf_counter() for _ in llm.stream(prompt, params)]
        return times[0] - started, times[-1] - times[0]

    return {
        "decode, 1 request": lambda: (NUM_DECODED - 1) / run(16, NUM_DECODED)[1],
        f"prefill {num_prefilled}": lambda: num_prefilled / run(num_prefilled, 1)[0],
    }


def torch_works() -> dict[str, Work]:
    """All linear layers of SmolLM2 by torch in bfloat16, without anything between them."""
    import torch

    weights = [
        torch.randn(shape).to(torch.bfloat16) for _ in range(NUM_LAYERS) for shape in LAYER_SHAPES
    ]

    def forward(rows: int) -> float:
        inputs = {shape[1]: torch.randn(rows, shape[1]).bfloat16() for shape in LAYER_SHAPES}
        started = time.perf_counter()
        for weight in weights:
            torch.nn.functional.linear(inputs[weight.shape[1]], weight)
        return rows / (time.perf_counter() - started)

    return {"torch, 1 row": lambda: forward(1), "torch, 512 rows": lambda: forward(512)}


def measure(works: dict[str, Work], rounds: int, cores: set[int]) -> list[list[str]]:
    """A row for each work: tokens a second alone, beside the neighbour, and their ratio."""
    rows = []
    for name, work in works.items():
        work()
        alone, beside = [], []
        for _ in range(rounds):
            alone.append(work())
            with busy_neighbour(cores):
                beside.append(work())
        ratios = [busy / idle for busy, idle in zip(beside, alone, strict=True)]
        rows.append([name, spread(alone, 0), spread(beside, 0), spread(ratios)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default=str(GGUF_PATH))
    parser.add_argument("--backend", default="native")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prefill", type=int, default=512, help="tokens")
    parser.add_argument("--anywhere", action="store_true")
    parser.add_argument("--torch", action="store_true")
    arguments = parser.parse_args()
    works = octavo_works(arguments.model, arguments.backend, arguments.prefill)
    if arguments.torch:
        works |= torch_works()
    cores = os.sched_getaffinity(0)
    if not arguments.anywhere:
        cores = {min(cores)}
    header = ["", "alone, tok/s", "beside a busy neighbour, tok/s", "ratio"]
    print(markdown([header, *measure(works, arguments.rounds, cores)]))


if __name__ == "__main__":
    main()
