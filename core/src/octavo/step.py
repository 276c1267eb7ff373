"""The function a backend compiles: model, logits, sampling — one source for every device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from octavo.batch import StepBatch
    from octavo.models.base import Model, StepInput, Weights
    from octavo.ops.protocol import Array, Cache, Ops, SampleResult, SamplingBatch

__all__ = [
    "Step",
    "join",
    "make_fill",
    "make_forward",
    "make_forward_part",
    "make_pick",
    "make_sample",
    "make_sample_part",
    "make_score",
    "make_step",
    "map_arrays",
]

Tree = TypeVar("Tree")
Step = Callable[..., "tuple[tuple[Cache, ...], SampleResult, SampleResult | None]"]
Forward = Callable[..., "tuple[Any, ...]"]
Sample = Callable[..., "tuple[SampleResult, SampleResult | None]"]


def make_forward(ops: Ops, model: Model, layer_groups: tuple[int, ...]) -> Forward:
    """``forward(weights, caches, batch, plans)``: caches, and float[logits_rows, vocab] logits."""

    def forward(
        weights: Weights, caches: tuple[Cache, ...], batch: StepInput, plans: tuple[Any, ...]
    ) -> tuple[tuple[Cache, ...], Array]:
        layer_plans = tuple(plans[group] for group in layer_groups)
        hidden, caches = model.forward(ops, weights, caches, batch, layer_plans)
        return caches, model.logits(ops, weights, ops.take_rows(hidden, batch.logits_rows))

    return forward


def make_sample(ops: Ops, num_prompt_logprobs: int) -> Sample:
    """``sample((), (), logits, sampling, prompt_targets)``: what was drawn, and of the prompts.

    The two empty tuples stand where weights and caches do, which a backend may have plans with.
    """

    def sample(
        _weights: tuple[()],
        _caches: tuple[()],
        logits: Array,
        sampling: SamplingBatch,
        prompt_targets: Array | None = None,
    ) -> tuple[SampleResult, SampleResult | None]:
        num_sampled = sampling.temperature.shape[0]
        sampled = ops.sample(logits[:num_sampled], sampling)
        if prompt_targets is None:
            return sampled, None
        return sampled, ops.token_logprobs(
            logits[num_sampled:], prompt_targets, num_prompt_logprobs
        )

    return sample


def make_forward_part(ops: Ops, model: Model, layer_groups: tuple[int, ...]) -> Forward:
    """``forward(weights, caches, batch, plans, sampled, sources)``, where a step is in parts.

    What the step before has ``sampled`` is filled in first, as ``Ops.fill_tokens`` does; both may
    be None. Returns caches, logits, and float[tokens, hidden_size], to be scored.
    """

    def forward(
        weights: Weights,
        caches: tuple[Cache, ...],
        batch: StepBatch,
        plans: tuple[Any, ...],
        sampled: Array | None,
        sources: Array | None,
    ) -> tuple[tuple[Cache, ...], Array, Array]:
        if sampled is not None and sources is not None:
            token_ids = ops.fill_tokens(batch.token_ids, sampled, sources)
            batch = dataclasses.replace(batch, token_ids=token_ids)
        layer_plans = tuple(plans[group] for group in layer_groups)
        hidden, caches = model.forward(ops, weights, caches, batch, layer_plans)
        logits = model.logits(ops, weights, ops.take_rows(hidden, batch.logits_rows))
        return caches, logits, hidden

    return forward


def make_sample_part(ops: Ops) -> Callable[..., SampleResult]:
    """``sample((), (), logits, sampling, places)``, where a step is in parts.

    With ``places`` there are as many token ids as those, whatever the number of rows: so that one
    program takes them for the next step. An entry is 1 + the row whose token stands there, or 0.
    """

    def sample(
        _weights: tuple[()],
        _caches: tuple[()],
        logits: Array,
        sampling: SamplingBatch,
        places: Array | None,
    ) -> SampleResult:
        sampled = ops.sample(logits, sampling)
        if places is None:
            return sampled
        token_ids = ops.fill_tokens(places, sampled.token_ids, places)
        return dataclasses.replace(sampled, token_ids=token_ids)

    return sample


def make_pick(ops: Ops) -> Callable[..., Array]:
    """``pick((), (), logits, rows)``: some rows of the logits, in any order and number."""

    def pick(_weights: tuple[()], _caches: tuple[()], logits: Array, rows: Array) -> Array:
        return ops.take_rows(logits, rows)

    return pick


def make_score(ops: Ops, model: Model, num_prompt_logprobs: int) -> Callable[..., SampleResult]:
    """``score(weights, (), hidden, rows, targets)``: log-probabilities of a prompt's tokens.

    ``rows`` are indices of the step's tokens, and ``targets`` the tokens that follow them.
    """

    def score(
        weights: Weights, _caches: tuple[()], hidden: Array, rows: Array, targets: Array
    ) -> SampleResult:
        logits = model.logits(ops, weights, ops.take_rows(hidden, rows))
        return ops.token_logprobs(logits, targets, num_prompt_logprobs)

    return score


def make_fill(ops: Ops) -> Callable[..., Array]:
    """``fill((), (), token_ids, sampled, sources)``: ``Ops.fill_tokens``."""

    def fill(
        _weights: tuple[()], _caches: tuple[()], token_ids: Array, sampled: Array, sources: Array
    ) -> Array:
        return ops.fill_tokens(token_ids, sampled, sources)

    return fill


def make_step(
    ops: Ops, model: Model, layer_groups: tuple[int, ...], num_prompt_logprobs: int
) -> Step:
    """``step(weights, caches, batch, plans, sampling, prompt_targets)``.

    The first rows of ``batch.logits_rows`` are sampled, as many as ``sampling`` has rows; the rest
    belong to ``prompt_targets``, whose log-probabilities are asked for. Caches are threaded.
    """
    forward = make_forward(ops, model, layer_groups)
    return join(forward, make_sample(ops, num_prompt_logprobs))


def join(forward: Forward, sample: Sample) -> Step:
    """A step of its two parts."""

    def step(
        weights: Weights,
        caches: tuple[Cache, ...],
        batch: StepInput,
        plans: tuple[Any, ...],
        sampling: SamplingBatch,
        prompt_targets: Array | None = None,
    ) -> tuple[tuple[Cache, ...], SampleResult, SampleResult | None]:
        caches, logits = forward(weights, caches, batch, plans)
        return caches, *sample((), (), logits, sampling, prompt_targets)

    return step


def map_arrays(tree: Tree, apply: Callable[[Any], Any]) -> Tree:
    """A dataclass with ``apply`` called on each array field; everything else is kept."""
    kind: Any = type(tree)
    values = [getattr(tree, name) for name in _field_names(kind)]
    mapped: Tree = kind(*[apply(value) if hasattr(value, "shape") else value for value in values])
    return mapped


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
