"""Compiles the TPU kernels, and decode steps with them, for TPUs that are not here.

``make test-tpu-compiler`` runs this in an environment with libtpu, whose compiler needs no TPU: it
is given a topology. What it says is "compiles for"; nothing is run.

    python scripts/tpu_compile.py                        every kernel and step, for every topology
    python scripts/tpu_compile.py --only Gemma v5e:2x2   what has the word in its name, for one
    python scripts/tpu_compile.py --markdown             the table of docs/devices/tpu.md
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
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
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from octavo.api import PortableLinear, PortableOps, StepBatch, each_step_tree
from octavo.kv import group_layers
from octavo.models.registry import build_model
from octavo.models.sharding import shard_model
from octavo.step import make_forward
from octavo_tpu.group import DeviceGroup
from octavo_tpu.kernels.ahead import ATTENTIONS, AheadAttention, as_on, attend
from octavo_tpu.kernels.layout import RowCache
from octavo_tpu.kernels.paged_attention import paged_attention, vmem_bytes
from octavo_tpu.kernels.shipped import reason_against, shipped_attention
from octavo_tpu.kernels.write import write_tokens
from octavo_tpu.shares import SharedLinear, SharedVector, group_ops, share_specs

TOPOLOGIES = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1")
MIB = 1 << 20


@dataclass(frozen=True)
class Program:
    """What is compiled: ``make(sharding)`` gives a jitted function and abstract arguments.

    Where ``shares_devices``, it is ``make(devices)`` of a whole topology.
    """

    name: str
    vmem_bytes: int
    make: Callable[[Any], tuple[Any, tuple[Any, ...]]]
    shares_devices: bool = False


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


class AbstractShares(AbstractWeights):
    """The same of several devices, each with its rows or columns; unplaced."""

    def __init__(self, num_shards: int) -> None:
        super().__init__(None)
        self._num_shards = num_shards

    def vector(self, name: str, size: int, *, split: Any = None, **options: Any) -> Any:
        """[size], divided where there is a split."""
        whole = super().vector(name, size, **options)
        return whole if split is None else SharedVector(whole)

    def linear(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        split: Any = None,
        **options: Any,
    ) -> Any:
        """Rows as all devices together have them: key heads several times, if there are few."""
        if split is not None and split.axis == "out":
            out_features = (split.shard_size(self._num_shards) * self._num_shards,)
        whole = super().linear(
            *names, in_features=in_features, out_features=out_features, **options
        )
        return whole if split is None else SharedLinear(whole, None, split.axis)


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


DECODE = AheadAttention("", 16, 8, 128, tokens=64)


def step_programs() -> Iterator[Program]:
    """A whole decode step up to the logits, of octavo.models' own source."""
    cache, q, _, _, plan, _ = DECODE.arguments()
    used_bytes = vmem_bytes(q, cache, plan, DECODE.params)
    yield Program("Qwen3-0.6B, 4 layers, decode of 64", used_bytes, _step)
    yield Program("Qwen3-0.6B, 4 layers, all devices", 0, _shared_step, shares_devices=True)


def _step(sharding: Any) -> Any:
    cache, _, _, _, plan, _ = DECODE.arguments(sharding)
    model = build_model(QWEN3)
    caches = (cache,) * QWEN3["num_hidden_layers"]
    weights = model.load(AbstractWeights(sharding))
    forward = make_forward(StepOps(jnp), model, _layer_groups(model))
    return jax.jit(forward, donate_argnums=1), (weights, caches, _batch(plan), (plan,))


def _shared_step(devices: Sequence[Any]) -> Any:
    """Each device has its heads, their cache, and its part of the MLP."""
    group, num_shards = DeviceGroup(tuple(devices)), len(devices)
    everywhere, divided = (
        NamedSharding(group.mesh, PartitionSpec(*axes)) for axes in ((), group.mesh.axis_names)
    )
    own = dataclasses.replace(DECODE, kv_heads=DECODE.kv_heads // num_shards)
    cache, _, _, _, plan, _ = own.arguments(everywhere)
    rows = (cache.rows.shape[0] * num_shards, *cache.rows.shape[1:])
    rows = jax.ShapeDtypeStruct(rows, cache.rows.dtype, sharding=divided)
    caches = (dataclasses.replace(cache, rows=rows),) * QWEN3["num_hidden_layers"]
    model = build_model(QWEN3)
    weights = model.load(AbstractShares(num_shards))
    weights = jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=NamedSharding(group.mesh, spec)
        ),
        weights,
        share_specs(weights),
    )
    ops = group_ops(StepOps)(jnp)
    forward = make_forward(ops, shard_model(model, num_shards), _layer_groups(model))
    step = group.spread(forward, lambda tree: isinstance(tree, RowCache))
    return jax.jit(step, donate_argnums=1), (weights, caches, _batch(plan), (plan,))


def _layer_groups(model: Any) -> tuple[int, ...]:
    groups = group_layers(model.kv_specs("bfloat16"))
    return (0,) * sum(len(group.layers) for group in groups)


def _batch(plan: Any) -> StepBatch:
    tokens = plan.positions
    return StepBatch(
        token_ids=tokens,
        positions=tokens,
        token_seqs=tokens,
        query_start=plan.query_start,
        seq_lens=plan.seq_lens,
        context_lens=tokens,
        logits_rows=tokens,
        groups=(),
    )


def compile_program(program: Program, devices: Sequence[Any]) -> list[str]:
    """Its line of the table, what one device has; raises what the compiler does."""
    started = time.perf_counter()
    device = devices[0]
    is_shared = program.shares_devices
    function, arguments = program.make(devices if is_shared else SingleDeviceSharding(device))
    with contextlib.nullcontext() if is_shared else as_on(device.device_kind):
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
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
        for program in (*kernel_programs(), *step_programs()):
            if options.only not in program.name:
                continue
            try:
                print(line.format(*compile_program(program, devices)), flush=True)
            except Exception as error:  # noqa: BLE001 - whatever the compiler says is its answer
                failures += 1
                reason = str(error).strip()[:600]
                print(f"{topology}: {program.name} is rejected: {reason}", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
