"""A program: the tokens of a tiny model on one device, twice, as one line of JSON.

``python generate_tokens.py MODEL KIND CACHE_BYTES``, in an environment that has no pytest. Half of
the requests are sampled, with two answers each, so that blocks fork; the rest are greedy.
"""

from __future__ import annotations

import json
import sys
import warnings
from itertools import pairwise

from octavo import LLM, SamplingParams

PROMPTS = [{"prompt_token_ids": list(range(i + 1, 9 + 6 * i))} for i in range(8)]
PARAMS = [
    SamplingParams(temperature=0.8 * (i % 2), seed=i, max_tokens=20, ignore_eos=True, n=1 + i % 2)
    for i in range(8)
]


def main(model: str, kind: str, cache_bytes: str) -> None:
    llm = LLM(
        model,
        device=kind,
        backend="numpy" if kind == "cpu" else None,
        load_format="dummy",
        max_model_len=128,
        kv_cache_memory_bytes=int(cache_bytes),
        preemption_mode="swap",
        enable_prefix_caching=False,  # so that the second round is the first one over again
        quiet=True,
    )
    compilations = watch_compilations()
    rounds, counts = [], [0]
    for _ in range(2):
        outputs = llm.generate(PROMPTS, PARAMS, use_tqdm=False)
        rounds.append([[answer.token_ids for answer in each.outputs] for each in outputs])
        counts.append(len(compilations))
    report = {
        "backend": llm.loaded.resolution.spec.name,
        "rounds": rounds,
        "compilations": [after - before for before, after in pairwise(counts)],
        "num_swaps": llm.loaded.engine.scheduler.stats.num_swap_preemptions,
    }
    llm.close()
    print(json.dumps(report))


def watch_compilations() -> list[str]:
    """A list that grows with each program that JAX compiles, if the backend uses JAX."""
    found: list[str] = []
    if "jax" in sys.modules:
        from jax import monitoring

        def note(event: str, duration_s: float, **_: object) -> None:
            if event == "/jax/core/compile/backend_compile_duration":
                found.append(event)

        monitoring.register_event_duration_secs_listener(note)
    return found


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(*sys.argv[1:])
