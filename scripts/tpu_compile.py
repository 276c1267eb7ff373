"""Compiles the TPU kernels, and decode steps with them, for TPUs that are not here.

``make test-tpu-compiler`` runs this in an environment with libtpu, whose compiler needs no TPU: it
is given a topology. What it says is "compiles for"; nothing is run.

    python scripts/tpu_compile.py                        every kernel and step, for every topology
    python scripts/tpu_compile.py --only Gemma v5e:2x2   what has the word in its name, for one
    python scripts/tpu_compile.py --markdown             the table of docs/devices/tpu.md
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

os.environ |= {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # there is no device to be fought for
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TPU_SKIP_MDS_QUERY": "1",
}
try:
    import libtpu
except ImportError:
    sys.exit("error: libtpu is not installed here; `make test-tpu-compiler` makes the environment.")
os.environ["TPU_LIBRARY_PATH"] = libtpu.get_library_path()

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from octavo.api import PortableLinear, PortableOps, StepBatch, each_step_tree
from octavo.kv import group_layers
from octavo.models.registry import build_model
from octavo.step import make_forward
from octavo_tpu.kernels.ahead import ATTENTIONS, AheadAttention, as_on, attend
from octavo_tpu.kernels.paged_attention import paged_attention, vmem_bytes
from octavo_tpu.kernels.shipped import reason_against, shipped_attention
from octavo_tpu.kernels.write import write_tokens

TOPOLOGIES = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1")
MIB = 1 << 20


@dataclass(frozen=True)
class Program:
    """What is compiled: ``make(sharding)`` gives a jitted function and abstract arguments."""

    name: str
    vmem_bytes: int
    make: Callable[[Any], tuple[Any, tuple[Any, ...]]]


class StepOps(PortableOps):
    """The portable ops with the kernels, and products in the dtype of the weights."""

    def linear(self, x: Any, weight: Any) -> Any:
        """Accumulated in float32, rounded to x's dtype."""
        product = jax.lax.dot_general(
            x, weight.weight, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        return product.astype(x.dtype)

    def write_kv(self, cache: Any, k: Any, v: Any, plan: Any) -> Any:
        """The kernel."""
        return write_tokens(cache, k, v, plan)

    def paged_attention(self, q: Any, cache: Any, plan: Any, params: Any, sinks: Any = None) -> Any:
        """The kernel."""
        return paged_attention(q, cache, plan, params, sinks)


class AbstractWeights:
    """An octavo.models.base.WeightLoader that hands over shapes."""

    def __init__(self, sharding: Any) -> None:
        self._sharding = sharding

    def _shape(self, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=self._sharding)

    def has(self, name: str) -> bool:
        """No biases."""
        return not name.endswith(".bias")

    def vector(self, _name: str, size: int, **_options: Any) -> Any:
        """[size]."""
        return self._shape(size)

    def embedding(self, _name: str, shape: tuple[int, int]) -> Any:
        """[vocab, hidden]."""
        return self._shape(*shape)

    def linear(
        self, *_names: str, in_features: int, out_features: Sequence[int], **_options: Any
    ) -> PortableLinear:
        """All outputs stacked."""
        return PortableLinear(self._shape(sum(out_features), in_features))

    def linears(self, *names: str, **options: Any) -> tuple[PortableLinear, ...]:
        """One weight."""
        return (self.linear(*names, **options),)

    def tied_linear(self, embedding: Any) -> PortableLinear:
        """The table itself."""
        return PortableLinear(embedding)


def kernel_programs() -> Iterator[Program]:
    """Writing and attending, for each attention; and JAX's own where it serves."""
    for attention in ATTENTIONS:
        cache, q, _, _, plan, _ = attention.arguments()
        bytes_used = vmem_bytes(q, cache, plan, attention.params)

        def make(sharding: Any, attention: AheadAttention = attention) -> Any:
            step = jax.jit(attend(attention.params), donate_argnums=0)
            return step, attention.arguments(sharding)

        yield Program(attention.name, bytes_used, make)
    yield Program("Llama-3-8B, JAX's kernel", 0, _shipped)


def _shipped(sharding: Any) -> Any:
    attention = next(each for each in ATTENTIONS if each.name == "Llama-3-8B")
    cache, q, _, _, plan, _ = attention.arguments(sharding)
    reason = reason_against(cache, attention.params)
    if reason is not None:
        raise RuntimeError(reason)

    def step(cache: Any, q: Any, plan: Any) -> Any:
        return shipped_attention(q, cache, plan, attention.params)

    return jax.jit(step), (cache, q, plan)


QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
}


def step_programs() -> Iterator[Program]:
    """A whole decode step up to the logits, of octavo.models' own source."""
    attention = AheadAttention("", 16, 8, 128, tokens=64)
    cache, q, _, _, plan, _ = attention.arguments()
    yield Program(
        "Qwen3-0.6B, 4 layers, decode of 64", vmem_bytes(q, cache, plan, attention.params), _step
    )


def _step(sharding: Any) -> Any:
    attention = AheadAttention("", 16, 8, 128, tokens=64)
    cache, _, _, _, plan, _ = attention.arguments(sharding)
    model = build_model(QWEN3)
    groups = group_layers(model.kv_specs("bfloat16"))
    layer_groups = [0] * sum(len(group.layers) for group in groups)
    tokens = plan.positions
    batch = StepBatch(
        token_ids=tokens,
        positions=tokens,
        token_seqs=tokens,
        query_start=plan.query_start,
        seq_lens=plan.seq_lens,
        context_lens=tokens,
        logits_rows=tokens,
        groups=(),
    )
    weights = model.load(AbstractWeights(sharding))
    forward = make_forward(StepOps(jnp), model, tuple(layer_groups))
    caches = (cache,) * len(layer_groups)
    return jax.jit(forward, donate_argnums=1), (weights, caches, batch, (plan,))


def compile_program(program: Program, device: Any) -> list[str]:
    """Its line of the table; raises what the compiler does."""
    started = time.perf_counter()
    function, arguments = program.make(SingleDeviceSharding(device))
    with as_on(device.device_kind):
        compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - started
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
    return [
        device.device_kind,
        program.name,
        f"{memory.argument_size_in_bytes / MIB:.0f}",
        f"{memory.alias_size_in_bytes / MIB:.0f}",
        f"{memory.temp_size_in_bytes / MIB:.1f}",
        f"{memory.generated_code_size_in_bytes / MIB:.1f}",
        f"{program.vmem_bytes / MIB:.1f}" if program.vmem_bytes else "",
        f"{costs.get('flops', 0) / 1e9:.0f}",
        f"{costs.get('bytes accessed', 0) / MIB:.0f}",
        f"{seconds:.1f}",
    ]


HEADINGS = ["TPU", "program", "arguments", "in place", "temporary", "code", "VMEM"]
HEADINGS += ["GFLOP", "read and written", "s to compile"]


def main() -> int:
    """1 if the compiler rejected anything."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("topologies", nargs="*", default=TOPOLOGIES)
    parser.add_argument("--only", default="", help="programs that have this in their name")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    each_step_tree(jax.tree_util.register_dataclass)
    line = (
        "| {} |".format(" | ".join(["{}"] * len(HEADINGS))) if options.markdown else "{:12} {:36}"
    )
    if not options.markdown:
        line += " {:>9}" * 5 + " {:>6} {:>16} {:>12}"
    print(line.format(*HEADINGS))
    if options.markdown:
        print(line.format(*["---"] * len(HEADINGS)))
    failures = 0
    for topology in options.topologies:
        device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
        for program in (*kernel_programs(), *step_programs()):
            if options.only not in program.name:
                continue
            try:
                print(line.format(*compile_program(program, device)), flush=True)
            except Exception as error:  # noqa: BLE001 - whatever the compiler says is its answer
                failures += 1
                reason = str(error).strip()[:600]
                print(f"{device.device_kind}: {program.name} is rejected: {reason}", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
