"""Checks of the contract: what Octavo and its users rely on before any number is computed."""

from __future__ import annotations

from octavo.testing.check import Check
from octavo.testing.checks import (
    contract_arrays,
    contract_capabilities,
    contract_loading,
    contract_memory,
    contract_plugin,
    contract_process,
)

__all__ = ["CHECKS"]

CHECKS: tuple[Check, ...] = (
    *contract_process.CHECKS,  # first, as much is changed by the first load alone
    *contract_plugin.CHECKS,
    *contract_loading.CHECKS,
    *contract_capabilities.CHECKS,
    *contract_memory.CHECKS,
    *contract_arrays.CHECKS,
)
