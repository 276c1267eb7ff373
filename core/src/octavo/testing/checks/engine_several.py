"""Several engines in one process keep apart, and go on when another is closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from octavo.testing.answers import answers_of, greedy, run_all
from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.family_answers import (
    Expected,
    Precision,
    expected_answer,
    first_difference,
)
from octavo.testing.family_vectors import family_vectors
from octavo.testing.tiny_models import TINY_MODELS

if TYPE_CHECKING:
    from octavo.engine_loader import LoadedEngine
    from octavo.testing.subject import Subject

__all__ = ["SEVERAL"]

_FIRST, _SECOND = "llama", "llama-yarn-rope"


class _Lent:
    """A backend that stays open when its borrower is closed."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def close(self) -> None:
        """Left to the owner."""


def _several_cases(_subject: Subject) -> Iterator[Case]:
    yield Case("a backend object each", value=False)
    yield Case("one backend object", value=True)


def _check_several(subject: Subject, is_shared: bool) -> None:
    """Two models whose arrays have the same shapes take turns; one is closed, one goes on."""
    with _open(subject, _FIRST) as first:

        def lend(backend: Any) -> Any:
            backend.close()
            return _Lent(first.backend)

        with _open(subject, _SECOND, **({"wrap": lend} if is_shared else {})) as second:
            engines = {_FIRST: first, _SECOND: second}
            _serve(subject, engines, "taking turns with another engine")
        _serve(subject, {_FIRST: first}, "after another engine was closed")
    with _open(subject, _FIRST) as again:
        _serve(subject, {_FIRST: again}, "opened again after a close")


def _serve(subject: Subject, engines: Mapping[str, LoadedEngine], situation: str) -> None:
    """Each model's vector through its engine, the engines taking turns step by step."""
    for name, loaded in engines.items():
        loaded.engine.add_request(name, list(expected_answer(name).prompt), greedy())
    try:
        outputs = run_all([loaded.engine for loaded in engines.values()])
    except Exception as error:
        raise CheckFailure(f"An engine, {situation}: {type(error).__name__}: {error}") from error
    for name, engine_outputs in zip(engines, outputs, strict=True):
        (answer,) = answers_of(engine_outputs[name])
        vector = expected_answer(name)
        expected = Expected(vector.prompt, vector.answer)
        found = first_difference(answer, expected, Precision.best(subject.caps).tolerance)
        if found is not None:
            raise CheckFailure(f"{name}, {situation}: {found}.")


def _open(subject: Subject, name: str, **options: Any) -> AbstractContextManager[LoadedEngine]:
    precision = Precision.best(subject.caps)
    return subject.engine(
        TINY_MODELS[name].config,
        seed=family_vectors()[name].seed,
        dtype=precision.dtype,
        kv_cache_dtype=precision.kv_dtype,
        enable_prefix_caching=False,
        **options,
    )


SEVERAL = Check(
    section="engine",
    name="several_engines",
    about="engines in one process keep apart, and outlive each other",
    look="backend.make_kv, backend.compile, backend.close: what belongs to the class or the module "
    "instead of the object",
    run=_check_several,
    cases=_several_cases,
)
