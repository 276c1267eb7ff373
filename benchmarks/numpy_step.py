"""Where a step of the NumPy backend spends its time, beside transformers' eager layers.

Random weights of SmolLM2-135M's shape. For each workload both engines run one step, taking turns;
then a table says what each op took, and how near that is to what memory and GEMM give here.

    python benchmarks/numpy_step.py [--threads 2] [--repeats 7] [--no-torch]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import dataclass, field

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
BLOCK_SIZE = 16


@dataclass(frozen=True)
class Workload:
    """``seqs`` sequences with ``past`` cached tokens get ``new`` tokens each."""

    name: str
    seqs: int
    past: int
    new: int


WORKLOADS = (
    Workload("decode 1, context 64", 1, 64, 1),
    Workload("decode 1, context 400", 1, 400, 1),
    Workload("decode 1, context 4000", 1, 4000, 1),
    Workload("decode 4, context 400", 4, 400, 1),
    Workload("decode 64, context 400", 64, 400, 1),
    Workload("prefill 512", 1, 0, 512),
)


@dataclass
class TimedOps:
    """Passes every op through and adds up its seconds; leaf ops only, composites are unfolded."""

    ops: object
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (
            "embed",
            "linear",
            "rms_norm",
            "rope_table",
            "rope",
            "silu_mul",
            "write_kv",
            "paged_attention",
            "take_rows",
            "add_rms_norm",
        ):
            setattr(self, name, self._timed(name, getattr(self.ops, name)))

    def _timed(self, name, op):
        def timed(*args, **kwargs):
            started_s = time.perf_counter()
            result = op(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started_s
            return result

        return timed

    def attend(self, q, k, v, cache, plan, params, sinks=None):
        cache = self.write_kv(cache, k, v, plan)
        return self.paged_attention(q, cache, plan, params, sinks), cache

    def mlp(self, x, gate_up, down, activation):
        del activation
        return self.linear(self.silu_mul(self.linear(x, gate_up)), down)


class OctavoSteps:
    """The octavo side: the real model file, ops and plan; no engine and no sampling."""

    def __init__(self, threads: int) -> None:
        from octavo.loading.dummy import DummySource
        from octavo.loading.weights import CheckpointWeightLoader
        from octavo.models.registry import build_model
        from octavo_cpu.backend import NumpyBackend

        self.backend = NumpyBackend(0, {"threads": threads})
        self.model = build_model(CONFIG)
        loader = CheckpointWeightLoader(DummySource(CONFIG), self.backend, "float32")
        self.weights = self.model.load(loader)

    def prepare(self, workload: Workload, *, shuffled: bool):
        import numpy as np

        from octavo.batch import GroupBatch, StepBatch

        rng = np.random.default_rng(0)
        length = workload.past + workload.new
        per_seq = -(-length // BLOCK_SIZE)
        ids = np.arange(1, 1 + workload.seqs * per_seq, dtype=np.int32)
        table = (rng.permutation(ids) if shuffled else ids).reshape(workload.seqs, per_seq)
        positions = np.tile(np.arange(workload.past, length, dtype=np.int32), workload.seqs)
        token_seqs = np.repeat(np.arange(workload.seqs, dtype=np.int32), workload.new)
        slots = table[token_seqs, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
        starts = np.arange(workload.seqs + 1, dtype=np.int32) * workload.new
        batch = StepBatch(
            token_ids=rng.integers(0, CONFIG["vocab_size"], len(slots)).astype(np.int32),
            positions=positions,
            token_seqs=token_seqs,
            query_start=starts,
            seq_lens=np.full(workload.seqs, length, np.int32),
            context_lens=positions + 1,
            logits_rows=starts[1:] - 1,
            groups=(GroupBatch(table, slots.astype(np.int32)),),
        )
        caches = []
        for spec in self.model.kv_specs("float32"):
            cache = self.backend.make_kv(spec, len(ids) + 1, BLOCK_SIZE)
            cache.k[...] = rng.standard_normal(cache.k.shape, np.float32)
            cache.v[...] = rng.standard_normal(cache.v.shape, np.float32)
            caches.append(cache)

        def step(ops=self.backend.ops):
            plans = tuple(self.backend.plan(batch, BLOCK_SIZE)) * len(caches)
            hidden, _ = self.model.forward(ops, self.weights, tuple(caches), batch, plans)
            return self.model.logits(ops, self.weights, ops.take_rows(hidden, batch.logits_rows))

        return step


class TorchSteps:
    """The transformers side: eager float32 with its own growing cache."""

    def __init__(self, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, LlamaConfig

        torch.set_num_threads(threads)
        config = LlamaConfig(
            **{k: v for k, v in CONFIG.items() if k not in {"architectures", "model_type"}}
        )
        self.model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()

    def prepare(self, workload: Workload):
        import torch
        from transformers import DynamicCache

        shape = (workload.seqs, 3, workload.past, 64)
        past = [(torch.randn(shape), torch.randn(shape)) for _ in range(30)]
        ids = torch.randint(0, CONFIG["vocab_size"], (workload.seqs, workload.new))

        @torch.inference_mode()
        def step():
            cache = DynamicCache()
            if workload.past:
                for layer, (k, v) in enumerate(past):
                    cache.update(k, v, layer)
            started_s = time.perf_counter()
            self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            return time.perf_counter() - started_s

        return step


def limits() -> tuple[float, float]:
    """Bytes a second that a large sum reads, FLOP a second of a large GEMM; both medians."""
    import numpy as np

    block = np.ones(1 << 26, np.float32)
    matrix = np.ones((2048, 2048), np.float32)
    reads = [timed(block.sum) for _ in range(5)]
    gemms = [timed(lambda: np.matmul(matrix, matrix)) for _ in range(5)]
    return block.nbytes / statistics.median(reads), 2 * 2048**3 / statistics.median(gemms)


def timed(function) -> float:
    started_s = time.perf_counter()
    function()
    return time.perf_counter() - started_s


def linear_work(workload: Workload) -> tuple[float, float]:
    """Bytes of weights and FLOP of all projections of one step, the output projection included."""
    layer = 576 * (576 + 2 * 192) + 576 * 576 + 3 * 576 * 1536
    head = 576 * CONFIG["vocab_size"]
    tokens = workload.seqs * workload.new
    return 4.0 * (30 * layer + head), 2.0 * (tokens * 30 * layer + workload.seqs * head)


def attention_bytes(workload: Workload) -> float:
    """Keys and values that one step reads."""
    return 30.0 * workload.seqs * (workload.past + workload.new) * 2 * 192 * 4


def report_ops(workload: Workload, step, ops, repeats: int, wall_s: float) -> None:
    tables = []
    for _ in range(repeats):
        timed_ops = TimedOps(ops)
        step(timed_ops)
        tables.append(timed_ops.seconds)
    medians = {name: statistics.median(t[name] for t in tables) for name in tables[0]}
    weight_bytes, flop = linear_work(workload)
    notes = {
        "linear": lambda s: f"{weight_bytes / s / 1e9:6.1f} GB/s {flop / s / 1e9:6.1f} GFLOP/s",
        "paged_attention": lambda s: f"{attention_bytes(workload) / s / 1e9:6.1f} GB/s",
    }
    for name, seconds in sorted(medians.items(), key=lambda item: -item[1]):
        note = notes[name](seconds) if name in notes else ""
        print(f"    {name:16s} {seconds * 1e3:8.2f} ms {100 * seconds / wall_s:5.1f} %  {note}")
    print(f"    {'outside ops':16s} {(wall_s - sum(medians.values())) * 1e3:8.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--only", default="", help="run workloads whose name holds this")
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    read, gemm = limits()
    print(f"memory read {read / 1e9:.1f} GB/s (one thread), GEMM {gemm / 1e9:.0f} GFLOP/s")
    octavo = OctavoSteps(arguments.threads)
    torch_steps = None if arguments.no_torch else TorchSteps(arguments.threads)
    for workload in WORKLOADS:
        if arguments.only in workload.name:
            compare(workload, octavo, torch_steps, arguments.repeats)


def compare(workload: Workload, octavo: OctavoSteps, torch_steps, repeats: int) -> None:
    runs = {
        "octavo": octavo.prepare(workload, shuffled=False),
        "octavo, shuffled blocks": octavo.prepare(workload, shuffled=True),
    }
    timers = {name: (lambda step=step: timed(step)) for name, step in runs.items()}
    if torch_steps is not None:
        timers["torch"] = torch_steps.prepare(workload)
    seconds = {name: [] for name in timers}
    for repeat in range(repeats + 1):
        for name, timer in timers.items():
            elapsed = timer()
            if repeat:  # the first round warms up
                seconds[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = f", ratio {medians['torch'] / medians['octavo']:.2f}" if "torch" in medians else ""
    print(
        f"{workload.name}: "
        + ", ".join(
            f"{name} {medians[name] * 1e3:.1f} ms (best {min(seconds[name]) * 1e3:.1f})"
            for name in medians
        )
        + ratio,
        flush=True,
    )
    report_ops(workload, runs["octavo"], octavo.backend.ops, repeats, medians["octavo"])


if __name__ == "__main__":
    main()
