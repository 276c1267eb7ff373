r"""Perplexity of one model in each form of its weights and caches, over the same windows of a text.

    python benchmarks/perplexity.py --windows 8
    python benchmarks/perplexity.py --text my.txt --variant bfloat16,int8,int4

Windows stand apart: each begins with an empty context, and its first token is not scored. A
difference is taken token by token from the bfloat16 of the same folder, so that its standard error
is that of the difference, not of the text.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from make_hf_model import GGUF_PATH, make_hf_folder
from octavo import LLM, SamplingParams
from permuted_model import make_permuted_folder
from prose import make_text

Windows = list[list[int]]


@dataclass(frozen=True)
class Variant:
    """A model's form, and what its perplexity is held against."""

    model: str  # "folder", "permuted" or "gguf"
    options: dict[str, Any] = field(default_factory=dict)
    baseline: str = "bfloat16"
    max_windows: int | None = None


VARIANTS = {
    "bfloat16": Variant("folder"),
    "float32": Variant("folder", {"dtype": "float32"}),
    "numpy float32": Variant("folder", {"backend": "numpy", "dtype": "float32"}, max_windows=2),
    "int8": Variant("folder", {"quantization": "int8"}),
    "int4": Variant("folder", {"quantization": "int4"}),
    "Q4_1 file": Variant("gguf"),
    "int8 KV cache": Variant("folder", {"kv_cache_dtype": "int8"}),
    "permuted bfloat16": Variant("permuted"),
    "permuted float32": Variant("permuted", {"dtype": "float32"}, "float32"),
    "permuted int8": Variant("permuted", {"quantization": "int8"}, "permuted bfloat16"),
    "permuted int4": Variant("permuted", {"quantization": "int4"}, "permuted bfloat16"),
}


@dataclass(frozen=True)
class Score:
    """What a model gave each scored token, and how fast it read them."""

    log_probs: list[float]
    tokens_per_s: float

    @property
    def perplexity(self) -> float:
        return math.exp(-np.mean(self.log_probs))

    def difference(self, baseline: Score) -> tuple[float, float]:
        """Excess over the baseline's perplexity and its standard error, on common tokens."""
        num_tokens = min(len(self.log_probs), len(baseline.log_probs))
        losses = np.subtract(baseline.log_probs[:num_tokens], self.log_probs[:num_tokens])
        ratio = math.exp(losses.mean())
        return ratio - 1, ratio * losses.std() / math.sqrt(num_tokens)


def split(token_ids: list[int], window_tokens: int, num_windows: int) -> Windows:
    """Windows of a text that do not overlap, spread evenly over it."""
    step = len(token_ids) // num_windows
    if step < window_tokens:
        raise SystemExit(
            f"the text has {len(token_ids):,} tokens, which is not {num_windows} windows of "
            f"{window_tokens:,}: ask for fewer --windows or pass a longer --text"
        )
    return [
        token_ids[start : start + window_tokens] for start in range(0, num_windows * step, step)
    ]


def score(llm: LLM, windows: Windows) -> Score:
    """Read each window alone, and look at what it gave its tokens."""
    params = SamplingParams(prompt_logprobs=0, max_tokens=1, temperature=0)
    log_probs: list[float] = []
    best_s = math.inf
    for window in windows:
        start = time.perf_counter()
        (output,) = llm.generate([{"prompt_token_ids": window}], params, use_tqdm=False)
        best_s = min(best_s, (time.perf_counter() - start) / len(window))
        rows = output.prompt_logprobs[1:]
        log_probs += [row[token].logprob for row, token in zip(rows, window[1:], strict=True)]
    return Score(log_probs, 1 / best_s)


def run(
    variant: Variant, paths: dict[str, Path], text: str, arguments: argparse.Namespace
) -> Score:
    """Load a variant, score it and let go of it."""
    defaults = {"backend": "native", "dtype": "bfloat16"}
    llm = LLM(
        str(paths[variant.model]),
        device="cpu",
        max_model_len=arguments.window + 1,
        max_num_seqs=1,
        enable_prefix_caching=False,
        quiet=True,
        **{**defaults, **variant.options},
    )
    try:
        token_ids = llm.get_tokenizer().encode(text, add_special_tokens=False)
        windows = split(token_ids, arguments.window, arguments.windows)
        return score(llm, windows[: variant.max_windows])
    finally:
        llm.loaded.close()


def line(name: str, scores: dict[str, Score]) -> str:
    """A row of the table; a difference only where its baseline was run too."""
    baseline = VARIANTS[name].baseline
    difference = "" if name == baseline else "not run"
    if name != baseline and baseline in scores:
        above, error = scores[name].difference(scores[baseline])
        difference = f"{above:+.2%} ± {error:.2%} of {baseline}"
    result = scores[name]
    return (
        f"| {name} | {len(result.log_probs):,} | {result.perplexity:.3f} | {difference} | "
        f"{result.tokens_per_s:,.0f} |"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--variant", type=lambda names: names.split(","), help=f"of {', '.join(VARIANTS)}"
    )
    parser.add_argument("--text", type=Path, help="default: the handbook that prose.py fetches")
    parser.add_argument("--window", type=int, default=2048, help="tokens (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--gguf", type=Path, default=GGUF_PATH)
    parser.add_argument("--folder", type=Path, help="default: made of the Q4_1 file")
    parser.add_argument("--json", type=Path, help="write every figure there")
    arguments = parser.parse_args()
    arguments.variant = arguments.variant or list(VARIANTS)
    if unknown := [name for name in arguments.variant if name not in VARIANTS]:
        parser.error(f"--variant {', '.join(unknown)}: unknown; use some of {', '.join(VARIANTS)}")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    folder = arguments.folder or make_hf_folder(arguments.gguf)
    paths = {
        "folder": folder,
        "gguf": arguments.gguf,
        "permuted": make_permuted_folder(folder),
    }
    text = (arguments.text or make_text()).read_text("utf-8")
    print("| variant | tokens | perplexity | difference | prompt tokens/s |")
    print("|---|---|---|---|---|", flush=True)
    scores: dict[str, Score] = {}
    for name in arguments.variant:
        scores[name] = run(VARIANTS[name], paths, text, arguments)
        print(line(name, scores), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({k: asdict(v) for k, v in scores.items()}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
