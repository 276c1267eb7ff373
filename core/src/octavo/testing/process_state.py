"""What a process has only one of, and a backend could change for everybody in it."""

from __future__ import annotations

import contextlib
import gc
import locale
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Change", "ProcessState"]

_MOST_DRAWN = 300  # words of a random generator, of 624
_MAX_SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Change:
    """One setting that is no longer as it was; the values are cut to a readable length."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class _Setting:
    """``read`` returns what can be compared, and ``restore`` takes that back."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]


@dataclass(frozen=True)
class ProcessState:
    """The process-wide settings at one time."""

    values: Mapping[str, Any]

    @classmethod
    def now(cls) -> ProcessState:
        """As they are; a few random numbers are drawn first, so that seeding again would show."""
        _Generator.move_on()
        return cls({setting.name: setting.read() for setting in _SETTINGS})

    def restore(self) -> list[Change]:
        """Put everything back, and tell what had changed."""
        changes = []
        for setting in _SETTINGS:
            before, after = self.values[setting.name], setting.read()
            if isinstance(before, dict):  # what is added changes nothing for anybody
                after = {name: after.get(name) for name in before}
            if before == after:
                continue
            changes.append(Change(setting.name, *_shown(before, after)))
            setting.restore(before)
        return changes


def _shown(before: Any, after: Any) -> tuple[str, str]:
    """Both values; of mappings only what differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [name for name in before | after if before.get(name) != after.get(name)]
        before, after = ({name: of.get(name) for name in names} for of in (before, after))
    texts = [" ".join(str(value).split()) for value in (before, after)]
    first, second = (text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…" for text in texts)
    return first, second


def _attribute(owner: Any, name: str) -> _Setting:
    return _Setting(
        f"{owner.__name__}.{name}",
        lambda: getattr(owner, name),
        lambda value: setattr(owner, name, value),
    )


@dataclass(frozen=True)
class _Generator:
    """A generator of random numbers; two are equal unless one has been seeded in between.

    Libraries draw from the global one while they are imported, which a backend cannot help. Both
    generators are Mersenne twisters: 624 words, made anew when the last of them has been drawn.
    """

    words: tuple[int, ...]
    state: Any = field(compare=False)

    def __str__(self) -> str:
        return f"{self.words[:2]}"

    @staticmethod
    def move_on() -> None:
        """Leave the words that a seed makes, and have enough left of those that come next."""
        while _numpy_state()[2] > _MOST_DRAWN:
            np.random.random()  # noqa: NPY002 - the global one is meant
        while random.getstate()[1][-1] > _MOST_DRAWN:
            random.random()  # noqa: S311 - no secret is made

    @classmethod
    def of_numpy(cls) -> _Generator:
        state = _numpy_state()
        return cls(tuple(state[1].tolist()), state)

    @classmethod
    def of_python(cls) -> _Generator:
        state = random.getstate()
        return cls(state[1][:-1], state)


def _numpy_state() -> tuple[Any, ...]:
    state = np.random.get_state(legacy=True)  # noqa: NPY002 - the global one is meant
    assert isinstance(state, tuple)  # a dictionary without ``legacy``
    return state


def _signal_handlers() -> dict[str, Any]:
    return {each.name: signal.getsignal(each) for each in signal.Signals}


def _restore_signal_handlers(handlers: Mapping[str, Any]) -> None:
    for name, handler in handlers.items():
        number = signal.Signals[name]
        if handler is not None and signal.getsignal(number) != handler:
            with contextlib.suppress(ValueError):  # only the main thread may
                signal.signal(number, handler)


@dataclass(frozen=True)
class _Warnings:
    """What becomes of a program's warnings; filters for other modules are nobody else's."""

    fates: Mapping[str, str]
    filters: tuple[Any, ...] = field(compare=False, repr=False)

    @classmethod
    def now(cls) -> _Warnings:
        fates = {}
        for category in (UserWarning, RuntimeWarning, DeprecationWarning):
            with warnings.catch_warnings(record=True) as caught:
                try:
                    warnings.warn_explicit("-", category, "program.py", 1, "__main__", {})
                except category:
                    fates[category.__name__] = "raised"
                else:
                    fates[category.__name__] = "shown" if caught else "ignored"
        return cls(fates, tuple(warnings.filters))

    def restore(self) -> None:
        warnings.resetwarnings()
        for action, message, category, module, line in reversed(self.filters):
            pattern, place = (getattr(each, "pattern", each or "") for each in (message, module))
            warnings.filterwarnings(action, pattern, category, place, line)


def _logging() -> dict[str, Any]:
    root = logging.getLogger()
    return {
        "level": root.level,
        "handlers": tuple(root.handlers),
        "disabled up to": logging.root.manager.disable,
    }


def _restore_logging(value: Mapping[str, Any]) -> None:
    root = logging.getLogger()
    root.setLevel(value["level"])
    root.handlers[:] = value["handlers"]
    logging.disable(value["disabled up to"])


def _octavo() -> dict[str, Any]:
    """The functions and classes of octavo's modules, and the methods of these classes."""
    found: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "octavo":
            continue
        for member, value in list(vars(module).items()):
            if getattr(value, "__module__", None) != name:
                continue  # imported from where it is found as well
            if isinstance(value, type):
                methods = vars(value).items()
                found |= {f"{name}:{member}.{each}": m for each, m in methods if callable(m)}
            if isinstance(value, type | types.FunctionType):
                found[f"{name}:{member}"] = value
    return found


def _restore_octavo(members: Mapping[str, Any]) -> None:
    now = _octavo()
    for place, value in members.items():
        if now.get(place) is not value:
            module, _, path = place.partition(":")
            owner, _, name = path.rpartition(".")
            target = sys.modules[module]
            setattr(getattr(target, owner) if owner else target, name, value)


_SETTINGS = (
    _Setting("numpy.seterr", np.geterr, lambda value: np.seterr(**value)),
    _Setting(
        "numpy.set_printoptions",
        np.get_printoptions,
        lambda value: np.set_printoptions(**value),
    ),
    _Setting(
        "the state of numpy.random",
        _Generator.of_numpy,
        lambda value: np.random.set_state(value.state),  # noqa: NPY002
    ),
    _Setting(
        "the state of random", _Generator.of_python, lambda value: random.setstate(value.state)
    ),
    _Setting("the working directory", os.getcwd, os.chdir),
    _Setting("environment variables", lambda: dict(os.environ), os.environ.update),
    _Setting(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    _Setting("signal handlers", _signal_handlers, _restore_signal_handlers),
    _Setting("warning filters", _Warnings.now, _Warnings.restore),
    _Setting("the root logger", _logging, _restore_logging),
    _Setting(
        "garbage collection",
        gc.isenabled,
        lambda was_enabled: gc.enable() if was_enabled else gc.disable(),
    ),
    _Setting("socket.setdefaulttimeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Setting(
        "the start method of multiprocessing",
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda value: multiprocessing.set_start_method(value, force=True),
    ),
    _Setting("sys.settrace", sys.gettrace, sys.settrace),
    _attribute(sys, "excepthook"),
    _attribute(sys, "stdout"),
    _attribute(sys, "stderr"),
    _attribute(threading, "excepthook"),
    _Setting("Octavo's own code", _octavo, _restore_octavo),
)
