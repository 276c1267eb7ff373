"""A tiny engine on a backend with faults, and whether its requests fared as without them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from octavo.isolation import Fault, GuardedCall
from octavo.outputs import RequestOutput
from octavo.sampling_params import SamplingParams
from octavo.testing.check import CheckFailure
from octavo.testing.family_answers import Precision
from octavo.testing.faulty import FaultyBackend, InjectedFault
from octavo.testing.tiny_models import TINY_MODELS

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.engine import Engine
    from octavo.engine_loader import LoadedEngine
    from octavo.outputs import CompletionOutput
    from octavo.testing.subject import Subject

__all__ = [
    "FORKED",
    "LATER",
    "MARKED",
    "MARKED_TOKEN",
    "REQUESTS",
    "FaultyEngine",
    "Finished",
    "Requests",
    "expect_undisturbed",
    "undisturbed",
]

MARKED_TOKEN = 250
CLOSE_LIMIT_S = 10.0
_EXACT_DTYPES = ("float32", "float64")  # an error of the last bits changes one draw in a million
_NUM_LOGPROBS = 3  # tokens among which a tie is sought
_MAX_STEPS = 2000  # many times what the requests of any check take
# Few and short, so that a backend with buckets compiles one program for them: steps of up to 8
# tokens, one block for each request, and only requests that are sampled alike.
_CHUNK_TOKENS = 8


def _params(seed: int, max_tokens: int = 4, **options: Any) -> SamplingParams:
    return SamplingParams(
        temperature=1.0, seed=seed, max_tokens=max_tokens, ignore_eos=True, **options
    )


Requests = Mapping[str, tuple[Sequence[int], SamplingParams]]
"""Prompt and parameters by request id."""

REQUESTS: Requests = {
    "short": ([1, 2, 3], _params(1)),
    "other": (range(40, 46), _params(2)),
    "chunked": (range(60, 60 + _CHUNK_TOKENS + 3), _params(3)),
}
FORKED: Requests = {"forked": (range(80, 86), _params(6, n=3))}
MARKED: Requests = {"marked": ([7, 8, MARKED_TOKEN, 9], _params(4))}
LATER: Requests = {"later": ([9, 8, 7], _params(5, max_tokens=2))}


@dataclass
class Finished:
    """The last outputs of requests by id, and how long steps took."""

    outputs: dict[str, RequestOutput] = field(default_factory=dict)
    longest_step_s: float = 0.0

    def of(self, requests: Requests) -> dict[str, RequestOutput]:
        """Those of some of the requests."""
        return {request_id: self.outputs[request_id] for request_id in requests}


class _ClosedQuietly(FaultyBackend):
    """Keeps what is wrong with ``close`` for the one check that looks at it."""

    close_error: str | None = None

    def close(self) -> None:
        self.release()
        try:
            GuardedCall(super().close, "close").result(time.monotonic() + CLOSE_LIMIT_S)
        except Fault as fault:
            self.close_error = str(fault)


@dataclass
class FaultyEngine:
    """An engine, and the proxy through which its backend fails."""

    subject: Subject
    loaded: LoadedEngine
    backend: _ClosedQuietly

    @property
    def engine(self) -> Engine:
        """The engine itself."""
        return self.loaded.engine

    @classmethod
    @contextmanager
    def open(
        cls, subject: Subject, *faults: InjectedFault, **options: Any
    ) -> Iterator[FaultyEngine]:
        """A fresh backend and a tiny Llama; ``faults`` are armed while it loads."""
        proxies: list[_ClosedQuietly] = []

        def wrap(backend: Backend) -> Backend:
            proxies.append(_ClosedQuietly(backend, *faults))
            return proxies[0]

        precision = Precision.best(subject.caps)
        options = {
            "max_num_seqs": _CHUNK_TOKENS,
            "max_num_batched_tokens": _CHUNK_TOKENS,
            "dtype": precision.dtype,
            "kv_cache_dtype": precision.kv_dtype,
            **options,
        }
        with subject.engine(TINY_MODELS["llama"].config, wrap=wrap, **options) as loaded:
            yield cls(subject, loaded, proxies[0])

    def add(self, requests: Requests) -> None:
        """Queue them all."""
        for request_id, (prompt, params) in requests.items():
            if not _is_exact(self.subject):
                params = replace(params, temperature=0.0, n=1, logprobs=_NUM_LOGPROBS)  # noqa: PLW2901
            self.engine.add_request(request_id, list(prompt), params)

    def finish(self) -> Finished:
        """Step to the end. Raises CheckFailure if there is none, or if something leaked."""
        finished = Finished()
        for _ in range(_MAX_STEPS):
            if not self.engine.has_unfinished_requests:
                self._expect_all_free()
                return finished
            started_s = time.perf_counter()
            outputs = self.engine.step()
            elapsed_s = time.perf_counter() - started_s
            finished.longest_step_s = max(finished.longest_step_s, elapsed_s)
            finished.outputs.update({output.request_id: output for output in outputs})
            self.engine.scheduler.check_integrity()
        raise CheckFailure(f"After {_MAX_STEPS} steps there are unfinished requests.")

    def serve(self, requests: Requests) -> Finished:
        """Add requests and run them to their end."""
        self.add(requests)
        return self.finish()

    def arm(self, *faults: InjectedFault) -> None:
        """Only these are to strike from now on, whatever has struck before."""
        self.backend.arm(*faults)
        # Failures in short order make the engine run fewer requests at once.
        self.engine.scheduler.limit_running(None)

    def expect_struck(self) -> None:
        """Raise RuntimeError if no armed fault has struck: then a check has shown nothing."""
        if not self.backend.num_struck:
            raise RuntimeError("The fault never struck: a fault of the suite's.")

    def _expect_all_free(self) -> None:
        for group in self.engine.scheduler.stats.groups:
            if group.num_used or group.num_host_used:
                raise CheckFailure(
                    f"All requests have ended, and {group.num_used} blocks on the device and "
                    f"{group.num_host_used} on the host are still in use."
                )


def undisturbed(subject: Subject) -> Finished:
    """What all these requests answer without any fault; computed once for a subject."""
    kept = subject.__dict__.get("_undisturbed")
    if not isinstance(kept, Finished):
        with FaultyEngine.open(subject) as faulty:
            kept = faulty.serve({**REQUESTS, **FORKED})
            kept.outputs.update(faulty.serve(LATER).outputs)
        subject.__dict__["_undisturbed"] = kept
    return kept


def expect_undisturbed(
    subject: Subject,
    found: Mapping[str, RequestOutput],
    after: str,
    look: str,
    calm: Finished | None = None,
) -> None:
    """Raise CheckFailure unless each request has the answers that it has without faults.

    ``calm`` is the run without; REQUESTS and LATER have theirs.
    """
    for request_id, expected in (calm or undisturbed(subject)).outputs.items():
        output = found.get(request_id)
        if output is None:
            continue
        if output.error is not None:
            raise CheckFailure(
                f"{after}, the request {request_id!r}, which has nothing to do with it, ended with "
                f"an error: {output.error}",
                look=look,
            )
        for answer, wanted in zip(output.outputs, expected.outputs, strict=True):
            _expect_same(subject, request_id, answer, wanted, after, look)


def _expect_same(
    subject: Subject,
    request_id: str,
    answer: CompletionOutput,
    expected: CompletionOutput,
    after: str,
    look: str,
) -> None:
    pairs = list(zip(answer.token_ids, expected.token_ids, strict=False))
    differing = [index for index, (found, wanted) in enumerate(pairs) if found != wanted]
    if not differing and len(answer.token_ids) == len(expected.token_ids):
        return
    place = differing[0] if differing else len(pairs)
    if differing and not _is_exact(subject) and _is_tie(subject, answer, expected, place):
        return  # what follows another token cannot be compared
    raise CheckFailure(
        f"{after}, the request {request_id!r}, which has nothing to do with it, answered "
        f"{answer.token_ids}; undisturbed it answers {expected.token_ids}, different from token "
        f"{place} on.",
        look=look,
    )


def _is_exact(subject: Subject) -> bool:
    """Whether a request's tokens, drawn at random, cannot depend on what runs beside it."""
    return subject.caps.batch_invariant or Precision.best(subject.caps).dtype in _EXACT_DTYPES


def _is_tie(
    subject: Subject, answer: CompletionOutput, expected: CompletionOutput, place: int
) -> bool:
    """Whether the undisturbed run found both tokens about equally likely."""
    found, wanted = answer.token_ids[place], expected.token_ids[place]
    entry = (expected.logprobs or [])[place]
    if found not in entry:
        return False
    gap = abs(entry[wanted].logprob - entry[found].logprob)
    return gap <= 2 * Precision.best(subject.caps).tolerance  # both may be off
