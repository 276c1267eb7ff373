"""The function a backend compiles: model, logits, sampling — one source for every device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from octavo.models.base import Model, StepInput, Weights
    from octavo.ops.protocol import Array, Cache, Ops, SampleResult, SamplingBatch

__all__ = ["Step", "make_step", "map_arrays"]

Tree = TypeVar("Tree")
Step = Callable[..., "tuple[tuple[Cache, ...], SampleResult, SampleResult | None]"]


def make_step(
    ops: Ops, model: Model, layer_groups: tuple[int, ...], num_prompt_logprobs: int
) -> Step:
    """``step(weights, caches, batch, plans, sampling, prompt_targets)``.

    The first rows of ``batch.logits_rows`` are sampled, as many as ``sampling`` has rows; the rest
    belong to ``prompt_targets``, whose log-probabilities are asked for. Caches are threaded.
    """

    def step(
        weights: Weights,
        caches: tuple[Cache, ...],
        batch: StepInput,
        plans: tuple[Any, ...],
        sampling: SamplingBatch,
        prompt_targets: Array | None = None,
    ) -> tuple[tuple[Cache, ...], SampleResult, SampleResult | None]:
        layer_plans = tuple(plans[group] for group in layer_groups)
        hidden, caches = model.forward(ops, weights, caches, batch, layer_plans)
        logits = model.logits(ops, weights, ops.take_rows(hidden, batch.logits_rows))
        num_sampled = sampling.temperature.shape[0]
        sampled = ops.sample(logits[:num_sampled], sampling)
        if prompt_targets is None:
            return caches, sampled, None
        prompt = ops.token_logprobs(logits[num_sampled:], prompt_targets, num_prompt_logprobs)
        return caches, sampled, prompt

    return step


def map_arrays(tree: Tree, apply: Callable[[Any], Any]) -> Tree:
    """A dataclass with ``apply`` called on each array field; everything else is kept."""
    values = ((field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree))  # type: ignore[arg-type]
    arrays = {name: apply(value) for name, value in values if hasattr(value, "shape")}
    return dataclasses.replace(tree, **arrays)  # type: ignore[type-var]
