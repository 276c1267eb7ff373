"""A plugin module that imports its framework, so that whoever lists devices waits for it."""

from __future__ import annotations

import numpy  # noqa: F401, ICN001
from plain_plugin import DEVICE

from octavo.api import Probe


def probe():
    return Probe(devices=(DEVICE,))
