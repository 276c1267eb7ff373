"""The plugin module of the plain backend: light, as a plugin's has to be."""

from __future__ import annotations

from octavo.api import API_VERSION, BackendSpec, DeviceInfo, Probe

DEVICE = DeviceInfo("plain", 0, "plain NumPy")


def probe():
    return Probe(devices=(DEVICE,))


def load(index, options):
    from plain_backend import PlainBackend

    return PlainBackend(index, options)


SPEC = BackendSpec(
    name="plain",
    device_kinds=("plain",),
    summary="NumPy, one token at a time",
    probe=probe,
    load=load,
    api_version=API_VERSION,
)
