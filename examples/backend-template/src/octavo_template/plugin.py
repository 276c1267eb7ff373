"""Registers the backend; imports no framework, so that listing devices stays quick."""

from importlib.util import find_spec

from octavo.api import API_VERSION, BackendSpec, DeviceInfo, Probe, hookimpl


def probe():
    if find_spec("jax") is None:
        return Probe(reason="JAX is not installed", install="pip install jax")
    return Probe(devices=(DeviceInfo(kind="template", index=0, name="host CPU, through JAX"),))


def load(index, options):
    from octavo_template.backend import TemplateBackend  # not before: it imports JAX

    return TemplateBackend(index, options)


@hookimpl
def octavo_register_backends(register):
    register(BackendSpec("template", ("template",), "JAX on the CPU", probe, load, API_VERSION))
