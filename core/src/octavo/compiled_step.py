"""The step as a backend has compiled it: whole, and in its two parts where the backend can."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from octavo.step import join, make_fill, make_forward, make_sample, make_step

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.models.base import Model
    from octavo.ops.protocol import Array, Ops, SamplingBatch

__all__ = ["CompiledStep"]


class CompiledStep:
    """``whole`` is a step; ``forward`` and ``sample`` run where masks are computed meanwhile.

    ``fill`` is there where steps are launched one behind the other: ``Ops.fill_tokens``, with two
    empty tuples where weights and caches stand.
    """

    whole: Any
    forward: Any
    sample: Any
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
        self._functions: dict[str, Callable[..., Any]] = {}
        self.has_parts = backend.caps.separate_sampling
        """Whether ``forward`` and ``sample`` are there."""
        self._functions["whole"] = make_step(ops, model, layer_groups, num_prompt_logprobs)
        if self.has_parts:
            self._functions["forward"] = make_forward(ops, model, layer_groups)
            self._functions["sample"] = make_sample(ops, num_prompt_logprobs)
        if backend.caps.asynchronous:
            self._functions["fill"] = make_fill(ops)
        self.compile()

    def compile(self) -> None:
        """Have all functions compiled, again after ``release``."""
        self._compiled: dict[str, Any] = {
            name: self._backend.compile(function) for name, function in self._functions.items()
        }
        self.forward = self._compiled.get("forward")
        self.sample = self._compiled.get("sample")
        self.fill = self._compiled.get("fill")
        self.whole = self._compiled["whole"]
        self._joined = join(self.forward, self.sample) if self.has_parts else self.whole
        if self.has_parts and self._backend.caps.token_buckets:
            # Where each shape is a program, fewer of them matter more than one call.
            self.whole = self._joined

    def run(self, *inputs: Any, sampling: SamplingBatch, prompt_targets: Array | None) -> Any:
        """A step: what ``octavo.step.make_step`` returns.

        Where there are parts, what a row may ask for besides its token is left to ``sample``: the
        whole step is then the same in all that a backend specialises it for.
        """
        is_plain = sampling.plain and sampling.num_logprobs < 0 and prompt_targets is None
        step = self.whole if is_plain else self._joined
        return step(*inputs, sampling, prompt_targets)

    @property
    def can_prepare(self) -> bool:
        """Whether shapes can be compiled for without a step of them."""
        return self.has_parts and all(hasattr(each, "prepare") for each in self._compiled.values())

    def prepare(self, *inputs: Any, sampling: SamplingBatch) -> Any:
        """Have what a step of these shapes runs compiled: see ``octavo.api.Preparable``.

        Returns what stands for its SampleResult.
        """
        _, logits = self.forward.prepare(*inputs)
        result, _ = self.sample.prepare((), (), logits, sampling, None)
        return result

    def release(self) -> None:
        """Let go of what was compiled, which may hold memory of weights."""
        self._compiled = {}
        self.whole = self._joined = self.forward = self.sample = self.fill = None
