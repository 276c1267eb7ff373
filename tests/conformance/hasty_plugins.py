"""Probes and plugin modules that do too much, or give up too soon; light to import themselves."""

from __future__ import annotations

import importlib.util

from plain_plugin import DEVICE

from octavo.api import Probe


def probe_that_imports_its_framework():
    try:
        import numpy  # noqa: F401, ICN001
    except ImportError as error:
        return Probe(reason=str(error), install="pip install numpy")
    return Probe(devices=(DEVICE,))


def probe_that_takes_its_framework_for_granted():
    place = importlib.util.find_spec("numpy").origin  # None has no origin
    return Probe(devices=(DEVICE,), reason=place)


def probe_that_gives_no_remedy():
    if importlib.util.find_spec("numpy") is None:
        return Probe()
    return Probe(devices=(DEVICE,))


def probe_that_raises():
    raise OSError("cannot open /dev/plain")


def probe_that_prints():
    print("plain: found 1 device")
    return Probe(devices=(DEVICE,))


def probe_of_another_kind():
    return [DEVICE]


_calls = []


def probe_that_sees_the_device_once():
    _calls.append(None)
    return Probe(devices=(DEVICE,) * (len(_calls) % 2), reason="busy", install="wait")
