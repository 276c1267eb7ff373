"""A broken backend: its bug, the one check that catches it, and what that check must say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from plain_backend import DEVICE, SPEC

from octavo.testing.subject import Subject


@dataclass(frozen=True)
class Mutant:
    """A realistic bug in a backend."""

    name: str
    about: str
    caught_by: str  # the id of a check
    says: str  # a pattern that the failure's message and ``look`` must hold
    load: Callable[..., Any] | None = None  # in place of PlainBackend
    spec: Mapping[str, Any] = field(default_factory=dict)  # fields of the BackendSpec to change
    make_subject: Callable[[], Subject] | None = None  # in place of all of these
    only: bool = True  # no other check catches it: without that check it would get through
    quick: bool = True  # the quick level catches it already

    def subject(self) -> Subject:
        """The mutant as a subject of the suite."""
        if self.make_subject is not None:
            return self.make_subject()
        changes = dict(self.spec)
        if self.load is not None:
            changes["load"] = self.load
        return Subject.of(replace(SPEC, **changes), DEVICE, distribution="octavo-plain")


def contract(check, name, about, says, **more):
    """A mutant that a check of the section "contract" catches."""
    return Mutant(name, about, f"contract.{check}", says, **more)
