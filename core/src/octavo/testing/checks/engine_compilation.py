"""No compilation after warm-up: steps of known shapes never run Python again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from octavo.testing.answers import generate, greedy
from octavo.testing.check import Check, CheckFailure
from octavo.testing.family_answers import Precision
from octavo.testing.step_watch import NUM_SETTLING_STEPS, StepWatch
from octavo.testing.tiny_models import TINY_MODELS, VOCAB_SIZE

if TYPE_CHECKING:
    from octavo.engine_loader import LoadedEngine
    from octavo.sampling_params import SamplingParams
    from octavo.testing.subject import Subject

__all__ = ["COMPILATION"]

_PROMPT_LENS = (7, 12)
_NUM_NEW_TOKENS = 4


def _run(subject: Subject, _value: None) -> None:
    watch = StepWatch()
    precision = Precision.best(subject.caps)
    with subject.engine(
        TINY_MODELS["llama"].config,
        wrap=watch.wrap,
        dtype=precision.dtype,
        kv_cache_dtype=precision.kv_dtype,
        enable_prefix_caching=False,
    ) as loaded:
        for round_index in range(NUM_SETTLING_STEPS + 2):
            # The last round is one token shorter: in a backend with buckets the same shapes again.
            is_shorter = round_index == NUM_SETTLING_STEPS + 1
            _serve(loaded, round_index, [length - is_shorter for length in _PROMPT_LENS])
            if watch.is_eager:
                return
    if watch.recompilations:
        raise CheckFailure(_message(watch))


def _serve(loaded: LoadedEngine, round_index: int, prompt_lens: Sequence[int]) -> None:
    """In every round token ids, draws, settings and blocks are others."""
    prompts = [
        [(token * 31 + round_index * 17 + index) % VOCAB_SIZE for token in range(length)]
        for index, length in enumerate(prompt_lens)
    ]
    for params in _settings(round_index):
        generate(loaded, prompts, params)


def _settings(round_index: int) -> Sequence[SamplingParams]:
    drawn = greedy(
        _NUM_NEW_TOKENS,
        logprobs=None,
        temperature=0.5 + round_index / 10,
        top_p=0.9 - round_index / 10,
        seed=round_index,
    )
    return greedy(_NUM_NEW_TOKENS), drawn


def _message(watch: StepWatch) -> str:
    again = watch.recompilations[0]
    if again.is_due_to_plan:
        cause = (
            "What backend.plan returned has other shapes than before: "
            f"{again.plans}, and before {again.earlier_plans}. Pad it."
        )
    else:
        cause = (
            "Only values differ (token ids, positions, block ids, draws): something makes the "
            "compiled step depend on them, as a Python number or in the key of a cache."
        )
    return (
        f"After {again.num_earlier_steps} steps of the same shapes, one more called the Python "
        f"step, so it was traced and compiled again ({len(watch.recompilations)} of "
        f"{watch.num_steps} steps). {cause} The shapes: {again.shapes}."
    )


COMPILATION = Check(
    section="engine",
    name="no_compilation_after_warm_up",
    about="a step of shapes that were seen before is not compiled again",
    look="backend.compile, backend.plan",
    run=_run,
)
