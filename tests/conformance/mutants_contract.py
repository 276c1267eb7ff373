"""Backends that break the contract: before they are loaded, while, and in what they claim."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import hasty_plugins
import heavy_plugin
import ml_dtypes
import numpy as np
from mutant import Mutant
from plain_backend import (
    PlainBackend,
    PlainLinear,
    PlainOps,
    backend_with,
    with_caps,
)

from octavo.api import (
    BackendError,
    Capabilities,
    DeviceError,
    MemoryInfo,
    QuantizedTensor,
    UsageError,
)
from octavo.testing.subject import Subject


def load_fails(_index, _options):
    raise RuntimeError("the driver said no")


_shared = []


def load_shares_one_object(index, options):
    """A cache of one: what the second caller closes is the first one's."""
    if index != 0 or options:
        return PlainBackend(index, options)
    if not _shared:
        _shared.append(PlainBackend(index, options))
    return _shared[0]


def load_ignores_unknown_options(index, options):
    del options
    return PlainBackend(index, {})


class TakesThreads(PlainBackend):
    """Has one option, and hopes for the best about its value."""

    def __init__(self, index, options):
        options = dict(options)
        self.threads = options.pop("threads", 1)
        for name in options:
            raise UsageError(f"Backend 'plain' has no option {name!r}; it has: threads.")
        super().__init__(index, {})


def load_raises_key_error_for_options(index, options):
    for name in options:
        raise KeyError(name)
    return PlainBackend(index, options)


def load_counts_from_the_end(index, options):
    devices = ["plain:0"]
    try:
        devices[index]
    except IndexError:
        raise DeviceError(f"There is no device plain:{index}; there is plain:0.") from None
    return PlainBackend(0, options)


def load_takes_any_index(_index, options):
    return PlainBackend(0, options)


class ClosesTheRuntime(PlainBackend):
    """Who was loaded first owns the runtime, and takes it along when closing."""

    owner = None
    runtime = object()

    def __init__(self, index, options):
        super().__init__(index, options)
        if ClosesTheRuntime.owner is None:
            ClosesTheRuntime.owner, ClosesTheRuntime.runtime = self, object()
        self._runtime = ClosesTheRuntime.runtime

    def put(self, array, dtype=None):
        if self._runtime is not ClosesTheRuntime.runtime:
            raise RuntimeError("the runtime has been shut down")
        return super().put(array, dtype)

    def close(self):
        if ClosesTheRuntime.owner is self:
            ClosesTheRuntime.owner, ClosesTheRuntime.runtime = None, None


class ClosesOnce(PlainBackend):
    def __init__(self, index, options):
        super().__init__(index, options)
        self._handles = [object()]

    def close(self):
        self._handles.pop()


@dataclass(frozen=True)
class MoreCapabilities(Capabilities):
    flash_attention: bool = True


def linear_with_another_name(self, x, w):
    return PlainOps.linear(self, x, w)


def small_heads_only(self, spec, num_blocks, block_size, *, on_host=False):
    if spec.head_dim > 256:
        raise NotImplementedError("head_dim > 256")
    return PlainBackend.make_kv(self, spec, num_blocks, block_size, on_host=on_host)


def no_fp8_caches(self, spec, num_blocks, block_size, *, on_host=False):
    if spec.dtype.startswith("float8"):
        raise NotImplementedError(spec.dtype)
    return PlainBackend.make_kv(self, spec, num_blocks, block_size, on_host=on_host)


def no_host_caches(self, spec, num_blocks, block_size, *, on_host=False):
    if on_host:
        raise NotImplementedError("no pinned memory")
    return PlainBackend.make_kv(self, spec, num_blocks, block_size, on_host=on_host)


def through_float16(self, array, dtype=None):
    """The library takes no bfloat16 from NumPy, so it goes by way of a dtype of the same size."""
    if array.dtype == ml_dtypes.bfloat16:
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(np.float16).astype(array.dtype)
    return PlainBackend.put(self, array, dtype)


def ignores_strides(self, array, dtype=None):
    """Takes the buffer of a small transposed array as if it were in C order."""
    if array.ndim == 2 and array.flags.f_contiguous and not array.flags.c_contiguous:
        array = array.reshape(-1, order="F").reshape(array.shape)
    return PlainBackend.put(self, array, dtype)


class OneStagingBuffer(PlainBackend):
    """Small results come through one pinned buffer, which get returns."""

    def __init__(self, index, options):
        super().__init__(index, options)
        self._staging = np.empty((2, 4), np.float32)

    def get(self, array):
        if array.shape == (2, 4) and array.dtype == np.float32:
            self._staging[...] = array
            return self._staging
        return super().get(array)


def unknown_packing_as_numbers(self, weight, bias, dtype):
    if isinstance(weight, QuantizedTensor) and weight.scheme not in self.caps.quantization:
        return PlainLinear(weight.data.astype(np.float32), None)
    return PlainBackend.put_linear(self, weight, bias, dtype)


def unknown_packing_as_a_riddle(self, weight, bias, dtype):
    if isinstance(weight, QuantizedTensor) and weight.scheme not in self.caps.quantization:
        raise BackendError("unsupported tensor")
    return PlainBackend.put_linear(self, weight, bias, dtype)


def flushes_subnormals(self, array, dtype=None):
    """Converts on a processor that takes the smallest numbers for zero."""
    placed = PlainBackend.put(self, array, dtype)
    if placed.dtype.name in ("float32", "bfloat16"):
        with np.errstate(invalid="ignore"):
            placed[np.abs(placed) < ml_dtypes.finfo(placed.dtype).smallest_normal] = 0
    return placed


def installed_without_requiring_octavo():
    """From a distribution on the import path whose metadata forget a dependency."""
    site = str(Path(__file__).parent / "lax_site")
    if site not in sys.path:
        sys.path.append(site)
    return Subject.installed("lax")


def contract(check, name, about, says, **more):
    return Mutant(name, about, f"contract.{check}", says, **more)


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
        r"saw \[\('plain', 0\)\], and a moment later \[\]",
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
        "loads",
        "load raises",
        "nothing else can be tried",
        r"first load on plain:0 in this process raised RuntimeError: the driver said no",
        load=load_fails,
    ),
    contract(
        "loads",
        "load shares one object",
        "closing one engine takes the device from another",
        r"returned the same object twice",
        load=load_shares_one_object,
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
    contract(
        "capabilities",
        "more capabilities than there are",
        "core would never ask for the field",
        r"is of type MoreCapabilities; expected octavo.api.Capabilities",
        load=backend_with(caps=MoreCapabilities(("float32",), ("float32",))),
    ),
    contract(
        "capabilities",
        "an unknown compute dtype",
        "core has no name for it",
        r"caps.dtypes .* is \('float33',\); expected at least one of",
        load=backend_with(caps=with_caps(dtypes=("float33",))),
    ),
    contract(
        "capabilities",
        "large heads are claimed",
        "the kernel takes 256 at most, the capabilities say 1024",
        r"claims max_head_dim=1024, but backend.make_kv raised NotImplementedError",
        load=backend_with(make_kv=small_heads_only),
    ),
    contract(
        "capabilities",
        "fp8 caches are claimed",
        "and refused as soon as one is made",
        r"claims float8_e4m3fn in caps.kv_dtypes, but backend.make_kv raised",
        load=backend_with(make_kv=no_fp8_caches),
        only=False,  # every table has its rows for fp8
    ),
    contract(
        "capabilities",
        "host swap is claimed",
        "and there is no swap space",
        r"claims host_swap.*backend.copy_blocks raised NotImplementedError",
        load=backend_with(make_kv=no_host_caches),
        only=False,
    ),
    contract(
        "capabilities",
        "a packing is claimed",
        "and refused when it comes",
        r"claims gguf:Q4_0 in caps.quantization, but backend.put_linear raised",
        load=backend_with(caps=with_caps(quantization=("gguf:Q4_0",))),
        only=False,  # the table of packed weights has a row for it
    ),
    contract(
        "memory",
        "more free than there is",
        "free and total in the wrong order",
        r"8192 bytes free of 4096",
        load=backend_with(memory=lambda self: MemoryInfo(8192, 4096, shared_with_host=True)),
    ),
    contract(
        "memory",
        "free memory as of loading",
        "asked once, so that the cache is planned with memory the weights have taken",
        r"3 caches of 192.0 MiB together were made, and .* fell by 0.0 MiB",
        load=backend_with(memory=lambda self: MemoryInfo(1 << 32, 1 << 33)),
    ),
    contract(
        "packed_weights",
        "packed bytes as numbers",
        "multiplied as they come",
        r"put_linear takes a weight packed as 'no-such-packing:Q0'",
        load=backend_with(put_linear=unknown_packing_as_numbers),
    ),
    contract(
        "packed_weights",
        "a riddle about packed weights",
        "the user cannot tell which tensor format is meant",
        r"does not name the packing",
        load=backend_with(put_linear=unknown_packing_as_a_riddle),
    ),
    contract(
        "put_get",
        "bfloat16 through float16",
        "large values become infinite, small ones lose their last bits",
        r"bfloat16\[256, 256\].* elements have other bits",
        load=backend_with(put=through_float16),
        only=False,  # some tables of ops have such values
    ),
    contract(
        "put_get",
        "subnormal numbers are flushed",
        "to zero, on the way to the device",
        r"elements have other bits: at .* and 0.0 \(0x0\) came back",
        load=backend_with(put=flushes_subnormals),
    ),
    contract(
        "put_get",
        "strides are ignored",
        "a transposed weight arrives as its buffer lies",
        r"float32\[6, 4\].* elements have other bits",
        load=backend_with(put=ignores_strides),
    ),
    contract(
        "put_get",
        "one staging buffer",
        "what get returned last changes with the next get",
        r"number 1 held 1.0; after further calls .* it holds",
        load=OneStagingBuffer,
        only=False,
    ),
    contract(
        "options",
        "unknown options are ignored",
        "a misspelt option has no effect and nobody is told",
        r"ignores the unknown option",
        load=load_ignores_unknown_options,
    ),
    contract(
        "options",
        "any value for an option",
        "the number of threads may be a sentence",
        r"takes the option 'threads' with an object\(\)",
        load=TakesThreads,
    ),
    contract(
        "options",
        "an unknown option is a KeyError",
        "no list of those there are",
        r"raise KeyError.*expected octavo.api.UsageError",
        load=load_raises_key_error_for_options,
    ),
    contract(
        "bad_device",
        "devices from the end",
        "plain:-1 is the last of a Python list",
        r"accepts the device plain:-1, which is not there",
        load=load_counts_from_the_end,
    ),
    contract(
        "bad_device",
        "any index",
        "every number is the one device",
        r"accepts the device plain:99999",
        load=load_takes_any_index,
    ),
    contract(
        "close",
        "closing shuts down the runtime",
        "for the other backends of the process as well",
        r"After the backend that was loaded first has been closed, another cannot be used",
        load=ClosesTheRuntime,
    ),
    contract(
        "close",
        "closes once only",
        "an error on the way out hides the first one",
        r"The second close\(\) raised IndexError",
        load=ClosesOnce,
    ),
)
