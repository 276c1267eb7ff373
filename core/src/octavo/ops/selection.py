"""Choose implementations for ops by preference: the first that is installed and can serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from octavo.contract import check_signature
from octavo.errors import BackendError, OctavoError, UsageError
from octavo.isolation import describe
from octavo.ops.names import OP_NAMES
from octavo.ops.protocol import Ops
from octavo.suggest import choices, did_you_mean

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.spec import AttentionSpec

__all__ = ["PORTABLE", "PORTABLE_MODULE", "Choice", "Selector", "portable_base"]

PORTABLE = "portable"
"""The name under which plugins.toml and ``--attention-backend`` ask for Octavo's own ops."""

PORTABLE_MODULE = "octavo.ops.portable"

_ATTENTION_OPS = ("write_kv", "paged_attention", "attend")


@dataclass(frozen=True)
class Choice:
    """An implementation that was chosen, and the ops it is to serve."""

    name: str
    source: Literal["own", "portable", "plugin"]
    ops: tuple[str, ...]
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # of a plugin's


@dataclass(frozen=True)
class Selector:
    """What there is to choose from for one backend and model (None: no model yet)."""

    backend: Backend
    backend_name: str
    attention_specs: Sequence[AttentionSpec]
    model: Any

    def select(
        self, preferences: Mapping[str, Sequence[str]], attention_backend: str | None
    ) -> dict[str, tuple[Choice, str]]:
        """Op → (choice, reason), for the ops that a preference speaks of."""
        selected: dict[str, tuple[Choice, str]] = {}
        if attention_backend is not None:
            self._record(selected, *self._demand(attention_backend))
        for op, names in preferences.items():
            if attention_backend is None or op not in selected:
                self._record(selected, *self._prefer(op, names))
        return selected

    def refusal(self, spec: AttentionSpec) -> str | None:
        """Why a plugin's implementation cannot serve here; None if it can."""
        choice = self._try_spec(spec, spec.ops)
        return choice if isinstance(choice, str) else None

    def _demand(self, name: str) -> tuple[Choice, str]:
        """An explicit choice: served, or refused with what there is."""
        known = [spec.name for spec in self.attention_specs] + [self.backend_name, PORTABLE]
        if name not in known:
            raise UsageError(
                f"Backend {self.backend_name!r} has no attention backend {name!r}."
                f"{did_you_mean(name, known)} There is {choices(known)}."
            )
        choice = self._try_choice(name, _ATTENTION_OPS)
        if isinstance(choice, str):
            raise UsageError(
                f"Attention backend {name!r} cannot be used: {choice}. There is {choices(known)}."
            )
        return choice, "asked for with --attention-backend"

    def _prefer(self, op: str, names: Sequence[str]) -> tuple[Choice, str]:
        """The first of the names that can serve the op, else the backend's own."""
        passed_over: list[str] = []
        for name in names:
            choice = self._try_choice(name, (op,))
            if not isinstance(choice, str):
                reason = f"preferred for {op} by plugins.toml"
                return choice, "; ".join([reason, *passed_over])
            passed_over.append(f"not {name}: {choice}")
        reason = "the backend's own, since plugins.toml prefers nothing usable"
        return Choice(self.backend_name, "own", (op,)), "; ".join([reason, *passed_over])

    def _try_choice(self, name: str, ops: tuple[str, ...]) -> Choice | str:
        """The implementation called ``name``, or why it cannot serve the ops."""
        if name == self.backend_name:
            return Choice(name, "own", ops)
        if name == PORTABLE:
            if portable_base(self.backend.ops) is None:
                return "the backend's ops do not build on octavo.api.PortableOps"
            if any(getattr(type(self.backend.ops), f"portable_{op}", ()) is None for op in ops):
                return "the backend's plans and caches are for its own attention alone"
            return Choice(name, "portable", ops)
        for spec in self.attention_specs:
            if spec.name == name:
                return self._try_spec(spec, ops)
        return "not installed"

    def _try_spec(self, spec: AttentionSpec, ops: tuple[str, ...]) -> Choice | str:
        if not set(ops) & set(spec.ops):
            return f"it provides {choices(spec.ops)}"
        try:
            refusal = None if self.model is None else spec.supports(self.model)
            if refusal is not None:
                return f"does not support the model: {refusal}"
            functions = dict(spec.load(self.backend))
        except OctavoError as error:
            return str(error).rstrip(".")
        except Exception as error:  # noqa: BLE001 - becomes the reason
            return f"raised {describe(error)}"
        try:
            _check_functions(spec, functions)
        except BackendError as error:
            return str(error).rstrip(".")
        return Choice(spec.name, "plugin", spec.ops, functions)

    def _record(self, selected: dict[str, tuple[Choice, str]], choice: Choice, reason: str) -> None:
        for op in choice.ops:
            earlier = selected.get(op)
            if earlier is not None and earlier[0].name != choice.name:
                raise UsageError(
                    f"Op {op} of backend {self.backend_name!r} would be served by both "
                    f"{earlier[0].name!r} ({earlier[1]}) and {choice.name!r} ({reason}); an "
                    "implementation is taken with all its ops. Prefer one of the two throughout."
                )
            selected[op] = (choice, reason)


def portable_base(ops: Ops) -> type | None:
    """The portable op set that a backend's ops build on, if they do."""
    bases = (base for base in type(ops).__mro__ if base.__module__ == PORTABLE_MODULE)
    return next(bases, None)


def _check_functions(spec: AttentionSpec, functions: Mapping[Any, Any]) -> None:
    """Raise BackendError unless a plugin loaded just what it promised."""
    owner = f"attention backend {spec.name!r}"
    unknown: Iterable[str] = [op for op in spec.ops if op not in OP_NAMES]
    for op in unknown:
        raise BackendError(f"{owner} provides {op!r}, no op.{did_you_mean(op, OP_NAMES)}")
    if set(functions) != set(spec.ops):
        raise BackendError(
            f"{owner} loaded {choices(sorted(map(str, functions)))}; "
            f"it registered {choices(sorted(spec.ops))}."
        )
    for op, function in functions.items():
        check_signature(function, Ops, op, owner)
