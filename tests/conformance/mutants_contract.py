"""Backends that break the contract: before they are loaded, while, and in what they claim."""

from __future__ import annotations

import sys
from pathlib import Path

import hasty_plugins
import heavy_plugin
from mutant import Mutant, contract
from plain_backend import (
    PlainOps,
    backend_with,
)

from octavo.testing.subject import Subject


def linear_with_another_name(self, x, w):
    return PlainOps.linear(self, x, w)


def installed_without_requiring_octavo():
    """From a distribution on the import path whose metadata forget a dependency."""
    site = str(Path(__file__).parent / "lax_site")
    if site not in sys.path:
        sys.path.append(site)
    return Subject.installed("lax")


MUTANTS: tuple[Mutant, ...] = (
    contract(
        "spec",
        "no summary",
        "the listings have nothing to say about the backend",
        r"summary=''; expected a string",
        spec={"summary": ""},
    ),
    contract(
        "spec",
        "one kind twice",
        "which of the two serves it?",
        r"device_kinds=\('plain', 'plain'\); expected a tuple of distinct device kinds",
        spec={"device_kinds": ("plain", "plain")},
    ),
    contract(
        "spec",
        "does not require octavo",
        "pip installs the package without octavo, or beside any version of it",
        r"octavo-lax does not require octavo \(it requires numpy\)(.|\n)*dependencies",
        make_subject=installed_without_requiring_octavo,
    ),
    contract(
        "api_version",
        "version of the future",
        "written for a later octavo",
        r"needs plugin API version 99.*upgrade octavo",
        spec={"api_version": 99},
    ),
    contract(
        "api_version",
        "version as text",
        "a version that cannot be compared",
        r"api_version is '1'; expected the integer",
        spec={"api_version": "1"},
    ),
    contract(
        "probe",
        "probe raises",
        "the listing catches it, but has no remedy to show",
        r"probe raised OSError: cannot open /dev/plain(.|\n)*spec\.probe",
        spec={"probe": hasty_plugins.probe_that_raises},
    ),
    contract(
        "probe",
        "probe takes its framework for granted",
        "raises where the framework is not installed, the usual case",
        r"the probe raises AttributeError.*Probe\(reason=",
        spec={"probe": hasty_plugins.probe_that_takes_its_framework_for_granted},
    ),
    contract(
        "probe",
        "probe gives no remedy",
        "no device, and not a word why",
        r"sees no device and gives reason=None",
        spec={"probe": hasty_plugins.probe_that_gives_no_remedy},
    ),
    contract(
        "probe",
        "probe returns a list",
        "devices in place of a Probe",
        r"returned an object of type list; expected octavo.api.Probe",
        spec={"probe": hasty_plugins.probe_of_another_kind},
    ),
    contract(
        "probe",
        "probe sees the device once",
        "leaves the device open, so that the next probe finds it busy",
        r"saw \[.*\], and a moment later \[",
        spec={"probe": hasty_plugins.probe_that_sees_the_device_once},
    ),
    contract(
        "probe_is_light",
        "probe imports a framework",
        "whoever lists devices waits for it",
        r"The probe imports .*numpy.*find_spec",
        spec={"probe": hasty_plugins.probe_that_imports_its_framework},
    ),
    contract(
        "probe_is_light",
        "plugin module imports a framework",
        "importing the plugin is enough to load it",
        r"Importing the plugin's module imports .*numpy",
        spec={"probe": heavy_plugin.probe},
        only=False,  # and it cannot be imported where there is no NumPy
    ),
    contract(
        "members",
        "an op is missing",
        "prompt_logprobs would end in an AttributeError",
        r"lacks token_logprobs\((.|\n)*ops\.token_logprobs",
        load=backend_with(ops=type("Ops", (PlainOps,), {"token_logprobs": None})),
    ),
    contract(
        "members",
        "two members are missing",
        "both are named at once",
        r"lacks copy_blocks\((.|\n)*lacks plan\(",
        load=backend_with(copy_blocks=None, plan=None),
    ),
    contract(
        "signatures",
        "override with other names",
        "models pass the weight by position today, and by name tomorrow",
        r"linear of .* has the signature linear\(x, w\); the contract is linear\(x, weight\)",
        load=backend_with(ops=type("Ops", (PlainOps,), {"linear": linear_with_another_name})),
    ),
)
