"""How many fake devices there are; light, because whoever lists devices imports it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from octavo.api import DeviceError, DeviceInfo, Probe

__all__ = ["check_index", "probe"]

_DEVICES_VARIABLE = "OCTAVO_FAKE_DEVICES"
_MOST_DEVICES = 64


def probe() -> Probe:
    """As many as $OCTAVO_FAKE_DEVICES says; one if it says nothing."""
    try:
        count = num_devices(os.environ)
    except ValueError as error:
        return Probe(reason=str(error), install=f"set ${_DEVICES_VARIABLE} to a number of devices")
    return Probe(devices=tuple(DeviceInfo("fake", index, "no hardware") for index in range(count)))


def num_devices(environ: Mapping[str, str]) -> int:
    """Raises ValueError for what is no number of devices."""
    text = environ.get(_DEVICES_VARIABLE, "").strip() or "1"
    if not text.isdecimal() or not 0 <= int(text) <= _MOST_DEVICES:
        raise ValueError(
            f"${_DEVICES_VARIABLE} is {text!r}; expected a whole number from 0 to {_MOST_DEVICES}"
        )
    return int(text)


def check_index(index: int) -> None:
    """Raise DeviceError unless there is such a device."""
    count = len(probe().devices)
    if not 0 <= index < count:
        present = ", ".join(f"fake:{place}" for place in range(count)) or "none"
        raise DeviceError(
            f"There is no device fake:{index}; there is {present}. ${_DEVICES_VARIABLE} says how "
            "many there are."
        )
