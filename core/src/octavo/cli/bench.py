"""``octavo bench``: throughput and latency of a model on this machine."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.options import ENGINE_OPTIONS, SAMPLING_OPTIONS, with_options
from octavo.cli.sampling import check_sampling_flags, sampling_params
from octavo.errors import UsageError

if TYPE_CHECKING:
    from octavo.llm import LLM
    from octavo.outputs import RequestOutput
    from octavo.prompts import Prompt
    from octavo.sampling_params import SamplingParams

__all__ = ["bench"]


@dataclass(frozen=True)
class BenchResult:
    """Figures of one run. Latencies are medians, in seconds."""

    model: str
    device: str
    backend: str
    dtype: str
    num_requests: int
    input_tokens: int
    output_tokens: int
    load_s: float
    elapsed_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    time_to_first_token_s: float
    time_per_output_token_s: float | None
    request_latency_s: float


@with_options(ENGINE_OPTIONS, SAMPLING_OPTIONS)
def bench(
    model: Annotated[str, typer.Argument(help="A .gguf file, a folder, or a hub name.")],
    num_prompts: Annotated[int, typer.Option(help="How many random prompts.", min=1)] = 8,
    input_len: Annotated[int, typer.Option(help="Tokens in each random prompt.", min=1)] = 128,
    output_len: Annotated[int, typer.Option(help="Tokens in each answer.", min=1)] = 64,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Prompts of your own, one a line.")
    ] = None,
    one_by_one: Annotated[
        bool, typer.Option("--one-by-one", help="Latency: one request at a time, not a batch.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    engine: dict[str, Any] | None = None,
    sampling: dict[str, Any] | None = None,
) -> None:
    """Measure tokens a second and latencies. Every answer has exactly --output-len tokens.

    [bold]Examples[/bold]

      octavo bench model.gguf

      octavo bench model.gguf --num-prompts 1 --output-len 128 --json

      octavo bench org/name --load-format dummy --input-len 1024
    """
    if sampling and "max_tokens" in sampling:
        raise UsageError("--max-tokens has no place here: --output-len sets every answer's length.")
    check_sampling_flags(sampling)
    from octavo.llm import LLM  # heavy: only when the arguments are good

    started_s = time.perf_counter()
    llm = LLM(model, **(engine or {}))
    load_s = time.perf_counter() - started_s
    try:
        params = replace(
            sampling_params(llm, sampling or {}), max_tokens=output_len, ignore_eos=True
        )
        prompts = _prompts(llm, num_prompts, input_len, file)
        llm.generate([[0, 1, 2]], replace(params, max_tokens=2), use_tqdm=False)  # warm up
        result = _measure(llm, prompts, params, load_s, one_by_one=one_by_one)
    finally:
        llm.close()
    print(json.dumps(asdict(result), indent=2) if as_json else _table(result))


def _prompts(llm: LLM, num_prompts: int, input_len: int, file: Path | None) -> list[Prompt]:
    if file is not None:
        from octavo.cli.generate import read_prompt_file

        return list(read_prompt_file(file))
    draw = random.Random(0)  # noqa: S311 - test data
    vocab_size = llm.loaded.engine.vocabulary.size
    return [[draw.randrange(vocab_size) for _ in range(input_len)] for _ in range(num_prompts)]


def _measure(
    llm: LLM,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    load_s: float,
    *,
    one_by_one: bool,
) -> BenchResult:
    started_s = time.perf_counter()
    if one_by_one:
        outputs = [
            output
            for prompt in prompts
            for output in llm.generate([prompt], params, use_tqdm=False)
        ]
    else:
        outputs = llm.generate(prompts, params)
    elapsed_s = time.perf_counter() - started_s
    input_tokens = sum(len(output.prompt_token_ids) for output in outputs)
    output_tokens = sum(len(answer.token_ids) for output in outputs for answer in output.outputs)
    per_token = [seconds for output in outputs if (seconds := _decode_s(output)) is not None]
    loaded = llm.loaded
    return BenchResult(
        model=loaded.checkpoint.name,
        device=f"{loaded.resolution.device.kind}:{loaded.resolution.device.index}",
        backend=loaded.resolution.spec.name,
        dtype=loaded.dtype,
        num_requests=len(outputs),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        load_s=load_s,
        elapsed_s=elapsed_s,
        output_tokens_per_s=output_tokens / elapsed_s,
        total_tokens_per_s=(input_tokens + output_tokens) / elapsed_s,
        time_to_first_token_s=median(_times(output)[0] for output in outputs),
        time_per_output_token_s=median(per_token) if per_token else None,
        request_latency_s=median(_times(output)[1] for output in outputs),
    )


def _times(output: RequestOutput) -> tuple[float, float]:
    """(to the first token, to the last), in seconds from arrival."""
    metrics = output.metrics
    if metrics is None or metrics.first_token_time_s is None or metrics.finished_time_s is None:
        raise RuntimeError("a finished request has no times")
    arrival_s = metrics.arrival_time_s
    return metrics.first_token_time_s - arrival_s, metrics.finished_time_s - arrival_s


def _decode_s(output: RequestOutput) -> float | None:
    """Seconds per token after the first; None for answers of one token."""
    first_s, last_s = _times(output)
    num_tokens = len(output.outputs[0].token_ids)
    return (last_s - first_s) / (num_tokens - 1) if num_tokens > 1 else None


def _table(result: BenchResult) -> str:
    per_token = result.time_per_output_token_s
    work = (
        f"{result.num_requests} requests, {result.input_tokens:,} tokens in, "
        f"{result.output_tokens:,} out"
    )
    rows = [
        ("model", f"{result.model} on {result.device} ({result.backend}, {result.dtype})"),
        ("work", work),
        ("load", f"{result.load_s:.2f} s"),
        ("elapsed", f"{result.elapsed_s:.2f} s"),
        ("output", f"{result.output_tokens_per_s:.1f} tokens/s"),
        ("total", f"{result.total_tokens_per_s:.1f} tokens/s"),
        ("first token", f"{result.time_to_first_token_s * 1e3:.0f} ms (median)"),
        ("each further", "-" if per_token is None else f"{per_token * 1e3:.1f} ms (median)"),
        ("whole request", f"{result.request_latency_s:.2f} s (median)"),
    ]
    return "\n".join(f"{label + ':':<15}{value}" for label, value in rows)
