r"""The native CPU backend beside its peers and beside what the machine gives, in one run.

    python benchmarks/native.py --json native.json --markdown native.md \
        --python vllm=VENV/bin/python --python llama_cpp=VENV/bin/python
    python benchmarks/native.py --part speed --engine octavo,octavo_4bit --rounds 1 --scale 0.1

Engines take turns as in offline.py. Before and after each turn the machine is measured, so that
every figure has the read rate and the GEMM rates of the same seconds beside it. Parts: `speed` (one
request, and the batch of 64), `context` (decode as one request's context grows), `shape`
(Qwen3-0.6B's shape with random weights).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import native_report
from contenders import Contender, add_python_option, missing, start
from engines import EngineOptions
from make_hf_model import GGUF_PATH, make_hf_folder
from model_work import ModelWork, gguf_weight_bytes
from native_contenders import ENGINES, contenders
from native_machine import MACHINE_RATES, Machine
from native_rounds import ROUNDS
from offline import compare_tokens
from shape_folder import make_shape_folder
from worker import WorkerError

PARTS = tuple(ROUNDS)


def run_part(part: str, taking_part: list[Contender], arguments: argparse.Namespace) -> Any:
    """Load who takes part, let them continue one prompt for a start, and measure."""
    with ExitStack() as stack:
        all_workers = start(stack, taking_part)
        machine = Machine([worker for worker in all_workers if worker.name in MACHINE_RATES])
        workers = [worker for worker in all_workers if worker.name not in MACHINE_RATES]
        if not workers:
            raise WorkerError("no engine was loaded; see above")
        equal_tokens = compare_tokens(workers)
        rounds = ROUNDS[part](workers, machine, arguments)
    failed = {contender.name for contender in taking_part} - {w.name for w in all_workers}
    return {
        "failed": sorted(failed),
        "descriptions": {worker.name: worker.description for worker in all_workers},
        "load_s": {worker.name: worker.load_s for worker in all_workers},
        "equal_greedy_tokens_of_64": equal_tokens,
        **rounds,
    }


def conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "arguments": {key: str(value) for key, value in vars(arguments).items()},
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg(),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    comma_list = {"action": "extend", "type": lambda text: text.split(",")}
    parser.add_argument("--part", **comma_list, help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--engine", **comma_list, help=f"{', '.join(ENGINES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--batch-rounds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--shape-rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="fraction of the batch's 64 requests (default: 1)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--backend", default="native", help="Octavo's (default: %(default)s)")
    parser.add_argument("--dtype", default="bfloat16", help="of all but llama.cpp (%(default)s)")
    add_python_option(parser)
    parser.add_argument("--gguf", type=Path, default=GGUF_PATH)
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    arguments = parser.parse_args()
    for flag, known in (("part", PARTS), ("engine", ENGINES)):
        values = list(dict.fromkeys(getattr(arguments, flag) or known))
        setattr(arguments, flag, values)
        if unknown := [value for value in values if value not in known]:
            parser.error(f"--{flag} {', '.join(unknown)}: unknown; choose from {', '.join(known)}")
    if not 0 < arguments.scale <= 1:
        parser.error(f"--scale {arguments.scale}: expected a fraction, 0 < scale <= 1")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    options = EngineOptions(
        hf_folder=str(make_hf_folder(arguments.gguf)),
        gguf_path=str(arguments.gguf),
        dtype=arguments.dtype,
        num_threads=arguments.threads,
    )
    shape_options = replace(options, hf_folder=str(make_shape_folder()))
    taking_part = {
        part: contenders(part, shape_options if part == "shape" else options, arguments)
        for part in arguments.part
    }
    if lines := missing([c for listed in taking_part.values() for c in listed]):
        print("\n".join(lines), file=sys.stderr)
        return 2
    result: dict[str, Any] = {
        "conditions": conditions(arguments),
        "work": vars(ModelWork.of_folder(Path(options.hf_folder))),
        "shape_work": vars(ModelWork.of_folder(Path(shape_options.hf_folder))),
        "gguf_weight_bytes": gguf_weight_bytes(arguments.gguf),
    }
    status = 0
    for part, listed in taking_part.items():
        try:
            result[part] = run_part(part, listed, arguments)
            status |= bool(result[part]["failed"])
        except WorkerError as error:  # the other parts' minutes are not lost with this one's
            print(f"error: part {part}: {error}", file=sys.stderr)
            status = 1
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    text = native_report.markdown(result)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
