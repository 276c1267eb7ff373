"""Turns op sets and backends with one bug into mutants: the docstring says what the bug is."""

from __future__ import annotations

import numpy as np
from mutant import Mutant
from plain_backend import PlainOps, backend_with


def float32(x):
    """What a kernel's registers hold."""
    return x.astype(np.float32)


class OpMutants(list[Mutant]):
    """The mutants of one module, in the order of their classes."""

    def __init__(self, section: str = "ops") -> None:
        super().__init__()
        self.section = section

    def caught_by(self, check: str, says: str, *, only: bool = True, quick: bool = True):
        """Decorate a subclass of PlainOps or PlainBackend that ``section.check`` must catch."""

        def register(broken):
            load = backend_with(ops=broken) if issubclass(broken, PlainOps) else broken
            about = broken.__doc__.strip()
            caught_by = f"{self.section}.{check}"
            self.append(
                Mutant(broken.__name__, about, caught_by, says, load=load, only=only, quick=quick)
            )
            return broken

        return register
