"""The step as a backend has compiled it: whole, and in its parts where the backend can."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from octavo.step import (
    join,
    make_fill,
    make_forward,
    make_forward_part,
    make_pick,
    make_sample,
    make_sample_part,
    make_score,
    make_step,
)

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.models.base import Model
    from octavo.ops.protocol import Array, Ops, SamplingBatch

__all__ = ["CompiledStep"]


class CompiledStep:
    """``whole`` is a step; ``forward`` and ``sample`` run where masks are computed meanwhile.

    Where each shape is a program, ``is_in_parts``: there is no whole step; ``forward`` fills tokens
    in and returns hidden states too, ``score`` makes log-probabilities of prompts of them, and
    ``pick`` takes rows of logits, for more rows than a program samples.

    ``fill`` is there where else steps are launched one behind the other: ``Ops.fill_tokens``.
    Functions that need no weights or caches have empty tuples where those stand.
    """

    whole: Any
    forward: Any
    sample: Any
    score: Any
    pick: Any
    fill: Any

    def __init__(
        self,
        backend: Backend,
        ops: Ops,
        model: Model,
        layer_groups: tuple[int, ...],
        num_prompt_logprobs: int,
    ) -> None:
        """Compile; whatever the backend raises comes through."""
        self._backend = backend
        self.has_parts = backend.caps.separate_sampling
        """Whether ``forward`` and ``sample`` are there."""
        self.is_in_parts = self.has_parts and bool(backend.caps.token_buckets)
        """Whether a step is nothing but its parts: fewer programs matter more than one call."""
        if self.is_in_parts:
            self._functions: dict[str, Callable[..., Any]] = {
                "forward": make_forward_part(ops, model, layer_groups),
                "sample": make_sample_part(ops),
                "score": make_score(ops, model, num_prompt_logprobs),
                "pick": make_pick(ops),
            }
        else:
            self._functions = {"whole": make_step(ops, model, layer_groups, num_prompt_logprobs)}
            if self.has_parts:
                self._functions["forward"] = make_forward(ops, model, layer_groups)
                self._functions["sample"] = make_sample(ops, num_prompt_logprobs)
            if backend.caps.asynchronous:
                self._functions["fill"] = make_fill(ops)
        self._kept: dict[str, Any] = {}
        self.compile()

    def compile(self) -> None:
        """Have all functions compiled, again after ``release``."""
        compiled = {
            name: self._kept.get(name) or self._backend.compile(function)
            for name, function in self._functions.items()
        }
        self._set(compiled)
        self._joined = self.whole
        if self.has_parts and not self.is_in_parts:
            self._joined = join(self.forward, self.sample)

    def _set(self, compiled: dict[str, Any]) -> None:
        self._compiled = compiled
        for name in ("whole", "forward", "sample", "score", "pick", "fill"):
            setattr(self, name, compiled.get(name))

    def run(self, *inputs: Any, sampling: SamplingBatch, prompt_targets: Array | None) -> Any:
        """A step: what ``octavo.step.make_step`` returns; not where it ``is_in_parts``.

        Where there are parts, what a row may ask for besides its token is left to ``sample``: the
        whole step is then the same in all that a backend specialises it for.
        """
        is_plain = sampling.plain and sampling.num_logprobs < 0 and prompt_targets is None
        step = self.whole if is_plain else self._joined
        return step(*inputs, sampling, prompt_targets)

    @property
    def can_prepare(self) -> bool:
        """Whether shapes can be compiled for without a step of them."""
        return self.is_in_parts and all(
            hasattr(each, "prepare") for each in self._compiled.values()
        )

    def release(self) -> None:
        """Let go of what was compiled, unless it can let go of weights by itself."""
        self._kept = {
            name: each for name, each in self._compiled.items() if hasattr(each, "release")
        }
        for each in self._kept.values():
            each.release()
        self._set({})
        self._joined = None
