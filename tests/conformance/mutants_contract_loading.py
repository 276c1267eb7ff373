"""Backends that load, close or treat the process wrongly."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import hasty_plugins
import numpy as np
from mutant import Mutant, contract
from plain_backend import (
    PlainBackend,
    backend_with,
    with_caps,
)

from octavo.api import (
    DeviceError,
    PortableOps,
    UsageError,
)


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


def load_takes_its_options_out(index, options):
    options.pop("threads", 1)
    return PlainBackend(index, options)


class OnePinnedPool(PlainBackend):
    """There is one pool of pinned memory, for the first backend that is open."""

    num_open = 0

    def __init__(self, index, options):
        super().__init__(index, options)
        OnePinnedPool.num_open += 1
        self.caps = with_caps(host_swap=OnePinnedPool.num_open == 1)

    def close(self):
        OnePinnedPool.num_open -= 1


def load_seeds_numpy(index, options):
    np.random.seed(0)
    return PlainBackend(index, options)


def load_extends_path(index, options):
    os.environ["PATH"] += f"{os.pathsep}/opt/plain/bin"
    return PlainBackend(index, options)


def load_patches_octavo(index, options):
    """One line in place of an override."""
    PortableOps.all_reduce = lambda self, x: x
    return PlainBackend(index, options)


class ClosesInBackground(PlainBackend):
    """Nobody waits for the thread that releases the device."""

    def close(self):
        threading.Thread(target=time.sleep, args=(1.0,), name="plain-release").start()


def opens_a_file_each_step(self, step):
    events = []

    def opening(*arguments):
        events.append(Path(os.devnull).open())  # noqa: SIM115 - this is the bug
        return step(*arguments)

    return opening


def prints_each_step(_self, step):
    """As native code does, which knows nothing of sys.stdout."""

    def printing(*arguments):
        os.write(1, b"plain: step done\n")
        return step(*arguments)

    return printing


MUTANTS: tuple[Mutant, ...] = (
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
        "loads",
        "first come, first served",
        "the capabilities depend on who has loaded the backend before",
        r"the backend claims .*host_swap=True.*and then .*host_swap=False",
        load=OnePinnedPool,
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
        "options",
        "takes its options out",
        "of the caller's mapping, so that the next load finds none",
        r"load raises AttributeError.*change a copy",
        load=load_takes_its_options_out,
    ),
    contract(
        "process",
        "probe prints",
        "`octavo devices --json` is no JSON any more",
        r"Probing prints 'plain: found 1 device",
        spec={"probe": hasty_plugins.probe_that_prints},
    ),
    contract(
        "process",
        "load seeds NumPy",
        "and with it the experiment that uses Octavo",
        r"Loading and closing changes .* the state of numpy.random",
        load=load_seeds_numpy,
    ),
    contract(
        "process",
        "load extends PATH",
        "once for each load, and for every child of the program",
        r"environment variables: was \{'PATH'",
        load=load_extends_path,
    ),
    contract(
        "process",
        "load patches Octavo",
        "for all backends of the process",
        r"Octavo's own code: was .*PortableOps.all_reduce",
        load=load_patches_octavo,
    ),
    contract(
        "process",
        "close leaves a thread",
        "and Python does not end before it does",
        r"leaves the threads plain-release running",
        load=ClosesInBackground,
    ),
    contract(
        "process",
        "each step opens a file",
        "an event that nobody destroys",
        r"In 24 steps the process came to hold \d+ open files",
        load=backend_with(compile=opens_a_file_each_step),
    ),
    contract(
        "process",
        "each step prints",
        "into the answers that a program prints",
        r"Serving a request prints 'plain: step done",
        load=backend_with(compile=prints_each_step),
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
