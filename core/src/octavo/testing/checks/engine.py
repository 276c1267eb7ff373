"""Tiny models end to end, through the engine that users run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.testing.checks.engine_compilation import COMPILATION
from octavo.testing.checks.engine_families import FAMILIES
from octavo.testing.checks.engine_long_run import LONG_RUN
from octavo.testing.checks.engine_options import OPTIONS
from octavo.testing.checks.engine_release import RELEASE
from octavo.testing.checks.engine_several import SEVERAL

if TYPE_CHECKING:
    from octavo.testing.check import Check

__all__ = ["CHECKS"]

CHECKS: tuple[Check, ...] = (FAMILIES, OPTIONS, LONG_RUN, COMPILATION, SEVERAL, RELEASE)
